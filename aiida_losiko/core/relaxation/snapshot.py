"""The best state of each structure of a batch so far."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aiida_losiko.core.objective import Evaluation


@dataclass
class Snapshot:
    """Rows, positions, cells and matches of a batch, of each structure at a time of its own.

    Attributes
    ----------
    rows : Tensor, shape (n_rows, 3)
        What the optimiser moves, see `DegreesOfFreedom`; those of the atoms come first.
    positions : Tensor, shape (n_atoms, 3)
        In Angstrom.
    cells : Tensor, shape (n_structures, 3, 3)
        In Angstrom.
    distance : Tensor, shape (n_atoms,)
        As of `Evaluation`.
    environment : Tensor of int64, shape (n_atoms,)
        The match.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    cells: torch.Tensor
    distance: torch.Tensor
    environment: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, positions: torch.Tensor, cells: torch.Tensor, evaluation: Evaluation) -> Snapshot:
        """The present state of all structures."""
        return cls(rows, positions, cells, evaluation.distance, evaluation.environment)

    def copy(self) -> Snapshot:
        """The same in memory of its own."""
        own = (self.rows, self.positions, self.cells, self.distance, self.environment)
        return Snapshot(*(values.clone() for values in own))

    def replaced(self, structures: torch.Tensor, structure_index: torch.Tensor, other: Snapshot) -> Snapshot:
        """The same with the structures of the mask as they are in another; `structure_index` is that of the rows."""
        rows = structures[structure_index]
        atoms = rows[: len(self.positions)]
        return Snapshot(
            torch.where(rows[:, None], other.rows, self.rows),
            torch.where(atoms[:, None], other.positions, self.positions),
            torch.where(structures[:, None, None], other.cells, self.cells),
            torch.where(atoms, other.distance, self.distance),
            torch.where(atoms, other.environment, self.environment),
        )

    def keep(self, structures: torch.Tensor, row_mask: torch.Tensor) -> Snapshot:
        """Leave out the structures (mask of n_structures) and the rows (mask of n_rows) that are false."""
        atoms = row_mask[: len(self.positions)]
        return Snapshot(
            self.rows[row_mask],
            self.positions[atoms],
            self.cells[structures],
            self.distance[atoms],
            self.environment[atoms],
        )
