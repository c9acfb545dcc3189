"""`losiko xtb`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_losiko.cli.inputs import Entry, assign, check_entries, read_entries, structures_of
from aiida_losiko.cli.options import EXIT_SOME_FAILED, quiet_option
from aiida_losiko.cli.outputs import check_output_format, check_output_paths, staged, to_json
from aiida_losiko.cli.stopping import StopRequest
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.xtb import XtbResult, XtbSettings

REPORT_FORMAT = "losiko-xtb/1"
MAX_ROWS = 20


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--output", "-o", required=True, metavar="OUT", help="The structures at the end, in order of the input.")
@click.option("--report", metavar="REPORT.json", help="Also write energies, gaps and statuses.")
@click.option("--single-point", is_flag=True, help="Compute the energy of the structures as they are.")
@click.option("--charge", type=int, metavar="Q", help="Of each molecule, in e; default 0.")
@click.option("--multiplicity", type=int, metavar="M", help="2S+1 of each molecule; default the lowest one.")
@click.option("--fmax", type=float, metavar="F", help="Largest force of a minimum in eV/Angstrom; default 0.01.")
@click.option("--max-steps", type=int, metavar="N", help="Steps after which a molecule is given back; default 500.")
@click.option("--parameters", "parameter_file", metavar="FILE", help="YAML or JSON with these and further settings.")
@click.option("--max-seconds", type=float, metavar="N", help="Stop after N seconds and write what there is.")
@quiet_option
@click.pass_context
def xtb(
    ctx: click.Context,
    files: tuple[str, ...],
    output: str,
    report: str | None,
    single_point: bool,
    charge: int | None,
    multiplicity: int | None,
    fmax: float | None,
    max_steps: int | None,
    parameter_file: str | None,
    max_seconds: float | None,
    quiet: bool,
) -> None:
    """Energies and minima of molecules with GFN2-xTB, for a first look at many of them.

    Energies are total energies in eV, HOMO-LUMO gaps in eV. A molecule that cannot be computed is reported and written
    unchanged; exit status 3. Needs the package tblite: pip install 'aiida-losiko[xtb]'.

    \b
    Examples:
      losiko xtb relaxed.extxyz --output minima.extxyz --report energies.json
      losiko xtb relaxed.extxyz --single-point --output same.extxyz
    """
    started = time.perf_counter()
    if max_seconds is not None and not max_seconds > 0:
        raise LosikoError(f"--max-seconds {max_seconds:g}: give a positive number of seconds")
    given = {"charge": charge, "multiplicity": multiplicity, "fmax": fmax, "max_steps": max_steps}
    settings = collect_settings(parameter_file, single_point, given)
    inputs = [file for file in (*files, parameter_file) if file is not None]
    check_output_paths({"--output": output, "--report": report}, inputs)

    from aiida_losiko.core.structures import write_any
    from aiida_losiko.core.xtb import run_xtb

    entries = read_entries(files)
    usable = check_entries(entries)
    check_output_format(output, [annotated(entry, None) for entry in entries if entry.atoms is not None])
    left = None if max_seconds is None else max(max_seconds - (time.perf_counter() - started), 1e-3)
    with StopRequest() as stop:
        results = run_xtb(structures_of(usable), settings, max_seconds=left, should_stop=stop)
        by_entry = assign(entries, usable, results, "computed")
        run = {"settings": settings.to_dict(), "seconds": time.perf_counter() - started, "signal": stop.signal}
        text = to_json(document(entries, by_entry, run)) if report else ""
        with staged(report, text):
            write_any(output, [annotated(e, r) for e, r in zip(entries, by_entry, strict=True) if e.atoms is not None])
    if not quiet:
        click.echo(overview(entries, by_entry))
        click.echo(f"Structures: {output}" + (f"\nReport: {report}" if report else ""))
    if stop.signal is not None:
        ctx.exit(128 + stop.signal)
    if any(entry.error is not None for entry in entries):
        ctx.exit(EXIT_SOME_FAILED)


def collect_settings(parameter_file: str | None, single_point: bool, given: Mapping[str, Any]) -> XtbSettings:
    """Put the options over the parameter file.

    Raises
    ------
    LosikoError
        For a file that is no mapping, and for unknown or wrong settings.
    """
    from aiida_losiko.core.protocols import parse_yaml
    from aiida_losiko.core.xtb import SINGLE_POINT, XtbSettings

    values: Any = {}
    if parameter_file is not None:
        text = Path(parameter_file).read_text(encoding="utf-8")
        values = parse_yaml(text, f"the parameter file '{parameter_file}'") or {}
        if not isinstance(values, dict):
            raise LosikoError(f"the parameter file '{parameter_file}' holds {type(values).__name__}: give a mapping")
    values |= {key: value for key, value in given.items() if value is not None}
    if single_point:
        values["task"] = SINGLE_POINT
    return XtbSettings.from_dict(values)


def annotated(entry: Entry, result: XtbResult | None) -> Atoms:
    """Return a copy of the input with the last positions and ``xtb_energy``, ``xtb_gap`` (eV) and ``xtb_status``."""
    if entry.atoms is None:
        raise ValueError("a file that could not be read has no structure")
    atoms: Atoms = entry.atoms.copy()
    for key in ("xtb_energy", "xtb_gap"):
        atoms.info.pop(key, None)  # of an earlier run
    atoms.info["xtb_status"] = "error" if result is None else result.status
    if result is not None:
        atoms.positions = result.atoms.positions
        found = {"xtb_energy": result.energy, "xtb_gap": result.gap}
        atoms.info.update({key: value for key, value in found.items() if value is not None})
    return atoms


def document(entries: Sequence[Entry], results: Sequence[XtbResult | None], run: dict[str, Any]) -> dict[str, Any]:
    """Return the report: one row for each input, with the fields of `XtbResult`."""
    from aiida_losiko import __version__
    from aiida_losiko.core.xtb import METHOD

    rows = []
    for entry, result in zip(entries, results, strict=True):
        row = {"status": "error"} if result is None else result.to_dict()
        rows.append({"label": entry.label, **row, "error": entry.error})
    head = {"format": REPORT_FORMAT, "version": __version__, "method": METHOD, "tblite": _tblite_version()}
    return {**head, **run, "structures": rows}


def _tblite_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tblite")
    except PackageNotFoundError:  # such as one of conda
        return None


def overview(entries: Sequence[Entry], results: Sequence[XtbResult | None]) -> str:
    """Return a table of the first molecules."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("label", "structure"),
        Column("energy", "energy", "eV", ".4f"),
        Column("gap", "gap", "eV", ".2f"),
        Column("largest_force", "largest force", "eV/Å", ".3f"),
        Column("steps", "steps"),
        Column("status", "status"),
    ]
    rows = [
        {"label": entry.label, **({"status": "error"} if result is None else result.to_dict())}
        for entry, result in zip(entries, results, strict=True)
    ]
    more = [f"... and {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else []
    return "\n".join([text_table(rows[:MAX_ROWS], columns), *more])
