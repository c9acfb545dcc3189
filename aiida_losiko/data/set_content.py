"""What `StructureSetData` says about its content, and the checks of what goes in."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures.weights import WEIGHTS

if TYPE_CHECKING:
    from ase import Atoms

#: More distinct formulas than this are not listed in the attribute `formulas`.
MAX_FORMULAS = 30

#: What `StructureSetData.source` may say.
SOURCE_KEYS = ("name", "version", "date", "licence", "reference", "url", "checksum", "description")


def unique_identifiers(structures: Sequence[Atoms], identifiers: Sequence[str] | None) -> list[str]:
    """Return one unique identifier per structure.

    Parameters
    ----------
    structures
        The structures of a set.
    identifiers
        One for each; None for those in `info["identifier"]`, or `structure-<i>` where not all have one.

    Raises
    ------
    LosikoError
        If there are too few or too many, or one is empty or there twice.
    """
    if identifiers is None:
        found = [atoms.info.get("identifier") for atoms in structures]
        known = all(name is not None for name in found)
        names = [str(name) if known else f"structure-{index}" for index, name in enumerate(found)]
    else:
        names = [str(name) for name in identifiers]
    if len(names) != len(structures):
        raise LosikoError(f"{len(names)} identifiers for {len(structures)} structures: give one for each")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise LosikoError(f"identifier {twice[0]!r} is there more than once: identifiers must be unique in a set")
    if "" in names:
        raise LosikoError(f"the identifier of structure {names.index('')} is empty: give it a name")
    return names


def check_arrays(structures: Sequence[Atoms]) -> None:
    """Check that all structures have weights by atom, or none: a set file has no place for those of some.

    Raises
    ------
    LosikoError
        If only some have them.
    """
    without = [number for number, atoms in enumerate(structures) if WEIGHTS not in atoms.arrays]
    if 0 < len(without) < len(structures):
        raise LosikoError(
            f"{len(structures) - len(without)} of {len(structures)} structures have the array {WEIGHTS!r}, structure "
            f"{without[0]} has not: give it to all, ones are as good as none"
        )


def summarise_structures(structures: Sequence[Atoms]) -> dict[str, Any]:
    """Return the attributes `n_structures`, `n_atoms`, `elements` and `formulas` (None for too many) of a set."""
    formulas = Counter(atoms.get_chemical_formula(mode="hill") for atoms in structures)
    numbers = {int(number) for atoms in structures for number in np.unique(atoms.numbers)}
    return {
        "n_structures": len(structures),
        "n_atoms": sum(len(atoms) for atoms in structures),
        "elements": symbols_of(sorted(numbers)),
        "formulas": dict(sorted(formulas.items())) if len(formulas) <= MAX_FORMULAS else None,
    }


def symbols_of(numbers: Iterable[int]) -> list[str]:
    """Return the symbols of atomic numbers."""
    from ase.data import chemical_symbols

    return [chemical_symbols[int(number)] for number in numbers]


def check_source(source: Any) -> dict[str, Any]:
    """Return the source of a set as a JSON-able dict without empty entries.

    Parameters
    ----------
    source
        A mapping with keys of `SOURCE_KEYS`, or a `SourceInfo`.

    Raises
    ------
    LosikoError
        For other keys or types, local paths, and values that JSON does not know.
    """
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        source = dataclasses.asdict(source)
    if not isinstance(source, Mapping):
        raise LosikoError(f"source is {source!r}: give a mapping with keys of {', '.join(SOURCE_KEYS)}")
    unknown = sorted(set(map(str, source)) - set(SOURCE_KEYS))
    if unknown:
        raise LosikoError(f"unknown source key {unknown[0]!r}: allowed are {', '.join(SOURCE_KEYS)}")
    entries = {str(key): value for key, value in source.items() if value not in (None, "")}
    for key, value in entries.items():
        if isinstance(value, str) and value.startswith(("/", "~", "file:", ".", "\\")):
            raise LosikoError(f"source {key} is the local path {value!r}: give a public address or leave it out")
        if isinstance(value, float) and not math.isfinite(value):
            raise LosikoError(f"source {key} is {value}: give a finite number or a text")
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(entries)))
    except (TypeError, ValueError) as error:
        raise LosikoError(f"source is not JSON-able ({error}): give texts and numbers") from error


def read_arrays(handle: BinaryIO, *names: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read single arrays of a set file without making structures of it.

    Raises
    ------
    LosikoError
        If the file is no set file, or is truncated.
    """
    try:
        with np.load(handle, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise LosikoError(f"the set file of the node cannot be read ({error}): build the node again") from error
