"""Entries of OPTIMADE databases as records: which can be taken, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aiida_losiko.core.checks import is_whole
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures import check_structure
from aiida_losiko.sources.base import SourceRecord
from aiida_losiko.sources.optimade_providers import Dialect
from aiida_losiko.sources.optimade_query import OptimadeQuery

NOT_PLAIN = {
    "disorder": "disordered",
    "implicit_atoms": "atoms without a place",
    "site_attachments": "attached atoms without a place",
    "assemblies": "disordered",
}
"""Values of ``structure_features`` that no list of atoms can express, and how they are told to the user."""


class _CannotTakeError(Exception):
    """The reason why an entry is left out; the loader makes a warning or an error of it."""


def within_hull(entries: list[dict[str, Any]], query: OptimadeQuery, dialect: Dialect) -> list[dict[str, Any]]:
    """Return the entries whose energy above hull is known and within the limit; all of them where there is none.

    The server has applied it already where it can; not every server treats unknown values alike.

    Raises
    ------
    LosikoError
        None is left.
    """
    if (limit := query.energy_above_hull) is None:
        return entries
    hulls = [dialect.energy_above_hull(entry.get("attributes") or {}, query.thermo_type) for entry in entries]
    kept = [entry for entry, hull in zip(entries, hulls, strict=True) if hull is not None and hull <= limit]
    if not kept:
        known = [hull for hull in hulls if hull is not None]
        lowest = f"the lowest is {min(known):g} eV/atom: allow more" if known else "they have no energy above hull"
        of = f" for thermo_type {query.thermo_type}" if dialect.by_thermo_type else ""
        raise LosikoError(f"{query.hull_option} leaves none of {len(entries)} OPTIMADE entries; {lowest}{of}")
    return kept


def read_entries(
    entries: list[dict[str, Any]],
    query: OptimadeQuery,
    dialect: Dialect,
    *,
    name: str,
    licence: str,
    reference: str,
    base_url: str,
) -> tuple[list[SourceRecord], dict[str, list[str]]]:
    """Return the records of entries, and the identifiers of those that cannot be taken, by reason.

    Parameters
    ----------
    entries : list of dict
        As the server gives them.
    query, dialect : OptimadeQuery, Dialect
        What was asked, and what the provider calls it.
    name, licence, reference, base_url : str
        Of the database.
    """
    from pymatgen.core.composition import Composition

    records: list[SourceRecord] = []
    rejected: dict[str, list[str]] = {}
    for entry in entries:
        identifier, attributes = str(entry.get("id")), entry.get("attributes") or {}
        try:
            atoms = _atoms(attributes)
        except _CannotTakeError as exc:
            rejected.setdefault(str(exc), []).append(identifier)
            continue
        hull = dialect.energy_above_hull(attributes, query.thermo_type) if dialect.hull else None
        known: dict[str, Any] = {
            "formula": Composition(str(atoms.symbols)).reduced_formula,
            "n_sites": len(atoms),
            "energy_above_hull": hull,
            "thermo_type": query.thermo_type if dialect.by_thermo_type and hull is not None else None,
            **_space_group(attributes, dialect),
            "licence": licence,
            "reference": reference,
            "url": f"{base_url}/v1/structures/{identifier}",
            "last_modified": attributes.get("last_modified"),
        }
        properties = {key: value for key, value in known.items() if value not in (None, "")}
        records.append(SourceRecord(f"optimade:{name}:{identifier}", atoms, properties))
    return records, rejected


def _atoms(attributes: Mapping[str, Any]) -> Any:
    """Return the atoms of an entry.

    Raises
    ------
    _CannotTakeError
        The entry is disordered or incomplete, or its atoms make no sense.
    """
    from ase import Atoms

    for feature in attributes.get("structure_features") or ():
        if feature in NOT_PLAIN:
            raise _CannotTakeError(NOT_PLAIN[feature])
    at_sites = attributes.get("species_at_sites")
    if not isinstance(at_sites, list) or not at_sites:
        raise _CannotTakeError("no atoms")
    symbols = _symbols(attributes.get("species") or [])
    numbers = [_known_element(symbols.get(name, name)) for name in at_sites]
    try:
        positions = np.array(attributes.get("cartesian_site_positions"), dtype=float)
        rows = attributes.get("lattice_vectors") or [[0.0, 0.0, 0.0]] * 3
        cell = np.array([[0.0 if x is None else x for x in row] for row in rows], dtype=float)
        pbc = [bool(periodic) for periodic in attributes.get("dimension_types") or (1, 1, 1)]
        atoms = Atoms(numbers, positions, cell=cell, pbc=pbc)
        check_structure(atoms)
    except LosikoError as exc:
        raise _CannotTakeError(str(exc)) from None
    except (TypeError, ValueError):
        raise _CannotTakeError("positions or lattice vectors are missing or malformed") from None
    return atoms


def _symbols(species: list[Any]) -> dict[str, str]:
    """Return the element of every species that has exactly one at full occupancy."""
    symbols = {}
    for each in species:
        elements, shares = each.get("chemical_symbols") or [], each.get("concentration") or [1.0]
        if each.get("attached"):
            raise _CannotTakeError(NOT_PLAIN["site_attachments"])
        if len(elements) != 1 or abs(shares[0] - 1) > 1e-6:
            raise _CannotTakeError("disordered")
        symbols[each.get("name")] = elements[0]
    return symbols


def _known_element(symbol: Any) -> int:
    from ase.data import atomic_numbers

    if symbol not in atomic_numbers or symbol == "X":
        raise _CannotTakeError(f"a species {symbol!r} that is no element")
    return atomic_numbers[symbol]


def _space_group(attributes: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return number and symbol of the space group where the entry says one of them."""
    from pymatgen.symmetry.groups import SpaceGroup, sg_symbol_from_int_number

    number: Any = attributes.get(dialect.space_group) if dialect.space_group else None
    number = number if is_whole(number, 1) else attributes.get("space_group_it_number")
    symbol = attributes.get(dialect.space_group_symbol) if dialect.space_group_symbol else None
    if not is_whole(number, 1) and isinstance(symbol, str):
        try:
            number = SpaceGroup(symbol.replace(" ", "")).int_number
        except ValueError:
            return {"space_group_symbol": symbol}
    if not is_whole(number, 1) or number > 230:
        return {}
    return {"space_group": int(number), "space_group_symbol": sg_symbol_from_int_number(int(number))}
