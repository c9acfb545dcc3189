"""Structures of an archive as they are read: sound ones with their energies, the rest rejected by name."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import to_jsonable
from aiida_losiko.core.structures import check_structure
from aiida_losiko.sources.archive_files import RES, iterate_members, kind_of, stem_of
from aiida_losiko.sources.res_format import parse_res, split_res

if TYPE_CHECKING:
    from ase import Atoms

NAMED_ONE_BY_ONE = 20
"""So many rejected members get a warning of their own; the rest is counted in one."""

_NAMES = ("identifier", "name", "material_id", "label")
_PER_ATOM = ("energy_per_atom", "enthalpy_per_atom")
_TOTAL = ("enthalpy", "energy", "free_energy")


@dataclass
class Entry:
    """A structure as it was read: number in the archive, identifier, properties, energy (eV/atom) if it has one."""

    number: int
    identifier: str
    atoms: Atoms
    properties: dict[str, Any]
    energy: float | None


class Rejected:
    """Members that are left out for one reason, or for reasons of their own."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self.names: list[tuple[str, str]] = []

    def add(self, name: str, reason: str = "") -> None:
        """Note a member."""
        self.names.append((name, reason or self.reason))

    def report(self) -> None:
        """Warn of each, and of many in one."""
        for name, reason in self.names[:NAMED_ONE_BY_ONE]:
            warnings.warn(f"{name} is left out: {reason}", UserWarning, stacklevel=5)
        if more := self.names[NAMED_ONE_BY_ONE:]:
            names = ", ".join(name for name, _ in more[:NAMED_ONE_BY_ONE])
            rest = f" and {len(more) - NAMED_ONE_BY_ONE} others" if len(more) > NAMED_ONE_BY_ONE else ""
            warnings.warn(f"{len(more)} more members are left out: {names}{rest}", UserWarning, stacklevel=5)


def read_entries(path: Path) -> list[Entry]:
    """Read what can be used and warn of the rest.

    Raises
    ------
    LosikoError
        An archive that cannot be read, or in which nothing is sound.
    """
    entries: list[Entry] = []
    rejected, used, number = Rejected(), dict[str, int](), 0
    for member, text in iterate_members(path):
        for place, found in _members(member, text):
            number += 1
            if isinstance(found, LosikoError):
                rejected.add(place, str(found))
                continue
            identifier, atoms, properties, energy = found
            try:
                check_structure(atoms)
            except LosikoError as exc:
                rejected.add(place, str(exc))
                continue
            used[identifier] = used.get(identifier, 0) + 1
            unique = identifier if used[identifier] == 1 else f"{identifier}#{used[identifier]}"
            atoms.info, atoms.calc = {}, None
            entries.append(Entry(number, unique, atoms, properties, energy))
    rejected.report()
    if not used:
        raise LosikoError(
            f"{path}: every one of its {number} structures is left out (see the warnings); repair the files"
        )
    return entries


_Found = tuple[str, "Atoms", dict[str, Any], float | None]


def _members(member: str, text: str | LosikoError) -> Iterator[tuple[str, _Found | LosikoError]]:
    """Yield the place of each structure in a file and what is there, or why it cannot be read."""
    if isinstance(text, LosikoError) or not text.strip():
        yield member, text if isinstance(text, LosikoError) else LosikoError("the file is empty")
        return
    if kind_of(member) == RES:
        parts = split_res(text)
        for i, part in enumerate(parts, start=1):
            place = member if len(parts) == 1 else f"{member}, structure {i}"
            try:
                yield place, _from_res(member, part)
            except LosikoError as exc:
                yield place, exc
        return
    for i, frame in enumerate(_frames(text), start=1):
        place = f"{member}, frame {i}"
        if isinstance(frame, LosikoError):
            yield place, frame
            continue
        try:
            yield place, _from_frame(f"{stem_of(member)}-{i}", frame)
        except LosikoError as exc:
            yield place, exc


def _from_res(member: str, text: str) -> _Found:
    title, atoms = parse_res(text)
    energy = None if title.enthalpy is None else title.enthalpy / len(atoms)
    return f"airss:{title.name or stem_of(member)}", atoms, title.properties, energy


def _frames(text: str) -> Iterator[str | LosikoError]:
    """Cut extended XYZ into frames; where the count of atoms is lost, nothing after it can be found."""
    lines = text.splitlines(keepends=True)
    start = 0
    while start < len(lines):
        count = lines[start].strip()
        if not count and not "".join(lines[start:]).strip():
            return
        if not count.isdecimal():
            yield LosikoError(f"line {start + 1} is {count[:40]!r}, no number of atoms; what follows cannot be read")
            return
        end = start + int(count) + 2
        if end > len(lines):
            yield LosikoError(f"has {len(lines) - start - 2} of {count} atoms; the file is cut off")
            return
        yield "".join(lines[start:end])
        start = end


def _from_frame(name: str, text: str) -> _Found:
    from ase.io.extxyz import read_extxyz

    try:
        atoms = next(iter(read_extxyz(io.StringIO(text), index=0)))
    except Exception as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0][:120]
        raise LosikoError(f"not readable ({reason}); the frame is damaged") from exc
    results = {} if atoms.calc is None else atoms.calc.results
    values = {**atoms.info, **{key: value for key, value in results.items() if key in _TOTAL}}
    for key in _NAMES:
        if str(values.get(key, "")).strip():
            name = str(values[key]).strip()
            break
    energy = _energy(values, len(atoms))
    copies = values.pop("times_found", None)
    properties = _plain({key: value for key, value in values.items() if key not in ("occupancy", "identifier")})
    if "n_copies" not in properties and copies is not None:
        properties["n_copies"] = int(copies)
    return f"archive:{name}", atoms, properties, energy


def _energy(values: dict[str, Any], n_atoms: int) -> float | None:
    """Energy in eV/atom; what is given per atom goes before what is given for the cell."""
    for keys, divisor in ((_PER_ATOM, 1), (_TOTAL, n_atoms)):
        for key in keys:
            value = values.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return float(value) / divisor
    return None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain = {}
    for key, value in values.items():
        try:
            plain[str(key)] = to_jsonable(value, finite=True)
        except TypeError:
            continue
    return plain
