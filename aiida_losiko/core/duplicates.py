"""Whether two structures are the same one, wherever they lie and in whichever order their atoms are listed."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["same_structure"]

#: Lengths (relative) and angles (degree) of the lattices of two crystals that may be the same.
LATTICE_TOLERANCE, ANGLE_TOLERANCE = 0.05, 3.0


def same_structure(one: Atoms, other: Atoms, tolerance: float = 0.05) -> bool:
    """Whether two structures are duplicates.

    Molecules are compared by their distances, sorted for each pair of elements: mirror images count as the same.
    Periodic structures are compared by pymatgen's `StructureMatcher`, any cells of the same crystal count as the same.

    Parameters
    ----------
    one, other
        The structures.
    tolerance
        Angstrom: the largest root mean square difference, of distances or of positions.

    Returns
    -------
    bool
    """
    if bool(one.pbc.any()) != bool(other.pbc.any()) or (one.pbc != other.pbc).any():
        return False
    if one.pbc.any():
        return _same_crystal(one, other, tolerance)
    if sorted(one.numbers) != sorted(other.numbers):
        return False
    difference = _distances(one) - _distances(other)
    return bool(np.sqrt((difference**2).mean()) <= tolerance) if difference.size else True


def _distances(atoms: Atoms) -> NDArray[np.float64]:
    """Return all distances, sorted for each pair of elements."""
    places = {z: np.flatnonzero(atoms.numbers == z) for z in np.unique(atoms.numbers)}
    every = np.linalg.norm(atoms.positions[:, None] - atoms.positions, axis=2)
    parts = []
    for first, second in combinations_with_replacement(places, 2):
        block = every[np.ix_(places[first], places[second])]
        parts.append(np.sort(block[np.triu_indices(len(block), 1)] if first == second else block.ravel()))
    return np.concatenate(parts) if parts else np.empty(0)


def _same_crystal(one: Atoms, other: Atoms, tolerance: float) -> bool:
    formulas = [atoms.symbols.formula.reduce()[0].format("hill") for atoms in (one, other)]
    per_atom = [atoms.get_volume() / len(atoms) for atoms in (one, other)]
    if formulas[0] != formulas[1] or abs(per_atom[0] / per_atom[1] - 1.0) > 3 * LATTICE_TOLERANCE:
        return False
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    matcher = StructureMatcher(ltol=LATTICE_TOLERANCE, stol=0.3, angle_tol=ANGLE_TOLERANCE, scale=False)
    crystals = [AseAtomsAdaptor.get_structure(atoms) for atoms in (one, other)]
    found: Any = matcher.get_rms_dist(*crystals)  # type: ignore[no-untyped-call]
    # pymatgen's distance is in units of the cube root of the volume per atom.
    return found is not None and bool(found[0] * float(np.mean(per_atom)) ** (1 / 3) <= tolerance)
