"""Sites of a crystal that symmetry maps onto each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.supercell import SYMPREC, bare, check_crystal, check_symprec
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Orbit:
    """Sites that are equivalent by symmetry.

    Attributes
    ----------
    number
        Place among the orbits of the crystal, from 0, in the order of their first atoms.
    symbol
        The element.
    indices
        Its atoms in the cell that was given.
    wyckoff
        Multiplicity in the conventional cell and letter of the Wyckoff position: ``"3b"``.
    multiplicity
        The number in `wyckoff`.
    space_group
        International symbol of the crystal's space group.
    """

    number: int
    symbol: str
    indices: tuple[int, ...]
    wyckoff: str
    multiplicity: int
    space_group: str


def find_orbits(atoms: Atoms, symprec: float = SYMPREC) -> list[Orbit]:
    """Return the orbits of a crystal.

    Parameters
    ----------
    atoms
        A crystal.
    symprec
        Angstrom that atoms may be off their ideal sites.

    Returns
    -------
    list of Orbit
        Each atom is in one of them.

    Raises
    ------
    LosikoError
        If the atoms are no crystal, or spglib finds no symmetry, not even the identity.
    """
    dataset = symmetry_dataset(atoms, symprec)
    equivalent = np.asarray(dataset.equivalent_atoms)
    orbits = []
    for number, first in enumerate(np.unique(equivalent)):
        indices = np.flatnonzero(equivalent == first)
        multiplicity = round(len(indices) * len(dataset.std_types) / len(atoms))
        orbits.append(
            Orbit(
                number=number,
                symbol=str(atoms.symbols[first]),
                indices=tuple(int(index) for index in indices),
                wyckoff=f"{multiplicity}{dataset.wyckoffs[first]}",
                multiplicity=multiplicity,
                space_group=str(dataset.international),
            )
        )
    return orbits


def symmetry_dataset(atoms: Atoms, symprec: float) -> Any:
    """Return spglib's account of the symmetry of a crystal, by pymatgen.

    Raises
    ------
    LosikoError
        As for `find_orbits`.
    """
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    check_crystal(atoms)
    check_symprec(symprec)
    try:
        return SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(bare(atoms)), symprec=symprec).get_symmetry_dataset()
    except (SymmetryUndeterminedError, ValueError) as error:
        raise LosikoError(
            f"no symmetry of {atoms.get_chemical_formula()} is found with symprec={symprec!r} Angstrom: give another, "
            "0.01 for relaxed crystals"
        ) from error


def operations(atoms: Atoms, symprec: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rotations (n, 3, 3) and translations (n, 3) that map the crystal onto itself, in fractions of its cell.

    A point with the fractional coordinates ``x`` goes to ``rotation @ x + translation``.
    """
    dataset = symmetry_dataset(atoms, symprec)
    return np.asarray(dataset.rotations, dtype=np.int64), np.asarray(dataset.translations, dtype=np.float64)
