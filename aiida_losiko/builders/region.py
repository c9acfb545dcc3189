"""The atoms near an interface, and keeping the others where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.checks import is_real, require
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms


def atoms_near_plane(atoms: Atoms, distance: float, planes: Sequence[float] | None = None) -> NDArray[np.bool_]:
    """Return which atoms are within a distance of a plane: those that may move when an interface is relaxed.

    Parameters
    ----------
    atoms
        A structure, the planes of which are parallel to its first two vectors. Where it is periodic along the third,
        planes have images there.
    distance
        Angstrom.
    planes
        Heights of the planes above the origin of the cell, along its normal, Angstrom; None for those that
        `aiida_losiko.builders.interface` left in ``info["interface"]["planes"]``.

    Returns
    -------
    numpy.ndarray of bool
        (n_atoms,).

    Raises
    ------
    LosikoError
        For a distance that is no number above zero, and where there are no planes.
    """
    require("distance", distance, is_real(distance) and distance > 0, "a number of Angstrom above zero")
    if planes is None:
        known = atoms.info.get("interface")
        planes = known.get("planes") if isinstance(known, dict) else None
    if planes is None or not len(planes) or not all(is_real(plane) for plane in planes):
        raise LosikoError(
            f"planes={planes!r} of {atoms.get_chemical_formula()}: give their heights in Angstrom, or a structure "
            "made by aiida_losiko.builders.interface, which knows them"
        )
    cell = atoms.cell.complete().array
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    period = float(cell[2] @ normal)
    if period < 0:
        normal, period = -normal, -period
    apart = (atoms.positions @ normal)[:, None] - np.asarray(planes, dtype=np.float64)[None]
    if atoms.pbc[2]:
        apart -= period * np.round(apart / period)
    return np.asarray((np.abs(apart) <= distance).any(axis=1))


def freeze(atoms: Atoms, mask: NDArray[np.bool_]) -> Atoms:
    """Return a copy of which the atoms of a mask do not move (`ase.constraints.FixAtoms`), besides those that did not.

    ``freeze(atoms, ~atoms_near_plane(atoms, 5.0))`` keeps all but the interface.

    Parameters
    ----------
    atoms
        A structure.
    mask
        (n_atoms,): True for the atoms to freeze.

    Raises
    ------
    LosikoError
        For a mask of another length or type, and for one that leaves no atom to move.
    """
    from ase.constraints import FixAtoms

    from aiida_losiko.core.structures.content import fixed_mask

    mask = np.asarray(mask)
    if mask.shape != (len(atoms),) or mask.dtype != bool:
        raise LosikoError(
            f"a mask of shape {mask.shape} and type {mask.dtype} for {len(atoms)} atoms: give one True or False each"
        )
    frozen = mask | fixed_mask(atoms)
    if frozen.all():
        raise LosikoError(f"all of {len(atoms)} atoms would be frozen: leave at least one to move, widen the region")
    copy: Atoms = atoms.copy()
    copy.set_constraint(FixAtoms(indices=np.flatnonzero(frozen)))
    return copy
