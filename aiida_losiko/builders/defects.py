"""Point defects: one atom replaced, taken out or added in a supercell, once for each site that symmetry tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.orbits import Orbit, find_orbits
from aiida_losiko.builders.supercell import SYMPREC, Matrix, check_crystal, make_supercell, name_of
from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]


def substitute(
    host: Atoms,
    old: str,
    new: str,
    *,
    supercell: Matrix | None = None,
    n_atoms: int | Sequence[int] | None = None,
    orbit: int | None = None,
    symprec: float = SYMPREC,
) -> list[Atoms]:
    """Replace one atom of a supercell by another element.

    Parameters
    ----------
    host
        A crystal.
    old, new
        Symbols: the atom that goes, the one that comes.
    supercell, n_atoms
        See `aiida_losiko.builders.supercell.make_supercell`: a matrix, or about how many atoms.
    orbit
        The one to take among the orbits of `old`, from 0; None for a structure with each.
    symprec
        Angstrom that atoms may be off their ideal sites.

    Returns
    -------
    list of ase.Atoms
        The supercell with the new atom in the place of an old one, the one closest to the middle. In `info` the
        `identifier` ``"<host>:<new>_<old>-<orbit>"``, and `defect` with, among others, the `index` of the atom, the
        `wyckoff` position and its `multiplicity`.

    Raises
    ------
    LosikoError
        For an element that is not there or not real, an orbit that is not there, a host that is no crystal, and a
        supercell that cannot be.
    """
    _check_element("new", new)
    require("new", new, new != old, f"another element than {old}")
    cells, orbits = _sites(host, old, orbit, supercell, n_atoms, symprec)
    made = []
    for rank, found, index in orbits:
        atoms = cells[0].copy()
        atoms.symbols[index] = new
        details = {"kind": "substitution", "old": old, "new": new, "index": index}
        details |= _of_site(found, rank, cells[0].positions[index])
        made.append(_labelled(atoms, host, f"{new}_{old}", details, cells))
    return made


def vacancy(
    host: Atoms,
    element: str,
    *,
    supercell: Matrix | None = None,
    n_atoms: int | Sequence[int] | None = None,
    orbit: int | None = None,
    symprec: float = SYMPREC,
) -> list[Atoms]:
    """Take one atom out of a supercell.

    Parameters
    ----------
    host
        A crystal.
    element
        Symbol of the atom that goes.
    supercell, n_atoms, orbit, symprec
        As for `substitute`.

    Returns
    -------
    list of ase.Atoms
        As for `substitute`, with the identifier ``"<host>:v_<element>-<orbit>"``; `defect` has the `removed_index` of
        the atom in the supercell, and its `position`.

    Raises
    ------
    LosikoError
        As for `substitute`, and where no atom would be left.
    """
    cells, orbits = _sites(host, element, orbit, supercell, n_atoms, symprec)
    if len(cells[0]) == 1:
        raise LosikoError(f"a vacancy in a supercell of 1 atom ({element}) leaves nothing: ask for a larger supercell")
    made = []
    for rank, found, index in orbits:
        atoms = cells[0].copy()
        del atoms[index]
        details = {"kind": "vacancy", "old": element, "removed_index": index}
        details |= _of_site(found, rank, cells[0].positions[index])
        made.append(_labelled(atoms, host, f"v_{element}", details, cells))
    return made


def interstitial(
    host: Atoms,
    new: str,
    *,
    minimal_distance: float = 1.0,
    supercell: Matrix | None = None,
    n_atoms: int | Sequence[int] | None = None,
    orbit: int | None = None,
    symprec: float = SYMPREC,
) -> list[Atoms]:
    """Put one atom into a void of a supercell.

    Parameters
    ----------
    host
        A crystal.
    new
        Symbol of the atom that comes.
    minimal_distance
        Of the void from the nearest atoms, Angstrom.
    supercell, n_atoms, symprec
        As for `substitute`.
    orbit
        The void to take, from 0, the largest first; None for a structure with each.

    Returns
    -------
    list of ase.Atoms
        As for `substitute`, the new atom last, with the identifier ``"<host>:<new>_i-<orbit>"``; the `radius` in
        `defect` is the distance to the nearest atoms. The voids are those of
        `aiida_losiko.builders.voids.find_voids`.

    Raises
    ------
    LosikoError
        As for `substitute`, and where no void is as large.
    """
    from ase import Atoms

    from aiida_losiko.builders.voids import find_voids

    _check_element("new", new)
    allowed = is_real(minimal_distance) and minimal_distance > 0
    require("minimal_distance", minimal_distance, allowed, "a number of Angstrom above zero")
    cells = make_supercell(host, supercell, n_atoms, symprec)
    every = find_voids(cells[1], symprec)
    voids = [void for void in every if void.radius >= minimal_distance]
    if not voids:
        raise LosikoError(
            f"minimal_distance={minimal_distance!r} leaves no void of {host.get_chemical_formula()}: the largest is "
            f"{every[0].radius:.3f} Angstrom from the nearest atoms, ask for no more than that"
        )
    space_group = find_orbits(cells[1], symprec)[0].space_group
    made = []
    for rank, void in _chosen(voids, orbit, "voids"):
        position = _closest_to_the_middle(void.positions, cells[0], cells[1])
        atoms = cells[0] + Atoms(new, positions=[position])
        details = {"kind": "interstitial", "new": new, "index": len(atoms) - 1, "radius": void.radius}
        details |= {"orbit": rank, "multiplicity": len(void.positions), "space_group": space_group}
        details |= {"position": position.tolist()}
        made.append(_labelled(atoms, host, f"{new}_i", details, cells))
    return made


def _sites(
    host: Atoms,
    element: str,
    orbit: int | None,
    supercell: Matrix | None,
    n_atoms: int | Sequence[int] | None,
    symprec: float,
) -> tuple[tuple[Atoms, Atoms, NDArray[np.int64]], list[tuple[int, Orbit, int]]]:
    """Return supercell, cell and matrix, and of each orbit its rank, itself, and an atom of the supercell."""
    check_crystal(host)
    if element not in set(host.symbols):
        raise LosikoError(
            f"element {element!r} is not in {host.get_chemical_formula()}; allowed are "
            f"{', '.join(sorted(set(host.symbols)))}"
        )
    cells = make_supercell(host, supercell, n_atoms, symprec)
    # Of the cell that is repeated, not of the supercell: its shape may break the symmetry that the sites have.
    orbits = [found for found in find_orbits(cells[1], symprec) if found.symbol == element]
    sites = []
    for rank, found in _chosen(orbits, orbit, f"orbits of {element}"):
        copies = np.flatnonzero(np.isin(np.arange(len(cells[0])) % len(cells[1]), found.indices))
        middle = 0.5 * cells[0].cell.array.sum(axis=0)
        distances = np.linalg.norm(cells[0].positions[copies] - middle, axis=1)
        sites.append((rank, found, int(copies[int(np.argmin(distances.round(4)))])))
    return cells, sites


def _chosen(sites: Sequence[Any], orbit: int | None, what: str) -> list[tuple[int, Any]]:
    if orbit is None:
        return list(enumerate(sites))
    if not is_whole(orbit) or orbit >= len(sites):
        raise LosikoError(
            f"orbit={orbit!r} of {len(sites)} {what}: give a whole number from 0 to {len(sites) - 1}, or leave it out "
            "for all"
        )
    return [(int(orbit), sites[orbit])]


def _closest_to_the_middle(positions: FloatArray, supercell: Atoms, cell: Atoms) -> FloatArray:
    """Return the copy of the positions of a cell that is closest to the middle of the supercell."""
    middle = 0.5 * supercell.cell.array.sum(axis=0)
    vectors = cell.cell.array
    shifts = np.array(list(product((-1, 0, 1), repeat=3)))
    nearest = np.round(np.linalg.solve(vectors.T, (middle - positions).T).T)
    copies = (positions[:, None] + (nearest[:, None] + shifts[None]) @ vectors).reshape(-1, 3)
    distances = np.linalg.norm(copies - middle, axis=1).round(4)
    return np.asarray(copies[int(np.argmin(distances))])


def _of_site(orbit: Orbit, rank: int, position: FloatArray) -> dict[str, Any]:
    return {
        "orbit": rank,
        "wyckoff": orbit.wyckoff,
        "multiplicity": orbit.multiplicity,
        "space_group": orbit.space_group,
        "position": position.tolist(),
    }


def _labelled(
    atoms: Atoms,
    host: Atoms,
    name: str,
    details: dict[str, Any],
    cells: tuple[Atoms, Atoms, NDArray[np.int64]],
) -> Atoms:
    of = name_of(host)
    atoms.info["identifier"] = f"{of}:{name}-{details['orbit']}"
    repeated = {"supercell": cells[2].tolist(), "repeated_cell": cells[1].cell.array.tolist()}
    atoms.info["defect"] = {"name": name, "host": of} | details | repeated
    return atoms


def _check_element(name: str, symbol: Any) -> None:
    from ase.data import atomic_numbers

    known = isinstance(symbol, str) and atomic_numbers.get(symbol, 0) > 0
    require(name, symbol, known, "the symbol of an element")
