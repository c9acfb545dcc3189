"""Filters of entries by what their source says of them. By identifier, element or size: `losiko.select`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Bool, Dict, Float, Int

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.calculations.functions.thresholds import passing
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("filter_by_energy_above_lowest", "filter_by_hull", "filter_by_properties")


@calcfunction
def filter_by_hull(
    structures: StructureSetData, energy_above_hull: Float | Int, keep_unknown: Bool | None = None
) -> dict[str, Any] | ExitCode:
    """Return the entries that are at most so far above the convex hull.

    Parameters
    ----------
    structures
        A set whose entries have the property, such as an answer of `losiko.query.materials_project`.
    energy_above_hull
        Highest energy above the hull that passes, in eV/atom.
    keep_unknown
        Whether entries pass whose source gives none; default they do not.

    Returns
    -------
    dict
        `structures` (with `source` and properties, in order) and `report`, see `filter_by_properties`. Exit status 201
        for a wrong threshold, and where nothing passes.
    """
    return _filter(structures, {"energy_above_hull": {"max": energy_above_hull.value}}, keep_unknown)


@calcfunction
def filter_by_energy_above_lowest(
    structures: StructureSetData, energy_above_lowest: Float | Int, keep_unknown: Bool | None = None
) -> dict[str, Any] | ExitCode:
    """Return the entries of a random search that are at most so far above the lowest of their composition.

    Parameters
    ----------
    structures
        A set whose entries have the property, such as an answer of `losiko.query.archive`.
    energy_above_lowest
        Highest energy that passes, in eV/atom above the lowest entry of the composition in the whole archive.
    keep_unknown
        Whether entries without an energy pass; default they do not.

    Returns
    -------
    dict
        `structures` and `report`, as of `filter_by_hull`.
    """
    return _filter(structures, {"energy_above_lowest": {"max": energy_above_lowest.value}}, keep_unknown)


@calcfunction
def filter_by_properties(
    structures: StructureSetData, thresholds: Dict, keep_unknown: Bool | None = None
) -> dict[str, Any] | ExitCode:
    """Return the entries whose properties are as asked.

    Parameters
    ----------
    structures
        A set with properties.
    thresholds
        Property to what it must be: `{"max": 0.2}`, `{"min": 1, "max": 20}`, a value (`theoretical`: False) or a list
        of those that are allowed (`space_group`: [194, 227]). All must hold; applied in alphabetical order.
    keep_unknown
        Whether entries pass that do not have a property; default they do not.

    Returns
    -------
    dict
        `structures` (StructureSetData with `source` and properties, in order) and `report` (Dict): `n_structures`,
        `n_kept`, and in `filters` for each property `threshold`, `n_kept`, `n_rejected`, `n_unknown` and `unknown`
        (identifiers of those without it, up to 1,000). Exit status 201 for a wrong threshold, and where nothing passes.
    """
    return _filter(structures, dict(sorted(thresholds.get_dict().items())), keep_unknown)


def _filter(
    structures: StructureSetData, thresholds: Mapping[str, Any], keep_unknown: Bool | None
) -> dict[str, Any] | ExitCode:
    keep = keep_unknown is not None and keep_unknown.value
    try:
        left, account = passing(structures.get_properties(), structures.get_identifiers(), thresholds, keep)
    except LosikoError as error:
        return rejected(error)
    return {"structures": structures.subset(left), "report": Dict(account)}
