"""What is relaxed together: structures are cut into jobs, and a job is the same work wherever it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.curvature import LARGEST as LARGEST_WITH_CURVATURE
from aiida_losiko.core.optimizers import is_batched
from aiida_losiko.core.relaxation.batch import relax_batch
from aiida_losiko.core.relaxation.results import Relaxation
from aiida_losiko.core.relaxation.run import Run
from aiida_losiko.core.relaxation.sanity import structure_flags
from aiida_losiko.core.relaxation.stages import number_of_stages, relax_in_stages, run_of_stage
from aiida_losiko.core.relaxation.with_scipy import relax_one_with_scipy
from aiida_losiko.core.settings import RelaxSettings

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Job:
    """Structures that are relaxed together.

    Attributes
    ----------
    numbers : list of int
        Their positions in the list that `relax` was given; random numbers depend on these.
    structures : list of Atoms
        Where they start.
    weights : list of ndarray, shape (n_atoms,)
        Their c_i of Eq. 8.
    """

    numbers: list[int]
    structures: list[Atoms]
    weights: list[NDArray[np.float64]]

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures."""
        return sum(map(len, self.structures))


def cut_into_jobs(
    structures: Sequence[Atoms],
    weights: Sequence[NDArray[np.float64]],
    numbers: Sequence[int],
    settings: RelaxSettings,
) -> list[Job]:
    """Cut the structures with these numbers into jobs.

    Structures of the same elements share a job, since features of absent elements need not be computed, and among these
    those of like size, so that little of it is padding. How jobs are cut depends on the structures and on `batch_size`
    alone: the last digits of a result depend on what it was computed with, and must not on the number of processes.

    Returns
    -------
    list of Job
        Large ones first, so that processes that share them end at about the same time.
    """

    def likeness(number: int) -> tuple[list[int], int]:
        atoms = structures[number]
        return sorted(set(atoms.numbers.tolist())), len(atoms)

    order = sorted(numbers, key=likeness)
    size = settings.batch_size if is_batched(settings.optimizer) else 1
    # A batch has curvatures or it has none.
    large = [k for k in order if len(structures[k]) > LARGEST_WITH_CURVATURE]
    small = [k for k in order if len(structures[k]) <= LARGEST_WITH_CURVATURE]
    parts = [some[first : first + size] for some in (small, large) for first in range(0, len(some), size)]
    jobs = [Job(part, [structures[k] for k in part], [weights[k] for k in part]) for part in parts]
    return sorted(jobs, key=lambda job: job.n_atoms, reverse=True)


def do_job(run: Run, job: Job, on_done: Callable[[int], Any]) -> list[Relaxation]:
    """Relax the structures of a job; `on_done` is told how many more are finished."""
    started = time.monotonic()
    engine = relax_batch if is_batched(run.settings.optimizer) else relax_one_with_scipy
    metric = run.database.metric
    if (n_stages := number_of_stages(run)) > 1 or metric is not None:
        results = relax_in_stages(engine, run, job.structures, job.numbers, job.weights, on_done, n_stages)
    else:
        results = engine(run, job.structures, job.numbers, job.weights, on_done)
    # The targets of a stage are held: who evaluates the structures anew may find others.
    if run.settings.dtype != "float64" and metric is None:
        run_of_stage(run, n_stages - 1, n_stages).evaluate_in_double(results, job.weights)
    for start, result in zip(job.structures, results, strict=True):
        if result.status != "error":
            # What went wrong on the way, and what is wrong with the structure that is given.
            result.flags = tuple(dict.fromkeys((*result.flags, *structure_flags(result.atoms, start, run.database))))
    seconds = (time.monotonic() - started) / len(results)
    for result in results:
        result.seconds = seconds
    return results


def not_begun(job: Job, status: str) -> list[Relaxation]:
    """Results of a job for which there was no time."""
    return [Relaxation(atoms=atoms.copy(), status=status) for atoms in job.structures]
