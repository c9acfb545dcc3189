"""Relaxation of one structure with a minimiser of SciPy, such as the Nelder-Mead method of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.optimizers import minimize_scipy
from aiida_losiko.core.relaxation.batch import Preparation
from aiida_losiko.core.relaxation.hops import atom_limits
from aiida_losiko.core.relaxation.results import NOT_FINITE, Relaxation
from aiida_losiko.core.relaxation.run import Run, StepReport
from aiida_losiko.core.relaxation.sanity import Sanity, flags_of

if TYPE_CHECKING:
    from ase import Atoms


def relax_one_with_scipy(
    run: Run,
    structures: list[Atoms],
    numbers: list[int],
    weights: list[NDArray[np.float64]],
    on_done: Callable[[int], Any],
    stage: int = -1,
    starts: list[Atoms] | None = None,
) -> list[Relaxation]:
    """Relax a list of one structure, in one stage of a learnt metric."""
    (start,), settings = structures, run.settings
    prepared = Preparation.of(run, structures, weights, stage, starts=starts)
    limits = torch.as_tensor(atom_limits(structures, run.database)).to(prepared.batch.positions)
    first = (starts or structures) if settings.relax_cell else None
    problem = _Problem(prepared, Sanity(prepared.batch, run.database, limits, first), len(start))
    initial, gradient = problem.evaluate(problem.start)
    if not (np.isfinite(initial) and np.isfinite(gradient).all()):
        on_done(1)
        return [Relaxation(atoms=start.copy(), error=NOT_FINITE)]
    result = Relaxation(atoms=start, initial_loss=initial, evaluations=1, loss_history=[initial])
    stopped: list[str] = []

    def on_step(step: int, x: NDArray[np.float64], loss: float) -> None:
        result.loss_history.append(loss)
        if run.callback is not None:
            run.callback(problem.report(x, loss, step, numbers))

    def should_stop() -> bool:
        reason = run.stop_reason()
        if reason is not None:
            stopped.append(reason)
        return reason is not None

    best = problem.start
    if len(best) and settings.max_steps:
        found = minimize_scipy(
            settings.optimizer,
            problem.evaluate,
            best,
            max_steps=settings.max_steps,
            fmax=settings.fmax,
            loss_tolerance=settings.loss_tolerance,
            callback=on_step,
            should_stop=should_stop,
        )
        best = found.x
        result.converged, result.steps, result.evaluations = found.converged, found.n_iterations, found.n_evaluations
    result.status = "converged" if result.converged else stopped[0] if stopped else "max_steps"
    on_done(1)
    if problem.verdict_at(best) and problem.sane is not None:
        result.flags, best = flags_of(problem.verdict), problem.sane
        result.converged = False
        result.status = "stalled" if result.status in ("converged", "max_steps") else result.status
    return [problem.finish(run, start, best, result)]


class _Problem:
    """The loss of one structure as a function of the numbers that may change, (n,) in a row.

    Attributes
    ----------
    verdict : int
        Of `Sanity`, on the structure that was evaluated last.
    sane : ndarray, shape (n,), or None
        Where the loss was lowest among what was sane.
    """

    def __init__(self, prepared: Preparation, sanity: Sanity, n_atoms: int) -> None:
        self._prepared, self._sanity = prepared, sanity
        self.verdict, self._sane_loss = 0, np.inf
        self.sane: NDArray[np.float64] | None = None
        self._rows = prepared.dof.start(prepared.batch.positions)
        # Rows of frozen atoms are no variables: a method without gradients would move them.
        self._movable = torch.ones(len(self._rows), dtype=torch.bool, device=self._rows.device)
        self._movable[:n_atoms] = prepared.free
        self.start = _numbers(self._rows[self._movable]).ravel()

    def evaluate(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Loss and gradient (n,)."""
        evaluation, gradient = self._prepared.evaluate(self._place(x))
        loss, seen = float(evaluation.loss[0]), self._prepared.objective.distances
        self.verdict = int(self._sanity.judge(self._prepared.batch, *seen, evaluation.distance)[0])
        if not self.verdict and loss < self._sane_loss:
            self._sane_loss, self.sane = loss, x.copy()
        return loss, _numbers(gradient[self._movable]).ravel()

    def verdict_at(self, x: NDArray[np.float64]) -> int:
        """The verdict on a structure."""
        self.evaluate(x)
        return self.verdict

    def report(self, x: NDArray[np.float64], loss: float, step: int, numbers: list[int]) -> StepReport:
        """What the callback is told after a step."""
        positions, cells = self._prepared.dof.unpack(self._place(x))
        return StepReport(
            evaluation=step + 1,
            numbers=np.array(numbers),
            steps=np.array([step]),
            loss=np.array([loss]),
            positions=[_numbers(positions)],
            cells=_numbers(cells),
        )

    def finish(self, run: Run, start: Atoms, x: NDArray[np.float64], result: Relaxation) -> Relaxation:
        """Fill in the result at `x`."""
        positions, cells = self._prepared.dof.unpack(self._place(x))
        final, _ = self._prepared.evaluate(self._place(x))
        result.loss = float(final.loss[0])
        return run.finish(
            start,
            _numbers(positions),
            _numbers(cells[0]),
            _numbers(final.distance),
            final.environment.cpu().numpy(),
            result,
        )

    def _place(self, x: NDArray[np.float64]) -> torch.Tensor:
        placed = self._rows.clone()
        placed[self._movable] = torch.as_tensor(x.reshape(-1, 3), dtype=placed.dtype, device=placed.device)
        return placed


def _numbers(tensor: torch.Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
