"""Archives of random searches: extended XYZ and AIRSS ``.res`` files with energies.

Energies are compared with the lowest entry of the same composition in the archive; the LOSIKO paper keeps what lies
within 0.5 eV/atom.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.archive_entries import Entry, Rejected, read_entries
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.download import md5_of
from aiida_losiko.sources.selection import Selection, SelectionLike, parse_selection

if TYPE_CHECKING:
    from ase import Atoms


def load_archive(
    path: str | Path | None,
    selection: SelectionLike,
    *,
    max_energy_above_lowest: float | None = None,
    collection: str = "",
    version: str = "",
    licence: str = "",
    reference: str = "",
    url: str = "",
) -> tuple[SourceInfo, list[SourceRecord]]:
    """Load structures for `aiida_losiko.sources.load_source`.

    Parameters
    ----------
    path : str or Path
        See :func:`aiida_losiko.sources.archive_files.iterate_members`.
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`; numbers are places in the archive, broken members counted.
    max_energy_above_lowest : float, optional
        In eV/atom; default no limit. The lowest is that of the composition in the whole archive, whatever is selected.
    collection, version, licence, reference, url : str
        What the archive does not know of itself, for the `SourceInfo`; the collection is named like
        the file unless given.

    Returns
    -------
    (SourceInfo, list of SourceRecord)
        Identifiers ``airss:<name>`` of ``.res`` files and ``archive:<name>`` of others, with ``#2`` and so on where a
        name comes again. Properties: those of the file, ``formula``, ``n_sites``, ``n_copies`` (how often the search
        met it, 1 unless the file says so), ``energy_per_atom`` and ``energy_above_lowest`` (eV/atom; the enthalpy where
        the search was under pressure), ``licence`` and ``reference`` if given.

    Raises
    ------
    LosikoError
        A path, selection or limit that cannot be used, or nothing left, with the filter that emptied it.

    Warns
    -----
    UserWarning
        Members that are left out, by name and with the reason: broken, partly occupied, or without an energy where
        there is a limit. Entries of one composition at different pressures.
    """
    if path is None:
        raise LosikoError(
            "source archive needs the path of an extended XYZ or .res file, a folder, a tar or a zip of them"
        )
    path = Path(path)
    limit = _limit(max_energy_above_lowest)
    chosen = parse_selection(selection, {})
    entries = read_entries(path)
    lowest = _lowest(entries)
    info = SourceInfo(
        name=collection or path.name,
        version=version,
        licence=licence,
        reference=reference,
        url=url,
        checksum=f"md5:{md5_of(path)}" if path.is_file() else "",
    )
    known = {key: value for key, value in (("licence", licence), ("reference", reference)) if value}
    kept = _filtered(path, entries, chosen, limit, lowest)
    return info, [SourceRecord(e.identifier, e.atoms, _properties(e, lowest) | known) for e in chosen.draw(kept)]


def _limit(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise LosikoError(f"max_energy_above_lowest is {value!r}; allowed are numbers from 0, in eV/atom, or none")
    return float(value)


def _filtered(
    path: Path, entries: list[Entry], chosen: Selection, limit: float | None, lowest: dict[str, float]
) -> list[Entry]:
    """Apply the selection, then the limit; an error says which of them leaves nothing."""
    selected = [e for e in entries if chosen.wants(e.number, e.identifier) and chosen.fits(e.atoms.symbols)]
    if not selected:
        raise LosikoError(f"{path}: the selection leaves none of {len(entries)} structures; select more")
    if limit is None:
        return selected
    without = Rejected("it has no energy to compare")
    compared = []
    for entry in selected:
        if entry.energy is None:
            without.add(entry.identifier)
        else:
            compared.append((entry, entry.energy - lowest[_composition(entry.atoms)]))
    without.report()
    if not compared:
        raise LosikoError(
            f"{path}: none of {len(selected)} selected structures has an energy; leave max_energy_above_lowest out"
        )
    kept = [entry for entry, above in compared if above <= limit + 1e-9]
    if not kept:
        nearest = min(above for _, above in compared)
        raise LosikoError(
            f"{path}: max_energy_above_lowest {limit:g} eV/atom leaves none of {len(compared)} selected structures; "
            f"the lowest of them is {nearest:.4g} above: raise it or select more"
        )
    return kept


def _lowest(entries: list[Entry]) -> dict[str, float]:
    """Lowest energy (eV/atom) of each composition."""
    lowest: dict[str, float] = {}
    pressures: dict[str, list[float]] = {}
    for entry in entries:
        if entry.energy is not None:
            key = _composition(entry.atoms)
            lowest[key] = min(entry.energy, lowest.get(key, math.inf))
            if isinstance(pressure := entry.properties.get("pressure"), int | float):
                pressures.setdefault(key, []).append(pressure)
    for key, values in pressures.items():
        if max(values) - min(values) > 1.0:
            warnings.warn(
                f"{key}: pressures from {min(values):g} to {max(values):g} GPa in one archive; "
                "enthalpies at different pressures cannot be compared: give one pressure at a time",
                UserWarning,
                stacklevel=4,
            )
    return lowest


def _composition(atoms: Atoms) -> str:
    return _reduced(str(atoms.symbols.formula.format("hill")))


@cache
def _reduced(formula: str) -> str:
    """As pymatgen writes it, so that the same compound has the same formula in every source."""
    from pymatgen.core.composition import Composition

    return str(Composition(formula).reduced_formula)


def _properties(entry: Entry, lowest: dict[str, float]) -> dict[str, Any]:
    formula = _composition(entry.atoms)
    properties = {"formula": formula, "n_sites": len(entry.atoms), "n_copies": 1} | entry.properties
    if entry.energy is not None:
        properties["energy_per_atom"] = entry.energy
        properties["energy_above_lowest"] = max(entry.energy - lowest[formula], 0.0)
    return properties
