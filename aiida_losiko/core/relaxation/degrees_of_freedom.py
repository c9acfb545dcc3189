"""The rows that an optimiser moves: atoms and, where the cell is free, the deformation of the lattice.

With the deformation F of the starting cell, positions are r = F u and lattice vectors a = F a_0, so that frozen atoms
keep their place in the lattice; F changes what is periodic only. The optimiser sees the rows of u and of L F, where L
is the mean length of the periodic lattice vectors, so that a row of either kind moves atoms by a comparable distance.
"""

from __future__ import annotations

import torch

from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import Evaluation


class DegreesOfFreedom:
    """Maps between the rows of an optimiser and the positions and cells of a batch.

    Parameters
    ----------
    batch : StructureBatch
        The structures at the start.
    relax_cell : bool
        Whether each structure has three more rows for its lattice.
    """

    def __init__(self, batch: StructureBatch, relax_cell: bool) -> None:
        self.relax_cell = relax_cell
        self._cells = batch.cells
        self._structure_index = batch.structure_index
        n = batch.n_structures
        self.structure_index = batch.structure_index
        if relax_cell:
            lattice_rows = torch.arange(n, device=batch.cells.device).repeat_interleave(3)
            self.structure_index = torch.cat([batch.structure_index, lattice_rows])
            lengths = torch.linalg.vector_norm(batch.cells, dim=2) * batch.pbc
            self._length = (lengths.sum(1) / batch.pbc.sum(1).clamp(min=1)).clamp_min(1.0)[:, None, None]
            self._projector = _periodic_projector(batch.cells, batch.pbc)

    def start(self, positions: torch.Tensor) -> torch.Tensor:
        """Rows at the start, shape (n_rows, 3)."""
        if not self.relax_cell:
            return positions
        eye = torch.eye(3, dtype=positions.dtype, device=positions.device)
        return torch.cat([positions, (self._length * eye).reshape(-1, 3)])

    def unpack(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (n_atoms, 3) and cells (n_structures, 3, 3) that the rows stand for."""
        if not self.relax_cell:
            return rows, self._cells
        deformation = self._deformation(rows)
        n_atoms = len(self._structure_index)
        positions = torch.einsum("aij,aj->ai", deformation[self._structure_index], rows[:n_atoms])
        return positions, self._cells @ deformation.transpose(1, 2)

    def gradient(self, rows: torch.Tensor, evaluation: Evaluation) -> torch.Tensor:
        """Gradient of the loss in the rows, shape (n_rows, 3)."""
        if not self.relax_cell:
            return evaluation.gradient
        deformation = self._deformation(rows)
        to_atoms = torch.einsum("aji,aj->ai", deformation[self._structure_index], evaluation.gradient)
        strain = self._projector @ evaluation.strain_gradient @ self._projector
        to_deformation = strain @ torch.linalg.inv(deformation).transpose(1, 2)
        return torch.cat([to_atoms, (to_deformation / self._length).reshape(-1, 3)])

    def keep(self, structures: torch.Tensor, batch: StructureBatch) -> DegreesOfFreedom:
        """The degrees of freedom of those structures that the mask keeps; `batch` is what is left of the batch."""
        kept = DegreesOfFreedom.__new__(DegreesOfFreedom)
        kept.relax_cell = self.relax_cell
        kept._cells = self._cells[structures]
        kept._structure_index = kept.structure_index = batch.structure_index
        if self.relax_cell:
            lattice_rows = torch.arange(batch.n_structures, device=kept._cells.device).repeat_interleave(3)
            kept.structure_index = torch.cat([batch.structure_index, lattice_rows])
            kept._length, kept._projector = self._length[structures], self._projector[structures]
        return kept

    def _deformation(self, rows: torch.Tensor) -> torch.Tensor:
        eye = torch.eye(3, dtype=rows.dtype, device=rows.device)
        change = rows[len(self._structure_index) :].view(-1, 3, 3) / self._length - eye
        # Methods without gradients try every row: what is not periodic has no lattice to change.
        deformation: torch.Tensor = eye + self._projector @ change @ self._projector
        return deformation


def _periodic_projector(cells: torch.Tensor, pbc: torch.Tensor) -> torch.Tensor:
    """Projectors, shape (n_structures, 3, 3), on the space that the periodic lattice vectors span."""
    periodic = cells * pbc[:, :, None]
    projector: torch.Tensor = torch.linalg.pinv(periodic) @ periodic
    return projector
