"""What no crystal or molecule looks like: atoms on each other, cells out of all proportion, atoms left alone.

A loss that knows environments only may fall on the way there. While structures are relaxed `Sanity` judges them all at
each evaluation, in few calls, so that the last one that made sense can be given back; `structure_flags` has the last
word on what is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import covalent_radii
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from aiida_losiko.core.cohesion import BONDED
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.neighbors import NeighborTable, StructureBatch, close_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

# A pair closer than this part of the shortest one in the database is a collapse.
COLLAPSE = 0.7
# A volume that changed by more than this factor is an explosion (or its opposite).
EXPLOSION = 3.0
# What each bit of a verdict stands for, see `Relaxation.flags`.
BITS = ("collapsed", "exploded_cell", "lost_atoms")
COLLAPSED, EXPLODED_CELL, LOST_ATOMS = 1, 2, 4


class Sanity:
    """Judges the structures of a batch.

    Parameters
    ----------
    batch : StructureBatch
        The structures.
    database : EnvironmentDatabase
        Its shortest pairs say what is too close.
    limits : Tensor, shape (n_atoms,)
        Distance from its match up to which an atom is where it belongs, see `hops.atom_limits`.
    starts : sequence of Atoms, optional
        Whose volumes count as the first ones; None where cells do not change.
    """

    def __init__(
        self,
        batch: StructureBatch,
        database: EnvironmentDatabase,
        limits: torch.Tensor,
        starts: Sequence[Atoms] | None = None,
    ) -> None:
        like = batch.positions
        self._closest = (COLLAPSE * database.shortest_pairs).square().to(like)
        # Squared limits of the pairs of a table, which is made anew as a whole.
        self._index, self._closest_pairs = torch.empty(0), torch.empty(0)
        self._alone = database.descriptor.r_cut**2
        self._limits = limits
        self._has_company = batch.n_atoms > 1
        self._volumes: torch.Tensor | None = None
        if starts is not None and bool(batch.pbc.all(1).any()):
            volumes = [atoms.cell.volume if atoms.pbc.all() else np.nan for atoms in starts]
            self._volumes = torch.as_tensor(volumes, dtype=like.dtype, device=like.device)

    def judge(
        self, batch: StructureBatch, table: NeighborTable, squared: torch.Tensor, distance: torch.Tensor
    ) -> torch.Tensor:
        """Verdicts on the structures of the batch as they are now.

        Parameters
        ----------
        batch : StructureBatch
            With the present cells.
        table, squared
            Neighbours and the squared distances to them, shape (n_rows, n_neighbors). Pairs of frozen atoms need not
            be among them: these stay what they were.
        distance : Tensor, shape (n_atoms,)
            To the matches, as of `Evaluation`.

        Returns
        -------
        Tensor of int64, shape (n_structures,)
            Zero for what is sane, else the bits of `BITS`. A volume out of proportion is sane where every atom has
            found its match: then it was the start that had the wrong one.
        """
        verdicts = torch.zeros_like(self._has_company, dtype=torch.int64)
        if table.index is not self._index:
            self._index = table.index
            self._closest_pairs = self._closest[table.of_rows(batch.numbers)[:, None], batch.numbers[table.index]]
            self._closest_pairs[:, 0] = -1.0  # the atom itself
        of_rows = table.of_rows(batch.structure_index)
        close = squared < self._closest_pairs
        if bool(close.any()):
            verdicts += COLLAPSED * self._with(of_rows[close.any(1)])
        # In the first column there is the atom itself.
        lonely = (squared <= self._alone).sum(1) == 1
        if bool(lonely.any()):
            verdicts += LOST_ATOMS * (self._has_company & self._with(of_rows[lonely]))
        if self._volumes is not None:
            ratio = torch.linalg.det(batch.cells).abs() / self._volumes
            strange = (ratio > EXPLOSION) | (ratio < 1 / EXPLOSION)
            if bool(strange.any()):
                verdicts += EXPLODED_CELL * (strange & self._with(batch.structure_index[~(distance <= self._limits)]))
        return verdicts

    def _with(self, structures: torch.Tensor) -> torch.Tensor:
        """Mask (n_structures,) of what is in a list."""
        mask = torch.zeros_like(self._has_company)
        mask[structures] = True
        return mask

    def keep(self, structures: torch.Tensor, atoms: torch.Tensor) -> None:
        """Go on with the structures of a mask, and the atoms of one."""
        self._limits, self._has_company = self._limits[atoms], self._has_company[structures]
        if self._volumes is not None:
            self._volumes = self._volumes[structures]


def flags_of(verdict: int) -> tuple[str, ...]:
    """The flags that a verdict stands for."""
    return tuple(flag for bit, flag in enumerate(BITS) if verdict >> bit & 1)


def structure_flags(atoms: Atoms, start: Atoms, database: EnvironmentDatabase) -> tuple[str, ...]:
    """Warnings on a relaxed structure: see `Relaxation.flags`."""
    flags = []
    i, j, distance = close_pairs(atoms, database.descriptor.r_cut)
    shortest = database.shortest_pairs.numpy()
    if (distance < COLLAPSE * shortest[atoms.numbers[i], atoms.numbers[j]]).any():
        flags.append("collapsed")
    if atoms.pbc.all():
        ratio = atoms.cell.volume / start.cell.volume
        if not 1 / EXPLOSION <= ratio <= EXPLOSION:
            flags.append("exploded_cell")
    if len(atoms) > 1 and len(np.unique(i)) < len(atoms):
        flags.append("lost_atoms")
    if not atoms.pbc.any() and _n_pieces(atoms) > _n_pieces(start):
        flags.append("fragmented")
    return tuple(flags)


def _n_pieces(atoms: Atoms) -> int:
    """Number of groups of bonded atoms of a molecule."""
    radii = np.asarray(covalent_radii)[atoms.numbers]
    bonded = cdist(atoms.positions, atoms.positions) < BONDED * (radii[:, None] + radii)
    return int(connected_components(bonded, directed=False, return_labels=False))
