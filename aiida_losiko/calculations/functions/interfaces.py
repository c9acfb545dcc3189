"""Two layers put onto each other at several distances and places."""

from __future__ import annotations

import inspect
from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import one_structure
from aiida_losiko.calculations.functions.common import check_keys, rejected
from aiida_losiko.calculations.functions.interface import frozen_beyond, movable
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("interfaces",)


@calcfunction
def interfaces(
    slab_a: StructureData | StructureSetData, slab_b: StructureData | StructureSetData, parameters: Dict
) -> StructureSetData | ExitCode:
    """Return the interfaces of two layers at all pairs of a gap and a shift.

    Parameters
    ----------
    slab_a, slab_b
        The lower and the upper layer, as `losiko.cleave` makes them; of a set with one structure, or alone.
    parameters
        Those of `losiko.interface`, but `gaps` (a list) in place of `gap`, and optional `shifts` (a list of pairs) in
        place of `shift`.

    Returns
    -------
    StructureSetData
        One structure for each pair, identifiers `<a>|<b>:gap-<gap>:shift-<x>_<y>`. Exit status 201 for unknown keys and
        wrong values, and for a mismatch above the limit.
    """
    try:
        return _interfaces(slab_a, slab_b, parameters.get_dict())
    except LosikoError as error:
        return rejected(error)


def _interfaces(
    slab_a: StructureData | StructureSetData, slab_b: StructureData | StructureSetData, values: dict[str, Any]
) -> StructureSetData:
    from aiida_losiko.builders import interface
    from aiida_losiko.builders import interfaces as build

    movable_within = movable(values)
    single = set(inspect.signature(interface).parameters) - {"slab_a", "slab_b", "gap", "shift"}
    check_keys(values, {"gaps", "shifts", *single})
    for needed in ("gaps", "max_strain"):
        if needed not in values:
            raise LosikoError(f"parameters have no {needed!r}: gaps (a list of Angstrom) and max_strain are needed")
    made = build(one_structure(slab_a, "slab_a"), one_structure(slab_b, "slab_b"), **values)
    return StructureSetData.from_atoms([frozen_beyond(atoms, movable_within) for atoms in made])
