"""Moving atoms at random, to make starts of which the end is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.common import check_keys, number, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, atoms_to_structure, node_to_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("displace",)


@calcfunction
def displace(
    structures: StructureSetData | StructureData, parameters: Dict
) -> StructureSetData | StructureData | ExitCode:
    """Return the structures with normally distributed displacements of their atoms.

    Atoms under `FixAtoms` stay. A structure of a set is displaced by numbers that depend on the seed and on its place.

    Parameters
    ----------
    structures
        A set, or one structure.
    parameters
        `standard_deviation` of each Cartesian coordinate in Angstrom (at least 0), `seed` (whole number, default 0),
        `copies` (how many of each structure, default one that keeps its name).

    Returns
    -------
    StructureSetData or StructureData
        As given. A set keeps identifiers, order and `source`. With `copies` a set, in which those of a structure follow
        each other as `<identifier>-displaced-0` and so on; the first ones are the same for any number of copies. Exit
        status 201 for unknown keys and wrong values.
    """
    try:
        values = parameters.get_dict()
        check_keys(values, ("standard_deviation", "seed", "copies"))
        deviation = number(values, "standard_deviation", None, 0.0, "Angstrom")
        seed = number(values, "seed", 0, 0)
        if seed != int(seed):
            raise LosikoError(f"seed is {seed!r}: give a whole number")
        copies = number(values, "copies", 1, 1)
        if copies != int(copies):
            raise LosikoError(f"copies is {copies!r}: give a whole number")
        displaced = node_to_atoms(structures)
    except LosikoError as error:
        return rejected(error)
    if "copies" in values:
        return _copies(structures, displaced, int(copies), deviation, int(seed))
    for place, atoms in enumerate(displaced):
        _displace(atoms, deviation, np.random.default_rng([int(seed), place]))
    if isinstance(structures, StructureData):
        return atoms_to_structure(displaced[0], like=structures)
    return StructureSetData.from_atoms(displaced, structures.get_identifiers(), source=structures.source)


def _copies(
    node: StructureSetData | StructureData, structures: list[Atoms], copies: int, deviation: float, seed: int
) -> StructureSetData:
    """Return so many displaced copies of each structure."""
    made = []
    for place, original in enumerate(structures):
        for copy in range(copies):
            atoms = original.copy()
            atoms.info["identifier"] = f"{original.info['identifier']}-displaced-{copy}"
            _displace(atoms, deviation, np.random.default_rng([seed, place, copy]))
            made.append(atoms)
    return StructureSetData.from_atoms(made, source=node.source if isinstance(node, StructureSetData) else None)


def _displace(atoms: Atoms, deviation: float, generator: np.random.Generator) -> None:
    """Displace in place; ASE leaves the atoms under constraints where they are."""
    atoms.set_positions(atoms.positions + generator.normal(scale=deviation, size=(len(atoms), 3)))
