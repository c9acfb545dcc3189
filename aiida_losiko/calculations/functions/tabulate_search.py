"""One table of what several databases made of the same starts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import node_to_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("tabulate_search",)

#: Up to this many rows are listed; the summaries are of all.
MAX_ROWS = 10_000

COLUMNS = (
    "database",
    "identifier",
    "formula",
    "n_atoms",
    "status",
    "initial_loss",
    "loss",
    "n_out_of_reach",
    "density",
)


@calcfunction
def tabulate_search(**relaxed: Any) -> Dict | ExitCode:
    """Return loss, density and energy per structure and database.

    Parameters
    ----------
    **relaxed
        By label of the database: `structures` or `structure`, and `matches`, as `losiko.relax` gives them; optional
        `energies`, an ArrayData with `energy_per_atom` (eV/atom, NaN where there is none) in the order of the
        structures, from whatever calculated it.

    Returns
    -------
    Dict
        `units`; `databases`: by label `n_structures`, `n_converged`, and of `loss`, `density` and `energy_per_atom`
        `mean`, `smallest`, `largest` (None where none is known); `rows`: columns `database`, `identifier`, `formula`,
        `n_atoms`, `status`, `initial_loss`, `loss`, `n_out_of_reach`, `density` (None for what is not periodic in
        three directions) and `energy_per_atom`, up to 10,000 rows. Losses with different databases cannot be
        compared: each is a distance to what that database knows. Exit status 201 for outputs that do not belong
        together.
    """
    try:
        return Dict(_table(relaxed))
    except LosikoError as error:
        return rejected(error)


def _table(relaxed: Mapping[str, Any]) -> dict[str, Any]:
    rows: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, "energy_per_atom")}
    databases: dict[str, Any] = {}
    for label in sorted(relaxed):
        own = _rows(label, relaxed[label])
        databases[label] = {
            "n_structures": len(own["identifier"]),
            "n_converged": own["status"].count("converged"),
            **{name: _summary(own[name]) for name in ("loss", "density", "energy_per_atom")},
        }
        for name, values in own.items():
            rows[name] += values
    units = {"density": "g/cm3", "energy_per_atom": "eV/atom"}
    count = len(rows["identifier"])
    table = {"units": units, "databases": databases, "n_rows": count}
    return {**table, "rows": rows} if count <= MAX_ROWS else table


def _rows(label: str, outputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of one database."""
    node = outputs.get("structures", outputs.get("structure"))
    if node is None or "matches" not in outputs:
        raise LosikoError(f"{label} has {', '.join(outputs) or 'nothing'}: give structures (or structure) and matches")
    structures, matches = node_to_atoms(node), outputs["matches"]
    names = [str(name) for name in matches.get_array("identifiers")]
    if len(names) != len(structures):
        raise LosikoError(
            f"{label} has {len(structures)} structures and matches of {len(names)}: give those of one run"
        )
    offsets, reach = matches.get_array("offsets"), matches.get_array("out_of_reach")
    energies = np.full(len(names), np.nan)
    if "energies" in outputs:
        energies = np.asarray(outputs["energies"].get_array("energy_per_atom"), dtype=np.float64)
        if energies.shape != (len(names),):
            raise LosikoError(f"{label} has energies of shape {energies.shape}: give one for each of {len(names)}")
    return {
        "database": [label] * len(names),
        "identifier": names,
        "formula": [atoms.get_chemical_formula() for atoms in structures],
        "n_atoms": [len(atoms) for atoms in structures],
        "status": matches.get_array("status").tolist(),
        "initial_loss": _plain(matches.get_array("initial_loss")),
        "loss": _plain(matches.get_array("loss")),
        "n_out_of_reach": [int((reach[a:b] == 1).sum()) for a, b in pairwise(offsets)],
        "density": [_density(atoms) for atoms in structures],
        "energy_per_atom": _plain(energies),
    }


def _density(atoms: Atoms) -> float | None:
    from aiida_losiko.core.metrics import density

    return float(density(atoms)) if atoms.pbc.all() else None


def _plain(values: Any) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _summary(values: list[float | None]) -> dict[str, float | None]:
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return {"mean": None, "smallest": None, "largest": None}
    return {"mean": float(known.mean()), "smallest": float(known.min()), "largest": float(known.max())}
