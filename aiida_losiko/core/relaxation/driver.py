"""Relaxation of many structures against a database: the entry point of the method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aiida_losiko.core.checks import is_whole, require
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.relaxation.jobs import Job, cut_into_jobs, do_job, not_begun
from aiida_losiko.core.relaxation.results import Relaxation
from aiida_losiko.core.relaxation.run import Run, StepReport
from aiida_losiko.core.relaxation.workers import do_in_processes, sensible_processes
from aiida_losiko.core.settings import LARGEST, RelaxSettings
from aiida_losiko.core.structures import check_structure

if TYPE_CHECKING:
    from ase import Atoms


def relax(
    structures: Atoms | Iterable[Atoms],
    database: EnvironmentDatabase,
    *,
    settings: RelaxSettings | None = None,
    weights: Iterable[Any] | None = None,
    callback: Callable[[StepReport], None] | None = None,
    progress: bool = False,
    max_seconds: float | None = None,
    should_stop: Callable[[], bool] | None = None,
    processes: int | None = 1,
    **overrides: Any,
) -> list[Relaxation]:
    """Move atoms until each environment is as similar as possible to one of the database (Eq. 8).

    A database with a learnt metric is gone through in the stages of that: targets are matched, the atoms move, targets
    are matched again (`core.environments.metric`).

    Parameters
    ----------
    structures : Atoms or iterable of Atoms
        Where to start; they are not changed. Atoms under a `FixAtoms` constraint stay where they are.
    database : EnvironmentDatabase
        What is known.
    settings : RelaxSettings, optional
        How to relax; single settings can be given as keywords instead, or on top.
    weights : sequence of array, optional
        The c_i of Eq. 8, one array for each structure, on top of those by species that the settings may hold.
    callback : callable, optional
        Called with a `StepReport` at the start and after each step.
    progress : bool
        Whether to show a progress bar on the standard error stream.
    max_seconds : float, optional
        Wall time after which the structures that are not done come back as the best that was found, with status
        `max_seconds`. The first batch is evaluated once at least; those that were not begun have no loss and no
        matches.
    should_stop : callable, optional
        Asked between evaluations; when it returns true the rest comes back likewise, with status `interrupted`.
    processes : int, optional
        How many processes share the work, each with its part of torch's threads; at most as many as there are batches.
        Results are the same for any number. None takes as many as there are usable cores, fewer where the work is too
        little for the seconds that their start takes. Callbacks are called in this process. The structures of a
        process that dies have the status `error`.

    Returns
    -------
    list of Relaxation
        One for each structure, in order. A structure that cannot be done (an element that the database lacks, NaN,
        coincident atoms, a flat cell) has the status `error` and says why; the others are done.

    Raises
    ------
    LosikoError
        For settings, weights or a number of processes that are not allowed, and for processes that cannot start.

    Examples
    --------
    >>> results = relax(starts, database, max_steps=200)  # doctest: +SKIP
    >>> [(r.loss, r.converged, r.n_out_of_reach) for r in results]  # doctest: +SKIP
    """
    chosen = _settings(settings, overrides)
    require("processes", processes, processes is None or is_whole(processes, 1), "a whole number, 1 or larger, or None")
    atoms_list = _as_list(structures)
    all_weights = _weights(weights, chosen.weights or {}, atoms_list)
    results: list[Relaxation | None] = [None] * len(atoms_list)
    valid = []
    for number, atoms in enumerate(atoms_list):
        try:
            check_structure(atoms, database.n_environments)
        except LosikoError as error:
            results[number] = Relaxation(atoms=atoms.copy(), status="error", error=str(error))
        else:
            valid.append(number)
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    run = Run(chosen, database, callback, deadline, should_stop)
    jobs = cut_into_jobs(atoms_list, all_weights, valid, chosen)
    if processes is None:
        processes = sensible_processes(jobs, chosen)
    with tqdm(total=len(valid), unit="structure", desc="relax", disable=not progress) as bar:
        if min(processes, len(jobs)) > 1:
            outcomes = do_in_processes(run, jobs, min(processes, len(jobs)), bar.update)
        else:
            outcomes = _do_in_turn(run, jobs, bar.update)
    for job, outcome in zip(jobs, outcomes, strict=True):
        for number, result in zip(job.numbers, outcome, strict=True):
            results[number] = result
    return [result for result in results if result is not None]


def _do_in_turn(run: Run, jobs: list[Job], on_done: Callable[[int], Any]) -> list[list[Relaxation]]:
    """Do jobs one after the other until it is time to stop."""
    outcomes: list[list[Relaxation]] = []
    for job in jobs:
        reason = run.stop_reason() if outcomes else None
        outcomes.append(not_begun(job, reason) if reason is not None else do_job(run, job, on_done))
    return outcomes


def _settings(settings: RelaxSettings | None, overrides: Mapping[str, Any]) -> RelaxSettings:
    """Settings with single ones replaced, and with a device that is there."""
    base = (settings or RelaxSettings()).to_dict()
    chosen = RelaxSettings.from_dict({**base, **overrides}) if overrides else settings or RelaxSettings()
    chosen.check_device()
    return chosen


def _as_list(structures: Atoms | Iterable[Atoms]) -> list[Atoms]:
    from ase import Atoms

    return [structures] if isinstance(structures, Atoms) else list(structures)


def _weights(
    weights: Iterable[Any] | None, by_species: Mapping[str, float], structures: list[Atoms]
) -> list[NDArray[np.float64]]:
    """The c_i of every structure as arrays of shape (n_atoms,)."""
    arrays = [np.array([float(by_species.get(s, 1.0)) for s in atoms.symbols]) for atoms in structures]
    if weights is None:
        return arrays
    given = list(weights)
    if len(given) != len(structures):
        raise LosikoError(f"weights for {len(given)} structures were given; there are {len(structures)}")
    for number, own in enumerate(given):
        try:
            array = np.asarray(own, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if array.shape != arrays[number].shape or not ((array >= 0) & (array <= LARGEST)).all():
            raise LosikoError(
                f"weights of structure {number} are not allowed; give {len(arrays[number])} numbers from 0 to "
                f"{LARGEST:g}, one for each atom"
            )
        arrays[number] = arrays[number] * array
    return arrays
