"""Several sets as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida.engine import ExitCode, calcfunction

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("merge",)

#: Of this many identifiers at most an error says the names.
MAX_NAMED = 5


@calcfunction
def merge(**sets: StructureSetData) -> StructureSetData | ExitCode:
    """Return the structures of several sets as one set.

    Parameters
    ----------
    **sets
        The sets; their labels, sorted, are their order.

    Returns
    -------
    StructureSetData
        With the properties of the entries; the `source` names those of the sets, an entry's own is that of the set
        that it came in. Exit status 201 for sets that share an identifier.
    """
    try:
        ordered = {label: sets[label] for label in sorted(sets)}
        _check_clashes(ordered)
        properties = [row for node in ordered.values() for row in node.get_properties()]
        atoms = [each for node in ordered.values() for each in node.get_atoms()]
        return StructureSetData(atoms, source=_source(list(ordered.values())), properties=properties)
    except LosikoError as error:
        return rejected(error)


def _check_clashes(sets: Mapping[str, StructureSetData]) -> None:
    owners: dict[str, str] = {}
    clashes: dict[tuple[str, str], list[str]] = {}
    for label, node in sets.items():
        for name in node.get_identifiers():
            if name in owners:
                clashes.setdefault((owners[name], label), []).append(name)
            owners[name] = label
    if clashes:
        told = []
        for (first, second), names in clashes.items():
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            told.append(f"{', '.join(map(repr, names[:MAX_NAMED]))}{more} in {first} and {second}")
        raise LosikoError(
            f"identifiers are there twice: {'; '.join(told)}: an environment could not be traced to one of them; take "
            "them out of one set with losiko.select (exclude)"
        )


def _source(sets: Sequence[StructureSetData]) -> dict[str, Any]:
    """Return name, version and licence of several sources; what belongs to one of them stays with its set."""
    sources = [node.source or {} for node in sets]
    joined: dict[str, Any] = {}
    for key, between in (("name", " + "), ("version", " + "), ("licence", " AND ")):
        values = list(dict.fromkeys(str(source[key]) for source in sources if key in source))
        if values:
            joined[key] = between.join(values)
    return joined
