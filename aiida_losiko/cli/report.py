"""What `losiko relax` writes and says: annotated structures, the report, a table."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiida_losiko.cli.inputs import Entry
from aiida_losiko.cli.outputs import staged, to_json

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.relaxation.results import Relaxation

REPORT_FORMAT = "losiko-report/1"
MAX_ROWS = 20


@dataclass(frozen=True)
class Run:
    """What the report says about the run as a whole."""

    protocol: str
    settings: dict[str, Any]
    database: dict[str, Any]
    excluded: list[str]
    seconds: float
    signal: int | None


def annotated(entry: Entry, result: Relaxation | None) -> Atoms:
    """Return a copy of the input with the relaxed positions and cell and the ``losiko_*`` labels.

    Without a result the structure is unchanged but for ``losiko_status`` "error"; its distances are NaN, so that the
    array is there for all structures of a set.
    """
    import numpy as np

    if entry.atoms is None:
        raise ValueError("a file that could not be read has no structure")
    atoms: Atoms = entry.atoms.copy()
    for key in ("losiko_loss", "losiko_out_of_reach"):
        atoms.info.pop(key, None)  # of an earlier run
    if result is None:
        atoms.info.update(losiko_status="error", losiko_converged=False)
        atoms.set_array("losiko_distance", np.full(len(atoms), np.nan), float, ())
        return atoms
    # Not set_positions: what FixAtoms holds was held by the optimiser, bit for bit.
    atoms.positions = result.atoms.positions
    atoms.cell = result.atoms.cell
    atoms.info.update(
        losiko_status=result.status,
        losiko_converged=bool(result.converged),
        losiko_out_of_reach=int(result.n_out_of_reach),
    )
    # A structure that was not reached in time has no loss.
    if np.isfinite(result.loss):
        atoms.info["losiko_loss"] = float(result.loss)
    distance = np.full(len(atoms), np.nan) if result.matches is None else np.asarray(result.matches.distance, float)
    atoms.set_array("losiko_distance", distance, float, ())
    return atoms


def write(
    output: str, report: str | None, entries: Sequence[Entry], results: Sequence[Relaxation | None], run: Run
) -> None:
    """Write the structures and, if asked for, the report: both or none."""
    from aiida_losiko.core.structures import write_any

    structures = [annotated(e, r) for e, r in zip(entries, results, strict=True) if e.atoms is not None]
    with staged(report, to_json(document(entries, results, run)) if report else ""):
        write_any(output, structures)


def document(entries: Sequence[Entry], results: Sequence[Relaxation | None], run: Run) -> dict[str, Any]:
    """Return the report: ``index`` is the place of a structure in the output, null if the file was unreadable."""
    from aiida_losiko import __version__

    rows: list[dict[str, Any]] = []
    index = 0
    for entry, result in zip(entries, results, strict=True):
        row: dict[str, Any] = {"label": entry.label, "index": None if entry.atoms is None else index}
        row.update(result.to_dict() if result is not None else {"status": "error", "converged": False})
        row["error"] = entry.error
        rows.append(row)
        index += entry.atoms is not None
    return {
        "format": REPORT_FORMAT,
        "version": __version__,
        "protocol": run.protocol,
        "settings": run.settings,
        "database": run.database,
        "excluded": run.excluded,
        "seconds": run.seconds,
        "signal": run.signal,
        "structures": rows,
    }


def overview(entries: Sequence[Entry], results: Sequence[Relaxation | None]) -> str:
    """Return a table of the first structures and a summary line."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("label", "structure"),
        Column("atoms", "atoms"),
        Column("before", "loss before", format=".3e"),
        Column("after", "loss after", format=".3e"),
        Column("steps", "steps"),
        Column("out", "out of reach"),
        Column("status", "status"),
    ]
    rows = [_row(entry, result) for entry, result in zip(entries, results, strict=True)]
    lines = [text_table(rows[:MAX_ROWS], columns)]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more")
    counts = Counter("error" if result is None else result.status for result in results)
    lines.append(
        f"{len(rows)} structure{'s' if len(rows) != 1 else ''}: "
        + ", ".join(f"{count} {status}" for status, count in counts.most_common())
    )
    return "\n".join(lines)


def _row(entry: Entry, result: Relaxation | None) -> dict[str, Any]:
    label = entry.label if len(entry.label) <= 40 else entry.label[:37] + "..."
    row: dict[str, Any] = {
        "label": label,
        "atoms": None if entry.atoms is None else len(entry.atoms),
        "status": "error",
    }
    if result is not None:
        flags = f" ({', '.join(result.flags)})" if result.flags else ""
        row.update(before=result.initial_loss, after=result.loss, steps=result.steps, out=result.n_out_of_reach)
        row["status"] = result.status + flags
    return row


def where_to_go(
    output: str,
    report: str | None,
    database_options: str,
    results: Sequence[Relaxation | None],
) -> str:
    """Return where the results lie and the next command to type; the options, quoted, say which database it takes."""
    lines = [f"Structures: {output}"]
    if report is not None:
        lines.append(f"Report: {report}")
    quoted = shlex.quote(output)
    unfinished = {"max_steps", "max_seconds", "interrupted"}
    if any(result is not None and result.status in unfinished for result in results):
        # Goes on from where it stopped; a second file keeps the first.
        continued = shlex.quote(_continued(output))
        lines.append(f"Next: losiko relax {quoted} {database_options} --output {continued}")
    elif output.endswith(".npz"):
        code = f"from aiida_losiko.core.structures import read_any; print(read_any({output!r}))"
        lines.append(f"Next: python -c {shlex.quote(code)}")
    else:
        lines.append(f"Next: ase gui {quoted}")
    return "\n".join(lines)


def _continued(name: str) -> str:
    """Another name of the same kind: `out.extxyz.gz` becomes `out-2.extxyz.gz`."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffixes = file.partition(".")
    return f"{folder}{slash}{stem}-2{dot}{suffixes}"
