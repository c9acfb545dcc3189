"""What all parts of one call of `relax` share, and what it tells while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective
from aiida_losiko.core.relaxation.results import Matches, Relaxation
from aiida_losiko.core.settings import RelaxSettings

if TYPE_CHECKING:
    from ase import Atoms


@dataclass
class StepReport:
    """State of the structures that are being relaxed together, after a step.

    Attributes
    ----------
    evaluation : int
        Number of evaluations so far, the one at the start being 1; each stage of a learnt metric begins anew.
    numbers : ndarray of int, shape (n,)
        Positions of the structures in the list that `relax` was given.
    steps : ndarray of int, shape (n,)
        Steps that each has taken, in the stage.
    loss : ndarray, shape (n,)
        Present loss of each, that of the stage.
    positions : list of ndarray, shape (n_atoms, 3)
        Present coordinates of each, in Angstrom.
    cells : ndarray, shape (n, 3, 3)
        Present lattice vectors as rows, in Angstrom.
    """

    evaluation: int
    numbers: NDArray[np.int64]
    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    positions: list[NDArray[np.float64]]
    cells: NDArray[np.float64]


@dataclass
class Run:
    """Settings, database and limits of one call of `relax`."""

    settings: RelaxSettings
    database: EnvironmentDatabase
    callback: Callable[[StepReport], None] | None = None
    deadline: float | None = None
    should_stop: Callable[[], bool] | None = None

    def stop_reason(self) -> str | None:
        """`interrupted` or `max_seconds` when it is time to stop."""
        if self.should_stop is not None and self.should_stop():
            return "interrupted"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "max_seconds"
        return None

    def objective(
        self,
        batch: StructureBatch,
        weights: torch.Tensor,
        free: torch.Tensor | None = None,
        stage: int = -1,
        own: torch.Tensor | None = None,
        start: torch.Tensor | None = None,
    ) -> LocalSimilarityObjective:
        """The loss of a batch with these settings; see `LocalSimilarityObjective`."""
        return LocalSimilarityObjective(
            batch,
            self.database,
            weights=weights,
            kernel=self.settings.kernel,
            kernel_degree=self.settings.kernel_degree,
            free=free,
            repulsion=self.settings.repulsion,
            cohesion=self.settings.cohesion,
            start=start,
            stage=stage,
            own=own,
            parsimony=self.settings.parsimony,
        )

    def evaluate_in_double(self, results: list[Relaxation], weights: list[NDArray[np.float64]]) -> None:
        """Put the loss and matches in double precision into results, as whoever evaluates the structures finds them."""
        done = [k for k, result in enumerate(results) if result.status != "error"]
        if not done:
            return
        batch = StructureBatch.from_atoms([results[k].atoms for k in done], torch.float64, self.settings.device)
        c = torch.as_tensor(np.concatenate([weights[k] for k in done]), device=self.settings.device)
        evaluation = self.objective(batch, c).evaluate(batch.positions)
        distance, environment = evaluation.distance.cpu().numpy(), evaluation.environment.cpu().numpy()
        start = 0
        for k, loss in zip(done, evaluation.loss.tolist(), strict=True):
            own = slice(start, start + len(results[k].atoms))
            symbols = list(results[k].atoms.symbols)
            results[k].loss = loss
            results[k].matches = Matches.of(symbols, distance[own], environment[own], self.database)
            start = own.stop

    def finish(
        self,
        start: Atoms,
        positions: NDArray[np.float64],
        cell: NDArray[np.float64],
        distance: NDArray[np.float64],
        environment: NDArray[np.int64],
        result: Relaxation,
    ) -> Relaxation:
        """Fill in the relaxed structure and its matches; `result` has the rest."""
        # What did not move keeps all its digits, also where the work was done in single precision.
        precision = np.dtype(self.settings.dtype)
        positions = np.where(positions == start.positions.astype(precision), start.positions, positions)
        cell = np.where(cell == start.cell.array.astype(precision), start.cell.array, cell)
        atoms = start.copy()
        if not np.array_equal(cell, start.cell.array):
            atoms.set_cell(cell)
        # Constraints are kept for whoever goes on with the structure, but must not filter what was found.
        atoms.set_positions(positions, apply_constraint=False)
        result.atoms = atoms
        result.matches = Matches.of(list(atoms.symbols), distance, environment, self.database)
        return result
