"""How close atoms may come to each other, and how to push those apart that are closer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.checks import is_real
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]
Distances: TypeAlias = float | Mapping[str, float]
"""A number times the sum of the covalent radii (Cordero 2008), or Angstrom for each pair: ``{"Si-O": 1.4}``."""

DEFAULT_SCALE = 0.8
"""Of the sum of the covalent radii: 1.22 Angstrom for C-C, 1.42 for Si-O, 1.06 for O-O."""

_MARGIN = 1.02
"""Atoms are pushed a little farther apart than they must be, so that the minimum need not be found exactly."""


def minimal_distances(symbols: Sequence[str], distances: Distances = DEFAULT_SCALE) -> dict[str, float]:
    """Return the smallest allowed distance of every pair of elements.

    Parameters
    ----------
    symbols
        The elements, each once.
    distances
        See `Distances`; pairs that a mapping leaves out get `DEFAULT_SCALE` times the sum of their covalent radii.

    Returns
    -------
    dict
        `"Si-O": Angstrom`, each pair once, in the order of `symbols`.

    Raises
    ------
    LosikoError
        For what is no positive number, and for pairs of other elements.
    """
    from ase.data import atomic_numbers, covalent_radii

    pairs = list(combinations_with_replacement(symbols, 2))
    given = dict(distances) if isinstance(distances, Mapping) else {}
    scale = DEFAULT_SCALE if isinstance(distances, Mapping) else distances
    if not is_real(scale) or scale <= 0:
        raise LosikoError(
            f"minimal_distances={distances!r} is not allowed; it must be a positive factor of the covalent radii "
            'or Angstrom for each pair ({"Si-O": 1.4})'
        )
    found = {}
    for first, second in pairs:
        value = given.pop(f"{first}-{second}", None)
        # The other way round it is the same pair.
        value = given.pop(f"{second}-{first}", value) if first != second else value
        if value is None:
            value = scale * (covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])
        elif not is_real(value) or value <= 0:
            raise LosikoError(f"minimal distance {first}-{second} is {value!r}: give a positive number of Angstrom")
        found[f"{first}-{second}"] = float(value)
    if given:
        raise LosikoError(
            f"minimal distance of {next(iter(given))!r}: allowed pairs are {', '.join(found)}, leave the others out"
        )
    return found


def distance_table(numbers: NDArray[np.integer], distances: Mapping[str, float]) -> FloatArray:
    """Return the smallest allowed distance of every pair of atoms, shape (n_atoms, n_atoms), in Angstrom."""
    from ase.data import chemical_symbols

    kinds, kind_of = np.unique(numbers, return_inverse=True)
    symbols = [chemical_symbols[number] for number in kinds]
    table = np.array([[distances.get(f"{a}-{b}", distances.get(f"{b}-{a}", 0.0)) for b in symbols] for a in symbols])
    return np.asarray(table[kind_of[:, None], kind_of[None, :]], dtype=np.float64)


def close_vectors(
    positions: FloatArray, cell: FloatArray, cutoff: float
) -> tuple[NDArray[np.integer], NDArray[np.integer], FloatArray]:
    """Return the pairs (i, j) of a crystal within a cutoff (Angstrom), each once, and their vectors (n_pairs, 3)."""
    from vesin import NeighborList

    i, j, vectors = NeighborList(cutoff=cutoff, full_list=False).compute(positions, cell, True, "ijD")
    return i, j, np.asarray(vectors)


def smallest_ratio(atoms: Atoms, distances: Mapping[str, float]) -> float:
    """Return the smallest ratio of a distance to what it must be, periodic images included; infinite for no pair.

    Parameters
    ----------
    atoms
        A crystal.
    distances
        Of `minimal_distances`.
    """
    table = distance_table(atoms.numbers, distances)
    i, j, vectors = close_vectors(atoms.positions, atoms.cell.array, float(table.max()))
    return float(np.min(np.linalg.norm(vectors, axis=1) / table[i, j], initial=np.inf))


def push_apart(atoms: Atoms, distances: Mapping[str, float], max_steps: int = 200) -> bool:
    """Push atoms of a crystal apart until all distances are allowed; the cell stays.

    Soft spheres, which overlap with the energy ``sum (1 - r/d)^2`` over the pairs with ``r < d``, minimised by L-BFGS.

    Parameters
    ----------
    atoms
        Changed in place.
    distances
        Of `minimal_distances`.
    max_steps
        Of L-BFGS.

    Returns
    -------
    bool
        Whether all distances, those to periodic images included, are allowed now.
    """
    from scipy.optimize import minimize

    cell = atoms.cell.array
    table = _MARGIN * distance_table(atoms.numbers, distances)
    cutoff = float(table.max())

    def energy(flat: FloatArray) -> tuple[float, FloatArray]:
        positions = flat.reshape(-1, 3)
        i, j, vectors = close_vectors(positions, cell, cutoff)
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
        overlaps = np.maximum(1.0 - lengths / table[i, j], 0.0)
        pulls = (2.0 * overlaps / (table[i, j] * lengths))[:, None] * vectors
        gradient = np.zeros_like(positions)
        np.add.at(gradient, i, pulls)
        np.subtract.at(gradient, j, pulls)
        return float((overlaps**2).sum()), gradient.ravel()

    result = minimize(
        energy, atoms.positions.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": max_steps, "ftol": 1e-12}
    )
    atoms.positions[:] = result.x.reshape(-1, 3)
    atoms.wrap()
    return smallest_ratio(atoms, distances) >= 1.0
