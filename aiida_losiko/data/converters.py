"""The one place where structures cross between AiiDA nodes and ASE.

`Atoms.info["identifier"]` is the label of a structure, `ase.constraints.FixAtoms` says which atoms stay where they are.
A `StructureSetData` keeps both; a `StructureData` has no room for them, therefore they are arguments here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiida.orm import StructureData

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.data.structure_set import StructureSetData

__all__ = ("DEFAULT_IDENTIFIER", "atoms_to_structure", "node_to_atoms", "structure_to_atoms")

#: Identifier of a structure that came alone. A constant, not the node's label or uuid, since those are not content:
#: with them two equal inputs would make different input files.
DEFAULT_IDENTIFIER = "structure"


def structure_to_atoms(
    structure: StructureData, fixed_atoms: Sequence[int] | None = None, identifier: str = DEFAULT_IDENTIFIER
) -> Atoms:
    """Convert a structure node to ASE.

    Parameters
    ----------
    structure
        A structure without partial occupancies or vacancies.
    fixed_atoms
        Indices (from 0) of the atoms that must not move; they become a `FixAtoms` constraint.
    identifier
        Goes to `info["identifier"]`.

    Returns
    -------
    ase.Atoms
        Positions and cell in Angstrom; the order of the sites is kept.

    Raises
    ------
    LosikoError
        If a kind is an alloy or has vacancies, or an index in `fixed_atoms` is not one of the atoms.
    """
    for kind in structure.kinds:
        if kind.is_alloy or kind.has_vacancies:
            raise LosikoError(
                f"kind {kind.name!r} ({kind.get_symbols_string()}) of the structure is partially occupied: "
                "every site must hold one whole atom, choose an ordered approximant"
            )
    atoms: Atoms = structure.get_ase()
    atoms.info["identifier"] = identifier
    if fixed_atoms is not None:
        _fix(atoms, fixed_atoms)
    return atoms


def atoms_to_structure(atoms: Atoms, like: StructureData | None = None) -> StructureData:
    """Convert ASE atoms to an unstored structure node.

    Parameters
    ----------
    atoms
        The structure; its identifier, if any, becomes the node's label. Constraints and arrays are left behind.
    like
        The node that the atoms came from: its label and its kinds (names, masses) are used again, site by site, such
        that a `Fe2` remains a `Fe2`.

    Returns
    -------
    StructureData
        Positions and cell in Angstrom.

    Raises
    ------
    LosikoError
        If the atoms are not those of `like`.
    """
    if like is None:
        structure = StructureData(ase=atoms)
    else:
        symbols = [like.get_kind(site.kind_name).symbol for site in like.sites]
        if symbols != atoms.get_chemical_symbols():
            raise LosikoError(
                f"{atoms.get_chemical_formula()} does not have the sites of {like.get_formula()}: both must hold the "
                "same elements in the same order"
            )
        structure = StructureData(cell=atoms.cell.tolist(), pbc=atoms.pbc.tolist())
        for kind in like.kinds:
            structure.append_kind(kind)
        for site, position in zip(like.sites, atoms.positions.tolist(), strict=True):
            structure.append_site(type(site)(kind_name=site.kind_name, position=position))
    structure.label = str(atoms.info.get("identifier", "")) if like is None else like.label
    return structure


def node_to_atoms(node: StructureData | StructureSetData) -> list[Atoms]:
    """Convert a structure or a set of them to a list, the identifiers in `info["identifier"]`.

    Parameters
    ----------
    node
        One structure, or a set.

    Returns
    -------
    list of ase.Atoms
        In the order of the set.

    Raises
    ------
    LosikoError
        If a structure is partially occupied.
    """
    return [structure_to_atoms(node)] if isinstance(node, StructureData) else node.get_atoms()


def _fix(atoms: Atoms, indices: Sequence[int]) -> None:
    from ase.constraints import FixAtoms

    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(atoms):
            raise LosikoError(
                f"fixed atom {index!r} is not an atom of the structure: use indices from 0 to {len(atoms) - 1}"
            )
    atoms.set_constraint(FixAtoms(indices=sorted(set(indices))))
