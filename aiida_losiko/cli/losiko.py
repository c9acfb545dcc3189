"""The `losiko` program: files in, files out, no AiiDA."""

from __future__ import annotations

import click

from aiida_losiko import __version__
from aiida_losiko.cli.database import database
from aiida_losiko.cli.options import LosikoGroup, complete_protocol
from aiida_losiko.cli.relax import relax
from aiida_losiko.cli.xtb import xtb


@click.group(cls=LosikoGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="losiko")
def main() -> None:
    """Sensible atomic structures without an energy model.

    Moves atoms until each local environment looks like one of a database of stable structures (Local Similarity
    Kernel Optimization).

    \b
    Examples:
      losiko database build known.extxyz --output known.db
      losiko relax rough.xyz --database known.db --output relaxed.extxyz
      losiko relax rough.cif --known-crystals --output relaxed.cif

    Exit status: 0 done, 1 error and nothing written, 2 wrong usage, 3 some structures had errors and the others are
    written, 130 or 143 interrupted and what there was is written.
    """


main.add_command(database)
main.add_command(relax)
main.add_command(xtb)


@main.command()
@click.argument("name", required=False, shell_complete=complete_protocol)
def protocols(name: str | None) -> None:
    """List the protocols, or show all parameters of one.

    \b
    Examples:
      losiko protocols
      losiko protocols qm9
    """
    from aiida_losiko.core.protocols import DEFAULT_PROTOCOL, load_protocol, protocol_names

    if name is not None:
        import yaml

        click.echo(yaml.safe_dump(load_protocol(name).to_dict(), sort_keys=False), nl=False)
        return
    width = max(map(len, protocol_names()))
    for each in protocol_names():
        default = " (default)" if each == DEFAULT_PROTOCOL else ""
        click.echo(f"{each:<{width}}  {load_protocol(each).description}{default}")


if __name__ == "__main__":
    main()
