"""Which material each atom of a relaxed structure was modelled on, as a small table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiida_losiko.cli.inputs import Entry
from aiida_losiko.cli.report import MAX_ROWS

if TYPE_CHECKING:
    from aiida_losiko.core.relaxation.results import Relaxation

LONGEST = 30
"""Characters of a list of atoms."""


def materials_table(
    entries: Sequence[Entry], results: Sequence[Relaxation | None], properties: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return a table with one row for the atoms of an element that were matched to the same material.

    Parameters
    ----------
    entries, results
        Structures, and what became of them.
    properties
        What is known of each material, by identifier: ``formula``, ``space_group_symbol``, ``energy_above_hull``
        (eV/atom).
    """
    from aiida_losiko.tools.tables import Column, text_table

    rows = [
        {"structure": entry.label, **row}
        for entry, result in zip(entries, results, strict=True)
        if result is not None
        for row in _rows(result, properties)
    ]
    columns = [
        Column("element", "element"),
        Column("atoms", "atoms"),
        Column("material", "modelled on"),
        Column("formula", "formula"),
        Column("space_group", "space group"),
    ]
    if len(entries) > 1:
        columns.insert(0, Column("structure", "structure"))
    if any(row["hull"] is not None for row in rows):
        columns.append(Column("hull", "eV/atom above hull", format=".3f"))
    columns.append(Column("distance", "distance, up to", format=".2e"))
    lines = [text_table(rows[:MAX_ROWS], columns)]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more: --report has every atom")
    return "\n".join(lines)


def _rows(result: Relaxation, properties: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group the atoms by element and material: elements as they occur, then what most atoms were matched to first."""
    matches = result.matches
    if matches is None:
        return []
    groups: dict[tuple[str, str], list[int]] = {}
    symbols = list(result.atoms.symbols)
    for atom, key in enumerate(zip(symbols, matches.source, strict=True)):
        groups.setdefault(key, []).append(atom)
    first = {symbol: symbols.index(symbol) for symbol in set(symbols)}
    rows = []
    for (symbol, source), atoms in sorted(groups.items(), key=lambda item: (first[item[0][0]], -len(item[1]))):
        known = properties.get(source, {})
        rows.append(
            {
                "element": symbol,
                "atoms": ranges(atoms),
                "material": source,
                "formula": known.get("formula"),
                "space_group": known.get("space_group_symbol"),
                "hull": known.get("energy_above_hull"),
                "distance": float(matches.distance[atoms].max()),
            }
        )
    return rows


def ranges(numbers: Iterable[int]) -> str:
    """Return ascending numbers as ``0-5, 8``; with their count in place of what would make it long."""
    numbers = list(numbers)
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    text = ", ".join("-".join(map(str, part)) for part in parts)
    if len(text) <= LONGEST:
        return text
    end = f", ... ({len(numbers)})"
    return text[: text.rindex(",", 0, LONGEST - len(end) + 1)] + end
