"""What every atom of relaxed structures was matched to, as arrays, and back again as rows.

The arrays of one relaxation (S structures with N atoms in all, in the order of the set):

=================  ================  =====================================================================
name               shape, type       meaning
=================  ================  =====================================================================
``offsets``        (S+1,) int64      atoms `offsets[i]` to `offsets[i+1]` belong to structure i
``distance``       (N,) float64      distance from the match, as of `core.relaxation.results.Matches`, NaN: none
``source_index``   (N,) int64        row of `sources`, -1: none
``atom_index``     (N,) int64        atom of that source structure, -1: none
``out_of_reach``   (N,) int8         1: outside what the database knows, 0: inside, -1: not known
``sources``        (M,) unicode      identifiers of the source structures that occur
``identifiers``    (S,) unicode      identifiers of the relaxed structures
``status``         (S,) unicode      `converged`, `max_steps`, `stalled`, `max_seconds`, `interrupted`, `error`
``converged``      (S,) bool         whether the relaxation converged
``loss``           (S,) float64      final loss (Eq. 8, or of the last stage of a learnt metric), NaN: none
``initial_loss``   (S,) float64      loss of the start, or of the start of that stage
``steps``          (S,) int64        optimiser steps
``evaluations``    (S,) int64        evaluations of loss and gradient
=================  ================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiida.orm import ArrayData
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

__all__ = ("atom_matches", "matches_to_node", "summarise")

#: Up to this many structures, the report node lists the scalars of each; the arrays have them always.
MAX_LISTED = 1000

_REACH = {True: 1, False: 0, None: -1}


def matches_to_node(
    relaxations: Sequence[Mapping[str, Any]], n_atoms: Sequence[int], identifiers: Sequence[str]
) -> ArrayData:
    """Return the unstored arrays of some relaxations.

    Parameters
    ----------
    relaxations
        One `Relaxation.to_dict()` per structure, in order; of those with an error, `status` is enough.
    n_atoms
        Atoms of each structure; those of a structure without matches (it had an error) get NaN and -1.
    identifiers
        Identifier of each structure.

    Returns
    -------
    ArrayData
        With the arrays that the module's description lists.

    Raises
    ------
    LosikoError
        If the numbers of structures or atoms do not fit together.
    """
    if not len(relaxations) == len(n_atoms) == len(identifiers):
        raise LosikoError(
            f"{len(relaxations)} relaxations of {len(n_atoms)} structures with {len(identifiers)} identifiers: "
            "there must be one for each"
        )
    offsets = np.concatenate([[0], np.cumsum(np.asarray(n_atoms, dtype=np.int64))]).astype(np.int64)
    total = int(offsets[-1])
    distance = np.full(total, np.nan)
    source_index, atom_index = np.full(total, -1, dtype=np.int64), np.full(total, -1, dtype=np.int64)
    out_of_reach = np.full(total, -1, dtype=np.int8)
    table: dict[str, int] = {}
    for begin, end, relaxation in zip(offsets[:-1], offsets[1:], relaxations, strict=True):
        matches = relaxation.get("matches")
        if not matches:
            continue
        if len(matches["source"]) != end - begin:
            raise LosikoError(
                f"{len(matches['source'])} matches for {end - begin} atoms: the report is not of this set"
            )
        distance[begin:end] = _floats(matches["distance"])
        atom_index[begin:end] = matches["atom_index"]
        source_index[begin:end] = [table.setdefault(str(name), len(table)) for name in matches["source"]]
        out_of_reach[begin:end] = [_REACH[flag] for flag in matches["out_of_reach"]]
    arrays: dict[str, NDArray[Any]] = {
        "offsets": offsets,
        "distance": distance,
        "source_index": source_index,
        "atom_index": atom_index,
        "out_of_reach": out_of_reach,
        "sources": np.array(list(table), dtype=np.str_),
        "identifiers": np.array(list(identifiers), dtype=np.str_),
        "status": np.array([relaxation["status"] for relaxation in relaxations], dtype=np.str_),
        "converged": np.array([bool(relaxation["converged"]) for relaxation in relaxations]),
        "loss": _floats([relaxation.get("loss") for relaxation in relaxations]),
        "initial_loss": _floats([relaxation.get("initial_loss") for relaxation in relaxations]),
        "steps": np.array([relaxation.get("steps", 0) for relaxation in relaxations], dtype=np.int64),
        "evaluations": np.array([relaxation.get("evaluations", 0) for relaxation in relaxations], dtype=np.int64),
    }
    return ArrayData(arrays)


def atom_matches(node: ArrayData, index: int, atoms: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Return what atoms of one structure were matched to, as plain rows.

    Parameters
    ----------
    node
        Arrays of `matches_to_node`.
    index
        Index of the structure in its set.
    atoms
        Indices of atoms in the structure, default all.

    Returns
    -------
    list of dict
        Per atom: `atom`, `source` (identifier or None), `source_atom` (index or None), `distance` (or None),
        `out_of_reach` (True, False, or None where it is not known).

    Raises
    ------
    LosikoError
        If there is no such structure or atom.
    """
    offsets = node.get_array("offsets")
    if not 0 <= index < len(offsets) - 1:
        raise LosikoError(f"structure {index} of {len(offsets) - 1}: use an index from 0 to {len(offsets) - 2}")
    begin, count = int(offsets[index]), int(offsets[index + 1] - offsets[index])
    chosen = range(count) if atoms is None else atoms
    for atom in chosen:
        if not 0 <= atom < count:
            raise LosikoError(f"atom {atom} of a structure of {count} atoms: use an index from 0 to {count - 1}")
    arrays = {name: node.get_array(name) for name in ("distance", "source_index", "atom_index", "out_of_reach")}
    sources = node.get_array("sources")
    reach = {value: key for key, value in _REACH.items()}
    rows = []
    for atom in chosen:
        row = {name: array[begin + atom] for name, array in arrays.items()}
        known = bool(row["source_index"] >= 0)
        rows.append(
            {
                "atom": int(atom),
                "source": str(sources[row["source_index"]]) if known else None,
                "source_atom": int(row["atom_index"]) if known else None,
                "distance": float(row["distance"]) if known else None,
                "out_of_reach": reach[int(row["out_of_reach"])],
            }
        )
    return rows


def summarise(relaxations: Sequence[Mapping[str, Any]], identifiers: Sequence[str]) -> dict[str, Any]:
    """Return the small, JSON-able account of some relaxations that goes to a report node.

    Parameters
    ----------
    relaxations
        One `Relaxation.to_dict()` per structure.
    identifiers
        Identifier of each structure.

    Returns
    -------
    dict
        `n_structures`, `n_converged`, counts per `status`, `flags` (flag to identifiers), `errors` (identifier to
        message), mean and largest `loss`, `n_out_of_reach` of all atoms, sums of `steps`,
        `evaluations`; and up to 1,000 structures also `structures`: lists of `identifier`, `status`, `loss`,
        `initial_loss`, `steps`, `evaluations` and `n_out_of_reach` in order. Of flags and errors the first 1,000.
    """
    status: dict[str, int] = {}
    flags: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    out_of_reach = []
    for name, relaxation in zip(identifiers, relaxations, strict=True):
        status[relaxation["status"]] = status.get(relaxation["status"], 0) + 1
        for flag in relaxation.get("flags") or ():
            flags.setdefault(flag, []).append(name)
        if relaxation.get("error"):
            errors[name] = str(relaxation["error"])
        reach = (relaxation.get("matches") or {}).get("out_of_reach", ())
        out_of_reach.append(sum(flag is True for flag in reach))
    losses = _floats([relaxation.get("loss") for relaxation in relaxations])
    finite = losses[np.isfinite(losses)]
    report: dict[str, Any] = {
        "n_structures": len(relaxations),
        "n_converged": sum(bool(relaxation["converged"]) for relaxation in relaxations),
        "status": status,
        "flags": {flag: names[:MAX_LISTED] for flag, names in flags.items()},
        "errors": dict(list(errors.items())[:MAX_LISTED]),
        "mean_loss": float(finite.mean()) if finite.size else None,
        "max_loss": float(finite.max()) if finite.size else None,
        "n_out_of_reach": sum(out_of_reach),
        "steps": sum(int(relaxation.get("steps", 0)) for relaxation in relaxations),
        "evaluations": sum(int(relaxation.get("evaluations", 0)) for relaxation in relaxations),
    }
    if len(relaxations) <= MAX_LISTED:
        keys = ("status", "loss", "initial_loss", "steps", "evaluations")
        lists = {key: [_plain(relaxation.get(key)) for relaxation in relaxations] for key in keys}
        report["structures"] = {"identifier": list(identifiers), **lists, "n_out_of_reach": out_of_reach}
    return report


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _plain(value: Any) -> Any:
    """Return None for a number that the AiiDA database cannot hold."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
