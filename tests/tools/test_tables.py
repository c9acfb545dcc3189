"""Tables as a person sees them."""

from __future__ import annotations

import numpy as np

from aiida_losiko.tools.tables import Column, format_value, text_table

COLUMNS = [
    Column("name", "molecule"),
    Column("rmsd", "RMSD", unit="Angstrom", format=".3f"),
    Column("n", "atoms"),
    Column("ok", "converged"),
]


def test_table_is_aligned_and_complete():
    rows = [
        {"name": "C2H6", "rmsd": 0.12345, "n": 8, "ok": True},
        {"name": "a-very-long-name", "rmsd": np.float32(11.0), "n": np.int64(120), "ok": False},
    ]
    lines = text_table(rows, COLUMNS).splitlines()
    assert lines == [
        "molecule                  RMSD    atoms  converged",
        "                    (Angstrom)",
        "----------------  ------------  -------  -----------",
        "C2H6                     0.123        8  yes",
        "a-very-long-name        11.000      120  no",
    ]


def test_missing_values():
    text = text_table([{"name": "H2", "rmsd": float("nan")}, {"name": "O2", "rmsd": None, "n": 2}], COLUMNS)
    assert text.splitlines()[-2].split() == ["H2", "-", "-", "-"]
    assert text.splitlines()[-1].split() == ["O2", "-", "2", "-"]


def test_no_rows_gives_the_header():
    assert "molecule" in text_table([], COLUMNS)


def test_numbers_that_look_like_text_are_kept():
    """An identifier such as 1e5 or 007 is not a number."""
    assert text_table([{"name": "1e5"}, {"name": "007"}], COLUMNS[:1]).splitlines()[-2:] == ["1e5", "007"]


def test_format_value():
    assert format_value(1.23456, ".2f") == "1.23"
    assert format_value("CH4", ".2f") == "CH4"
    assert format_value(1e-9, ".1e") == "1.0e-09"
