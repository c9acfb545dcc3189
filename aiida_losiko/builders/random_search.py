"""Random crystals: starts of a structure search (Pickard and Needs, J. Phys.: Condens. Matter 23, 053201, 2011)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.cell_request import CellRequest, check_request
from aiida_losiko.builders.distances import DEFAULT_SCALE, Distances, push_apart, smallest_ratio
from aiida_losiko.core.checks import is_whole, require
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]

MOST_REPEATS = 100
"""Largest `multiple_of`: each cell may become so many times as large."""

PLACEMENT_TRIES = 100
"""Random places that an atom is given before the best of them is taken, to be pushed from there."""


def random_cells(
    composition: str | Mapping[str, int],
    count: int = 1,
    *,
    density: Sequence[float],
    formula_units: int | Sequence[int] = 1,
    minimal_distances: Distances = DEFAULT_SCALE,
    max_aspect: float = 2.0,
    angles: Sequence[float] = (60.0, 120.0),
    space_groups: Sequence[int] | None = None,
    seed: int = 0,
    first: int = 0,
    max_tries: int = 50,
    multiple_of: int = 1,
) -> list[Atoms]:
    """Return random crystals of a composition and a range of densities.

    A lattice with bounded lengths and angles is drawn and scaled to a density drawn uniformly. The atoms are put at
    random places one after the other, each anew until it is far enough from those that are there. Where no such place
    is found, the cell is filled all the same and its atoms are pushed apart; what is still too close then is thrown
    away, and another lattice drawn.

    Parameters
    ----------
    composition
        Of one formula unit: ``"SiO2"`` or ``{"Si": 1, "O": 2}``.
    count
        Number of cells.
    density
        Smallest and largest, in g/cm3.
    formula_units
        In the cell (with space groups: in the conventional cell); of a pair, smallest and largest, a number is drawn
        uniformly. ``composition="C"`` with ``(1, 8)`` gives cells of up to 8 atoms.
    minimal_distances
        A factor of the sum of the covalent radii, or Angstrom for each pair, ``{"Si-O": 1.4}``; pairs left out get
        0.8 of their radii. Periodic images count.
    max_aspect
        Largest ratio of two cell lengths, at least 1.
    angles
        Smallest and largest cell angle, degree.
    space_groups
        Numbers (1 to 230) to draw from, for which PyXtal is needed; None for cells without symmetry. Lattices are
        PyXtal's then, with angles as the group has them.
    seed
        Of the random numbers. A cell depends on the seed and its index alone, not on `count`.
    first
        Index of the first cell.
    max_tries
        Lattices drawn for each cell before giving up.
    multiple_of
        The number of atoms in a cell is a multiple of this: others are repeated along their shortest axis, and are the
        same crystals with more freedom. With 2, all may become what has an even number of atoms, as diamond.

    Returns
    -------
    list of ase.Atoms
        Periodic, with ``info["identifier"]`` ``"random:<formula>-seed<seed>-<index>"`` and ``info["random_cell"]``.

    Raises
    ------
    LosikoError
        For wrong parameters, and where no cell with these distances is found at the density.
    """
    request = check_request(
        composition, density, formula_units, minimal_distances, max_aspect, angles, space_groups, seed, max_tries
    )
    require("count", count, is_whole(count, 1), "a whole number of at least 1")
    require("first", first, is_whole(first), "a whole number of at least 0")
    require(
        "multiple_of", multiple_of, is_whole(multiple_of, 1) and multiple_of <= MOST_REPEATS, f"1 to {MOST_REPEATS}"
    )
    return [_repeated(_random_cell(request, index), multiple_of) for index in range(first, first + count)]


def _repeated(atoms: Atoms, multiple_of: int) -> Atoms:
    """Return the crystal in a cell whose number of atoms is a multiple."""
    repeats = multiple_of // math.gcd(len(atoms), multiple_of)
    if repeats == 1:
        return atoms
    shape = np.ones(3, dtype=int)
    shape[np.argmin(atoms.cell.lengths())] = repeats
    repeated: Atoms = atoms.repeat(shape)
    repeated.info["random_cell"] = {**atoms.info["random_cell"], "repeats": repeats}
    return repeated


def _random_cell(request: CellRequest, index: int) -> Atoms:
    """Return the cell of an index."""
    generator = np.random.default_rng([request.seed, index])
    for _ in range(request.max_tries):
        symbols = request.contents(int(generator.integers(*request.formula_units, endpoint=True)))
        density = float(generator.uniform(*request.density))
        if request.space_groups:
            from aiida_losiko.builders.space_groups import symmetric_cell

            group = int(generator.choice(request.space_groups))
            atoms, pushed = symmetric_cell(request, symbols, volume_of(symbols, density), group, generator), False
        else:
            group = 0
            atoms, pushed = _cell_without_symmetry(request, symbols, volume_of(symbols, density), generator)
        if atoms is not None:
            details = {"seed": request.seed, "index": index, "density": density, "pushed": pushed}
            return _labelled(atoms, details | ({"space_group": group} if group else {}))
    raise LosikoError(_no_cell(request, index))


def _cell_without_symmetry(
    request: CellRequest, symbols: Sequence[str], volume: float, generator: np.random.Generator
) -> tuple[Atoms | None, bool]:
    """Return a cell, or None where atoms remain too close; and whether they had to be pushed."""
    from ase import Atoms

    cell = random_lattice(volume, request.max_aspect, request.angles, generator)
    own_image = max(request.distances[f"{symbol}-{symbol}"] for symbol in set(symbols))
    # An atom cannot be pushed away from its own image.
    if cell is None or shortest_vector(cell) < own_image:
        return None, False
    atoms = Atoms(cell=cell, pbc=True)
    places = np.empty((len(symbols), 3))
    crowded = False
    # In random order, or the elements that come first would have more room.
    for index in generator.permutation(len(symbols)):
        # Where one atom found no room the next ones need not look for it as long: they will be pushed anyway.
        tries = 1 if crowded else PLACEMENT_TRIES
        atoms, ratio = _with_one_more(atoms, symbols[index], request.distances, tries, generator)
        crowded = crowded or ratio < 1.0
        places[index] = atoms.positions[-1]
    atoms = Atoms(symbols, positions=places, cell=cell, pbc=True)
    if crowded and not push_apart(atoms, request.distances):
        return None, True
    return atoms, crowded


def _with_one_more(
    atoms: Atoms, symbol: str, distances: Mapping[str, float], tries: int, generator: np.random.Generator
) -> tuple[Atoms, float]:
    """Return the atoms and one more at the first random place that is allowed, else at the best; and its ratio."""
    from ase import Atoms

    best, best_ratio = atoms, -1.0
    for _ in range(tries):
        trial = atoms + Atoms(symbol, positions=[generator.random(3) @ atoms.cell.array])
        ratio = smallest_ratio(trial, distances)
        if ratio > best_ratio:
            best, best_ratio = trial, ratio
        if ratio >= 1.0:
            break
    return best, best_ratio


def random_lattice(
    volume: float, max_aspect: float, angles: tuple[float, float], generator: np.random.Generator
) -> FloatArray | None:
    """Return lattice vectors (3, 3) in Angstrom with lengths and angles drawn uniformly, or None where they are flat.

    Parameters
    ----------
    volume
        Angstrom^3.
    max_aspect
        Largest ratio of two lengths.
    angles
        Smallest and largest, degree.
    generator
        Of the random numbers.
    """
    from ase.cell import Cell

    lengths = generator.uniform(1.0, max_aspect, size=3)
    alpha, beta, gamma = generator.uniform(*angles, size=3)
    # Three angles make a cell when each is smaller than the sum of the others, and all three below a full turn.
    largest = max(alpha, beta, gamma)
    if alpha + beta + gamma >= 359.0 or 2 * largest >= alpha + beta + gamma - 1.0:
        return None
    cell = np.asarray(Cell.fromcellpar([*lengths, alpha, beta, gamma]).array, dtype=np.float64)
    own_volume = abs(float(np.linalg.det(cell)))
    if own_volume < 0.1 * float(np.prod(lengths)):
        return None
    return np.asarray(cell * (volume / own_volume) ** (1 / 3))


def shortest_vector(cell: FloatArray) -> float:
    """Return the length of the shortest lattice vector in Angstrom."""
    from ase.geometry import minkowski_reduce

    return float(np.linalg.norm(minkowski_reduce(cell)[0], axis=1).min())


def volume_of(symbols: Sequence[str], density: float) -> float:
    """Return the volume in Angstrom^3 of atoms at a density in g/cm3."""
    from ase import units
    from ase.data import atomic_masses, atomic_numbers

    mass = sum(float(atomic_masses[atomic_numbers[symbol]]) for symbol in symbols)
    # g/cm3 are 1e-3 kg / (1e8 Angstrom)^3.
    return mass * units._amu * 1e27 / density


def _labelled(atoms: Atoms, details: dict[str, Any]) -> Atoms:
    formula = atoms.get_chemical_formula()
    atoms.info["identifier"] = f"random:{formula}-seed{details['seed']}-{details['index']}"
    atoms.info["random_cell"] = details
    return atoms


def _no_cell(request: CellRequest, index: int) -> str:
    symbols = request.contents(request.formula_units[1])
    spheres = sum(np.pi / 6 * request.distances[f"{symbol}-{symbol}"] ** 3 for symbol in symbols)
    share = spheres / volume_of(symbols, request.density[1])
    distances = ", ".join(f"{pair} {value:.3g}" for pair, value in request.distances.items())
    groups = f" in space groups {', '.join(map(str, request.space_groups))}" if request.space_groups else ""
    return (
        f"random cell {index}: no cell of {request.formula} at {request.density[0]:g} to "
        f"{request.density[1]:g} g/cm3{groups} with distances of at least {distances} Angstrom in "
        f"{request.max_tries} tries (spheres of that size fill {100 * share:.0f} % of the densest, random packings "
        "64 %); lower density or minimal_distances, or allow more max_tries"
    )
