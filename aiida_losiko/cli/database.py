"""`losiko database build` and `losiko database info`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_losiko.cli.inputs import Entry, check_entries, read_entries, structures_of
from aiida_losiko.cli.options import (
    EXIT_SOME_FAILED,
    collect_parameters,
    parameter_options,
    quiet_option,
    show_progress,
)
from aiida_losiko.cli.outputs import as_text, check_output_paths, to_json
from aiida_losiko.core.errors import LosikoError, did_you_mean

if TYPE_CHECKING:
    from aiida_losiko.core.environments.database import EnvironmentDatabase


@click.group()
def database() -> None:
    """Build and look at environment databases."""


@database.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--output", "-o", required=True, metavar="DB", help="Database file to write (.safetensors by custom).")
@parameter_options
@click.option("--species", metavar="H,C,...", help="Elements that the database knows; default: those in the files.")
@click.option(
    "--identifier-key",
    metavar="KEY",
    help="Key of the structures' info with a unique name; default: identifier, else <file name>:<index>.",
)
@quiet_option
@click.pass_context
def build(
    ctx: click.Context,
    files: tuple[str, ...],
    output: str,
    protocol: str | None,
    settings: tuple[str, ...],
    parameter_file: str | None,
    species: str | None,
    identifier_key: str | None,
    quiet: bool,
) -> None:
    """Build a database from the atomic environments of known stable structures.

    FILE is anything that ASE reads, or a set file (.npz), with one or many structures. Lengths are in Angstrom.
    A structure that cannot be used is reported and left out, and the exit status is 3.

    \b
    Examples:
      losiko database build molecules.extxyz --output molecules.db
      losiko database build *.cif -o carbon.db --protocol carbon --set database.max_environments=20000
    """
    from aiida_losiko.core.protocols import DEFAULT_PROTOCOL, load_protocol

    parameters = collect_parameters(protocol, settings, parameter_file, foreign_section="relax")
    chosen = load_protocol(parameters.protocol or DEFAULT_PROTOCOL, parameters.overrides)
    check_output_paths({"--output": output}, [*files, *([parameter_file] if parameter_file else [])])

    from aiida_losiko import __version__
    from aiida_losiko.core.descriptors import make_descriptor
    from aiida_losiko.core.environments.database import EnvironmentDatabase

    wanted = _split_species(species)
    # Bad values are told before thousands of files are read; one species is enough for that.
    make_descriptor({**chosen.descriptor, "species": wanted or ["H"]})
    entries = read_entries(files, ("identifier",), identifier_key)
    usable = check_entries(entries, wanted)
    _check_unique(usable)
    descriptor = make_descriptor({**chosen.descriptor, "species": wanted or _species_of(usable)})
    built = EnvironmentDatabase.build(
        structures_of(usable),
        descriptor,
        sources=[entry.label for entry in usable],
        **chosen.database,
        progress=show_progress(quiet),
        metadata={
            "protocol": chosen.name,
            "files": [Path(file).name for file in files],
            "created_by": f"aiida-losiko {__version__}",
        },
    )
    built.save(output)

    n_bad = len(entries) - len(usable)
    if not quiet:
        counts = ", ".join(f"{symbol} {count:,}" for symbol, count in built.n_environments.items())
        learnt = "" if built.metric is None else f", metric learnt in {len(built.metric.stages)} stages"
        of = f"{len(usable):,} structures, protocol {chosen.name}{learnt}"
        click.echo(f"{len(built):,} environments ({counts}) of {of}")
        click.echo(f"Database: {output}")
        click.echo(f"Next: losiko relax STRUCTURES --database {shlex.quote(output)} --output relaxed.extxyz")
    if n_bad:
        click.echo(f"{n_bad} of {len(entries)} structures were left out (see the errors above).", err=True)
        ctx.exit(EXIT_SOME_FAILED)


def _split_species(text: str | None) -> list[str] | None:
    """Return the symbols of ``--species`` sorted by atomic number."""
    if text is None:
        return None
    from ase.data import atomic_numbers

    symbols = text.replace(",", " ").split()
    known = [symbol for symbol in atomic_numbers if symbol != "X"]
    for symbol in symbols:
        if symbol not in known:
            hint = did_you_mean(symbol.capitalize(), known)
            raise LosikoError(f"--species: {symbol!r} is not an element{hint}; write symbols as in H,C,N,O")
    if not symbols:
        raise LosikoError(f"--species: no element in {text!r}; write symbols as in H,C,N,O, or leave the option away")
    return sorted(set(symbols), key=atomic_numbers.__getitem__)


def _species_of(entries: Sequence[Entry]) -> list[str]:
    from ase.data import chemical_symbols

    numbers = {int(number) for entry in entries if entry.atoms is not None for number in entry.atoms.numbers}
    return [chemical_symbols[number] for number in sorted(numbers)]


def _check_unique(entries: Sequence[Entry]) -> None:
    twice = [label for label, count in Counter(entry.label for entry in entries).items() if count > 1]
    if twice:
        more = f" (and {len(twice) - 1} others)" if len(twice) > 1 else ""
        raise LosikoError(
            f"identifier {twice[0]!r} stands for more than one structure{more}; give each its own, "
            "or name another info key: --identifier-key KEY"
        )


@database.command()
@click.argument("path", metavar="DB")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--verify", is_flag=True, help="Compare all checksums first (reads the whole file).")
def info(path: str, as_json: bool, verify: bool) -> None:
    """Show what a database holds.

    Columns: environments per species, and the reach, the distance beyond which an atom lies outside of what the
    database knows. It is a distance of normalised descriptors (no unit), with a learnt metric in units of what is usual
    for an atom that is where it belongs. Lengths are in Angstrom.

    \b
    Examples:
      losiko database info molecules.db
      losiko database info molecules.db --verify --json
    """
    from aiida_losiko.core.environments.database import EnvironmentDatabase

    loaded = EnvironmentDatabase.load(path, verify=verify)
    if as_json:
        click.echo(to_json(loaded.summary()), nl=False)
        return
    click.echo(describe(path, loaded))
    if verify:
        click.echo("All checksums are right.")


def describe(path: str, loaded: EnvironmentDatabase) -> str:
    """Return a text about a database for a person."""
    from aiida_losiko.core.environments.metric import FEWEST_STRUCTURES

    parameters = loaded.descriptor.parameters
    named = ", ".join(f"{key} {as_text(value)}" for key, value in parameters.items() if key not in ("name", "species"))
    lines = [
        f"Database    {path}",
        f"Structures  {len(loaded.sources):,}",
        f"Descriptor  {parameters.get('name', 'soap')}: {named} (lengths in Angstrom)",
    ]
    lines += [
        f"{key.capitalize().replace('_', ' '):<11} {_account(value) if key == 'source' else as_text(value)}"
        for key, value in loaded.metadata.items()
        if value
    ]
    if loaded.metric is not None:
        of_metric = loaded.metric.settings
        stages = " + ".join(str(number) for number in of_metric.n_neighbors)
        lines.append(
            f"Metric      learnt in {len(of_metric.n_neighbors)} stages (targets of {stages} environments) for starts "
            f"{of_metric.displacement:g} Angstrom off; distances, thus the reach, are in units of the usual one"
        )
    elif loaded.settings.get("metric") is not None:
        lines.append(f"Metric      none: fewer than {FEWEST_STRUCTURES} structures to learn from; distances are plain")
    lines += ["", "species  environments  reach"]
    for symbol, count in loaded.n_environments.items():
        reach = loaded.reach.get(symbol)
        lines.append(f"{symbol:<7}  {count:>12,}  {'unknown' if reach is None else format(reach, '.4f')}")
    shortest = sorted(loaded.min_distances.items(), key=lambda item: item[1])[:6]
    if shortest:
        pairs = ", ".join(f"{pair} {distance:.3f}" for pair, distance in shortest)
        lines += ["", f"Shortest distances (Angstrom): {pairs}"]
    return "\n".join(lines)


def _account(source: Any) -> str:
    """Return what matters of the account of a source; --json has the query, too."""
    if not isinstance(source, dict):
        return as_text(source)
    told = {"name": "", "version": "version ", "licence": "", "reference": "doi:", "url": ""}
    return ", ".join(f"{before}{as_text(source[key])}" for key, before in told.items() if source.get(key))
