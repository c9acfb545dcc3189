"""The bars that the rows of `qm9_accuracy.py` are held against."""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np
from qm9_measures import RIGHT, WRONG, Row

SMALL, LARGE = 378, 30000
#: start, database, what is measured, its name, largest value
BARS = [
    ("a", SMALL, "mean", "mean RMSD", 0.07, " Å"),
    ("e", SMALL, "mean", "mean RMSD", 0.03, " Å"),
    ("a", LARGE, "mean", "mean RMSD", 0.04, " Å"),
    ("a", LARGE, "bond", "bond lengths", 0.004, " Å"),
    ("e", LARGE, "mean", "mean RMSD", 0.015, " Å"),
]


def verdicts(rows: list[Row], protocols: Sequence[str]) -> list[bool]:
    """Print PASS or MISS for the first protocol and return them; the others' figures are printed beside it.

    What was not run is said and not judged.
    """
    passed = []
    for rank, protocol in enumerate(protocols):
        own = [row for row in rows if row.who == f"LOSIKO {protocol}"]
        found = [*_bars(own, protocol), *_against_xtb(own, rows, protocol), *_flag(own, protocol)]
        if rank == 0:
            passed = found
        print()
    return passed


def _bars(own: list[Row], protocol: str) -> list[bool]:
    passed = []
    for start, size, key, name, bar, unit in BARS:
        value = _value(own, start, size, key)
        what = f"{protocol}, start ({start}), database of {size}: {name}"
        passed += _judge(what, value, bar, at_least=False, unit=unit)
    return passed


def _against_xtb(own: list[Row], rows: list[Row], protocol: str) -> list[bool]:
    starts = [row for row in rows if row.role == "start"]
    passed = []
    for key, name, bar in (
        ("bond", "bond lengths", 0.5),
        ("mean", "mean RMSD", 1.0),
    ):
        value, before = _value(own, "c", LARGE, key), _value(starts, "c", None, key)
        ratio = None if value is None or before is None else value / before
        what = f"{protocol}, start (c), database of {LARGE}: {name} over GFN2-xTB's own"
        passed += _judge(what, ratio, bar, at_least=False)
    return passed


def _flag(own: list[Row], protocol: str) -> list[bool]:
    """Judge the flag on all starts together, for each database."""
    passed = []
    for size in sorted({row.database for row in own if row.database is not None}):
        mine = [row for row in own if row.database == size and row.flagged is not None]
        error = np.concatenate([row.rmsd for row in mine])
        flagged = np.concatenate([row.flagged for row in mine if row.flagged is not None])
        for at_least, mask, bar, name in (
            (True, error > WRONG, 80.0, f"RMSD above {WRONG} Å"),
            (False, error < RIGHT, 15.0, f"RMSD below {RIGHT} Å"),
        ):
            share = 100 * float(flagged[mask].mean()) if mask.any() else None
            letters = "".join(row.start for row in mine)
            what = f"{protocol}, starts {letters}, database of {size}: flagged of the {mask.sum()} with {name}"
            passed += _judge(what, share, bar, at_least=at_least, unit=" %")
    return passed


def _judge(what: str, value: float | None, bar: float, *, at_least: bool, unit: str = "") -> list[bool]:
    if value is None:
        print(f"SKIP  {what}: nothing to judge")
        return []
    return [common.verdict(what, value, bar, at_least=at_least, unit=unit)]


def _value(rows: list[Row], start: str, size: int | None, key: str) -> float | None:
    return next((row.values[key] for row in rows if (row.start, row.database) == (start, size)), None)
