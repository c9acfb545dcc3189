"""Random crystals with symmetry, by PyXtal (Fredericks et al., Comput. Phys. Commun. 261, 107810, 2021)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from aiida_losiko.builders.distances import smallest_ratio
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.builders.cell_request import CellRequest


def require_pyxtal() -> None:
    """Check that PyXtal is installed.

    Raises
    ------
    LosikoError
        With the command that installs it.
    """
    if find_spec("pyxtal") is None:
        raise LosikoError(
            "space groups need PyXtal, which is not installed: pip install 'aiida-losiko[pyxtal]', or leave "
            "space_groups out for cells without symmetry"
        )


def symmetric_cell(
    request: CellRequest, symbols: Sequence[str], volume: float, group: int, generator: np.random.Generator
) -> Atoms | None:
    """Return the conventional cell of a random crystal in a space group.

    Parameters
    ----------
    request
        What it is to be like.
    symbols
        Its atoms.
    volume
        Angstrom^3.
    group
        Number of the space group; the crystal may happen to have a higher symmetry.
    generator
        Of the random numbers.

    Returns
    -------
    ase.Atoms or None
        None where the group has no sites for so many atoms, or atoms are too close.
    """
    from pyxtal import pyxtal
    from pyxtal.lattice import Lattice
    from pyxtal.msg import Error as PyxtalError
    from pyxtal.symmetry import Group
    from pyxtal.tolerance import Tol_matrix

    counts = Counter(symbols)
    space_group = Group(group)
    if not space_group.check_compatible(list(counts.values()))[0]:
        return None
    tolerances = Tol_matrix(*[(*pair.split("-"), value) for pair, value in request.distances.items()])
    crystal = pyxtal()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            lattice = Lattice(space_group.lattice_type, volume, random_state=generator)
            crystal.from_random(
                3,
                group,
                list(counts),
                list(counts.values()),
                lattice=lattice,
                tm=tolerances,
                random_state=generator,
                max_count=1,
            )
        except (PyxtalError, RuntimeError):
            return None
        atoms = crystal.to_ase(resort=False)
    atoms.info.clear()
    atoms.set_pbc(True)
    lengths = atoms.cell.lengths()
    ratio = atoms.cell.volume / volume
    if abs(ratio - 1) > 1e-6 or Counter(atoms.symbols) != counts or lengths.max() > request.max_aspect * lengths.min():
        return None
    return atoms if smallest_ratio(atoms, request.distances) >= 1.0 else None
