"""What the functions around the builders share: a node of parameters becomes the arguments of a builder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from aiida.engine import ExitCode
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.functions.common import check_keys, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, node_to_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("arguments_for", "build_defects", "named_atoms", "one_structure")


def arguments_for(builder: Callable[..., Any], values: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """Return the parameters of a node as arguments of a builder, whose own checks are those of the values.

    Parameters
    ----------
    builder
        A function of `aiida_losiko.builders`.
    values
        Content of the node.
    given
        Names of the arguments that are nodes of their own.

    Raises
    ------
    LosikoError
        For unknown keys, and for those that are needed and not there.
    """
    parameters = {name: p for name, p in inspect.signature(builder).parameters.items() if name not in given}
    check_keys(values, parameters)
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in values:
            raise LosikoError(
                f"parameters have no {name!r}: it is needed, besides it allowed are {_others(parameters, name)}"
            )
    return values


def named_atoms(node: StructureData | StructureSetData) -> list[Atoms]:
    """Return the structures of a node; one that came alone is named by the builder, after its formula."""
    structures = node_to_atoms(node)
    if isinstance(node, StructureData):
        structures[0].info.pop("identifier")
    return structures


def one_structure(node: StructureData | StructureSetData, name: str) -> Atoms:
    """Return the only structure of a node.

    Raises
    ------
    LosikoError
        If it is a set of several.
    """
    structures = named_atoms(node)
    if len(structures) != 1:
        raise LosikoError(f"{name} is a set of {len(structures)} structures: give one, losiko.select takes it out")
    return structures[0]


def build_defects(
    builder: Callable[..., list[Atoms]], host: StructureData | StructureSetData, parameters: Dict
) -> StructureSetData | ExitCode:
    """Return the defects that a builder makes in each of the hosts, or the exit code of a wrong input."""
    try:
        arguments = arguments_for(builder, parameters.get_dict(), given=("host",))
        made = [atoms for crystal in named_atoms(host) for atoms in builder(crystal, **arguments)]
        source = host.source if isinstance(host, StructureSetData) else None
        return StructureSetData.from_atoms(made, source=source)
    except LosikoError as error:
        return rejected(error)


def _others(names: Collection[str], name: str) -> str:
    return ", ".join(other for other in names if other != name)
