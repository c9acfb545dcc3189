"""`losiko relax`."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from aiida_losiko.cli.inputs import Entry, assign, check_entries, read_entries, structures_of
from aiida_losiko.cli.known_crystals import (
    CRYSTALS_PROTOCOL,
    KnownCrystalsRequest,
    check_usage,
    database_for,
    known_crystals_options,
)
from aiida_losiko.cli.materials import materials_table
from aiida_losiko.cli.options import (
    EXIT_SOME_FAILED,
    Parameters,
    collect_parameters,
    parameter_options,
    processes_option,
    quiet_option,
    show_progress,
)
from aiida_losiko.cli.outputs import as_text, check_output_format, check_output_paths, staged_database
from aiida_losiko.cli.stopping import StopRequest
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from aiida_losiko.core.environments.database import EnvironmentDatabase
    from aiida_losiko.core.protocols import Protocol


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--database", "-d", "database_file", metavar="DB", help="Of `losiko database build`.")
@known_crystals_options
@click.option("--output", "-o", required=True, metavar="OUT", help="Relaxed structures, in the order of the input.")
@parameter_options
@click.option("--report", metavar="REPORT.json", help="Also write losses, statuses and the match of every atom.")
@click.option("--max-seconds", type=float, metavar="N", help="Stop after N seconds and write what there is.")
@processes_option
@click.option("--exclude", multiple=True, metavar="ID", help="Leave this structure out of the database; repeatable.")
@quiet_option
@click.pass_context
def relax(
    ctx: click.Context,
    files: tuple[str, ...],
    database_file: str | None,
    known_crystals: bool,
    source: str | None,
    provider: str | None,
    energy_above_hull: float | None,
    num_sites: int | None,
    save_database: str | None,
    output: str,
    protocol: str | None,
    settings: tuple[str, ...],
    parameter_file: str | None,
    report: str | None,
    max_seconds: float | None,
    processes: int | None,
    exclude: tuple[str, ...],
    quiet: bool,
) -> None:
    """Move the atoms until each environment looks like one in the database.

    FILE is anything that ASE reads, or a set file (.npz), with one or many structures; atoms under FixAtoms stay,
    and the array losiko_weight says how much each atom counts in the loss.
    The format of OUT follows its name: .extxyz and .npz keep labels and arrays. Each structure there carries
    losiko_loss, losiko_status, losiko_converged, losiko_out_of_reach (atoms outside of what the database knows), and
    per atom losiko_distance. A structure that cannot be used is reported and written unchanged; exit status 3.

    The descriptor is the database's, the other parameters are those of the protocol it was built with. Lengths are in
    Angstrom; the loss has no unit.

    In place of a database: --known-crystals takes all crystals of the elements in FILE, and of some of them, that the
    Materials Project knows, and tells which material each atom was modelled on.

    \b
    Examples:
      losiko relax rough.xyz --database known.db --output relaxed.extxyz
      losiko relax set.npz -d known.db -o relaxed.npz --report report.json --set relax.max_steps=1000
      losiko relax cells.extxyz -d carbon.db -o relaxed.extxyz --set relax.optimizer=fire --max-seconds 600
      losiko relax thousands.npz -d known.db -o relaxed.npz --processes 16
      losiko relax rough.cif --known-crystals --output relaxed.cif --save-database crystals.db
    """
    started = time.perf_counter()
    if max_seconds is not None and not max_seconds > 0:
        raise LosikoError(f"--max-seconds {max_seconds:g}: give a positive number of seconds")
    request = KnownCrystalsRequest(source, provider, energy_above_hull, num_sites)
    check_usage(known_crystals, database_file, request, save_database)
    foreign = None if known_crystals else "database"
    parameters = collect_parameters(protocol, settings, parameter_file, foreign)
    inputs = [file for file in (*files, database_file, parameter_file) if file is not None]
    check_output_paths({"--output": output, "--report": report, "--save-database": save_database}, inputs)

    from aiida_losiko.cli import report as reporting
    from aiida_losiko.core.environments.database import EnvironmentDatabase
    from aiida_losiko.core.protocols import load_protocol
    from aiida_losiko.core.relaxation.driver import relax as relax_structures
    from aiida_losiko.core.settings import RelaxSettings
    from aiida_losiko.core.structures.weights import weights_of

    entries, known = None, None
    if database_file is not None:
        database = EnvironmentDatabase.load(database_file)
        chosen = choose_protocol(parameters, database, database_file)
    else:
        chosen = load_protocol(parameters.protocol or CRYSTALS_PROTOCOL, parameters.overrides)
        entries = read_entries(files)
        structures = structures_of(check_entries(entries))
        check_output_format(output, structures)
        known, database = database_for(structures, request, chosen, _seconds_left(max_seconds, started))
    relax_settings = RelaxSettings.from_dict(chosen.relax)
    # With no structure it only judges the settings together: optimiser, device, noise.
    relax_structures([], database, settings=relax_settings)
    if exclude:
        database = _leave_out(database, exclude)
    if entries is None:
        entries = read_entries(files)
    usable = check_entries(entries, [symbol for symbol, count in database.n_environments.items() if count])
    weights = weights_of(structures_of(usable))
    check_output_format(output, [reporting.annotated(entry, None) for entry in entries if entry.atoms is not None])

    with StopRequest() as stop:
        if not quiet:
            if known is not None:
                click.echo(known.overview())
            _announce(usable, f"{relax_settings.optimizer}, protocol {chosen.name}")
        results = relax_structures(
            structures_of(usable),
            database,
            settings=relax_settings,
            weights=weights,
            progress=show_progress(quiet),
            max_seconds=_seconds_left(max_seconds, started),
            should_stop=stop,
            processes=processes,
        )
        by_entry = assign(entries, usable, results, "relaxed")
        run = reporting.Run(
            protocol=chosen.name,
            settings=relax_settings.to_dict(),
            database=database.summary(),
            excluded=list(exclude),
            seconds=time.perf_counter() - started,
            signal=stop.signal,
        )
        with staged_database(save_database, database):
            reporting.write(output, report, entries, by_entry, run)
    if not quiet:
        click.echo(reporting.overview(entries, by_entry))
        if known is not None:
            click.echo(f"\n{materials_table(entries, by_entry, known.properties)}\n")
        if save_database is not None:
            click.echo(f"Database: {save_database}")
        kept = database_file or save_database
        again = request.arguments() if kept is None else f"--database {shlex.quote(kept)}"
        click.echo(reporting.where_to_go(output, report, again, by_entry))
    if stop.signal is not None:
        ctx.exit(128 + stop.signal)
    if any(entry.error is not None for entry in entries):
        ctx.exit(EXIT_SOME_FAILED)


def _announce(usable: Sequence[Entry], how: str) -> None:
    n_atoms = sum(map(len, structures_of(usable)))
    what = usable[0].label if len(usable) == 1 else f"{len(usable):,} structures"
    click.echo(f"Relaxing {what} ({n_atoms:,} atoms) with {how}")


def choose_protocol(parameters: Parameters, database: EnvironmentDatabase, database_file: str) -> Protocol:
    """Return the protocol whose relax settings are used: the one asked for, the database's own, or the default.

    Raises
    ------
    LosikoError
        What was asked for contradicts the descriptor of the database, which alone decides.
    """
    from aiida_losiko.core.protocols import DEFAULT_PROTOCOL, load_protocol, protocol_names

    own = database.metadata.get("protocol")
    own = own if own in protocol_names() else None
    asked = parameters.protocol
    explicit = parameters.overrides.get("descriptor", {})
    if asked is not None and asked != own:
        _check_descriptor(load_protocol(asked, {"descriptor": explicit}).descriptor, database, database_file, asked)
    elif explicit:
        # The database's own protocol may have been overridden when it was built: only what is said here counts.
        _check_descriptor(explicit, database, database_file, None)
    return load_protocol(asked or own or DEFAULT_PROTOCOL, parameters.overrides)


def _check_descriptor(
    asked: dict[str, Any], database: EnvironmentDatabase, database_file: str, protocol: str | None
) -> None:
    from aiida_losiko.core.descriptors import make_descriptor
    from aiida_losiko.core.protocols import merge

    have = database.descriptor.parameters
    wanted = make_descriptor({**merge(have, asked), "species": have["species"]}).parameters
    differing = [key for key in {**wanted, **have} if wanted.get(key) != have.get(key)]
    if differing:
        values = ", ".join(
            f"{key} {as_text(wanted.get(key))} (database: {as_text(have.get(key))})" for key in differing
        )
        what = f"protocol {protocol!r}" if protocol else "--set descriptor"
        raise LosikoError(
            f"'{database_file}' is a database of other descriptor settings than {what} asks for: {values}; leave the "
            "option away, or build a database with it: losiko database build"
        )


def _leave_out(database: EnvironmentDatabase, exclude: Sequence[str]) -> EnvironmentDatabase:
    """Return the database without the structures that are named."""
    try:
        return database.without(exclude)
    except LosikoError as error:
        raise LosikoError(f"--exclude: {error}") from None


def _seconds_left(max_seconds: float | None, started: float) -> float | None:
    """Return what reading has left of the time, at least a moment."""
    if max_seconds is None or math.isinf(max_seconds):
        return None
    return max(max_seconds - (time.perf_counter() - started), 1e-3)
