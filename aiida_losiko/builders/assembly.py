"""Interfaces: two layers put onto each other, their bonds as they were cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.layers import LEAST_VACUUM, as_layer
from aiida_losiko.builders.matching import STRAINED, Match, match_layers
from aiida_losiko.builders.supercell import name_of
from aiida_losiko.core.checks import is_real, is_whole, require

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]


def interface(
    slab_a: Atoms,
    slab_b: Atoms,
    *,
    gap: float,
    max_strain: float,
    strained: str = "b",
    vacuum: float | None = None,
    max_area: float = 400.0,
    max_atoms: int = 1000,
    min_length: float = 0.0,
    shift: Sequence[float] = (0.0, 0.0),
) -> Atoms:
    """Put one layer onto another in a common cell.

    Both are repeated, turned about the normal, and strained in the plane until they fit; what is normal to the plane
    stays as it is. Of all common cells within the limits it is the one with the fewest atoms that is taken. No bond is
    healed, no atom moved beyond that.

    Parameters
    ----------
    slab_a, slab_b
        The lower and the upper layer: of `aiida_losiko.builders.cleave` (crystals), of `cut_layer` (amorphous cells),
        or any slab that is periodic along its first two vectors and along the third either not, or with vacuum.
    gap
        Between the outermost nuclei of the two, Angstrom, above zero.
    max_strain
        Largest principal strain of either layer, absolute: 0.03 for 3 %.
    strained
        ``"a"``, ``"b"``, or ``"both"``, each half of the (logarithmic) strain.
    vacuum
        Above the upper layer, Angstrom, at least 5; None for layers that go on without end, with a second interface,
        and the same gap, above the upper layer.
    max_area, max_atoms, min_length
        Of the common cell: Angstrom^2, atoms, and shortest vector in the plane, Angstrom.
    shift
        Of the upper layer in fractions of the common cell's two vectors.

    Returns
    -------
    ase.Atoms
        Periodic in all directions, the third vector along z, the lower layer's atoms first. The array ``layer`` holds
        0 and 1. ``info["interface"]`` has the heights of the `planes` midway between the layers (two without vacuum),
        the `strain` (3, 3) of both layers and the `matrix` (2, 2) by which each was repeated, `mismatch`, `area` and
        the parameters; the identifier is ``"<a>|<b>"``.

    Raises
    ------
    LosikoError
        For a slab that is not periodic in the plane, or that is said to be periodic along the normal without vacuum;
        for a mismatch above the limit, with its value; for wrong parameters.
    """
    _check(gap, max_strain, strained, vacuum, max_area, max_atoms, min_length, shift)
    layers = (as_layer(slab_a, "slab_a"), as_layer(slab_b, "slab_b"))
    match = match_layers(
        (layers[0].cell.array[:2, :2], layers[1].cell.array[:2, :2]),
        (len(layers[0]), len(layers[1])),
        strained=strained,
        max_strain=max_strain,
        max_area=max_area,
        max_atoms=max_atoms,
        min_length=min_length,
    )
    lower, upper = (_fitted(layer, match, side) for side, layer in enumerate(layers))
    thicknesses = [float(np.ptp(layer.positions[:, 2])) for layer in (lower, upper)]
    # The lower layer starts half a gap up: planes and layers lie inside the cell, none on its border.
    lower.positions[:, 2] += 0.5 * gap
    upper.positions += [*(np.asarray(shift, dtype=np.float64) @ match.cell), 1.5 * gap + thicknesses[0]]
    planes = [gap + thicknesses[0]]
    height = 1.5 * gap + sum(thicknesses)
    if vacuum is None:
        height += 0.5 * gap
        # On the border itself: its image at the bottom is the same plane.
        planes.append(height)
    else:
        height += vacuum - 0.5 * gap
    return _assembled(lower, upper, match, height, planes, (slab_a, slab_b), _parameters(gap, strained, vacuum, shift))


def _fitted(layer: Atoms, match: Match, side: int) -> Atoms:
    """Return a layer repeated and strained into the common cell."""
    from ase.build import make_supercell

    rows = np.eye(3, dtype=np.int64)
    rows[:2, :2] = match.matrices[side]
    fitted: Atoms = make_supercell(layer, rows, wrap=False)
    fitted.positions[:, :2] = fitted.positions[:, :2] @ match.maps[side]
    return fitted


def _assembled(
    lower: Atoms,
    upper: Atoms,
    match: Match,
    height: float,
    planes: list[float],
    slabs: tuple[Atoms, Atoms],
    parameters: dict[str, Any],
) -> Atoms:
    from ase import Atoms

    cell = np.zeros((3, 3))
    cell[:2, :2] = match.cell
    cell[2, 2] = height
    atoms = Atoms(
        np.concatenate([lower.numbers, upper.numbers]),
        positions=np.concatenate([lower.positions, upper.positions]),
        cell=cell,
        pbc=True,
    )
    atoms.wrap(pbc=(True, True, False))
    atoms.set_array("layer", np.repeat([0, 1], [len(lower), len(upper)]))
    atoms.info["identifier"] = "|".join(name_of(slab) for slab in slabs)
    atoms.info["interface"] = {
        "planes": planes,
        "strain": [_in_space(strain) for strain in match.strains],
        "matrix": [rows.tolist() for rows in match.matrices],
        "mismatch": match.mismatch,
        "area": match.area,
        "slabs": [slab.info.get("layer") for slab in slabs],
        **parameters,
    }
    return atoms


def _in_space(strain: FloatArray) -> list[list[float]]:
    rows = np.zeros((3, 3))
    rows[:2, :2] = strain
    return [[float(value) for value in row] for row in rows]


def _parameters(gap: float, strained: str, vacuum: float | None, shift: Sequence[float]) -> dict[str, Any]:
    return {
        "gap": float(gap),
        "strained": strained,
        "vacuum": None if vacuum is None else float(vacuum),
        "shift": [float(value) for value in shift],
    }


def _check(
    gap: float,
    max_strain: float,
    strained: str,
    vacuum: float | None,
    max_area: float,
    max_atoms: int,
    min_length: float,
    shift: Sequence[float],
) -> None:
    require("gap", gap, is_real(gap) and gap > 0, "a number of Angstrom above zero")
    allowed = is_real(max_strain) and 0 <= max_strain <= 0.5
    require("max_strain", max_strain, allowed, "a number from 0 to 0.5, 0.03 for 3 %")
    require("strained", strained, isinstance(strained, str) and strained in STRAINED, f"one of {', '.join(STRAINED)}")
    require(
        "vacuum",
        vacuum,
        vacuum is None or (is_real(vacuum) and vacuum >= LEAST_VACUUM),
        f"at least {LEAST_VACUUM:g} Angstrom, or left out for layers without end and a second interface",
    )
    require("max_area", max_area, is_real(max_area) and max_area > 0, "a number of Angstrom^2 above zero")
    require("max_atoms", max_atoms, is_whole(max_atoms, 2), "a whole number of at least 2")
    require("min_length", min_length, is_real(min_length) and min_length >= 0, "a number of Angstrom of at least 0")
    pair = isinstance(shift, Sequence | np.ndarray) and len(shift) == 2 and all(is_real(value) for value in shift)
    require("shift", shift, pair, "two numbers, fractions of the common cell's vectors")
