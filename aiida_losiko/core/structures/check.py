"""The check that every structure passes before work starts on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

COINCIDENT = 0.01
"""Two atoms closer than this (Angstrom) are one atom written twice: half of the shortest bond is 0.37 Angstrom."""

SHORTEST_PERIOD = 0.3
"""An atom closer to its own periodic image than this (Angstrom) has neighbours without end: no crystal is so dense."""

LARGEST = 1e6
"""Coordinates and lattice vectors beyond this (Angstrom, a tenth of a millimetre) are in another unit or wrong."""

FLAT = 1e-3
"""A cell whose lattice planes in a periodic direction are closer than this (Angstrom) has no volume."""


def check_structure(atoms: Atoms, species: Iterable[str] | None = None) -> None:
    """Refuse a structure that nothing sensible can be done with.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.
    species : iterable of str, optional
        The symbols that are allowed; default any real element.

    Raises
    ------
    LosikoError
        No atoms; NaN or infinite positions or cell; partial or mixed occupancies (``info["occupancy"]``); dummy atoms
        or a species outside ``species``; a cell with no volume in its periodic directions, or that repeats within
        ``SHORTEST_PERIOD``; coordinates beyond ``LARGEST``; two atoms closer than ``COINCIDENT``.
    """
    if len(atoms) == 0:
        raise LosikoError("the structure has no atoms; give at least one")
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise LosikoError(
            f"atom {bad[0]} ({atoms.symbols[bad[0]]}) has the position {_vector(atoms.positions[bad[0]])}; "
            f"{len(bad)} of {len(atoms)} atoms are not finite numbers: give coordinates in Angstrom"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise LosikoError("the cell holds NaN or infinite numbers; give three finite vectors in Angstrom")
    largest = max(np.abs(atoms.positions).max(), np.abs(atoms.cell.array).max())
    if largest > LARGEST:
        raise LosikoError(
            f"a coordinate or lattice vector is {largest:.6g} Angstrom long; allowed is at most {LARGEST:g}: "
            "give Angstrom, near the origin"
        )
    if site := partial_site(atoms):
        raise LosikoError(site)
    _check_species(atoms, species)
    cell = _check_cell(atoms.cell.array, atoms.pbc)
    if pair := _coincident_pair(atoms.positions, cell, atoms.pbc):
        i, j, distance = pair
        raise LosikoError(
            f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}) are {distance:.2g} Angstrom apart"
            f"{' (periodic images count)' if atoms.pbc.any() else ''}; allowed is at least {COINCIDENT:g}: "
            "remove one or move them apart"
        )


def partial_site(atoms: Atoms) -> str | None:
    """Say what is partly occupied in ``info["occupancy"]`` (ASE's CIF reader: ``{kind: {symbol: occupancy}}``)."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, dict):
        return None
    for site, content in occupancy.items():
        if not isinstance(content, dict):
            continue
        if len(content) > 1 or any(abs(float(value) - 1.0) > 1e-6 for value in content.values()):
            shares = ", ".join(f"{symbol} {float(value):g}" for symbol, value in content.items())
            return (
                f"site {site} is partly occupied or mixed ({shares}); every site needs one species with "
                "occupancy 1: make an ordered structure first"
            )
    return None


def _check_species(atoms: Atoms, species: Iterable[str] | None) -> None:
    present = sorted(set(atoms.symbols))
    if "X" in present:
        raise LosikoError("the structure has dummy atoms (X); give real elements only")
    if species is None:
        return
    allowed = list(species)
    outside = [symbol for symbol in present if symbol not in allowed]
    if outside:
        raise LosikoError(
            f"species {', '.join(outside)} not allowed here; allowed are {', '.join(allowed)}: "
            "use a database that holds them or leave the structure out"
        )


def _check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a full cell that spans the same periodic lattice, with planes at least ``COINCIDENT`` apart if it can."""
    if not pbc.any():
        return np.eye(3)
    from ase.geometry import complete_cell, minkowski_reduce

    periodic = np.where(pbc[:, None], cell, 0.0)
    vectors = periodic[pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    heights = np.zeros(len(vectors))
    if lengths.min() > 0:
        # Gram determinant: also for one or two periodic directions
        volume = np.sqrt(max(np.linalg.det((vectors / lengths[:, None]) @ (vectors / lengths[:, None]).T), 0.0))
        if volume > 1e-12:
            heights = 1.0 / np.linalg.norm(np.linalg.pinv(vectors), axis=0)
    if 0 < heights.min() < SHORTEST_PERIOD:
        # a very skewed cell of a sound lattice looks flat until it is reduced
        periodic = np.asarray(minkowski_reduce(periodic, pbc=pbc)[0])
        heights = 1.0 / np.linalg.norm(np.linalg.pinv(periodic[pbc]), axis=0)
    if heights.min() < FLAT:
        raise LosikoError(
            f"the cell has no volume in its periodic directions (vectors {', '.join(_vector(v) for v in vectors)}); "
            "give independent vectors in Angstrom or set pbc to False"
        )
    shortest = np.linalg.norm(periodic[pbc], axis=1).min()
    if shortest < SHORTEST_PERIOD:
        raise LosikoError(
            f"the lattice repeats after {shortest:.3g} Angstrom; allowed is at least {SHORTEST_PERIOD:g}: "
            "give lattice vectors in Angstrom or set pbc to False"
        )
    return np.asarray(complete_cell(periodic), dtype=np.float64)


def _coincident_pair(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> tuple[int, int, float] | None:
    """Return the closest pair below ``COINCIDENT`` (atom, atom, distance), periodic images included."""
    from scipy.spatial import cKDTree

    points, owners = positions, np.arange(len(positions))
    if pbc.any():
        inverse = np.linalg.inv(cell)
        fractions = positions @ inverse
        fractions[:, pbc] -= np.floor(fractions[:, pbc])
        margins = COINCIDENT * np.linalg.norm(inverse, axis=0)
        for axis in np.flatnonzero(pbc):
            # copies of what lies within the threshold of a face; after three axes edges and corners are there too
            copies, names = [fractions], [owners]
            for shift in range(-int(np.ceil(margins[axis])), int(np.ceil(margins[axis])) + 1):
                if shift == 0:
                    continue
                moved = fractions[:, axis] + shift
                near = (moved > -margins[axis]) & (moved < 1.0 + margins[axis])
                copy = fractions[near].copy()
                copy[:, axis] = moved[near]
                copies.append(copy)
                names.append(owners[near])
            fractions, owners = np.concatenate(copies), np.concatenate(names)
        points = fractions @ cell
    pairs = cKDTree(points).query_pairs(COINCIDENT, output_type="ndarray")
    if not len(pairs):
        return None
    distances = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    closest = int(distances.argmin())
    first, second = sorted(int(owners[k]) for k in pairs[closest])
    return first, second, float(distances[closest])


def _vector(vector: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in vector) + ")"
