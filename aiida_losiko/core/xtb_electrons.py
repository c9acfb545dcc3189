"""Which numbers of electrons GFN2-xTB can be asked for.

tblite does not look: with more electrons of a spin than there are orbitals it goes beyond its arrays (valgrind tells),
and a process that had been through such a calculation was ended some time later by a broken heap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

#: Atomic numbers from and to which an element's valence electrons are those that are left of so many core electrons.
#: Group 12 counts as a main group. Lanthanides have three, whatever their f electrons.
_CORES = (
    (1, 2, 0),
    (3, 10, 2),
    (11, 18, 10),
    (19, 29, 18),
    (30, 36, 28),
    (37, 47, 36),
    (48, 54, 46),
    (55, 57, 54),
    (72, 79, 68),
    (80, 86, 78),
)
_OF_LANTHANIDES = 3


def valence_electrons(number: int) -> int:
    """Return how many electrons of a neutral atom GFN2-xTB treats, for atomic numbers up to 86."""
    return next((number - core for first, last, core in _CORES if first <= number <= last), _OF_LANTHANIDES)


def check_electrons(atoms: Atoms, charge: int, multiplicity: int | None, n_orbitals: int) -> None:
    """Refuse a number of electrons, or of unpaired ones, that a molecule has no places for.

    Parameters
    ----------
    atoms
        The molecule.
    charge
        In elementary charges.
    multiplicity
        One more than the number of unpaired electrons; None for the lowest.
    n_orbitals
        Number of orbitals of the molecule, for two electrons each.

    Raises
    ------
    LosikoError
        With how many electrons there would be.
    """
    electrons = sum(valence_electrons(int(number)) for number in atoms.numbers) - charge
    unpaired = electrons % 2 if multiplicity is None else multiplicity - 1
    if electrons < 1 or unpaired > electrons or electrons + unpaired > 2 * n_orbitals:
        raise LosikoError(
            f"charge {charge} with multiplicity {multiplicity or 'lowest'} cannot be: {atoms.get_chemical_formula()} "
            f"would have {electrons} valence electrons in {n_orbitals} orbitals"
        )
