"""Relaxation in the stages of a learnt metric: match, move, match again.

Where few compounds are preferred (`core.parsimony`) there are three stages as well: a rough one, with the noise; one
with the sources counted anew, in which what strayed comes back; and one of the loss alone, with the noise again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.relaxation.results import Relaxation
from aiida_losiko.core.relaxation.run import Run
from aiida_losiko.core.settings import RelaxSettings

if TYPE_CHECKING:
    from ase import Atoms

# A structure that was stopped, or could not be done, does not go on to the next stage.
_GO_ON = ("converged", "max_steps", "stalled")


# Of a structure that is relaxed roughly two steps in a row change the loss by less than this part of it.
ROUGHLY = 0.01


def number_of_stages(run: Run) -> int:
    """How many stages there are."""
    metric = run.database.metric
    if metric is not None:
        return len(metric.stages)
    return 3 if run.settings.parsimony else 1


def run_of_stage(run: Run, stage: int, n_stages: int) -> Run:
    """The run of a stage; atoms hop in the last one only, for whose distances the reach is."""
    own, settings, last = copy.copy(run), run.settings, stage == n_stages - 1
    if not last:
        settings = replace(settings, n_hops=0)
    if settings.parsimony and n_stages > 1:
        settings = _sparing_stage(settings, stage, last)
    own.settings = settings
    return own


def _sparing_stage(settings: RelaxSettings, stage: int, last: bool) -> RelaxSettings:
    """The settings of a stage where few compounds are preferred: what a defect is like is left to the last one."""
    if last:
        return replace(settings, parsimony=0.0)
    rough = max(ROUGHLY, settings.relative_loss_tolerance)
    return replace(settings, relative_loss_tolerance=rough, noise_variance=0.0 if stage else settings.noise_variance)


def relax_in_stages(
    engine: Callable[..., list[Relaxation]],
    run: Run,
    structures: list[Atoms],
    numbers: list[int],
    weights: list[NDArray[np.float64]],
    on_done: Callable[[int], Any],
    n_stages: int,
) -> list[Relaxation]:
    """Relax structures in each stage from where the one before ended.

    Parameters
    ----------
    engine : callable
        `relax_batch` or `relax_one_with_scipy`.
    run, structures, numbers, weights, on_done
        What the engine is given.
    n_stages : int
        Number of stages.

    Returns
    -------
    list of Relaxation
        Steps and evaluations of all stages; losses (of which each stage has its own) and matches of the last one.
    """
    results = [Relaxation(atoms=atoms) for atoms in structures]
    going = list(range(len(structures)))
    for stage in range(n_stages):
        outcomes = engine(
            run_of_stage(run, stage, n_stages),
            [results[k].atoms for k in going],
            [numbers[k] for k in going],
            [weights[k] for k in going],
            lambda _: None,
            stage=stage,
            starts=[structures[k] for k in going],
        )
        for k, outcome in zip(going, outcomes, strict=True):
            outcome.steps += results[k].steps
            outcome.evaluations += results[k].evaluations
            if outcome.status == "error":
                outcome.atoms = structures[k].copy()
            results[k] = outcome
        stay = [k for k in going if results[k].status in _GO_ON]
        last = stage == n_stages - 1
        on_done(len(going) if last else len(going) - len(stay))
        going = stay
        if last or not going:
            break
    return results
