"""Common cells of two layers: which multiples of the two fit onto each other with how little strain.

The multiples are those of Zur and McGill (J. Appl. Phys. 55, 378, 1984) as pymatgen lists and reduces them. Pymatgen
then compares lengths and angles, which says neither how large the strain is nor whether a layer would have to be
mirrored; here it is the strain itself that is compared, after a proper rotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STRAINED = {"a": 0.0, "b": 1.0, "both": 0.5}
"""Which layer is strained, and the share of the (logarithmic) strain that the second one takes."""

PAIRS_AT_ONCE = 1_000_000
"""Pairs of cells that are compared in one go, for the sake of memory (a hundred bytes each)."""


@dataclass(frozen=True)
class Match:
    """A common cell of two layers.

    Attributes
    ----------
    matrices
        Of each layer, the vectors of the common cell in those of the layer: whole numbers (2, 2).
    cell
        The common vectors as rows (2, 2), Angstrom, the first along x.
    maps
        Of each layer, (2, 2): a point x of the layer goes to `x @ map`.
    strains
        Of each layer, the symmetric strain (2, 2) of `map`, without its rotation, in the frame of `cell`.
    mismatch
        The largest principal strain of the two, absolute.
    n_atoms
        Of both layers in the common cell.
    """

    matrices: tuple[IntArray, IntArray]
    cell: FloatArray
    maps: tuple[FloatArray, FloatArray]
    strains: tuple[FloatArray, FloatArray]
    mismatch: float
    n_atoms: int

    @property
    def area(self) -> float:
        """Of the common cell, Angstrom^2."""
        return abs(float(np.linalg.det(self.cell)))


def match_layers(
    cells: tuple[FloatArray, FloatArray],
    counts: tuple[int, int],
    *,
    strained: str,
    max_strain: float,
    max_area: float,
    max_atoms: int,
    min_length: float = 0.0,
) -> Match:
    """Return the common cell with the fewest atoms within the limits; of several, that with the smallest strain.

    Parameters
    ----------
    cells
        Vectors of the two layers in their plane, as rows (2, 2), Angstrom.
    counts
        Atoms of the two layers.
    strained
        Key of `STRAINED`.
    max_strain
        Largest principal strain of either layer, absolute.
    max_area, max_atoms, min_length
        Of the common cell: Angstrom^2, atoms of both layers, shortest vector in Angstrom.

    Raises
    ------
    LosikoError
        With the smallest strain within `max_area` and `max_atoms` where it is above the limit.
    """
    best: Match | None = None
    for sizes in _sizes(cells, counts, max_area, max_atoms):
        n_atoms = sizes[0] * counts[0] + sizes[1] * counts[1]
        if best is not None and best.mismatch <= max_strain and n_atoms > best.n_atoms:
            break
        # No strain can be smaller than what the areas ask for.
        areas = [size * abs(float(np.linalg.det(cell))) for size, cell in zip(sizes, cells, strict=True)]
        if best is not None and _strain_of_areas(areas[0], areas[1], STRAINED[strained]) >= best.mismatch:
            continue
        found = _best_of_sizes(cells, sizes, n_atoms, STRAINED[strained], min_length)
        if found is not None and (best is None or found.mismatch < best.mismatch):
            best = found
    if best is None:
        raise LosikoError(
            f"no common cell of the two layers within max_area={max_area:g} Angstrom^2 and max_atoms={max_atoms} has "
            f"vectors of at least {min_length:g} Angstrom: raise max_area and max_atoms, or lower min_length"
        )
    if best.mismatch > max_strain:
        raise LosikoError(
            f"the mismatch is {100 * best.mismatch:.2f} % (strained: {strained}; {best.n_atoms} atoms, "
            f"{best.area:.0f} Angstrom^2), allowed is max_strain={100 * max_strain:g} %: the smallest within "
            f"max_area={max_area:g} Angstrom^2 and max_atoms={max_atoms}, raise these or max_strain"
        )
    return best


def _sizes(
    cells: tuple[FloatArray, FloatArray], counts: tuple[int, int], max_area: float, max_atoms: int
) -> Iterator[tuple[int, int]]:
    """Yield how many cells of each layer to take, the fewest atoms first."""
    areas = [abs(float(np.linalg.det(cell))) for cell in cells]
    ranges = [range(1, int(max_area / area * (1 + 1e-9)) + 1) for area in areas]
    every = [(a, b) for a in ranges[0] for b in ranges[1] if a * counts[0] + b * counts[1] <= max_atoms]
    yield from sorted(every, key=lambda pair: (pair[0] * counts[0] + pair[1] * counts[1], pair))


def _strain_of_areas(area_a: float, area_b: float, share: float) -> float:
    """Return the least largest principal strain that brings the areas together."""
    ratio = area_a / area_b
    return max(abs(float(ratio ** (share / 2)) - 1), abs(float(ratio ** ((share - 1) / 2)) - 1))


def _best_of_sizes(
    cells: tuple[FloatArray, FloatArray], sizes: tuple[int, int], n_atoms: int, share: float, min_length: float
) -> Match | None:
    """Return the match with the smallest strain among all multiples of these sizes."""
    multiples = [_multiples(cell, size) for cell, size in zip(cells, sizes, strict=True)]
    first = np.array([rows for rows in multiples[0] if np.linalg.norm(rows @ cells[0], axis=1).min() >= min_length])
    if not len(first):
        return None
    # The same cell has several pairs of short vectors: of the second layer all right-handed ones are tried.
    second = np.concatenate([_BASES @ rows for rows in multiples[1]])
    inverse = np.linalg.inv(second @ cells[1])
    best, smallest = (first[0], second[0]), np.inf
    for some in np.array_split(first, -(-len(first) * len(second) // PAIRS_AT_ONCE)):
        # The map of b onto a, x_b @ map = x_a; its singular values are the principal stretches.
        stretches = np.linalg.svd(np.einsum("bij,ajk->abik", inverse, some @ cells[0]), compute_uv=False)
        strains = np.maximum(np.abs(stretches**share - 1), np.abs(stretches ** (share - 1) - 1)).max(axis=2)
        # Rounded, so that of equivalent cells it is always the same that is taken.
        a, b = np.unravel_index(int(np.argmin(strains.round(9))), strains.shape)
        if strains[a, b] < smallest - 1e-9:
            best, smallest = (some[a], second[b]), float(strains[a, b])
    return _match(cells, best, n_atoms, share)


def _match(
    cells: tuple[FloatArray, FloatArray], matrices: tuple[IntArray, IntArray], n_atoms: int, share: float
) -> Match:
    """Return the match of two multiples."""
    vectors_a, vectors_b = matrices[0] @ cells[0], matrices[1] @ cells[1]
    u, stretches, vt = np.linalg.svd(np.linalg.inv(vectors_b) @ vectors_a)
    # b @ (rotation @ stretch) = a: half way means b @ rotation @ stretch^share = a @ stretch^(share - 1).
    common = vectors_a @ _power(vt, stretches, share - 1)
    x = common[0] / np.linalg.norm(common[0])
    turn = np.array([[x[0], -x[1]], [x[1], x[0]]])
    cell = common @ turn
    cell[0, 1] = 0.0
    maps = (_power(vt, stretches, share - 1) @ turn, u @ vt @ _power(vt, stretches, share) @ turn)
    strains = tuple(turn.T @ (_power(vt, stretches, power) - np.eye(2)) @ turn for power in (share - 1, share))
    return Match(
        matrices=matrices,
        cell=cell,
        maps=maps,
        strains=(strains[0], strains[1]),
        mismatch=float(max(np.abs(np.linalg.eigvalsh(strain)).max() for strain in strains)),
        n_atoms=n_atoms,
    )


def _power(vt: FloatArray, stretches: FloatArray, power: float) -> FloatArray:
    return np.asarray((vt.T * stretches**power) @ vt)


def _multiples(cell: FloatArray, size: int) -> list[IntArray]:
    """Return all lattices of so many cells, as right-handed whole numbers (2, 2) that give short vectors."""
    from pymatgen.analysis.interfaces.zsl import gen_sl_transform_matrices, reduce_vectors

    inverse = np.linalg.inv(cell)
    found = []
    for matrix in gen_sl_transform_matrices(size):
        a, b = np.pad(matrix @ cell, ((0, 0), (0, 1)))
        short = np.array(reduce_vectors(a, b))[:, :2]
        rows = np.round(short @ inverse).astype(np.int64)
        if np.linalg.det(rows) < 0:
            rows[1] *= -1
        found.append(rows)
    return found


#: Right-handed changes of a reduced basis that keep its vectors short.
_BASES = np.array([[[i, j], [k, m]] for i, j, k, m in product((-1, 0, 1), repeat=4) if i * m - j * k == 1])
