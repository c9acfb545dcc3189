"""One report of several jobs, each of which went on where the one before stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError

__all__ = ("join_reports",)

SUMS = ("seconds", "steps", "evaluations")

#: Flags that compare a structure with the start of its job: the last job alone does not know of them.
LASTING_FLAGS = ("exploded_cell", "fragmented")


@calcfunction
def join_reports(**reports: Dict) -> Dict | ExitCode:
    """Return the report of a relaxation that took several jobs.

    Parameters
    ----------
    **reports
        Reports of `losiko.relax` over the same structures; their names, sorted, are their order.

    Returns
    -------
    Dict
        That of the last job, but with the `initial_loss` of the first, sums of `seconds`, `steps` and `evaluations`,
        the flags `exploded_cell` and `fragmented` of any job, since they are relative to its start, and `n_jobs`. Exit
        status 201 for reports over different structures.
    """
    try:
        return Dict(_join([reports[name].get_dict() for name in sorted(reports)]))
    except LosikoError as error:
        return rejected(error)


def _join(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = sorted({report.get("n_structures") for report in reports}, key=str)
    if len(counts) != 1:
        raise LosikoError(f"reports over {' and '.join(map(str, counts))} structures: give those of one relaxation")
    joined = {**reports[-1], "n_jobs": len(reports)}
    for key in SUMS:
        if all(key in report for report in reports):
            joined[key] = sum(report[key] for report in reports)
    joined["flags"] = dict(joined.get("flags", {}))
    for flag in LASTING_FLAGS:
        # A dict, since it keeps the order and each name once.
        names = {name: None for report in reports for name in report.get("flags", {}).get(flag, ())}
        if names:
            joined["flags"][flag] = list(names)
    lists = [report["structures"] for report in reports if "structures" in report]
    if len(lists) == len(reports):
        joined["structures"] = _join_lists(lists)
    return joined


def _join_lists(lists: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return the values per structure; a job that did not get to one has no loss of it."""
    if any(each["identifier"] != lists[0]["identifier"] for each in lists):
        raise LosikoError("reports over structures of other identifiers: give those of one relaxation, in order")
    columns = zip(*(each["initial_loss"] for each in lists), strict=True)
    joined = {**lists[-1], "initial_loss": [next((x for x in losses if x is not None), None) for losses in columns]}
    for key in ("steps", "evaluations"):
        joined[key] = [sum(values) for values in zip(*(each[key] for each in lists), strict=True)]
    return joined
