"""From an atom of a relaxed structure back to the source record that its place came from.

The way through the graph: output structure (or the set that it was taken out of), the relaxation that made it, its
matches and its database, the description that made the database, the set that was described, and through selections,
filters and merged sets up to the set that the source gave, whose `source` says where it comes from, and the query that
asked for it. Nothing else than the links is followed,
hence it makes no difference whether a calculation ran or was taken from the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from aiida.orm import ArrayData, Data, Node, ProcessNode, QueryBuilder, StructureData, load_node

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData, structure_to_atoms
from aiida_losiko.data.matches import atom_matches
from aiida_losiko.tools.entries import origins_of, step

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("source_structure", "trace")

RELAXATIONS = ["aiida.calculations:losiko.relax", "aiida.calculations:losiko.relax_structure"]
DESCRIPTION = "aiida.calculations:losiko.describe"
SELECTION = "aiida.calculations:losiko.select"
EXTRACTION = "aiida.calculations:losiko.extract"


def trace(
    node: Node | str | int, atom: int | Sequence[int] | None = None, structure: int | str | None = None
) -> list[dict[str, Any]]:
    """Return what atoms of a relaxed structure were matched to, and the nodes on the way there.

    Parameters
    ----------
    node
        A relaxed structure or set of them, what `losiko.extract` or `losiko.select` took out of such a set, or the
        relaxation (job, function or work chain) that gave it; the node, its uuid or its pk.
    atom
        Index of an atom, or several; None for all.
    structure
        Which structure of a set: its index or its identifier. Not needed where there is only one.

    Returns
    -------
    list of dict
        One plain row per atom, in the order asked for: `structure` (identifier), `atom`, `symbol`; of the match
        `source` (identifier of the source structure), `source_atom` (index there), `source_symbol`, `distance` (of
        normalised descriptors) and `out_of_reach` (None where the database is too small to tell); `source_info` (name,
        licence, reference, ...) and `source_properties` (energy above hull, space group, ..., as the source gives
        them); and `path`, a list of `role`, `uuid`, `pk` from the output back to the set that the source gave:
        `output`, (`extraction` or `choice`, and `set`, where it was taken out of a relaxed set), `relaxation`,
        `matches`, `database`, `description`, `described`, (`selection`, `filter` or `merge`, the way of the source's
        own set where there were several), `origin`, and `query` where a `losiko.query` gave it.

        For a structure that failed, and for what the graph does not hold (a database that was not made by a
        `losiko.describe` job has no set behind it), the values are None and the path ends there.

    Raises
    ------
    LosikoError
        If the node was not made by a relaxation, or there is no such structure or atom.
    """
    output = _output_of(load_node(node) if isinstance(node, str | int) else node)
    path = [step("output", output)]
    steps, output, structure = _relaxed_set(output, structure)
    path += steps
    relaxation, matches, database = _relaxation_of(output)
    index, name, atoms = _structure_of(output, structure)
    path += [step("relaxation", relaxation), step("matches", matches)]
    steps, described = _description_of(database)
    path += steps
    rows = atom_matches(matches, index, [atom] if isinstance(atom, int) else atom)
    sources = {row["source"] for row in rows if row["source"] is not None}
    entries = {} if described is None else origins_of(described, sources)
    for row in rows:
        entry = entries.get(row["source"])
        row.update(
            structure=name,
            symbol=atoms.symbols[row["atom"]],
            source_symbol=None if entry is None else str(entry.atoms.symbols[row["source_atom"]]),
            source_info=None if entry is None else dict(entry.origin.source or {}),
            source_properties=None if entry is None else dict(entry.properties),
            path=[dict(step) for step in path + (entry.steps if entry is not None else [])],
        )
    return rows


def source_structure(row: dict[str, Any]) -> Atoms:
    """Return the structure of the source that an atom was matched to.

    Parameters
    ----------
    row
        A row of `trace`.

    Returns
    -------
    ase.Atoms
        As it is in the set that was first stored; positions in Angstrom.

    Raises
    ------
    LosikoError
        If the atom has no match, or the graph does not hold the structure.
    """
    sets = {step["role"]: step["uuid"] for step in row["path"]}
    uuid = sets.get("origin") or sets.get("described")
    if row["source"] is None or uuid is None:
        raise LosikoError(
            f"atom {row['atom']} of {row['structure']!r} has no source structure in the graph: its database was not "
            "made by losiko.describe, or the relaxation of the structure failed"
        )
    node = cast("StructureSetData", load_node(uuid))
    return node.get_ase(node.index_of(row["source"]))


def _output_of(node: Node) -> StructureData | StructureSetData:
    """Return the structure that is meant: the node itself, or the output of a process."""
    if isinstance(node, StructureData | StructureSetData):
        return node
    if isinstance(node, ProcessNode):
        for name in ("structure", "structures"):
            if name in node.outputs:
                found: StructureData | StructureSetData = node.outputs[name]
                return found
    raise LosikoError(
        f"{_name(node)} gives no relaxed structure: hand over an output structure of losiko.relax, or its process"
    )


def _relaxed_set(
    output: StructureData | StructureSetData, structure: int | str | None
) -> tuple[list[dict[str, Any]], StructureData | StructureSetData, int | str | None]:
    """Return the steps from what was taken out of a relaxed set to that set, the set, and which structure it is."""
    steps: list[dict[str, Any]] = []
    while True:
        single = isinstance(output, StructureData)
        process, whole = _made_from(output, *((EXTRACTION, "structures") if single else (SELECTION, "source")))
        if process is None or whole is None:
            return steps, output, structure
        name = _structure_of(output, structure)[1]
        steps += [step("extraction" if single else "choice", process), step("set", whole)]
        output, structure = whole, process.inputs.structure.value if single else name


def _relaxation_of(output: Data) -> tuple[ProcessNode, ArrayData, EnvironmentDatabaseData]:
    """Return the relaxation that made a structure, its matches and its database, with one query."""
    builder = QueryBuilder()
    builder.append(Data, filters={"uuid": output.uuid}, tag="output")
    builder.append(
        ProcessNode,
        filters={"process_type": {"in": RELAXATIONS}},
        with_outgoing="output",
        tag="relaxation",
        project="*",
    )
    builder.append(ArrayData, with_incoming="relaxation", edge_filters={"label": "matches"}, project="*")
    builder.append(EnvironmentDatabaseData, with_outgoing="relaxation", edge_filters={"label": "database"}, project="*")
    found = builder.first()
    if found is None:
        raise LosikoError(
            f"{_name(output)} was not made by a losiko relaxation: give an output of losiko.relax or "
            "losiko.relax_structure"
        )
    relaxation, matches, database = found
    return relaxation, matches, database


def _structure_of(output: StructureData | StructureSetData, structure: int | str | None) -> tuple[int, str, Atoms]:
    """Return index, identifier and atoms of the structure that is meant."""
    if isinstance(output, StructureData):
        if structure not in (None, 0):
            raise LosikoError(f"structure {structure!r} of a single structure: leave the argument away")
        return 0, output.label or "structure", structure_to_atoms(output)
    if structure is None and len(output) > 1:
        raise LosikoError(f"a set of {len(output)} structures: say which one, by index or identifier")
    index = output.index_of(structure) if isinstance(structure, str) else structure or 0
    atoms = output.get_ase(index)
    return index % len(output), str(atoms.info["identifier"]), atoms


def _description_of(database: EnvironmentDatabaseData) -> tuple[list[dict[str, Any]], StructureSetData | None]:
    """Return the steps from a database back to the set that was described, and that set."""
    steps = [step("database", database)]
    creator, described = _made_from(database, DESCRIPTION, "structures")
    if creator is None or described is None:
        return steps, None
    return [*steps, step("description", creator), step("described", described)], described


def _made_from(node: Data, process_type: str, label: str) -> tuple[ProcessNode | None, StructureSetData | None]:
    """Return the process of a type that made a node, and its input of a label."""
    builder = QueryBuilder()
    builder.append(Data, filters={"uuid": node.uuid}, tag="node")
    builder.append(
        ProcessNode, filters={"process_type": process_type}, with_outgoing="node", tag="process", project="*"
    )
    builder.append(StructureSetData, with_outgoing="process", edge_filters={"label": label}, project="*")
    found = builder.first()
    return (None, None) if found is None else (found[0], found[1])


def _name(node: Node) -> str:
    return f"{type(node).__name__}<{node.pk if node.is_stored else 'not stored'}>"
