"""What the sources of a set say about its entries (energy above hull, space group, licence ...), kept as columns.

Not in `Atoms.info`: from there they would travel on to what is made of an entry, and a defect or a relaxed structure
has another energy than its host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import to_jsonable

__all__ = ("Columns", "columns_of", "read_columns", "rows_of", "write_columns")

Columns: TypeAlias = dict[str, list[Any]]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Return a column for each property that some entry has, sorted by name; None where an entry has none.

    Parameters
    ----------
    rows
        The properties of each entry.

    Raises
    ------
    LosikoError
        If a value has no JSON form.
    """
    columns: Columns = {}
    for name in sorted({str(name) for row in rows for name in row}):
        try:
            values = [to_jsonable(row.get(name), finite=True) for row in rows]
        except TypeError as error:
            raise LosikoError(f"property {name!r} has {error}: give texts, numbers, truth values or lists") from None
        if any(value is not None for value in values):
            columns[name] = values
    return columns


def rows_of(columns: Columns, count: int) -> list[dict[str, Any]]:
    """Return the properties of each of `count` entries, without those that it does not have."""
    return [{name: values[k] for name, values in columns.items() if values[k] is not None} for k in range(count)]


def write_columns(columns: Columns) -> bytes:
    """Return the content of the file; the same bytes for the same properties."""
    return json.dumps(columns, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def read_columns(content: bytes, count: int) -> Columns:
    """Return the columns of a file.

    Raises
    ------
    LosikoError
        If it is no such file, or one of another number of entries than `count`.
    """
    try:
        columns = json.loads(content)
    except ValueError:
        columns = None
    sound = isinstance(columns, dict) and all(isinstance(v, list) and len(v) == count for v in columns.values())
    if not sound:
        raise LosikoError(f"the properties of the set are no columns of {count} values: build the node again")
    return dict(columns)
