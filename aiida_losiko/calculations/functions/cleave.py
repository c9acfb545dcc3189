"""A layer cut out of a crystal or of an amorphous cell."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import arguments_for, named_atoms
from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("cleave",)


@calcfunction
def cleave(structure: StructureData | StructureSetData, parameters: Dict) -> StructureSetData | ExitCode:
    """Return layers for an interface, their bonds as they were cut.

    Parameters
    ----------
    structure
        A crystal or an amorphous cell, or a set of them.
    parameters
        With `miller` (three whole numbers) those of `aiida_losiko.builders.cleave`, for crystals: `thickness` (at
        least so many Angstrom), and optional `termination` (from 0, default 0), `conventional` (whose indices they
        are, default True), `symprec` (Angstrom, default 0.01). Without `miller` those of
        `aiida_losiko.builders.cut_layer`, for any cell: optional `thickness` (Angstrom; default the whole cell) and
        `start` (height of the lower cut, Angstrom, default 0).

    Returns
    -------
    StructureSetData
        One layer for each structure, periodic in the plane, identifiers `<structure>:slab-<h>_<k>_<l>-<termination>`
        or `<structure>:layer-<start>-<thickness>`. Exit status 201 for unknown keys and wrong values.
    """
    from aiida_losiko.builders import cleave as build
    from aiida_losiko.builders import cut_layer

    try:
        values = parameters.get_dict()
        made = []
        for atoms in named_atoms(structure):
            if "miller" in values:
                made.append(build(atoms, **arguments_for(build, values, given=("bulk",))))
            else:
                made.append(cut_layer(atoms, **arguments_for(cut_layer, values, given=("atoms",))))
        source = structure.source if isinstance(structure, StructureSetData) else None
        return StructureSetData.from_atoms(made, source=source)
    except LosikoError as error:
        return rejected(error)
