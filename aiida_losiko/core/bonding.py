"""Bonds of a structure, and how far their lengths, angles and torsions are off in another one.

What is bonded to what is always read off the reference. Lengths are in Angstrom, angles in degree.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Two atoms are bonded when they are closer than this times the sum of their covalent radii.
BOND_SCALE = 1.2
#: Degree. A torsion with an angle this close to 0 or 180 is not compared.
NEARLY_LINEAR = 10.0


def bonds(atoms: Atoms, scale: float = BOND_SCALE) -> tuple[IntArray, IntArray, IntArray]:
    """Every bonded pair: atoms closer than `scale` times the sum of their covalent radii (Cordero 2008).

    Parameters
    ----------
    atoms
        The structure; periodic images are respected.
    scale
        Tolerance on the sum of the radii.

    Returns
    -------
    tuple
        First atoms i (n_bonds,), second atoms j (n_bonds,), and the integer cell shifts (n_bonds, 3) of j; each bond
        is listed once.
    """
    i, j, shift = _directed_bonds(atoms, scale)
    # Once per bond: i < j, and of an atom bonded to its own image the shift whose first non-zero part is positive.
    first = np.where(shift[:, 0] != 0, shift[:, 0], np.where(shift[:, 1] != 0, shift[:, 1], shift[:, 2]))
    once = (i < j) | ((i == j) & (first > 0))
    return i[once], j[once], shift[once]


def _directed_bonds(atoms: Atoms, scale: float) -> tuple[IntArray, IntArray, IntArray]:
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    i, j, shift = neighbor_list("ijS", atoms, scale * covalent_radii[atoms.numbers], self_interaction=False)
    return i.astype(np.int64), j.astype(np.int64), shift.astype(np.int64).reshape(-1, 3)


def _bond_vectors(structure: Atoms, reference: Atoms, i: IntArray, j: IntArray, shift: IntArray) -> FloatArray:
    """The reference's bonds as vectors in the structure, however its atoms were wrapped into the cell."""
    vectors = structure.positions[j] - structure.positions[i]
    if reference.pbc.any():
        cell = structure.cell.complete()
        before = reference.cell.complete().scaled_positions(reference.positions)
        now = cell.scaled_positions(structure.positions)
        moved = (now - before)[j] - (now - before)[i]
        vectors = (before[j] - before[i] + shift + moved - np.where(reference.pbc, np.round(moved), 0.0)) @ cell
    return np.asarray(vectors, dtype=np.float64)


def bond_length_errors(structure: Atoms, reference: Atoms, scale: float = BOND_SCALE) -> FloatArray:
    """Absolute length error of each bond that the reference has.

    Parameters
    ----------
    structure, reference
        The structures to compare.
    scale
        What counts as a bond of the reference, see `bonds`.

    Returns
    -------
    numpy.ndarray
        (n_bonds,), Angstrom; empty where the reference has no bond. Its mean is the mean absolute error.

    Raises
    ------
    LosikoError
        If the structures do not hold the same atoms in the same order.
    """
    check_same_atoms(structure, reference)
    pairs = bonds(reference, scale)
    lengths = np.linalg.norm(_bond_vectors(structure, reference, *pairs), axis=1)
    return np.asarray(np.abs(lengths - np.linalg.norm(_bond_vectors(reference, reference, *pairs), axis=1)))


def angle_errors(structure: Atoms, reference: Atoms, scale: float = BOND_SCALE) -> FloatArray:
    """Absolute error of each bond angle that the reference has.

    Parameters
    ----------
    structure, reference
        The structures to compare.
    scale
        What counts as a bond of the reference, see `bonds`.

    Returns
    -------
    numpy.ndarray
        (n_angles,), degree; empty where the reference has no angle. Its mean is the mean absolute error.

    Raises
    ------
    LosikoError
        If the structures do not hold the same atoms in the same order.
    """
    check_same_atoms(structure, reference)
    i, j, shift = _directed_bonds(reference, scale)
    pairs = np.array([p for centre in range(len(reference)) for p in combinations(np.flatnonzero(i == centre), 2)])
    if not len(pairs):
        return np.zeros(0)
    measured, true = (_angles(_bond_vectors(s, reference, i, j, shift), pairs) for s in (structure, reference))
    return np.asarray(np.abs(measured - true))


def _angles(vectors: FloatArray, pairs: IntArray) -> FloatArray:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    cosines = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))


def torsion_errors(structure: Atoms, reference: Atoms, scale: float = BOND_SCALE) -> FloatArray:
    """Absolute error of each torsion i-j-k-l that the bonds of the reference make.

    Torsions are periodic: 179 and -179 degrees differ by 2. Those with an angle i-j-k or j-k-l of the reference within
    `NEARLY_LINEAR` of 0 or 180 degrees are left out, since they are not defined there; so are three-membered rings,
    where i is l.

    Parameters
    ----------
    structure, reference
        The structures to compare.
    scale
        What counts as a bond of the reference, see `bonds`.

    Returns
    -------
    numpy.ndarray
        (n_torsions,), degree, from 0 to 180; empty where the reference has no torsion. Its mean is the mean absolute
        error.

    Raises
    ------
    LosikoError
        If the structures do not hold the same atoms in the same order.
    """
    check_same_atoms(structure, reference)
    i, j, shift = _directed_bonds(reference, scale)
    triples = _torsion_bonds(i, j, shift)
    if not len(triples):
        return np.zeros(0)
    measured, true = (_bond_vectors(s, reference, i, j, shift) for s in (structure, reference))
    triples = triples[~_nearly_linear(true, triples)]
    difference = _torsions(measured, triples) - _torsions(true, triples)
    return np.asarray(np.abs((difference + 180.0) % 360.0 - 180.0))


def _torsion_bonds(i: IntArray, j: IntArray, shift: IntArray) -> IntArray:
    """Find the directed bonds j->i, j->k and k->l of each torsion: (n_torsions, 3) indices of bonds."""
    bonds_of = [np.flatnonzero(i == atom) for atom in range(int(i.max(initial=-1)) + 1)]
    backwards = {(b, a, *(-s)): n for n, (a, b, s) in enumerate(zip(i.tolist(), j.tolist(), shift, strict=True))}
    found = []
    for middle, (a, b, s) in enumerate(zip(i.tolist(), j.tolist(), shift, strict=True)):
        back = backwards[a, b, *s]
        if back < middle:
            continue  # once per bond: this one from its other end
        for first, last in product(bonds_of[a], bonds_of[b]):
            ring = j[first] == j[last] and (shift[first] == s + shift[last]).all()
            if first != middle and last != back and not ring:
                found.append((first, middle, last))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _nearly_linear(vectors: FloatArray, triples: IntArray) -> NDArray[np.bool_]:
    # j->k has the same direction at both ends, but for its sign, which a sine does not see.
    angles = [_angles(vectors, triples[:, pair]) for pair in ([0, 1], [1, 2])]
    return np.asarray(np.any([np.minimum(a, 180.0 - a) < NEARLY_LINEAR for a in angles], axis=0))


def _torsions(vectors: FloatArray, triples: IntArray) -> FloatArray:
    first, middle, last = (vectors[triples[:, column]] for column in range(3))
    length = np.maximum(np.linalg.norm(middle, axis=1), 1e-300)
    one, other = np.cross(first, middle), np.cross(last, middle)
    sines = (np.cross(one, other) * middle).sum(axis=1) / length
    return np.asarray(np.degrees(np.arctan2(sines, (one * other).sum(axis=1))))


def coordination_numbers(atoms: Atoms, scale: float = BOND_SCALE) -> IntArray:
    """Count the bonded neighbours of each atom, periodic images included.

    Parameters
    ----------
    atoms
        The structure.
    scale
        What counts as a bond, see `bonds`.

    Returns
    -------
    numpy.ndarray
        (n_atoms,) integers.
    """
    return np.bincount(_directed_bonds(atoms, scale)[0], minlength=len(atoms)).astype(np.int64)


def check_same_atoms(structure: Atoms, reference: Atoms) -> None:
    """Raise a LosikoError unless both hold the same elements in the same order, and at least one atom."""
    if len(reference) == 0:
        raise LosikoError("the reference has 0 atoms: a comparison needs at least 1")
    if len(structure) != len(reference) or (structure.numbers != reference.numbers).any():
        raise LosikoError(
            f"{structure.get_chemical_formula()} cannot be compared with {reference.get_chemical_formula()}: both must "
            "hold the same elements in the same order (sort the atoms of one of them)"
        )
