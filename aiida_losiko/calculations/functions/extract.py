"""Taking one structure out of a set, for codes that know nothing of sets."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Int, List, Str, StructureData

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, atoms_to_structure

__all__ = ("extract",)


@calcfunction
def extract(structures: StructureSetData, structure: Str | Int) -> dict[str, StructureData | List] | ExitCode:
    """Return one structure of a set, linked to the set that it is from.

    Parameters
    ----------
    structures
        A set, such as the output of `losiko.relax`.
    structure
        The identifier of the structure, or its index from 0.

    Returns
    -------
    dict
        `structure` (StructureData, labelled with the identifier; Angstrom) and, where the set holds constraints of the
        structure, `fixed_atoms` (List of indices from 0), as the input of that name of `losiko.relax`. Exit status 201
        where the set has no such structure.
    """
    try:
        index = structure.value if isinstance(structure, Int) else structures.index_of(structure.value)
        atoms = structures.get_ase(index)
    except LosikoError as error:
        return rejected(error)
    outputs: dict[str, StructureData | List] = {"structure": atoms_to_structure(atoms)}
    fixed = sorted({int(i) for constraint in atoms.constraints for i in constraint.get_indices()})
    if fixed:
        outputs["fixed_atoms"] = List(fixed)
    return outputs
