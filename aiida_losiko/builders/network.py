"""Networks of fourfold and twofold atoms: silicon, silica and what lies between. Who is bonded to whom.

Atoms with four bonds are called corners here, those with two bridges. A link goes from corner to corner, directly or
over a bridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import bonds

if TYPE_CHECKING:
    from ase import Atoms

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Link:
    """A way from a corner to another one.

    Attributes
    ----------
    bond : int
        The first bond of it.
    end : int
        Which end of that bond the first corner is.
    corner : int
        The other corner.
    shift : ndarray of int, shape (3,)
        In which cell that is, the first one being in cell 0.
    """

    bond: int
    end: int
    corner: int
    shift: IntArray


@dataclass
class Network:
    """Bonds of a periodic network, corners before bridges.

    Attributes
    ----------
    n_corners, n_bridges : int
        How many atoms there are of either kind.
    ends : ndarray of int, shape (n_bonds, 2)
        The atoms of each bond.
    shifts : ndarray of int, shape (n_bonds, 3)
        In which cell the second atom is, the first being in cell 0.
    """

    n_corners: int
    n_bridges: int
    ends: IntArray
    shifts: IntArray

    @classmethod
    def of(cls, atoms: Atoms) -> tuple[Network, IntArray]:
        """Return the network of a crystal and the order in which its atoms are taken.

        Raises
        ------
        LosikoError
            Unless each atom has four bonds or two, and no two of those with two are bonded.
        """
        first, second, shift = bonds(atoms)
        numbers = np.bincount(np.concatenate([first, second]), minlength=len(atoms))
        if not np.isin(numbers, (2, 4)).all() or (numbers[first] + numbers[second] == 4).any():
            found = ", ".join(map(str, sorted(set(numbers.tolist()))))
            raise LosikoError(
                f"{atoms.get_chemical_formula()} is no network of fourfold atoms, bonded or joined by twofold ones "
                f"(bonds of its atoms: {found}): give a crystal like cristobalite or silicon"
            )
        order = np.argsort(numbers == 2, kind="stable")
        rank = np.argsort(order)
        n_corners = int((numbers == 4).sum())
        return cls(n_corners, len(atoms) - n_corners, rank[np.stack([first, second], axis=1)], shift), order

    def copy(self) -> Network:
        """Return a network whose bonds can be changed."""
        return Network(self.n_corners, self.n_bridges, self.ends.copy(), self.shifts.copy())

    def halves(self) -> tuple[IntArray, IntArray]:
        """Return the bonds of each corner, (n_corners, 4), and each bridge, (n_bridges, 2): 2 k + e for end e of k."""
        order = np.argsort(self.ends.ravel(), kind="stable")
        corners, bridges = order[: 4 * self.n_corners], order[4 * self.n_corners :]
        return corners.reshape(-1, 4), bridges.reshape(-1, 2)

    def links(self, corner: int) -> list[Link]:
        """Return the links of a corner."""
        found = []
        for half in np.flatnonzero(self.ends.ravel() == corner).tolist():
            atom, shift = self._across(half)
            if atom >= self.n_corners:
                (onward,) = (h for h in np.flatnonzero(self.ends.ravel() == atom).tolist() if h // 2 != half // 2)
                atom, further = self._across(onward)
                shift = shift + further
            found.append(Link(half // 2, half % 2, atom, shift))
        return found

    def move_end(self, link: Link, corner: int, shift: IntArray) -> None:
        """Take the first end of a link from its corner to another one, which is in the cell `shift` as seen from it."""
        self.ends[link.bond, link.end] = corner
        self.shifts[link.bond] += shift if link.end == 1 else -shift

    def is_simple(self, corner: int) -> bool:
        """Tell whether no link of a corner leads back to it or to the same corner as another one."""
        ways = [(link.corner, *link.shift.tolist()) for link in self.links(corner)]
        return len(set(ways)) == len(ways) and (corner, 0, 0, 0) not in ways

    def _across(self, half: int) -> tuple[int, IntArray]:
        """Return the atom at the other end of a bond, and in which cell it is."""
        bond, end = divmod(half, 2)
        return int(self.ends[bond, 1 - end]), self.shifts[bond] if end == 0 else -self.shifts[bond]
