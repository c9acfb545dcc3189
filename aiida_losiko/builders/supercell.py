"""Supercells: by a matrix, or as cubic as they can be with about so many atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures import check_structure

if TYPE_CHECKING:
    from ase import Atoms

Matrix: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | NDArray[np.integer]

SYMPREC = 0.01
"""Angstrom that atoms may be off their ideal sites (spglib's symprec)."""

LEEWAY = 0.15
"""How far the number of atoms may be from the one asked for, relative, for the sake of the cell's shape."""

MAX_ATOMS = 100_000
"""More atoms than this are a slip of the pen: a defect in the dilute limit needs a few hundred."""


def check_crystal(atoms: Atoms, what: str = "the host") -> None:
    """Refuse what is no crystal.

    Raises
    ------
    LosikoError
        If it is not periodic in all three directions, or as for `aiida_losiko.core.structures.check_structure`.
    """
    check_structure(atoms)
    if not atoms.pbc.all():
        raise LosikoError(
            f"{what} {atoms.get_chemical_formula()} has pbc {[bool(axis) for axis in atoms.pbc]}; a crystal is needed: "
            "give a cell (with vacuum for a slab) and pbc True in all directions"
        )


def check_symprec(symprec: float) -> None:
    """Check the tolerance: spglib ends the whole program where it is negative.

    Raises
    ------
    LosikoError
        For what is no number above 0, or so large that neighbours are one atom.
    """
    require("symprec", symprec, is_real(symprec) and 0 < symprec <= 0.5, "a number of Angstrom above 0, at most 0.5")


def bare(atoms: Atoms) -> Atoms:
    """Return a copy with numbers, positions, cell and pbc only, the atoms wrapped into the cell."""
    from ase import Atoms

    copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.wrap()
    return copy


def name_of(atoms: Atoms) -> str:
    """Return what identifiers of structures made of this one begin with: its own, else its reduced formula."""
    from pymatgen.core.composition import Composition

    return str(atoms.info.get("identifier") or Composition(atoms.get_chemical_formula()).reduced_formula)


def primitive_cell(atoms: Atoms, symprec: float) -> Atoms:
    """Return a primitive cell of a crystal in the orientation of the crystal.

    Parameters
    ----------
    atoms
        A crystal.
    symprec
        Angstrom that atoms may be off the sites of the smaller cell.
    """
    from ase import Atoms
    from pymatgen.io.ase import AseAtomsAdaptor

    found = AseAtomsAdaptor.get_structure(bare(atoms)).get_primitive_structure(tolerance=symprec)
    cell = found.lattice.matrix
    # The same lattice, right-handed as the supercell is to be.
    cell = cell * np.sign(np.linalg.det(cell))
    primitive = Atoms([site.specie.Z for site in found], positions=found.cart_coords, cell=cell, pbc=True)
    primitive.wrap()
    return primitive


def make_supercell(
    host: Atoms, matrix: Matrix | None = None, n_atoms: int | Sequence[int] | None = None, symprec: float = SYMPREC
) -> tuple[Atoms, Atoms, NDArray[np.int64]]:
    """Return a supercell, the cell that it repeats, and the matrix between the two.

    Parameters
    ----------
    host
        A crystal.
    matrix
        Three whole numbers, or three rows of them: the supercell's vectors in those of the host (`P @ cell`).
    n_atoms
        About how many atoms (within 15 %), or a pair, fewest and most; instead of `matrix`. The primitive cell is
        repeated then, such that the supercell is as cubic as possible (deviation as in
        `ase.build.find_optimal_cell_shape`). Without both the supercell is the host.
    symprec
        Tolerance of the primitive cell, Angstrom.

    Returns
    -------
    supercell, cell, matrix
        Atom k of the supercell is a copy of atom `k % len(cell)`; the matrix (3, 3) is in vectors of `cell`.

    Raises
    ------
    LosikoError
        For wrong parameters, or both of them.
    """
    from ase.build import make_supercell as repeat

    check_crystal(host)
    check_symprec(symprec)
    if matrix is not None and n_atoms is not None:
        raise LosikoError(f"supercell={matrix!r} and n_atoms={n_atoms!r} are both given: leave one of them out")
    if n_atoms is not None:
        cell = primitive_cell(host, symprec)
        rows = _most_cubic(cell, n_atoms)
    else:
        cell = bare(host)
        rows = _checked_matrix([1, 1, 1] if matrix is None else matrix)
    size = round(abs(float(np.linalg.det(rows)))) * len(cell)
    if size > MAX_ATOMS:
        raise LosikoError(f"the supercell would have {size} atoms; allowed are {MAX_ATOMS}: ask for a smaller one")
    supercell = repeat(cell, rows)
    supercell.pbc = True
    return supercell, cell, rows


def _checked_matrix(matrix: Any) -> NDArray[np.int64]:
    rows = np.array(matrix, dtype=object)
    if rows.shape == (3,):
        rows = np.diag(rows)
    whole = rows.shape == (3, 3) and all(is_real(x) and is_whole(abs(x)) for x in rows.ravel())
    require("supercell", matrix, whole, "three whole numbers or three rows of three")
    numbers = rows.astype(np.int64)
    # A left-handed supercell of a right-handed host turns the order of its vectors around, which nobody means.
    require("supercell", matrix, round(float(np.linalg.det(numbers))) > 0, "a matrix with a determinant above zero")
    return np.asarray(numbers)


def _most_cubic(cell: Atoms, n_atoms: int | Sequence[int]) -> NDArray[np.int64]:
    """Return the matrix of the supercell that is most cubic among those with the right number of atoms."""
    from ase.build import find_optimal_cell_shape
    from ase.build.supercells import eval_shape_deviation

    fewest, most = _bounds(n_atoms)
    candidates = []
    for size in range(max(1, -(-fewest // len(cell))), most // len(cell) + 1):
        # Entries of -1 to 1 beside the rounded ideal: as good as ASE's -2 to 2 for primitive cells, and 100 times
        # faster.
        try:
            matrix = find_optimal_cell_shape(cell.cell, size, "sc", lower_limit=-1, upper_limit=1)
        except (ValueError, IndexError):
            continue
        if matrix is not None and round(float(np.linalg.det(matrix))) == size:
            candidates.append(np.asarray(matrix, dtype=np.int64))
    if not candidates:
        raise LosikoError(
            f"n_atoms={n_atoms!r}: no supercell of {cell.get_chemical_formula()} has {fewest} to {most} atoms; allow "
            f"multiples of {len(cell)}, or give the supercell as a matrix"
        )
    deviations = [float(eval_shape_deviation((rows @ cell.cell.array)[None], "sc")[0]) for rows in candidates]
    return candidates[int(np.argmin(deviations))]


def _bounds(n_atoms: int | Sequence[int]) -> tuple[int, int]:
    pair = list(n_atoms) if isinstance(n_atoms, Sequence) else [n_atoms] * 2
    allowed = len(pair) == 2 and is_whole(pair[0], 1) and is_whole(pair[1], pair[0])
    require("n_atoms", n_atoms, allowed, "a whole number of at least 1, or a pair of them, fewest and most")
    require("n_atoms", n_atoms, pair[1] <= MAX_ATOMS, f"at most {MAX_ATOMS}")
    fewest, most = int(pair[0]), int(pair[1])
    return (fewest, most) if isinstance(n_atoms, Sequence) else _about(fewest)


def _about(number: int) -> tuple[int, int]:
    return int(np.ceil((1 - LEEWAY) * number)), int((1 + LEEWAY) * number)
