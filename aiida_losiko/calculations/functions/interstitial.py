"""One atom put into a void of a supercell."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import build_defects
from aiida_losiko.data import StructureSetData

__all__ = ("interstitial",)


@calcfunction
def interstitial(host: StructureData | StructureSetData, parameters: Dict) -> StructureSetData | ExitCode:
    """Return supercells with one atom more, for each kind of void.

    Parameters
    ----------
    host
        A crystal, or a set of them.
    parameters
        Those of `aiida_losiko.builders.interstitial`: `new` (symbol), and optional `supercell` (three whole numbers
        or three rows of them) or `n_atoms` (about how many, or fewest and most), `orbit` (the one to take, from 0;
        default all), `symprec` (Angstrom, default 0.01), `minimal_distance` of the void from the nearest atoms
        (Angstrom, default 1).

    Returns
    -------
    StructureSetData
        One structure for each kind of void, the largest first, identifiers `<host>:<new>_i-<orbit>`, with
        `info["defect"]`. Exit status 201 for unknown keys and wrong values, and where no void is as large.
    """
    from aiida_losiko.builders import interstitial as build

    return build_defects(build, host, parameters)
