"""What the process that calls `relax` and its workers tell each other, as plain values and arrays.

A message is a tuple with its kind first. Both ends belong to one call of one program and talk through a pair of
sockets without a name, so nothing else can write to it, and no message is ever kept in a file.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.relaxation.jobs import Job
from aiida_losiko.core.relaxation.results import Matches, Relaxation
from aiida_losiko.core.relaxation.run import StepReport
from aiida_losiko.core.structures import fixed_mask

if TYPE_CHECKING:
    from ase import Atoms

# From the worker: ready; so many structures are finished; a step was made; a job is done; a warning; it went wrong.
READY, DONE, STEP, RESULTS, WARNING, FAILED = "ready", "done", "step", "results", "warning", "failed"
# To the worker: what to load; a job; the callback has been called; time to stop.
START, JOB, GO_ON, STOP = "start", "job", "go on", "stop"


def pack_job(job: Job) -> tuple[Any, ...]:
    """Plain values of a job: of the structures, what a relaxation looks at."""
    structures = [(a.numbers, a.positions, a.cell.array, a.pbc, fixed_mask(a)) for a in job.structures]
    return job.numbers, structures, job.weights


def unpack_job(values: tuple[Any, ...]) -> Job:
    """The job of `pack_job`."""
    from ase import Atoms
    from ase.constraints import FixAtoms

    numbers, plain, weights = values
    structures = []
    for elements, positions, cell, pbc, fixed in plain:
        constraint = FixAtoms(mask=fixed) if fixed.any() else None
        structures.append(Atoms(elements, positions=positions, cell=cell, pbc=pbc, constraint=constraint))
    return Job(numbers, structures, weights)


def pack_results(results: list[Relaxation]) -> list[tuple[Any, ...]]:
    """Plain values of results: positions, cell, and everything else by name."""
    packed = []
    for result in results:
        values = {field.name: getattr(result, field.name) for field in fields(result)}
        del values["atoms"]
        if result.matches is not None:
            values["matches"] = {field.name: getattr(result.matches, field.name) for field in fields(result.matches)}
        packed.append((result.atoms.positions, result.atoms.cell.array, values))
    return packed


def unpack_results(packed: list[tuple[Any, ...]], starts: list[Atoms]) -> list[Relaxation]:
    """The results of `pack_results`; all that is not the worker's affair is that of the structure at the start."""
    results = []
    for (positions, cell, values), start in zip(packed, starts, strict=True):
        matches = None if values["matches"] is None else Matches(**values["matches"])
        results.append(Relaxation(**{**values, "atoms": _moved(start, positions, cell), "matches": matches}))
    return results


def _moved(start: Atoms, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Atoms:
    atoms: Atoms = start.copy()
    if not np.array_equal(cell, start.cell.array):
        atoms.set_cell(cell)
    atoms.set_positions(positions, apply_constraint=False)
    return atoms


def pack_step(report: StepReport) -> dict[str, Any]:
    """Plain values of what a callback is told."""
    return {field.name: getattr(report, field.name) for field in fields(report)}
