"""One atom taken out of a supercell."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import build_defects
from aiida_losiko.data import StructureSetData

__all__ = ("vacancy",)


@calcfunction
def vacancy(host: StructureData | StructureSetData, parameters: Dict) -> StructureSetData | ExitCode:
    """Return supercells in which one atom is missing, for each orbit of its element.

    Parameters
    ----------
    host
        A crystal, or a set of them.
    parameters
        Those of `aiida_losiko.builders.vacancy`: `element` (symbol), and optional `supercell` (three whole numbers
        or three rows of them) or `n_atoms` (about how many, or fewest and most), `orbit` (the one to take, from 0;
        default all), `symprec` (Angstrom, default 0.01).

    Returns
    -------
    StructureSetData
        One structure for each orbit, identifiers `<host>:v_<element>-<orbit>`, with `info["defect"]`. Exit status
        201 for unknown keys and wrong values.
    """
    from aiida_losiko.builders import vacancy as build

    return build_defects(build, host, parameters)
