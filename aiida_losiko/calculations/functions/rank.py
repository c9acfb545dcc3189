"""The best structures of a relaxed set, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import ArrayData, Dict
from numpy.typing import NDArray

from aiida_losiko.calculations.functions.common import check_keys, number, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("rank",)

#: How many, and how close duplicates are in Angstrom (see `core.duplicates`); null: none are looked for.
DEFAULTS: dict[str, Any] = {"max_structures": 10, "duplicate_tolerance": 0.05}


#: Up to this many are listed.
MAX_ROWS = 10_000


@calcfunction
def rank(
    structures: StructureSetData,
    parameters: Dict,
    matches: ArrayData | None = None,
    starts: StructureSetData | None = None,
) -> dict[str, Any] | ExitCode:
    """Return the structures of the lowest loss per atom, the lowest first, without duplicates.

    Parameters
    ----------
    structures
        Relaxed structures.
    parameters
        Keys, both optional: `max_structures` (default 10) and `duplicate_tolerance` (Angstrom, default 0.05; of two
        that are closer the better one is taken; null for no such test).
    matches
        As `losiko.relax` gives them; structures that had an error are left out. Without them the order is that of the
        set.
    starts
        A set with the starts of the structures, by the same identifiers; it may hold more.

    Returns
    -------
    dict
        `structures` (StructureSetData), `starts` (StructureSetData, in the same order) where they are given, and
        `ranking` (Dict: counts, and up to 10,000 rows `identifier`, `loss`, `loss_per_atom`, `chosen`,
        `duplicate_of`, in the order of their rank). Exit status 201 for wrong parameters, matches or starts of other
        structures, and where none is left.
    """
    try:
        return _rank(structures, parameters.get_dict(), matches, starts)
    except LosikoError as error:
        return rejected(error)


def _rank(
    structures: StructureSetData,
    parameters: dict[str, Any],
    matches: ArrayData | None,
    starts: StructureSetData | None,
) -> dict[str, Any]:
    check_keys(parameters, DEFAULTS)
    most = int(number(parameters, "max_structures", DEFAULTS["max_structures"], 1))
    tolerance = parameters.get("duplicate_tolerance", DEFAULTS["duplicate_tolerance"])
    if tolerance is not None:
        tolerance = number(parameters, "duplicate_tolerance", DEFAULTS["duplicate_tolerance"], 0.0, "Angstrom")
    names, atoms = structures.get_identifiers(), structures.get_atoms()
    losses = np.full(len(atoms), np.nan) if matches is None else _losses(matches, names)
    per_atom = losses / [len(each) for each in atoms]
    order = [int(i) for i in np.argsort(per_atom, kind="stable") if matches is None or np.isfinite(losses[i])]
    chosen, duplicates = _choose(atoms, order, most, tolerance)
    if not chosen:
        raise LosikoError(f"none of the {len(atoms)} structures has a loss: see the report of the relaxation")
    n_ranked, order = len(order), order[:MAX_ROWS]
    rows = {
        "identifier": [names[i] for i in order],
        "loss": [_plain(losses[i]) for i in order],
        "loss_per_atom": [_plain(per_atom[i]) for i in order],
        "chosen": [i in chosen for i in order],
        "duplicate_of": [names[duplicates[i]] if i in duplicates else None for i in order],
    }
    counts = {"n_structures": len(atoms), "n_ranked": n_ranked, "n_chosen": len(chosen)}
    counts |= {"n_duplicates": len(duplicates)}
    outputs: dict[str, Any] = {
        "structures": structures.subset(chosen),
        "ranking": Dict({**counts, "rows": rows}),
    }
    if starts is not None:
        outputs["starts"] = starts.subset([starts.index_of(names[i]) for i in chosen])
    return outputs


def _losses(matches: ArrayData, names: list[str]) -> NDArray[np.float64]:
    if [str(name) for name in matches.get_array("identifiers")] != names:
        raise LosikoError(f"the matches are not those of the {len(names)} structures: give both from the same run")
    losses = np.array(matches.get_array("loss"), dtype=np.float64)
    losses[matches.get_array("status") == "error"] = np.nan
    return losses


def _choose(
    atoms: list[Atoms], order: list[int], most: int, tolerance: float | None
) -> tuple[list[int], dict[int, int]]:
    """Go down the ranks until there are enough; return those, and of which one others are duplicates."""
    from aiida_losiko.core.duplicates import same_structure

    chosen: list[int] = []
    duplicates: dict[int, int] = {}
    for index in order:
        if len(chosen) == most:
            break
        same = [k for k in chosen if tolerance is not None and same_structure(atoms[index], atoms[k], tolerance)]
        if same:
            duplicates[index] = same[0]
        else:
            chosen.append(index)
    return chosen, duplicates


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
