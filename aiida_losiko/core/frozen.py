"""What of a batch stays the same while its frozen atoms and its cells stay where they are.

An environment that no movable atom can come into need not be described at every step: it is, once, and what it adds to
the loss is kept. Of 100,000 atoms of which a thousand move, only these and what is within reach of them cost anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from vesin import NeighborList

from aiida_losiko.core.neighbors import BatchPart, NeighborTable, StructureBatch, complete_cell

# Angstrom that a movable atom may go before it is asked anew whose environments it can come into.
DRIFT = 0.5


@dataclass
class Kept:
    """What an evaluation of all environments said, and where that was.

    Attributes
    ----------
    positions, cells : Tensor, shape (n_atoms, 3) and (n_structures, 3, 3)
        In Angstrom.
    atom_loss, distance, environment : Tensor, shape (n_atoms,)
        As of `Evaluation`.
    virial : Tensor, shape (n_atoms, 3, 3)
        What each environment adds to the gradient in the strain.
    """

    positions: torch.Tensor
    cells: torch.Tensor
    atom_loss: torch.Tensor
    distance: torch.Tensor
    environment: torch.Tensor
    virial: torch.Tensor

    @classmethod
    def of(
        cls,
        batch: StructureBatch,
        atom_loss: torch.Tensor,
        distance: torch.Tensor,
        environment: torch.Tensor,
        virial: torch.Tensor,
    ) -> Kept:
        """Copy what was found at the present positions."""
        given = (batch.positions.detach(), batch.cells.detach(), atom_loss, distance, environment, virial)
        return cls(*(values.clone() for values in given))

    def keep(self, structures: torch.Tensor, atoms: torch.Tensor) -> Kept:
        """The same for the structures and atoms of two masks."""
        per_atom = (self.atom_loss, self.distance, self.environment, self.virial)
        return Kept(self.positions[atoms], self.cells[structures], *(values[atoms] for values in per_atom))


class FrozenPart:
    """Tells the environments that can change from those that cannot, and keeps what is known of the latter.

    Parameters
    ----------
    batch : StructureBatch
        The structures.
    free : Tensor of bool, shape (n_atoms,)
        Atoms that may move.
    table : NeighborTable
        Of the batch; its cutoff and skin are what counts.

    Attributes
    ----------
    changing : Tensor of bool, shape (n_atoms,)
        The atoms whose environments a movable atom is in, or can come into; once among them, always among them.
    """

    def __init__(self, batch: StructureBatch, free: torch.Tensor, table: NeighborTable) -> None:
        self._free, self._cutoff, self._skin = free, table.cutoff, table.skin
        self._kept: Kept | None = None
        self._virial: torch.Tensor | None = None
        self.changing, self._near = torch.zeros_like(free), torch.zeros_like(free)
        self._movable = torch.nonzero(free)[:, 0]
        self._origin, self._cells = batch.positions.detach(), batch.cells.detach()
        self._look_around(batch)

    @property
    def part(self) -> BatchPart:
        """The atoms whose environments can change, and their neighbours."""
        return BatchPart(*(torch.nonzero(mask)[:, 0] for mask in (self.changing, self._near)))

    def follow(self, batch: StructureBatch) -> bool:
        """Take note of where the atoms are; returns whether more environments can change than before."""
        moved = (batch.positions.detach()[self._movable] - self._origin[self._movable]).square().sum(1)
        if not bool((moved > DRIFT**2).any()) and self._as_then(batch, self._origin, self._cells):
            return False
        before = self.changing, self._near
        self._look_around(batch)
        return not (torch.equal(before[0], self.changing) and torch.equal(before[1], self._near))

    def keep_values(self, kept: Kept) -> None:
        """Keep what an evaluation of all environments said."""
        self._kept, self._virial = kept, None

    def kept(self, batch: StructureBatch) -> Kept | None:
        """What was kept, when it holds for the batch: no frozen atom and no cell is elsewhere."""
        kept = self._kept
        return kept if kept is not None and self._as_then(batch, kept.positions, kept.cells) else None

    def _as_then(self, batch: StructureBatch, positions: torch.Tensor, cells: torch.Tensor) -> bool:
        """Whether frozen atoms and cells are where they were."""
        if not torch.equal(cells, batch.cells):
            return False
        return bool(((positions == batch.positions).all(1) | self._free).all())

    def virial(self, batch: StructureBatch, kept: Kept) -> torch.Tensor:
        """What all environments that cannot change add to the gradients in the strain, (n_structures, 3, 3)."""
        if self._virial is None:
            own = kept.virial * ~self.changing[:, None, None]
            total = own.new_zeros((batch.n_structures, 3, 3))
            self._virial = total.index_add_(0, batch.structure_index, own)
        return self._virial

    def keep(self, structures: torch.Tensor, atoms: torch.Tensor) -> None:
        """Go on with the structures and atoms of two masks."""
        self._origin, self._cells = self._origin[atoms], self._cells[structures]
        self._free = self._free[atoms]
        self._movable = torch.nonzero(self._free)[:, 0]
        self._virial = None
        self.changing, self._near = self.changing[atoms], self._near[atoms]
        if self._kept is not None:
            self._kept = self._kept.keep(structures, atoms)

    def _look_around(self, batch: StructureBatch) -> None:
        """Find what movable atoms can come into from where they are."""
        positions = batch.positions.detach().cpu().to(torch.float64).numpy()
        cells = batch.cells.detach().cpu().to(torch.float64).numpy()
        pbc, free = batch.pbc.cpu().numpy(), self._free.cpu().numpy()
        changing = self.changing.cpu().numpy() | free
        near = changing.copy()
        ends = np.cumsum(batch.n_atoms.cpu().numpy())
        finder = NeighborList(cutoff=self._cutoff + self._skin + DRIFT, full_list=True)
        for s, end in enumerate(ends):
            own = slice(ends[s - 1] if s else 0, end)
            if free[own].all() or not free[own].any():
                continue
            i, j, distance = finder.compute(positions[own], complete_cell(cells[s], pbc[s]), pbc[s], "ijd")
            # Both ways round are in the list, and skin is for tables alone.
            changing[own][j[free[own][i] & (distance <= self._cutoff + DRIFT)]] = True
            near[own] |= changing[own]
            near[own][j[changing[own][i]]] = True
        device = batch.positions.device
        self.changing, self._near = torch.as_tensor(changing, device=device), torch.as_tensor(near, device=device)
        self._origin, self._cells, self._virial = batch.positions.detach().clone(), batch.cells.detach().clone(), None
