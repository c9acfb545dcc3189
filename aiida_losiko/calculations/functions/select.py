"""Choosing some structures of a set."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("select",)


@calcfunction
def select(source: StructureSetData, selection: Dict) -> StructureSetData | ExitCode:
    """Return the structures of a set that pass a selection, in their order.

    Parameters
    ----------
    source
        The set to choose from.
    selection
        Keys of `aiida_losiko.sources.selection`, all optional, all must pass: `ids` and `exclude` (lists of
        identifiers, or of places in the set counted from 1), `offset`, `first` and `stride` (of the places),
        `elements` (symbols that a structure may contain), `min_atoms`, `max_atoms`, and of what passed `random` many,
        drawn with `seed` (default 0).

    Returns
    -------
    StructureSetData
        With the `source` of the set that was given. Exit status 201 for unknown keys and wrong values, for identifiers
        that the set does not hold, and where nothing passes.
    """
    try:
        return _select(source, selection)
    except LosikoError as error:
        return rejected(error)


def _select(source: StructureSetData, selection: Dict) -> StructureSetData:
    from aiida_losiko.sources.base import SourceRecord
    from aiida_losiko.sources.selection import parse_selection, select_records

    description = selection.get_dict()
    chosen = parse_selection(description, {})
    identifiers = source.get_identifiers()
    # A typing error must not take a structure out of the selection, nor a held-out one into a database, unnoticed.
    known = set(identifiers)
    for key, names, numbers in (
        ("ids", chosen.identifiers, chosen.numbers),
        ("exclude", chosen.excluded_identifiers, chosen.excluded_numbers),
    ):
        absent = sorted(set(names or ()) - known) + [n for n in sorted(numbers or ()) if not 1 <= n <= len(source)]
        if absent:
            raise LosikoError(
                f"selection {key} holds {absent[0]!r}, which is not in the set of {len(source)} structures; its "
                f"identifiers look like {identifiers[0]!r}"
            )
    records = [
        (place, SourceRecord(name, atoms))
        for place, (name, atoms) in enumerate(zip(identifiers, source.get_atoms(), strict=True), start=1)
    ]
    passed = list(select_records(records, chosen))
    if not passed:
        raise LosikoError(f"no structure of {len(source)} passes the selection {description}: ask for less")
    place_of = {name: place for place, name in enumerate(identifiers)}
    return source.subset([place_of[record.identifier] for record in passed])
