"""Aligned text tables for terminals, with units in the header."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: What stands for a value that is not there.
MISSING = "-"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    key
        Where the value stands in a row.
    header
        What is printed above it.
    unit
        Printed on a line of its own under the header.
    format
        A format specification such as ``".3f"``; numbers are set right, text left.
    """

    key: str
    header: str
    unit: str = ""
    format: str = ""


def text_table(rows: Iterable[Mapping[str, Any]], columns: Iterable[Column]) -> str:
    """Render rows as an aligned table.

    Parameters
    ----------
    rows
        One mapping per row. A missing key, None or NaN is printed as ``-``, a truth value as ``yes`` or ``no``.
    columns
        The columns, in order.

    Returns
    -------
    str
        The lines of the table, without a line break at the end.
    """
    from tabulate import tabulate  # type: ignore[import-untyped]

    columns, rows = list(columns), list(rows)
    headers = [column.header for column in columns]
    if any(column.unit for column in columns):
        headers = [f"{column.header}\n({column.unit})" if column.unit else f"{column.header}\n" for column in columns]
    cells = [[format_value(row.get(column.key), column.format) for column in columns] for row in rows]
    alignment = ["right" if _is_numeric(rows, column.key) else "left" for column in columns]
    table = tabulate(
        cells,
        headers=headers,
        tablefmt="simple",
        colalign=alignment if cells else None,
        disable_numparse=True,
    )
    return str(table)


def format_value(value: Any, specification: str = "") -> str:
    """One cell: ``-`` for what is missing, ``yes`` or ``no`` for truth values, else formatted as asked.

    Parameters
    ----------
    value
        A number, text, truth value or None.
    specification
        A format specification; it is ignored for text where it is meant for numbers.

    Returns
    -------
    str
        The text of the cell.
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or (_is_number(value) and math.isnan(value)):
        return MISSING
    return format(value, specification) if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    # NumPy's scalars have __float__ without being int or float.
    return not isinstance(value, str | bool | np.bool_) and hasattr(value, "__float__")


def _is_numeric(rows: Iterable[Mapping[str, Any]], key: str) -> bool:
    values = [row[key] for row in rows if row.get(key) is not None]
    return bool(values) and all(_is_number(value) for value in values)
