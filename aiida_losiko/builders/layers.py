"""Layers cut out of crystals and of amorphous cells, with their bonds as they were cut.

A layer is periodic along its first two vectors, which lie in the plane of x and y; its third is along z.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.supercell import SYMPREC, bare, check_crystal, check_symprec, name_of
from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures import check_structure

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]

LEAST_VACUUM = 5.0
"""Angstrom without atoms that make a periodic cell a slab; the layers of graphite are 3.35 apart."""


def cleave(
    bulk: Atoms,
    miller: Sequence[int],
    thickness: float,
    *,
    termination: int = 0,
    conventional: bool = True,
    symprec: float = SYMPREC,
) -> Atoms:
    """Cut a layer out of a crystal along a lattice plane, by pymatgen's `SlabGenerator`.

    Parameters
    ----------
    bulk
        A crystal.
    miller
        Indices (h, k, l) of the plane.
    thickness
        At least so many Angstrom; whole cells of the crystal are taken.
    termination
        Which of the ways to cut between different atomic planes, from 0.
    conventional
        The indices are those of the conventional cell; False: of the cell that is given.
    symprec
        Tolerance of the conventional cell, Angstrom.

    Returns
    -------
    ase.Atoms
        The layer, the smallest cell in the plane, bonds cut and not healed. ``info["layer"]`` says how it was made.

    Raises
    ------
    LosikoError
        For wrong parameters, and for a termination that is not there.
    """
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    check_crystal(bulk, "the crystal")
    check_symprec(symprec)
    require("conventional", conventional, isinstance(conventional, bool), "True or False")
    plane = list(miller) if isinstance(miller, Sequence | np.ndarray) else []
    allowed = len(plane) == 3 and all(is_real(index) and is_whole(abs(index)) for index in plane) and any(plane)
    require("miller", miller, allowed, "three whole numbers, not all zero")
    require("thickness", thickness, is_real(thickness) and thickness > 0, "a number of Angstrom above zero")
    crystal = AseAtomsAdaptor.get_structure(bare(bulk))
    if conventional:
        crystal = SpacegroupAnalyzer(crystal, symprec=symprec).get_conventional_standard_structure()
    generator = SlabGenerator(
        crystal,
        tuple(int(index) for index in plane),
        min_slab_size=thickness,
        min_vacuum_size=2 * LEAST_VACUUM,
        lll_reduce=False,
        center_slab=True,
        primitive=True,
    )
    slabs = generator.get_slabs(symmetrize=False)
    if not is_whole(termination) or termination >= len(slabs):
        raise LosikoError(
            f"termination={termination!r} of {bulk.get_chemical_formula()} ({' '.join(map(str, plane))}): there are "
            f"{len(slabs)}, give a whole number from 0 to {len(slabs) - 1}"
        )
    atoms = AseAtomsAdaptor.get_atoms(slabs[termination].get_orthogonal_c_slab(), msonable=False)
    layer = as_layer(bare(atoms), "the slab")
    indices = "_".join(str(index) for index in plane)
    layer.info["identifier"] = f"{name_of(bulk)}:slab-{indices}-{termination}"
    details = {"miller": [int(index) for index in plane], "thickness": float(thickness), "termination": termination}
    layer.info["layer"] = details
    return layer


def cut_layer(atoms: Atoms, thickness: float | None = None, start: float = 0.0) -> Atoms:
    """Cut a layer out of a periodic cell of anything, along the plane of its first two vectors.

    For amorphous cells, which have no lattice planes.

    Parameters
    ----------
    atoms
        A structure that is periodic in three directions.
    thickness
        Angstrom, at most the height of the cell; None for the whole cell, of which no atom is lost.
    start
        Height of the lower cut above the bottom of the cell, Angstrom; what is above the top is that of the next cell.

    Returns
    -------
    ase.Atoms
        The layer, bonds cut and not healed. ``info["layer"]`` says how it was made.

    Raises
    ------
    LosikoError
        For wrong parameters, and where there are no atoms between the cuts.
    """
    check_crystal(atoms, "the cell")
    whole = _turned(bare(atoms))
    height = float(whole.cell[2, 2])
    require("start", start, is_real(start), "a number of Angstrom")
    full = thickness is None
    taken = height if thickness is None else thickness
    require(
        "thickness",
        thickness,
        full or (is_real(taken) and 0 < taken <= height + 1e-6),
        f"Angstrom above zero, at most the height of the cell, {height:.3f}",
    )
    heights = _moved_above(whole, start)
    layer = whole if full else whole[heights < taken]
    if not len(layer):
        raise LosikoError(
            f"no atoms between {start:g} and {start + taken:g} Angstrom of the cell of {atoms.get_chemical_formula()}: "
            "give another start or more thickness"
        )
    layer.pbc = (True, True, False)
    layer = as_layer(layer, "the layer")
    layer.info["identifier"] = f"{name_of(atoms)}:layer-{start:.2f}-{taken:.2f}"
    layer.info["layer"] = {"thickness": float(taken), "start": float(start)}
    return layer


def as_layer(slab: Atoms, name: str) -> Atoms:
    """Return a slab as a layer: turned into the plane of x and y, its lowest atom at z = 0, without vacuum.

    Parameters
    ----------
    slab
        Periodic along its first two vectors; along the third either not, or with vacuum.
    name
        What messages call it.

    Returns
    -------
    ase.Atoms
        With pbc (True, True, False) and the third vector as long as the layer is thick between its outermost nuclei.

    Raises
    ------
    LosikoError
        If it is not periodic in the plane, or said to be periodic in all directions without vacuum.
    """
    check_structure(slab)
    if not slab.pbc[:2].all():
        raise LosikoError(
            f"{name} {slab.get_chemical_formula()} has pbc {[bool(axis) for axis in slab.pbc]}; a slab is periodic "
            "along its first two vectors: give it a cell and pbc (True, True, False)"
        )
    layer = _turned(slab)
    if slab.pbc[2]:
        _close(layer, name)
    layer.positions[:, 2] -= layer.positions[:, 2].min()
    # One plane of atoms has no thickness, but a cell needs a third vector.
    thickness = max(float(layer.positions[:, 2].max()), 1e-3)
    layer.set_cell([*layer.cell.array[:2], [0.0, 0.0, thickness]])
    layer.pbc = (True, True, False)
    layer.wrap()
    layer.info = dict(slab.info)
    return layer


def largest_empty_space(heights: FloatArray, period: float) -> tuple[float, float]:
    """Return the widest range without atoms along a periodic axis: its width and its upper end, Angstrom."""
    ordered = np.sort(heights % period)
    spaces = np.diff(ordered, append=ordered[0] + period)
    widest = int(np.argmax(spaces))
    return float(spaces[widest]), float(ordered[(widest + 1) % len(ordered)])


def _close(layer: Atoms, name: str) -> None:
    """Put a slab together that may be broken in two by the border of its cell, in place."""
    period = float(layer.cell[2, 2])
    vacuum, bottom = largest_empty_space(layer.positions[:, 2], period)
    if vacuum < LEAST_VACUUM:
        raise LosikoError(
            f"{name} {layer.get_chemical_formula()} is said to be periodic in all directions, but its largest empty "
            f"space is {vacuum:.2f} Angstrom high, a slab has at least {LEAST_VACUUM:g}: cut a layer out of it "
            "(cleave, cut_layer), or set its pbc to (True, True, False)"
        )
    _moved_above(layer, bottom)


def _moved_above(atoms: Atoms, start: float) -> FloatArray:
    """Move atoms by the third vector, in place, until all are less than one cell above a height; return how much."""
    above = atoms.positions[:, 2] - start
    # An atom on the border stays on its side whatever the last digit.
    cells = np.floor(above / atoms.cell[2, 2] + 1e-9)
    atoms.positions -= cells[:, None] * atoms.cell.array[2]
    return np.asarray(atoms.positions[:, 2] - start)


def _turned(atoms: Atoms) -> Atoms:
    """Return a copy turned such that a is along x, b in the plane of x and y, and the third vector above it."""
    copy: Atoms = atoms.copy()
    cell = atoms.cell.complete().array
    x = cell[0] / np.linalg.norm(cell[0])
    z = np.cross(cell[0], cell[1])
    z /= np.linalg.norm(z)
    # A proper rotation, left-handed cells included: quartz must not become its mirror image.
    rotation = np.array([x, np.cross(z, x), z]).T
    cell = cell @ rotation
    if cell[2, 2] < 0:
        cell[2] *= -1
    cell[0, 1:], cell[1, 2] = 0.0, 0.0
    copy.set_constraint()
    copy.set_cell(cell)
    copy.positions = atoms.positions @ rotation
    return copy
