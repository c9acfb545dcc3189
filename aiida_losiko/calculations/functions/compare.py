"""Comparing structures with reference structures."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import ArrayData, Dict, StructureData
from numpy.typing import NDArray

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, node_to_atoms

__all__ = ("compare",)


@calcfunction
def compare(
    structures: StructureSetData | StructureData, reference: StructureSetData | StructureData
) -> dict[str, Any] | ExitCode:
    """Return how far structures are from references with the same atoms in the same order.

    Molecules are brought to coincide first (proper rotations only), periodic structures by their mean shift; see
    `aiida_losiko.core.metrics.rmsd`.

    Parameters
    ----------
    structures
        A set, or one structure.
    reference
        One structure, with which all are compared; or a set that holds the identifier of each (it may hold more).

    Returns
    -------
    dict
        `report` (Dict: `n_structures`, and of the root mean square displacements in Angstrom `mean`, `median`,
        `smallest`, `largest`) and `rmsd` (ArrayData: `rmsd` (S,) in Angstrom, `identifiers` (S,), in order). Exit
        status 201 where a structure has no reference or other atoms.
    """
    try:
        identifiers, values = _rmsds(structures, reference)
    except LosikoError as error:
        return rejected(error)
    report = {
        "unit": "Angstrom",
        "n_structures": len(values),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "smallest": float(values.min()),
        "largest": float(values.max()),
    }
    return {"report": Dict(report), "rmsd": ArrayData({"rmsd": values, "identifiers": np.array(identifiers)})}


def _rmsds(
    structures: StructureSetData | StructureData, reference: StructureSetData | StructureData
) -> tuple[list[str], NDArray[np.float64]]:
    """Return identifiers and RMSD (Angstrom) of the structures."""
    from aiida_losiko.core.metrics import rmsd

    compared, references = node_to_atoms(structures), node_to_atoms(reference)
    single = references[0] if isinstance(reference, StructureData) or isinstance(structures, StructureData) else None
    if isinstance(structures, StructureData) and len(references) > 1:
        raise LosikoError(f"one structure and a set of {len(references)} references: choose one with losiko.select")
    by_identifier = {atoms.info["identifier"]: atoms for atoms in references}
    identifiers, values = [], []
    for atoms in compared:
        name = str(atoms.info["identifier"])
        other = single if single is not None else by_identifier.get(name)
        if other is None:
            raise LosikoError(f"structure {name!r} has no reference of that identifier in the set of {len(references)}")
        try:
            values.append(rmsd(atoms, other))
        except LosikoError as error:
            raise LosikoError(f"{name}: {error}") from error
        identifiers.append(name)
    return identifiers, np.array(values)
