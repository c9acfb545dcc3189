"""Relaxation of one structure with a minimiser of SciPy, such as the Nelder-Mead method of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.optimizers import minimize_scipy
from aiida_losiko.core.relaxation.batch import Preparation
from aiida_losiko.core.relaxation.results import Relaxation
from aiida_losiko.core.relaxation.run import Run, StepReport

if TYPE_CHECKING:
    from ase import Atoms


def relax_one_with_scipy(
    run: Run,
    structures: list[Atoms],
    numbers: list[int],
    weights: list[NDArray[np.float64]],
    on_done: Callable[[int], Any],
) -> list[Relaxation]:
    """Relax a list of one structure; targets are looked up anew at every evaluation."""
    (start,) = structures
    settings = run.settings
    prepared = Preparation.of(run, structures, weights)
    rows = prepared.dof.start(prepared.batch.positions)
    # Rows of frozen atoms are no variables: a method without gradients would move them.
    movable = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    movable[: len(start)] = prepared.free
    history: list[float] = []

    def place(x: NDArray[np.float64]) -> torch.Tensor:
        placed = rows.clone()
        placed[movable] = torch.as_tensor(x.reshape(-1, 3), dtype=rows.dtype, device=rows.device)
        return placed

    def evaluate(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        placed = place(x)
        evaluation = prepared.objective.evaluate(*prepared.dof.unpack(placed))
        gradient = prepared.dof.gradient(placed, evaluation)[movable]
        return float(evaluation.loss[0]), gradient.double().cpu().numpy().ravel()

    x0 = rows[movable].double().cpu().numpy().ravel()
    initial = evaluate(x0)[0]
    history.append(initial)

    def on_step(step: int, x: NDArray[np.float64], loss: float) -> None:
        history.append(loss)
        if run.callback is not None:
            positions, cells = prepared.dof.unpack(place(x))
            run.callback(
                StepReport(
                    evaluation=len(history),
                    numbers=np.array(numbers),
                    steps=np.array([step]),
                    loss=np.array([loss]),
                    positions=[positions.double().cpu().numpy()],
                    cells=cells.double().cpu().numpy(),
                )
            )

    result = Relaxation(atoms=start, initial_loss=initial)
    stopped: list[str] = []

    def should_stop() -> bool:
        reason = run.stop_reason()
        if reason is not None:
            stopped.append(reason)
        return reason is not None

    best = x0
    if len(x0) and settings.max_steps:
        found = minimize_scipy(
            settings.optimizer,
            evaluate,
            x0,
            max_steps=settings.max_steps,
            fmax=settings.fmax,
            loss_tolerance=settings.loss_tolerance,
            callback=on_step,
            should_stop=should_stop,
        )
        best = found.x
        result.converged, result.steps, result.evaluations = found.converged, found.n_iterations, found.n_evaluations
    result.status = "converged" if result.converged else stopped[0] if stopped else "max_steps"
    placed = place(best)
    positions, cells = prepared.dof.unpack(placed)
    final = prepared.objective.evaluate(positions, cells)
    result.loss = float(final.loss[0])
    result.loss_history = history
    on_done(1)
    return [
        run.finish(
            start,
            positions.double().cpu().numpy(),
            cells[0].double().cpu().numpy(),
            final.distance.double().cpu().numpy(),
            final.environment.cpu().numpy(),
            result,
        )
    ]
