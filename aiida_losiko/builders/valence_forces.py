"""What the strain of a network of silicon and oxygen costs: springs along bonds and on angles.

After S. von Alfthan, A. Kuronen and K. Kaski (Phys. Rev. B 68, 073203, 2003), who took it from Y. Tu and J. Tersoff
(Phys. Rev. Lett. 84, 4393, 2000): a harmonic spring for each bond and for the cosine of each angle. Soft spheres keep
atoms apart that are not bonded. It tells a strained network from a relaxed one and makes starts for LOSIKO; energies of
real silica it does not give. Lengths are in Angstrom, energies in eV.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.network import Network
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# The number of bridges at a bond (0 or 1), or at the two bonds of an angle (0 to 2), is the index.
BOND_STRENGTH = np.array([9.08, 27.0])
"""eV/Angstrom^2."""
BOND_LENGTH = np.array([2.35, 1.61])
CORNER_STRENGTH = np.array([3.58, 3.93, 4.32])
"""eV, of the cosine of an angle at a fourfold atom, which is tetrahedral at best."""
BRIDGE_STRENGTH, BRIDGE_COSINE = 2.0, -0.85
"""eV, of the cosine of the angle at a twofold atom. Theirs is straight at best; here it is 148 degrees as in glass."""
APART_STRENGTH = 8.0
"""eV/Angstrom^2, of atoms that are closer than these although they are not bonded:"""
APART = np.array([2.9, 2.6, 2.5])
"""Two fourfold ones, one of each kind, two twofold ones."""
HOPELESS = 4.0
"""eV by which the energy still falls after a third of the steps, at the most."""
LEEWAY = 0.8
"""Angstrom that two atoms may come closer before it is asked anew which are near each other."""

_PAIRS = np.array(list(combinations(range(4), 2)))


def silicon_network(atoms: Atoms) -> tuple[Network, IntArray]:
    """Return the network of a crystal of silicon and oxygen, see `Network.of`, that is fit for `ValenceForces`.

    Raises
    ------
    LosikoError
        Unless silicon is what is fourfold and oxygen what is twofold, and the cell large enough.
    """
    network, order = Network.of(atoms)
    symbols = [atoms.symbols[index] for index in order]
    if set(symbols[: network.n_corners]) != {"Si"} or set(symbols[network.n_corners :]) - {"O"}:
        raise LosikoError(f"{atoms.get_chemical_formula()}: only fourfold Si and twofold O have forces here")
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    least = 2 * (float(APART.max()) + LEEWAY)
    if heights.min() < least:
        raise LosikoError(
            f"the cell is {heights.min():.2f} Angstrom high, at least {least:.2f} are needed in each direction: give a "
            "larger supercell (or n_atoms)"
        )
    return network, order


class ValenceForces:
    """Energy of a network and its gradient, for atoms near the positions that it is made with.

    Parameters
    ----------
    network
        Who is bonded to whom.
    positions
        (n_atoms, 3).
    cell
        (3, 3), rows. Of the images of an atom only the nearest is looked at: see `silicon_network`.
    """

    def __init__(self, network: Network, positions: FloatArray, cell: FloatArray) -> None:
        self._ends, self._shifts = network.ends, network.shifts.astype(np.float64)
        at_corners, at_bridges = network.halves()
        n_corners = network.n_corners
        kind = (network.ends >= n_corners).any(1).astype(int)
        self._stiff, self._length = BOND_STRENGTH[kind], BOND_LENGTH[kind]
        corners = at_corners[:, _PAIRS].reshape(-1, 2)
        self._angles = np.concatenate([corners, at_bridges])
        self._bend = np.full(len(self._angles), BRIDGE_STRENGTH)
        self._bend[: len(corners)] = CORNER_STRENGTH[kind[corners // 2].sum(1)]
        self._cosine = np.repeat([-1 / 3, BRIDGE_COSINE], [len(corners), len(at_bridges)])
        self._find_strangers(network, at_corners, at_bridges, positions, cell)

    def _find_strangers(
        self, network: Network, at_corners: IntArray, at_bridges: IntArray, positions: FloatArray, cell: FloatArray
    ) -> None:
        """Note the pairs that might come too close: not bonded, nor at the same atom, where the angle has a spring."""
        fractions = positions @ np.linalg.inv(cell)
        image = np.round(fractions[:, None] - fractions[None])
        vectors = (fractions[None] - fractions[:, None] + image) @ cell
        reach = float(APART.max()) + LEEWAY
        strange = np.triu(np.einsum("ijk,ijk->ij", vectors, vectors) < reach**2, 1)
        others = network.ends[:, ::-1].ravel()
        around = others[at_corners]
        pairs = [network.ends, *(around[:, pair] for pair in _PAIRS)]
        # Two corners at a bridge are the exception: the angle there is soft.
        for pair in pairs:
            strange[pair[:, 0], pair[:, 1]] = strange[pair[:, 1], pair[:, 0]] = False
        self._first, self._second = np.nonzero(strange)
        self._image = image[self._first, self._second]
        n_corners = network.n_corners
        self._apart = APART[(self._first >= n_corners).astype(int) + (self._second >= n_corners)]

    def __call__(self, positions: FloatArray, cell: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the energy, its gradient in the positions (n_atoms, 3), and in a strain of the whole (3, 3)."""
        vectors = positions[self._ends[:, 1]] - positions[self._ends[:, 0]] + self._shifts @ cell
        length = np.linalg.norm(vectors, axis=1)
        stretch = length - self._length
        energy = 0.5 * float(self._stiff @ stretch**2)
        unit = vectors / length[:, None]
        slope = (self._stiff * stretch)[:, None] * unit
        energy += self._add_angles(unit, length, slope)
        apart = positions[self._second] - positions[self._first] + self._image @ cell
        squared = np.einsum("ij,ij->i", apart, apart)
        near = np.flatnonzero(squared < self._apart**2)
        distance = np.maximum(np.sqrt(squared[near]), 1e-6)
        overlap = self._apart[near] - distance
        energy += 0.5 * APART_STRENGTH * float(overlap @ overlap)
        push = (-APART_STRENGTH * overlap / distance)[:, None] * apart[near]
        vectors, slope = np.concatenate([vectors, apart[near]]), np.concatenate([slope, push])
        first = np.concatenate([self._ends[:, 0], self._first[near]])
        second = np.concatenate([self._ends[:, 1], self._second[near]])
        gradient = np.empty_like(positions)
        for axis in range(3):
            gained = np.bincount(second, slope[:, axis], minlength=len(positions))
            gradient[:, axis] = gained - np.bincount(first, slope[:, axis], minlength=len(positions))
        return energy, gradient, vectors.T @ slope

    def _add_angles(self, unit: FloatArray, length: FloatArray, slope: FloatArray) -> float:
        """Add the slope of the angles to that of the bonds' vectors, in place; returns the energy."""
        one, other = self._angles[:, 0] // 2, self._angles[:, 1] // 2
        # Outwards, from the atom in the middle.
        sign = np.where(self._angles % 2 == 0, 1.0, -1.0)
        u, v = sign[:, :1] * unit[one], sign[:, 1:] * unit[other]
        cosine = np.einsum("ij,ij->i", u, v)
        off = cosine - self._cosine
        factor = self._bend * off
        along = cosine[:, None]
        parts = (
            (one, (sign[:, 0] * factor / length[one])[:, None] * (v - along * u)),
            (other, (sign[:, 1] * factor / length[other])[:, None] * (u - along * v)),
        )
        for bond, part in parts:
            for axis in range(3):
                slope[:, axis] += np.bincount(bond, part[:, axis], minlength=len(slope))
        return 0.5 * float(self._bend @ off**2)


def relax_network(
    network: Network, positions: FloatArray, cell: FloatArray, max_steps: int, limit: float = np.inf
) -> tuple[FloatArray, float]:
    """Return the positions of the nearest minimum in a cell that stays, and the energy.

    Parameters
    ----------
    network, positions, cell
        As of `ValenceForces`.
    max_steps
        Of L-BFGS.
    limit
        Where it can be told after a third of the steps that the energy will not fall below it, the rest is spared.
    """
    from scipy.optimize import minimize

    forces = ValenceForces(network, positions, cell)
    best, lowest = positions.ravel(), np.inf

    def function(x: FloatArray) -> tuple[float, FloatArray]:
        energy, gradient, _ = forces(x.reshape(-1, 3), cell)
        return energy, gradient.ravel()

    for steps in (max_steps // 3, max_steps - max_steps // 3):
        options = {"maxiter": steps, "maxcor": 20, "gtol": 1e-3}
        found = minimize(function, best, jac=True, method="L-BFGS-B", options=options)
        best, lowest = found.x, float(found.fun)
        if lowest > limit + HOPELESS:
            break
    return best.reshape(-1, 3), lowest


def relax_with_cell(
    network: Network, positions: FloatArray, cell: FloatArray, max_steps: int
) -> tuple[FloatArray, FloatArray, float]:
    """Return positions and cell of the nearest minimum under no pressure, and the energy; parameters as above."""
    from scipy.optimize import minimize

    fractions = positions @ np.linalg.inv(cell)
    forces, size = ValenceForces(network, positions, cell), float(np.cbrt(abs(np.linalg.det(cell))))

    def unpacked(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        strain = np.eye(3) + x[:9].reshape(3, 3) / size
        strained = cell @ strain
        return (fractions + x[9:].reshape(-1, 3) @ np.linalg.inv(cell)) @ strained, strained, strain

    def function(x: FloatArray) -> tuple[float, FloatArray]:
        places, strained, strain = unpacked(x)
        energy, gradient, virial = forces(places, strained)
        by_strain = np.linalg.inv(strain).T @ virial / size
        return energy, np.concatenate([by_strain.ravel(), (gradient @ strain.T).ravel()])

    found = minimize(
        function,
        np.zeros(9 + positions.size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps, "maxcor": 20},
    )
    places, strained, _ = unpacked(found.x)
    return places, strained, float(found.fun)
