"""How far a structure is from the one it should be: displacements, bonds, angles, coordination, density.

Atoms are compared by index, as in the paper: two hydrogen atoms of a methyl group that changed places count as
displaced. Lengths are in Angstrom, angles in degree, densities in g/cm3.
"""

from __future__ import annotations

from itertools import combinations
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
#: Atomic mass unit per cubic Angstrom in g/cm3.
_AMU_PER_A3 = 1.66053906660


def rmsd(structure: Atoms, reference: Atoms, align: bool = True) -> float:
    """Root mean square displacement between two structures with the same atoms in the same order.

    ``sqrt(sum_i |u_i|^2 / n_atoms)`` with the displacements ``u`` of `displacements`.

    Parameters
    ----------
    structure, reference
        The structures to compare.
    align
        Remove the rigid motion first: rotation and translation of molecules, the mean shift of periodic structures.

    Returns
    -------
    float
        Angstrom.

    Raises
    ------
    LosikoError
        If the structures do not hold the same atoms in the same order.
    """
    return float(np.sqrt((displacements(structure, reference, align) ** 2).sum(axis=1).mean()))


def displacements(structure: Atoms, reference: Atoms, align: bool = True) -> FloatArray:
    """Displacement of each atom from the reference, after the best rigid motion.

    Molecules are rotated by the proper rotation of Kabsch (Acta Cryst. A32, 922, 1976). Reflections are never used,
    thus the two enantiomers of a chiral molecule differ. Where the *reference* is periodic in any direction nothing
    is rotated: differences of fractional coordinates are multiplied by the reference's cell, taken to their minimum
    image, and their mean is removed, so that a change of the cell alone counts as no displacement.

    Parameters
    ----------
    structure, reference
        The structures to compare, of `n_atoms` each.
    align
        False leaves rotation, translation and mean shift in.

    Returns
    -------
    numpy.ndarray
        (n_atoms, 3), Angstrom, in the frame of the reference.

    Raises
    ------
    LosikoError
        If the structures do not hold the same atoms in the same order.
    """
    _check_same_atoms(structure, reference)
    if reference.pbc.any():
        return _periodic_displacements(structure, reference, align)
    if not align:
        return np.asarray(structure.positions - reference.positions, dtype=np.float64)
    aligned = aligned_positions(structure.positions, reference.positions)
    return np.asarray(aligned - reference.positions, dtype=np.float64)


def aligned_positions(positions: FloatArray, reference: FloatArray) -> FloatArray:
    """Positions after the proper rotation and the translation that bring them closest to the reference (Kabsch).

    Parameters
    ----------
    positions, reference
        (n_atoms, 3), Angstrom.

    Returns
    -------
    numpy.ndarray
        (n_atoms, 3), Angstrom.
    """
    centre, reference_centre = positions.mean(axis=0), reference.mean(axis=0)
    u, _, vt = np.linalg.svd((positions - centre).T @ (reference - reference_centre))
    # The last singular direction is turned round where the best orthogonal matrix would be a reflection.
    handedness = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * handedness) @ vt
    return np.asarray((positions - centre) @ rotation + reference_centre, dtype=np.float64)


def _periodic_displacements(structure: Atoms, reference: Atoms, align: bool) -> FloatArray:
    from ase.geometry import find_mic

    cell = reference.cell.complete()
    own_cell = structure.cell.complete() if structure.pbc.any() else cell
    difference = own_cell.scaled_positions(structure.positions) - cell.scaled_positions(reference.positions)
    if not align:
        return np.asarray(find_mic(difference @ cell, cell, reference.pbc)[0], dtype=np.float64)
    # The circular mean finds the common shift even where it takes atoms across the cell's border; the mean of the
    # minimum images then refines it.
    turns = np.exp(2j * np.pi * difference).mean(axis=0)
    difference -= np.where(reference.pbc, np.angle(turns) / (2 * np.pi), difference.mean(axis=0))
    wrapped = find_mic(difference @ cell, cell, reference.pbc)[0]
    return np.asarray(wrapped - wrapped.mean(axis=0), dtype=np.float64)


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
    _check_same_atoms(structure, reference)
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
    _check_same_atoms(structure, reference)
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


def density(atoms: Atoms) -> float:
    """Mass density of a crystal.

    Parameters
    ----------
    atoms
        A structure with three cell vectors.

    Returns
    -------
    float
        g/cm3.

    Raises
    ------
    LosikoError
        If the cell has no volume.
    """
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if volume < 1e-9:
        raise LosikoError(
            f"the cell's volume is {volume:g} Angstrom^3: a density needs three cell vectors (atoms.cell)"
        )
    return float(atoms.get_masses().sum()) * _AMU_PER_A3 / volume


def _check_same_atoms(structure: Atoms, reference: Atoms) -> None:
    if len(reference) == 0:
        raise LosikoError("the reference has 0 atoms: a comparison needs at least 1")
    if len(structure) != len(reference) or (structure.numbers != reference.numbers).any():
        raise LosikoError(
            f"{structure.get_chemical_formula()} cannot be compared with {reference.get_chemical_formula()}: both must "
            "hold the same elements in the same order (sort the atoms of one of them)"
        )
