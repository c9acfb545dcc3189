"""What the commands of `losiko` share: options, the parameters they add up to, and errors told in one line."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from aiida_losiko.cli.stopping import exit_on_sigterm
from aiida_losiko.core.errors import LosikoError

Command = TypeVar("Command", bound=Callable[..., Any])

# Exit statuses beyond click's 1 (error, nothing written) and 2 (usage).
EXIT_SOME_FAILED = 3
EXIT_SIGINT = 130


class LosikoGroup(click.Group):
    """A command group that tells expected errors in one line and leaves the traceback to bugs."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; wrong inputs and file-system errors become ``Error: <one line>`` and exit status 1."""
        try:
            with exit_on_sigterm(), warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except LosikoError as error:
            raise click.ClickException(one_line(error)) from error
        except OSError as error:
            # Without an errno it comes from a library that could not be loaded: a bug report needs the traceback.
            # A closed pipe (| head) is click's to end quietly.
            if error.errno is None or error.errno == errno.EPIPE:
                raise
            raise click.ClickException(one_line(_os_message(error))) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; nothing was written.", err=True)
            ctx.exit(EXIT_SIGINT)


def one_line(message: object) -> str:
    """Return the text of a message without line breaks."""
    return " ".join(str(message).split())


def _os_message(error: OSError) -> str:
    where = f" '{error.filename}'" if error.filename is not None else ""
    return f"{error.strerror or error}{where}"


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Tell a warning in one line, without the place in the source."""
    click.echo(f"Warning: {one_line(message)}", err=True)


def complete_protocol(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a protocol in the shell."""
    from aiida_losiko.core.protocols import protocol_names

    return [name for name in protocol_names() if name.startswith(incomplete)]


def complete_setting(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete ``section.key=`` in the shell."""
    from aiida_losiko.core.protocols import SECTIONS, load_protocol

    sections = load_protocol().to_dict()
    keys = [f"{section}.{key}=" for section in SECTIONS for key in sections[section]]
    return [key for key in keys if key.startswith(incomplete)]


_PARAMETER_OPTIONS = (
    click.option(
        "--protocol",
        metavar="NAME",
        shell_complete=complete_protocol,
        help="Named parameter set, see `losiko protocols`.",
    ),
    click.option(
        "--set",
        "settings",
        metavar="SECTION.KEY=VALUE",
        multiple=True,
        shell_complete=complete_setting,
        help="Change one parameter of the protocol; may be repeated. The value is YAML.",
    ),
    click.option(
        "--parameters",
        "parameter_file",
        type=click.Path(),
        metavar="FILE",
        help="YAML or JSON file with {protocol, descriptor, database, relax}, each optional; options win over it.",
    ),
)

processes_option = click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Share the work between N processes; the results are the same. Default: one for each core that may be used, "
    "fewer where there is little to do, one on a GPU.",
)

quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print errors only.")


def parameter_options(command: Command) -> Command:
    """Add ``--protocol``, ``--set`` and ``--parameters`` to a command."""
    for option in reversed(_PARAMETER_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Parameters:
    """What a person asked for: the protocol's name if one was given, and overrides of its sections."""

    protocol: str | None
    overrides: dict[str, dict[str, Any]]


def collect_parameters(
    protocol: str | None, settings: tuple[str, ...], parameter_file: str | None, foreign_section: str | None
) -> Parameters:
    """Put the options over the parameter file and check all names.

    Parameters
    ----------
    protocol, settings, parameter_file
        Values of the options of `parameter_options`.
    foreign_section
        Section that this command does not use, if there is one. A file may hold it, since one file can serve both
        commands; a ``--set`` of it would do nothing, so it is an error.

    Raises
    ------
    LosikoError
        Unknown protocol, section or key, a setting that cannot be read, or one of the foreign section.
    """
    from aiida_losiko.core.protocols import load_protocol, merge, parse_overrides, read_parameters

    file_protocol, overrides = read_parameters(parameter_file) if parameter_file else (None, {})
    changes = parse_overrides(settings)
    if foreign_section is not None and foreign_section in changes:
        key = f"{foreign_section}.{next(iter(changes[foreign_section]), '')}"
        other = {"relax": "losiko relax", "database": "losiko database build"}[foreign_section]
        raise LosikoError(f"--set {key}=... does nothing here; it is a parameter of `{other}`")
    name = protocol if protocol is not None else file_protocol
    if name is not None:
        load_protocol(name)
    return Parameters(name, merge(overrides, changes))


def show_progress(quiet: bool) -> bool:
    """Whether to draw a progress bar: only for a person who looks."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()
