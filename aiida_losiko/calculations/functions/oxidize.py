"""Silicon with oxygen in some of its bonds."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import arguments_for, named_atoms
from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("oxidize",)


@calcfunction
def oxidize(crystal: StructureData | StructureSetData, parameters: Dict) -> StructureSetData | ExitCode:
    """Return crystals of silicon with an oxygen atom in some of their bonds, relaxed by springs.

    Parameters
    ----------
    crystal
        Of fourfold Si, or a set of such.
    parameters
        Those of `aiida_losiko.builders.oxidize`: `share` (of the bonds; a list of them for several structures), and
        optional `supercell` or `n_atoms`, and `seed` (default 0).

    Returns
    -------
    StructureSetData
        One for each crystal and share, identifiers `<crystal>:oxidized-<share>-seed<seed>`. Exit status 201 for unknown
        keys, wrong values and other crystals.
    """
    from aiida_losiko.builders import oxidize as build

    try:
        values: dict[str, Any] = arguments_for(build, parameters.get_dict(), given=("crystal",))
        share = values.pop("share")
        shares = share if isinstance(share, list) else [share]
        source = crystal.source if isinstance(crystal, StructureSetData) else None
        made = [build(atoms, each, **values) for atoms in named_atoms(crystal) for each in shares]
        return StructureSetData.from_atoms(made, source=source)
    except LosikoError as error:
        return rejected(error)
