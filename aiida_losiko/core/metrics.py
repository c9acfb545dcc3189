"""How far a structure is from the one it should be: displacements, bonds, angles, torsions, coordination, density.

Atoms are compared by index, as in the paper: two hydrogen atoms of a methyl group that changed places count as
displaced. Lengths are in Angstrom, angles in degree, densities in g/cm3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.bonding import (
    BOND_SCALE,
    angle_errors,
    bond_length_errors,
    bonds,
    check_same_atoms,
    coordination_numbers,
    torsion_errors,
)
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "BOND_SCALE",
    "aligned_positions",
    "angle_errors",
    "bond_length_errors",
    "bonds",
    "coordination_numbers",
    "density",
    "displacements",
    "rmsd",
    "torsion_errors",
]

FloatArray = NDArray[np.float64]

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
    check_same_atoms(structure, reference)
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
