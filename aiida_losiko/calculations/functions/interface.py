"""Two layers put onto each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import arguments_for, one_structure
from aiida_losiko.calculations.functions.common import number, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("interface",)


@calcfunction
def interface(
    slab_a: StructureData | StructureSetData, slab_b: StructureData | StructureSetData, parameters: Dict
) -> StructureSetData | ExitCode:
    """Return the interface of two layers in a common cell, atoms far from it frozen if asked.

    Parameters
    ----------
    slab_a, slab_b
        The lower and the upper layer, as `losiko.cleave` makes them; of a set with one structure, or alone.
    parameters
        Those of `aiida_losiko.builders.interface`: `gap` (Angstrom between the outermost nuclei), `max_strain` (0.03
        for 3 %), and optional `strained` (`a`, `b` or `both`, default `b`), `vacuum` (Angstrom; default none and a
        second interface), `max_area` (Angstrom^2, default 400), `max_atoms` (default 1000), `min_length` (Angstrom,
        default 0), `shift` (two fractions, default 0). And `movable_within`: the distance from the interface planes
        in Angstrom beyond which atoms are frozen (`FixAtoms`); default none are.

    Returns
    -------
    StructureSetData
        One structure, with `info["interface"]` and the array `layer`. Exit status 201 for unknown keys and wrong
        values, and for a mismatch above the limit.
    """
    try:
        return _interface(slab_a, slab_b, parameters.get_dict())
    except LosikoError as error:
        return rejected(error)


def _interface(
    slab_a: StructureData | StructureSetData, slab_b: StructureData | StructureSetData, values: dict[str, Any]
) -> StructureSetData:
    from aiida_losiko.builders import interface as build

    movable_within = movable(values)
    arguments = arguments_for(build, values, given=("slab_a", "slab_b"))
    atoms = build(one_structure(slab_a, "slab_a"), one_structure(slab_b, "slab_b"), **arguments)
    return StructureSetData.from_atoms([frozen_beyond(atoms, movable_within)])


def movable(values: dict[str, Any]) -> float | None:
    """Take `movable_within` out of the parameters."""
    within = number(values, "movable_within", None, 0.1, "Angstrom") if "movable_within" in values else None
    values.pop("movable_within", None)
    return within


def frozen_beyond(atoms: Atoms, distance: float | None) -> Atoms:
    """Return an interface of which the atoms farther from its planes do not move; all move where none is given."""
    from aiida_losiko.builders import atoms_near_plane, freeze

    if distance is None:
        return atoms
    near = atoms_near_plane(atoms, distance)
    # Where all are near none is frozen.
    return atoms if near.all() else freeze(atoms, ~near)
