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
        """Copy the present state of all structures."""
        return cls(
            rows.clone(), positions.clone(), cells.clone(), evaluation.distance.clone(), evaluation.environment.clone()
        )

    def replace(
        self,
        structures: torch.Tensor,
        structure_index: torch.Tensor,
        rows: torch.Tensor,
        positions: torch.Tensor,
        cells: torch.Tensor,
        evaluation: Evaluation,
    ) -> None:
        """Take over what belongs to the structures of the mask; `structure_index` is that of the rows."""
        row_mask = structures[structure_index]
        atoms = row_mask[: len(positions)]
        self.rows = torch.where(row_mask[:, None], rows, self.rows)
        self.positions = torch.where(atoms[:, None], positions, self.positions)
        self.cells = torch.where(structures[:, None, None], cells, self.cells)
        self.distance = torch.where(atoms, evaluation.distance, self.distance)
        self.environment = torch.where(atoms, evaluation.environment, self.environment)

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
