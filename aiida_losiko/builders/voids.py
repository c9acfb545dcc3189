"""Voids of a crystal: the places that are farthest from all atoms around them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.orbits import operations
from aiida_losiko.builders.supercell import SYMPREC, check_crystal

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]

MERGED = 0.2
"""Voids closer to each other than this (Angstrom) are one: vertices of atoms that nearly lie on one sphere."""


@dataclass(frozen=True)
class Void:
    """A place for an interstitial atom, and those equivalent to it.

    Attributes
    ----------
    number
        Place among the voids, from 0, the largest first.
    positions
        (n_equivalent, 3), Angstrom, in the cell that was given.
    radius
        Distance to the nearest atoms, Angstrom.
    """

    number: int
    positions: FloatArray
    radius: float


def find_voids(atoms: Atoms, symprec: float = SYMPREC) -> list[Void]:
    """Return the voids of a crystal, the largest first.

    They are the vertices of the Voronoi diagram of its atoms, which have the same distance to four atoms or more.
    Those nearly on each other are merged, moved onto the site of their symmetry, and gathered by the space group.

    Parameters
    ----------
    atoms
        A crystal.
    symprec
        Angstrom that atoms may be off their ideal sites.

    Raises
    ------
    LosikoError
        If the atoms are no crystal.
    """
    check_crystal(atoms)
    cell = atoms.cell.array
    rotations, translations = operations(atoms, symprec)
    points = _merged(_voronoi_vertices(atoms), cell)
    voids: list[tuple[float, FloatArray]] = []
    left = points
    while len(left):
        images = rotations @ left[0] + translations
        # The mean of the images that are where the point is has the full symmetry of the site.
        here = _wrapped_difference(images, left[0])
        near = np.linalg.norm(here @ cell, axis=1) < MERGED
        site = left[0] + here[near].mean(axis=0)
        orbit = _merged(rotations @ site + translations, cell)
        radius = float(_distances_to_atoms(site[None], atoms)[0])
        voids.append((radius, (orbit % 1.0) @ cell))
        taken = np.array([np.linalg.norm(_wrapped_difference(orbit, x) @ cell, axis=1).min() < MERGED for x in left])
        # The point itself goes in any case, or the loop might not end.
        taken[0] = True
        left = left[~taken]
    voids.sort(key=lambda void: -round(void[0], 6))
    return [Void(number, positions, radius) for number, (radius, positions) in enumerate(voids)]


def _voronoi_vertices(atoms: Atoms) -> FloatArray:
    """Return the fractional coordinates (n, 3) of the vertices in the cell, some of them more than once."""
    from ase.geometry import minkowski_reduce
    from scipy.spatial import Voronoi

    cell = atoms.cell.array
    fractions = np.linalg.solve(cell.T, atoms.positions.T).T % 1.0
    # No place is farther from the lattice of one atom than half the diagonal of its reduced cell: all atoms within
    # twice that of the cell decide about the vertices in it.
    reach = float(np.sqrt((minkowski_reduce(cell)[0] ** 2).sum()))
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    spans = [np.arange(-np.ceil(reach / h), np.ceil(reach / h) + 1) for h in heights]
    shifts = np.array(list(product(*spans)))
    points = (fractions[None] + shifts[:, None]).reshape(-1, 3)
    margin = reach / heights
    points = points[((points > -margin) & (points < 1 + margin)).all(axis=1)]
    vertices = Voronoi(points @ cell).vertices
    found = np.linalg.solve(cell.T, vertices.T).T
    inside = ((found > -1e-6) & (found < 1 - 1e-6)).all(axis=1)
    return np.asarray(found[inside])


def _merged(points: FloatArray, cell: FloatArray) -> FloatArray:
    """Return points (fractions) of which none is within `MERGED` of another: groups are replaced by their means."""
    left = points
    kept = []
    while len(left):
        difference = _wrapped_difference(left, left[0])
        near = np.linalg.norm(difference @ cell, axis=1) < MERGED
        kept.append(left[0] + difference[near].mean(axis=0))
        left = left[~near]
    return np.array(kept).reshape(-1, 3)


def _wrapped_difference(points: FloatArray, point: FloatArray) -> FloatArray:
    """Return the differences in fractions, to the nearest image along each vector."""
    difference = points - point
    return np.asarray(difference - np.round(difference))


def _distances_to_atoms(fractions: FloatArray, atoms: Atoms) -> FloatArray:
    """Return the distance (n,) in Angstrom of each point to the nearest atom, periodic images included."""
    from ase.geometry import get_distances

    distances = get_distances(fractions @ atoms.cell.array, atoms.positions, cell=atoms.cell, pbc=True)[1]
    return np.asarray(distances.min(axis=1))
