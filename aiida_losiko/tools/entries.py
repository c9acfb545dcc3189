"""From a set of structures back to the entries of sources, through selections, filters and merged sets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aiida.orm import Node, ProcessNode

from aiida_losiko.data import StructureSetData

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("Entry", "origins_of", "step")

PREFIX = "aiida.calculations:losiko."

#: Processes that pass entries on unchanged, and the input that they are from.
PASSING = {"select": ("selection", "source"), "filter_by_": ("filter", "structures")}


@dataclass(frozen=True)
class Entry:
    """An entry of a source.

    Attributes
    ----------
    origin
        The set that the source gave.
    atoms
        The structure in it, positions in Angstrom.
    properties
        What the source says of it.
    steps
        The nodes on the way to `origin`, see `step`; behind it the query, where there was one.
    """

    origin: StructureSetData
    atoms: Atoms
    properties: dict[str, Any]
    steps: list[dict[str, Any]]


def step(role: str, node: Node) -> dict[str, Any]:
    """Return a node on the way as plain values: `role`, `uuid`, `pk`."""
    return {"role": role, "uuid": str(node.uuid), "pk": node.pk}


def origins_of(node: StructureSetData, names: Collection[str]) -> dict[str, Entry]:
    """Return the entries behind structures of a set.

    Parameters
    ----------
    node
        The set.
    names
        Identifiers of the structures; those that the set does not hold are not in the result.

    Returns
    -------
    dict
        Identifier to entry.
    """
    found: dict[str, Entry] = {}
    _follow(node, set(names), [], found)
    return found


def _follow(node: StructureSetData, names: set[str], steps: list[dict[str, Any]], found: dict[str, Entry]) -> None:
    """Go back from a set, with the entries that are wanted of it."""
    present = [(place, name) for place, name in enumerate(node.get_identifiers()) if name in names]
    if not present:
        return
    here = {name for _, name in present}
    creator = node.creator
    kind = (creator.process_type or "").removeprefix(PREFIX) if creator is not None else ""
    parents = _sets_before(creator) if creator is not None else {}
    for start, (role, label) in PASSING.items():
        if creator is not None and kind.startswith(start) and label in parents:
            _follow(parents[label], here, [*steps, step(role, creator)], found)
            return
    if creator is not None and kind == "merge":
        for parent in parents.values():
            _follow(parent, here, [*steps, step("merge", creator)], found)
        return
    way = [*steps, step("origin", node)]
    if creator is not None and kind.startswith("query."):
        way.append(step("query", creator))
    properties = node.get_properties()
    for place, name in present:
        found[name] = Entry(node, node.get_ase(place), properties[place], way)


def _sets_before(process: ProcessNode) -> dict[str, StructureSetData]:
    links = process.base.links.get_incoming(node_class=StructureSetData).all()
    return {link.link_label: cast("StructureSetData", link.node) for link in links}
