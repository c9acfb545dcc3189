"""From documents of the Materials Project to records."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceRecord
from aiida_losiko.sources.materials_project_query import is_non_commercial

if TYPE_CHECKING:
    from ase import Atoms

LICENCE = "CC-BY-4.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"
REFERENCE = "10.1063/1.4812323"
"""Jain et al., APL Mater. 1, 011002 (2013)."""


def make_records(
    documents: Iterable[Mapping[str, Any]], *, database_version: str, thermo_type: str
) -> list[SourceRecord]:
    """Return the records of documents, by number of the material id.

    Parameters
    ----------
    documents : iterable of mapping
        Summaries with the fields :data:`aiida_losiko.sources.materials_project_query.FIELDS`.
    database_version, thermo_type : str
        Written into every record.

    Raises
    ------
    LosikoError
        None of the entries can be used.

    Warns
    -----
    UserWarning
        Names the entries that are disordered or cannot be read, and why; they are left out.
    """
    records: list[SourceRecord] = []
    rejected: dict[str, list[str]] = {}
    for document in sorted(documents, key=lambda document: _order(str(document.get("material_id")))):
        name = str(document.get("material_id"))
        try:
            atoms = _atoms(document.get("structure"))
        except LosikoError as exc:
            rejected.setdefault(str(exc), []).append(f"{name} ({document.get('formula_pretty')})")
            continue
        properties = _properties(document, database_version, thermo_type)
        records.append(SourceRecord(name, atoms, properties))
    lines = [f"{reason}: {', '.join(names)}" for reason, names in rejected.items()]
    if rejected and not records:
        raise LosikoError(
            f"no entry of the Materials Project is left: {'; '.join(lines)}; ask for other entries or allow more"
        )
    for line in lines:
        warnings.warn(f"entries of the Materials Project are left out, {line}", UserWarning, stacklevel=4)
    return records


def _atoms(structure: Any) -> Atoms:
    """Return the atoms of a structure as the service writes it.

    Raises
    ------
    LosikoError
        Why it cannot be used, without its name.
    """
    from ase import Atoms
    from pymatgen.core.structure import Structure

    from aiida_losiko.core.structures.check import check_structure

    if not isinstance(structure, Mapping):
        raise LosikoError("no structure")
    try:
        crystal = Structure.from_dict(dict(structure))
        if not crystal.is_ordered:
            raise LosikoError("disordered or partially occupied")
        numbers = [site.specie.Z for site in crystal]
        atoms = Atoms(numbers=numbers, scaled_positions=crystal.frac_coords, cell=crystal.lattice.matrix)
        atoms.pbc = crystal.lattice.pbc
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        if isinstance(exc, LosikoError):
            raise
        raise LosikoError(f"a structure that cannot be read ({type(exc).__name__})") from None
    check_structure(atoms)
    return atoms


def _properties(document: Mapping[str, Any], database_version: str, thermo_type: str) -> dict[str, Any]:
    symmetry = document.get("symmetry") or {}
    properties = {
        "material_id": document.get("material_id"),
        "formula": document.get("formula_pretty"),
        "chemsys": document.get("chemsys"),
        "energy_above_hull": document.get("energy_above_hull"),
        "energy_per_atom": document.get("energy_per_atom"),
        "thermo_type": thermo_type,
        "space_group": symmetry.get("number"),
        "space_group_symbol": symmetry.get("symbol"),
        "n_sites": document.get("nsites"),
        "theoretical": document.get("theoretical"),
        "deprecated": document.get("deprecated"),
        "licence": NON_COMMERCIAL if is_non_commercial(document) else LICENCE,
        "reference": REFERENCE,
        "database_version": database_version,
    }
    return {name: value for name, value in properties.items() if value is not None}


def _order(material_id: str) -> tuple[str, int, str]:
    """Sort mp-2 before mp-10."""
    prefix, _, rest = material_id.partition("-")
    number = int(rest) if re.fullmatch(r"\d+", rest) else 0
    return prefix, number, rest
