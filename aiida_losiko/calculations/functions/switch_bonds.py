"""A glass out of a crystal of silicon and oxygen."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.building import arguments_for, named_atoms
from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("switch_bonds",)


@calcfunction
def switch_bonds(crystal: StructureData | StructureSetData, parameters: Dict) -> StructureSetData | ExitCode:
    """Return a glass with all bonds for each crystal.

    Parameters
    ----------
    crystal
        Of fourfold Si, linked directly or by twofold O, or a set of them.
    parameters
        Those of `aiida_losiko.builders.switch_bonds`, all optional: `supercell` or `n_atoms`, `trials` (per fourfold
        atom, default 30), `temperatures` (first and last, eV, default 4 and 0.1), `seed` (default 0).

    Returns
    -------
    StructureSetData
        Identifiers `<crystal>:glass-seed<seed>`. Exit status 201 for unknown keys, wrong values and other crystals.
    """
    from aiida_losiko.builders import switch_bonds as build

    try:
        values = arguments_for(build, parameters.get_dict(), given=("crystal",))
        source = crystal.source if isinstance(crystal, StructureSetData) else None
        return StructureSetData.from_atoms([build(atoms, **values) for atoms in named_atoms(crystal)], source=source)
    except LosikoError as error:
        return rejected(error)
