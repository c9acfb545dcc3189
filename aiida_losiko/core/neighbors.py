"""Batches of structures and the neighbours of their atoms.

Many structures are handled as one flat list of atoms with a structure index. Neighbours are kept as a dense table, one
row of at most `n_neighbors` entries per atom, since everything that a descriptor does per centre is then one batched
matrix product; entries that are padding, or beyond the cutoff, carry the weight zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from vesin import NeighborList

if TYPE_CHECKING:
    from ase import Atoms


@dataclass
class StructureBatch:
    """Structures as one flat list of atoms.

    Attributes
    ----------
    positions : Tensor, shape (n_atoms, 3)
        Cartesian coordinates of all atoms, in Angstrom.
    numbers : Tensor of int64, shape (n_atoms,)
        Atomic numbers.
    structure_index : Tensor of int64, shape (n_atoms,)
        The structure that an atom belongs to, ascending.
    cells : Tensor, shape (n_structures, 3, 3)
        Lattice vectors as rows, in Angstrom; directions that are not periodic are ignored.
    pbc : Tensor of bool, shape (n_structures, 3)
        Periodic directions.
    """

    positions: torch.Tensor
    numbers: torch.Tensor
    structure_index: torch.Tensor
    cells: torch.Tensor
    pbc: torch.Tensor

    @classmethod
    def from_atoms(
        cls,
        structures: Sequence[Atoms],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> StructureBatch:
        """Make a batch of `ase.Atoms`; all tensors go to `device`, the real ones with `dtype`."""
        lengths = [len(atoms) for atoms in structures]
        return cls(
            positions=torch.as_tensor(
                np.concatenate([atoms.positions for atoms in structures]), dtype=dtype, device=device
            ),
            numbers=torch.as_tensor(
                np.concatenate([atoms.numbers for atoms in structures]), dtype=torch.int64, device=device
            ),
            structure_index=torch.as_tensor(np.repeat(np.arange(len(lengths)), lengths), device=device),
            cells=torch.as_tensor(np.array([atoms.cell.array for atoms in structures]), dtype=dtype, device=device),
            pbc=torch.as_tensor(np.array([atoms.pbc for atoms in structures]), device=device),
        )

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.cells)

    @property
    def n_atoms(self) -> torch.Tensor:
        """Number of atoms of each structure, shape (n_structures,)."""
        return torch.bincount(self.structure_index, minlength=self.n_structures)

    def keep(self, structures: torch.Tensor) -> StructureBatch:
        """Return the batch of those structures for which the boolean mask `structures` is true."""
        atoms = structures[self.structure_index]
        renumbered = torch.cumsum(structures, 0) - 1
        return StructureBatch(
            positions=self.positions[atoms],
            numbers=self.numbers[atoms],
            structure_index=renumbered[self.structure_index[atoms]],
            cells=self.cells[structures],
            pbc=self.pbc[structures],
        )


@dataclass
class BatchPart:
    """Atoms of a batch whose neighbours are wanted, and all atoms that can be neighbours of these.

    Attributes
    ----------
    centers, members : Tensor of int64, shape (n,) and (m,)
        Atoms of the batch, ascending; the centres are among the members.
    """

    centers: torch.Tensor
    members: torch.Tensor


class NeighborTable:
    """The neighbours of every atom of a batch within `cutoff`, the atom itself first, as a dense table.

    The lists are made with `skin` to spare and made anew only for structures in which an atom moved by more than half
    of it, or whose cell changed. Equality with the exact list is kept by the weight, which `vectors` recomputes.

    Parameters
    ----------
    cutoff : float
        Radius of the neighbourhood in Angstrom.
    skin : float
        Extra radius in Angstrom.
    part : BatchPart, optional
        The table has rows for its centres alone; by default for all atoms.

    Attributes
    ----------
    index : Tensor of int64, shape (n_rows, n_neighbors)
        The neighbours of each centre, as atoms of the batch; padding repeats the centre itself.
    n_neighbors : Tensor of int64, shape (n_rows,)
        How many entries of each row are no padding.
    """

    def __init__(self, cutoff: float, skin: float = 0.5, part: BatchPart | None = None) -> None:
        self.cutoff = cutoff
        self.skin = skin
        self.part = part
        self._finder = NeighborList(cutoff=cutoff + skin, full_list=True, sorted=True)
        self._lists: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]] = []
        self._positions: torch.Tensor | None = None
        self._cells: torch.Tensor | None = None
        self.index = torch.empty((0, 1), dtype=torch.int64)
        self.n_neighbors = torch.empty(0, dtype=torch.int64)
        self._shifts: torch.Tensor | None = None
        self._padding = torch.empty((0, 1), dtype=torch.bool)

    def rows_of(self, atoms: torch.Tensor) -> torch.Tensor:
        """The rows of some centres, which are given as atoms of the batch."""
        return atoms if self.part is None else torch.searchsorted(self.part.centers, atoms)

    def atoms_of(self, rows: torch.Tensor) -> torch.Tensor:
        """The centres of some rows, as atoms of the batch."""
        return rows if self.part is None else self.part.centers[rows]

    def of_rows(self, per_atom: torch.Tensor) -> torch.Tensor:
        """Of numbers for each atom of the batch those of the centres, row by row."""
        return per_atom if self.part is None else per_atom[self.part.centers]

    def _of_members(self, per_atom: torch.Tensor) -> torch.Tensor:
        return per_atom if self.part is None else per_atom[self.part.members]

    def to_atoms(self, per_row: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Of numbers row by row those for each atom of the batch, which atoms without a row have from `others`."""
        return per_row if self.part is None else others.index_copy(0, self.part.centers, per_row)

    def update(self, batch: StructureBatch) -> bool:
        """Bring the table up to date with `batch`; returns whether its rows changed."""
        stale = self._stale(batch)
        if not bool(stale.any()):
            return False
        all_positions = batch.positions.detach().cpu().to(torch.float64).numpy()
        all_cells = batch.cells.detach().cpu().to(torch.float64).numpy()
        pbc = batch.pbc.cpu().numpy()
        first = len(self._lists) != batch.n_structures
        if first:
            nothing = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3), np.int32))
            self._lists = [nothing] * batch.n_structures
        members, row_of, ends = self._numbering(batch)
        for s in np.flatnonzero(stale.cpu().numpy()):
            own = members[ends[s - 1] if s else 0 : ends[s]]
            if not len(own):
                continue
            i, j, shifts = self._finder.compute(all_positions[own], complete_cell(all_cells[s], pbc[s]), pbc[s], "ijS")
            rows = row_of[own[i]]
            wanted = slice(None) if self.part is None else rows >= 0
            self._lists[s] = rows[wanted], own[j[wanted]], shifts[wanted]
        self._fill(batch)
        positions, index = self._of_members(batch.positions.detach()), self._of_members(batch.structure_index)
        if first or self._positions is None or self._cells is None:
            self._positions, self._cells = positions.clone(), batch.cells.detach().clone()
        else:
            atoms = stale[index]
            self._positions[atoms] = positions[atoms]
            self._cells[stale] = batch.cells.detach()[stale]
        return True

    def _numbering(self, batch: StructureBatch) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The members, the row of each atom (-1 for none), and where among the members each structure ends."""
        n_atoms = len(batch.numbers)
        if self.part is None:
            everyone = np.arange(n_atoms)
            return everyone, everyone, np.cumsum(batch.n_atoms.cpu().numpy())
        centers, members = self.part.centers.cpu().numpy(), self.part.members.cpu().numpy()
        row_of = np.full(n_atoms, -1)
        row_of[centers] = np.arange(len(centers))
        n_members = np.bincount(batch.structure_index.cpu().numpy()[members], minlength=batch.n_structures)
        return members, row_of, np.cumsum(n_members)

    def _stale(self, batch: StructureBatch) -> torch.Tensor:
        """Structures whose list no longer holds every pair within the cutoff."""
        positions = self._of_members(batch.positions.detach())
        if self._positions is None or self._cells is None or len(self._positions) != len(positions):
            self._lists = []
            return torch.ones(batch.n_structures, dtype=torch.bool, device=positions.device)
        moved = ((positions - self._positions) ** 2).sum(1) > (0.5 * self.skin) ** 2
        stale = (batch.cells.detach() != self._cells).flatten(1).any(1)
        if bool(moved.any()):
            stale = stale.clone()
            stale[self._of_members(batch.structure_index)[moved]] = True
        return stale

    def _fill(self, batch: StructureBatch) -> None:
        """Lay the per-structure lists out as one table, the atom itself in column 0."""
        atoms = np.arange(len(batch.numbers)) if self.part is None else self.part.centers.cpu().numpy()
        row = np.concatenate([pairs[0] for pairs in self._lists])
        neighbor = np.concatenate([pairs[1] for pairs in self._lists])
        shift = np.concatenate([pairs[2] for pairs in self._lists])
        counts = np.bincount(row, minlength=len(atoms))
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(atoms) else counts
        column = 1 + np.arange(len(row)) - first[row]
        width = 1 + (int(counts.max()) if len(atoms) else 0)
        index = np.repeat(atoms[:, None], width, axis=1)
        index[row, column] = neighbor
        padding = np.ones((len(atoms), width), dtype=bool)
        padding[:, 0] = False
        padding[row, column] = False
        device = batch.positions.device
        self.index = torch.as_tensor(index, device=device)
        self.n_neighbors = torch.as_tensor(counts + 1, device=device)
        self._padding = torch.as_tensor(padding, device=device)
        self._shifts = None
        if shift.any():
            shifts = np.zeros((len(atoms), width, 3))
            shifts[row, column] = shift
            self._shifts = torch.as_tensor(shifts, dtype=batch.positions.dtype, device=device)

    def vectors(self, batch: StructureBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vectors from every centre to its neighbours, and which of them count.

        Returns
        -------
        vectors : Tensor, shape (n_rows, n_neighbors, 3)
            In Angstrom; differentiable in the positions and cells of `batch`.
        inside : Tensor, shape (n_rows, n_neighbors)
            One within the cutoff, zero for padding and for pairs beyond.
        squared : Tensor, shape (n_rows, n_neighbors)
            Squared distances in Angstrom^2, not differentiable; zero for the centre itself, infinite for padding.
        """
        vectors = batch.positions[self.index] - self.of_rows(batch.positions)[:, None, :]
        if self._shifts is not None:
            vectors = vectors + self._shifts @ batch.cells[self.of_rows(batch.structure_index)]
        squared = (vectors.detach() ** 2).sum(-1).masked_fill_(self._padding, torch.inf)
        return vectors, (squared <= self.cutoff**2).to(vectors.dtype), squared


def close_pairs(atoms: Atoms, cutoff: float) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.float64]]:
    """Every pair of atoms within a distance, in both directions and with periodic images.

    Returns
    -------
    i, j : ndarray, shape (n_pairs,)
        The atoms.
    distance : ndarray, shape (n_pairs,)
        In Angstrom.
    """
    pbc = np.asarray(atoms.pbc)
    finder = NeighborList(cutoff=cutoff, full_list=True)
    i, j, distance = finder.compute(atoms.positions, complete_cell(atoms.cell.array, pbc), pbc, "ijd")
    return i, j, distance


def complete_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Replace the lattice vectors of directions that are not periodic by unit vectors normal to the others.

    They carry no meaning there, may be zero, and must not make the matrix singular.
    """
    if pbc.all():
        return cell
    if not pbc.any():
        return np.eye(3)
    completed = cell.copy()
    periodic = cell[pbc]
    # The right-singular vectors beyond the rank span the space normal to the periodic directions.
    normal = np.linalg.svd(periodic)[2][len(periodic) :]
    completed[~pbc] = normal
    return completed


def scatter_to_atoms(table: NeighborTable, gradient: torch.Tensor, n_atoms: int) -> torch.Tensor:
    """Turn a gradient in neighbour vectors into one in positions.

    Parameters
    ----------
    gradient : Tensor, shape (n_rows, n_neighbors, 3)
        Derivatives with respect to the vectors that `NeighborTable.vectors` gives.
    n_atoms : int
        Atoms of the batch.

    Returns
    -------
    Tensor, shape (n_atoms, 3)
    """
    result = -gradient.sum(1)
    if table.part is not None:
        result = table.to_atoms(result, gradient.new_zeros((n_atoms, 3)))
    index = table.index.reshape(-1, 1).expand(-1, 3)
    return result.scatter_add_(0, index, gradient.reshape(-1, 3))
