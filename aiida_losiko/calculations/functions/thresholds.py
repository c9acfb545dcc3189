"""Thresholds on the properties of entries: what they may be, what passes, and which of them leaves nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aiida_losiko.core.errors import LosikoError, did_you_mean

__all__ = ("check_threshold", "passing")

#: Energies are differences of large numbers: an entry on the threshold passes.
ROUNDING = 1e-9

#: Of this many entries at most the names are listed.
MAX_NAMED = 1000

Row = Mapping[str, Any]


def check_threshold(name: str, threshold: Any) -> Any:
    """Return a threshold if it is one: a value, a list of values, or a mapping with `min`, `max` or both.

    Raises
    ------
    LosikoError
        If it is something else.
    """
    if isinstance(threshold, Mapping):
        bounds = dict(threshold)
        sound = set(bounds) <= {"min", "max"} and all(_is_number(bound) for bound in bounds.values())
        if not bounds or not sound:
            raise LosikoError(f"{name} is {bounds}: give min, max or both as finite numbers")
        if bounds.get("min", -math.inf) > bounds.get("max", math.inf):
            raise LosikoError(f"{name} is {bounds}: nothing lies between them, give a min below the max")
        return bounds
    values = threshold if isinstance(threshold, list | tuple) else [threshold]
    if not values or not all(isinstance(value, str | bool) or _is_number(value) for value in values):
        raise LosikoError(f"{name} is {threshold!r}: give a value, a list of values, or min and max")
    return threshold


def passing(
    rows: Sequence[Row], names: Sequence[str], thresholds: Mapping[str, Any], keep_unknown: bool
) -> tuple[list[int], dict[str, Any]]:
    """Return the indices of the entries that pass all thresholds, and the account of it.

    Parameters
    ----------
    rows
        The properties of each entry.
    names
        Identifier of each entry.
    thresholds
        Property to threshold, one after the other.
    keep_unknown
        Whether entries pass that do not have the property.

    Returns
    -------
    list of int
        Never empty.
    dict
        JSON-able: `n_structures`, `n_kept`, `keep_unknown`, and in `filters` for each property `threshold`, `n_kept`,
        `n_rejected`, `n_unknown` and `unknown` (identifiers of those without the property, the first 1,000).

    Raises
    ------
    LosikoError
        For a threshold that is none, and for the one that leaves nothing.
    """
    if not thresholds:
        raise LosikoError("there is no threshold: give at least one property, such as energy_above_hull")
    checked = {str(name): check_threshold(str(name), threshold) for name, threshold in thresholds.items()}
    left, filters = list(range(len(rows))), {}
    for name, threshold in checked.items():
        before = left
        unknown = [k for k in before if rows[k].get(name) is None]
        absent = set(unknown)
        left = [k for k in before if (keep_unknown if k in absent else _passes(rows[k][name], threshold))]
        filters[name] = {
            "threshold": threshold,
            "n_kept": len(left),
            "n_rejected": len(before) - len(left),
            "n_unknown": len(unknown),
            "unknown": [names[k] for k in unknown[:MAX_NAMED]],
        }
        if not left:
            raise LosikoError(_nothing_left(name, threshold, [rows[k] for k in before], len(rows), len(unknown)))
    account = {"n_structures": len(rows), "n_kept": len(left), "keep_unknown": keep_unknown, "filters": filters}
    return left, account


def _passes(value: Any, threshold: Any) -> bool:
    if isinstance(threshold, Mapping):
        low, high = threshold.get("min", -math.inf), threshold.get("max", math.inf)
        return _is_number(value) and low - ROUNDING <= value <= high + ROUNDING
    return any(_same(value, allowed) for allowed in _listed(threshold))


def _listed(threshold: Any) -> Sequence[Any]:
    return threshold if isinstance(threshold, list | tuple) else [threshold]


def _same(value: Any, allowed: Any) -> bool:
    """Compare without taking True for 1."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _nothing_left(name: str, threshold: Any, rows: Sequence[Row], count: int, n_unknown: int) -> str:
    """Return which filter emptied the set, what the entries have, and the way out."""
    of = f"{len(rows)}" if len(rows) == count else f"{len(rows)} (of {count}) that the filters before it left"
    if n_unknown == len(rows):
        known = sorted({key for row in rows for key in row})
        hint = did_you_mean(name, known)
        return (
            f"no entry of {of} has the property {name!r}{hint}; known are {', '.join(known) or 'none'}: filter by one "
            "of them, or set keep_unknown"
        )
    values = [row[name] for row in rows if row.get(name) is not None]
    if all(_is_number(value) for value in values):
        shown = f"from {min(values):g} to {max(values):g}"
    else:
        shown = ", ".join(sorted({str(value) for value in values})[:5])
    without = f" ({n_unknown} without it)" if n_unknown else ""
    return f"the filter {name} {_spell(threshold)} leaves nothing of {of}{without}: theirs are {shown}; allow more"


def _spell(threshold: Any) -> str:
    if isinstance(threshold, Mapping):
        signs = {"min": ">=", "max": "<="}
        return " and ".join(f"{signs[key]} {bound:g}" for key, bound in threshold.items())
    return f"= {' or '.join(str(value) for value in _listed(threshold))}"
