"""Random crystals, the starts of a structure search."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict

from aiida_losiko.calculations.functions.building import arguments_for
from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("random_cells",)


@calcfunction
def random_cells(parameters: Dict) -> StructureSetData | ExitCode:
    """Return random crystals of a composition and a range of densities.

    Parameters
    ----------
    parameters
        Those of `aiida_losiko.builders.random_cells`: `composition` (one formula unit, `"SiO2"` or a mapping),
        `density` (smallest and largest, g/cm3), and optional `count` (default 1), `formula_units` (a number or
        smallest and largest, default 1), `minimal_distances` (factor of the covalent radii, default 0.8, or Angstrom
        for each pair), `max_aspect` (default 2), `angles` (smallest and largest, degree, default 60 and 120),
        `space_groups` (numbers to draw from, with PyXtal), `seed` (default 0), `first` (index of the first cell,
        default 0), `max_tries` (for each cell, default 50), `multiple_of` (of which the number of atoms in a cell is
        a multiple, by repeating it, default 1).

    Returns
    -------
    StructureSetData
        Identifiers `random:<formula>-seed<seed>-<index>`. Exit status 201 for unknown keys and wrong values, and where
        no cell is found.
    """
    from aiida_losiko.builders import random_cells as build

    try:
        cells = build(**arguments_for(build, parameters.get_dict()))
        return StructureSetData.from_atoms(cells, source={"name": "random cells"})
    except LosikoError as error:
        return rejected(error)
