"""One table of what an engine says about starts, LOSIKO's structures and the minima behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, List

from aiida_losiko.calculations.functions.common import rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import node_to_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("STAGES", "tabulate_validation")

#: The three structures that are compared: where it began, where LOSIKO ended, where the engine went from there.
STAGES = ("start", "losiko", "minimum")

UNITS = {
    "energy": "eV",
    "energy_per_atom": "eV/atom",
    "gap": "eV",
    "rmsd": "Angstrom",
    "largest_displacement": "Angstrom",
    "volume_change": "%",
}


@calcfunction
def tabulate_validation(compute: List | None = None, **groups: Any) -> Dict | ExitCode:
    """Return energies, gaps and differences of geometry, one row for each structure.

    Parameters
    ----------
    compute
        Which of start, losiko and minimum were to be computed: one of these without an energy is a problem.
    **groups
        By a label, what belongs together: `start`, `losiko` and `minimum`, each with `structure` (one structure, or a
        set), and where it was computed `measurement` and `dos` (`measurement` of `losiko.measure`, of the task `dos`
        the latter).

    Returns
    -------
    dict
        `engine`, `units`, `n_rows` and `rows`, a list for each column: `identifier`, `formula`, `n_atoms`; for each of
        start, losiko and minimum `energy_<stage>`, `energy_per_atom_<stage>`, `gap_<stage>`; `recovered`: which part of
        the energy between start and minimum LOSIKO won; `rmsd_start` and `rmsd_losiko` to the minimum;
        `largest_displacement` of an atom and `volume_change` from LOSIKO's structure to the minimum (crystals);
        `coordination_changed`: the number of atoms with other neighbours in the minimum; `converged`; `problems`, a
        text. None for what is not known. Exit status 201 for nodes that do not belong together.
    """
    try:
        asked = () if compute is None else tuple(compute.get_list())
        rows = [row for label in sorted(groups, key=_place) for row in _rows(label, groups[label], asked)]
    except LosikoError as error:
        return rejected(error)
    names = list(dict.fromkeys(name for row in rows for name in row))
    engines = {m["engine"] for group in groups.values() for m in _measurements(group)}
    return Dict(
        {
            "engine": ", ".join(sorted(engines)),
            "units": UNITS,
            "n_rows": len(rows),
            "rows": {name: [row[name] for row in rows] for name in names},
        }
    )


def _place(label: str) -> tuple[int, str]:
    """Sort `structure_10` after `structure_9`."""
    return len(label), label


def _measurements(group: Mapping[str, Any]) -> list[Any]:
    return [stage[name] for stage in group.values() for name in ("measurement", "dos") if name in stage]


def _rows(label: str, group: Mapping[str, Any], asked: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each structure of a group."""
    unknown = sorted(set(group) - set(STAGES))
    if unknown or "losiko" not in group:
        known = ", ".join(STAGES)
        raise LosikoError(f"{label} has {', '.join(sorted(group)) or 'nothing'}: give losiko and some of {known}")
    structures = {stage: node_to_atoms(group[stage]["structure"]) for stage in group if "structure" in group[stage]}
    count = len(structures["losiko"])
    odd = [stage for stage, atoms in structures.items() if len(atoms) != count]
    if odd:
        raise LosikoError(f"{label} has {count} structures of LOSIKO and {len(structures[odd[0]])} of {odd[0]}")
    rows = []
    for index, atoms in enumerate(structures["losiko"]):
        row: dict[str, Any] = {
            "identifier": str(atoms.info["identifier"]),
            "formula": atoms.get_chemical_formula(),
            "n_atoms": len(atoms),
        }
        measured = {stage: _measured(group.get(stage, {}), index) for stage in STAGES}
        row |= _energies(measured, len(atoms))
        # The structure of a minimum that has no energy is not one.
        there = [stage for stage in structures if stage != "minimum" or measured[stage]["energy"] is not None]
        row |= _geometry({stage: structures[stage][index] for stage in there})
        for stage in asked:
            # A start is only computed where there is one.
            own = measured[stage]
            if own["energy"] is None and not own["problems"] and (stage in group or stage == "minimum"):
                own["problems"].append("no energy")
        problems = [f"{stage}: {text}" for stage, own in measured.items() for text in own["problems"]]
        rows.append({**row, "converged": not problems, "problems": "; ".join(problems)})
    return rows


def _measured(stage: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return energy and gap of a structure; the gap is that of the density of states, where there is one."""
    found: dict[str, Any] = {"energy": None, "gap": None, "problems": []}
    for name in ("measurement", "dos"):
        if name not in stage:
            continue
        own = {key: stage[name][key][index] for key in ("energy", "gap", "converged", "error")}
        found["energy"] = own["energy"] if found["energy"] is None else found["energy"]
        found["gap"] = found["gap"] if own["gap"] is None else own["gap"]
        if own["error"] or not own["converged"]:
            found["problems"].append(own["error"] or "not converged")
    return found


def _energies(measured: Mapping[str, Mapping[str, Any]], n_atoms: int) -> dict[str, Any]:
    energies = {stage: own["energy"] for stage, own in measured.items()}
    row: dict[str, Any] = {f"energy_{stage}": energy for stage, energy in energies.items()}
    for stage, energy in energies.items():
        row[f"energy_per_atom_{stage}"] = None if energy is None else energy / n_atoms
    row |= {f"gap_{stage}": own["gap"] for stage, own in measured.items()}
    start, losiko, minimum = (energies[stage] for stage in STAGES)
    known = None not in (start, losiko, minimum)
    row["recovered"] = (start - losiko) / (start - minimum) if known and start - minimum > 1e-6 else None
    return row


def _geometry(structures: Mapping[str, Atoms]) -> dict[str, Any]:
    """Return how far start and LOSIKO's structure are from the minimum."""
    from aiida_losiko.core.metrics import coordination_numbers, displacements, rmsd

    names = ("rmsd_start", "rmsd_losiko", "largest_displacement", "volume_change", "coordination_changed")
    row: dict[str, Any] = dict.fromkeys(names)
    if "minimum" not in structures:
        return row
    losiko = structures["losiko"]
    minimum = _in_order(structures["minimum"], losiko)
    if "start" in structures:
        row["rmsd_start"] = rmsd(structures["start"], minimum)
    row["rmsd_losiko"] = rmsd(losiko, minimum)
    row["largest_displacement"] = float(np.linalg.norm(displacements(losiko, minimum), axis=1).max())
    if losiko.pbc.all():
        row["volume_change"] = 100.0 * (minimum.get_volume() / losiko.get_volume() - 1.0)
    row["coordination_changed"] = int((coordination_numbers(losiko) != coordination_numbers(minimum)).sum())
    return row


def _in_order(atoms: Atoms, like: Atoms) -> Atoms:
    """Return the atoms in the order of `like`, where a program has sorted them by element and not else."""
    if len(atoms) != len(like) or sorted(atoms.numbers) != sorted(like.numbers):
        raise LosikoError(f"{atoms.get_chemical_formula()} is no minimum of {like.get_chemical_formula()}")
    order = np.empty(len(like), dtype=int)
    for number in np.unique(like.numbers):
        order[like.numbers == number] = np.flatnonzero(atoms.numbers == number)
    return atoms[order]
