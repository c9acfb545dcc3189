"""Many structures in one node."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import numpy as np
from aiida.common.exceptions import ValidationError
from aiida.orm import Data, StructureData

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from io import BufferedReader

    from ase import Atoms

__all__ = ("StructureSetData",)

#: More distinct formulas than this are not listed in the attribute `formulas`.
MAX_FORMULAS = 30

#: What `StructureSetData.source` may say.
SOURCE_KEYS = ("name", "version", "date", "licence", "reference", "url", "checksum", "description")


class StructureSetData(Data):
    """A set of structures: what a database is built from, what a relaxation works through.

    The arrays lie in the node's repository as `structures.npz`, the set file of `aiida_losiko.core.structure_file`:
    numbers, positions (Angstrom), cells, periodicity, identifiers, `Atoms.info`, `FixAtoms` constraints and per-atom
    arrays. Equal content gives equal bytes, hence the same node hash, and thus caching. In the database itself there
    are only small attributes to search for: `n_structures`, `n_atoms` (total), `elements` (sorted by atomic number),
    `formulas` (Hill formula to count, left out where there are more than 30), and `source`.

    Parameters
    ----------
    structures
        `ase.Atoms`; empty only when AiiDA itself makes the node.
    identifiers
        One unique text per structure. Default: `info["identifier"]`, where all structures have one, else
        `structure-0`, `structure-1`, ...
    source
        Where the structures come from, see `source_keys`. A `SourceInfo` of `aiida_losiko.sources` does as well.
    **kwargs
        Of `aiida.orm.Node`: `label`, `description`, ...

    Raises
    ------
    LosikoError
        For no structures, for identifiers that are empty or there twice, for unknown or local sources. Structures that
        cannot be relaxed (not finite, coincident atoms) are no error here: they are reported where they are used.
    """

    FILENAME: ClassVar[str] = "structures.npz"

    #: Structures that were read, kept since a stored node does not change. AiiDA makes nodes without `__init__`.
    _structures: list[Atoms] | None = None

    def __init__(
        self,
        structures: Iterable[Atoms] | None = None,
        identifiers: Sequence[str] | None = None,
        source: Any = None,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if structures is not None:
            self.set_structures(structures, identifiers)
        if source is not None:
            self.source = source

    @classmethod
    def from_atoms(
        cls, structures: Iterable[Atoms], identifiers: Sequence[str] | None = None, source: Any = None, **kwargs: Any
    ) -> StructureSetData:
        """Return an unstored set of these structures; parameters and errors are those of the class."""
        return cls(structures, identifiers=identifiers, source=source, **kwargs)

    @classmethod
    def from_file(cls, path: str | Path, source: Any = None, **kwargs: Any) -> StructureSetData:
        """Return an unstored set of the structures in a set file or in any file that ASE reads.

        Raises
        ------
        LosikoError
            If the file is empty or unreadable, or as for the class.
        """
        from aiida_losiko.core.structure_file import read_any

        return cls(read_any(path), source=source, **kwargs)

    @classmethod
    def from_source(
        cls, name: str, path: str | Path | None = None, selection: Any = None, **kwargs: Any
    ) -> StructureSetData:
        """Return an unstored set of the records of a source, which knows where they come from.

        Parameters
        ----------
        name, path, selection
            See `aiida_losiko.sources.load_source`: `("g2",)`, `("qm9", "dsgdb9nsd.xyz.tar.bz2", {"first": 1000})`.
        **kwargs
            Of `aiida.orm.Node`: `label`, `description`, ...

        Raises
        ------
        LosikoError
            If the source is unknown, cannot be read, or nothing is selected.
        """
        from aiida_losiko.sources import load_source

        info, records = load_source(name, path, selection)
        return cls((record.atoms for record in records), source=info, **kwargs)

    def set_structures(self, structures: Iterable[Atoms], identifiers: Sequence[str] | None = None) -> None:
        """Put the structures into the (unstored) node, in place of those that are there.

        Raises
        ------
        LosikoError
            See the class.
        """
        from aiida_losiko.core.structure_file import write_structures

        structures = list(structures)
        if not structures:
            raise LosikoError("a set of 0 structures: a StructureSetData holds at least 1, check the selection")
        names = _identifiers(structures, identifiers)
        with tempfile.TemporaryFile(prefix="losiko-") as handle:
            write_structures(handle, structures, names)
            handle.seek(0)
            self.base.repository.put_object_from_filelike(cast("BufferedReader", handle), self.FILENAME)
        self._structures = None
        self.base.attributes.set_many(_summary(structures))

    @property
    def source(self) -> dict[str, Any] | None:
        """Where the structures come from: some of the keys `source_keys`, or None."""
        return cast("dict[str, Any] | None", self.base.attributes.get("source", None))

    @source.setter
    def source(self, value: Any) -> None:
        self.base.attributes.set("source", _check_source(value))

    @classmethod
    def source_keys(cls) -> tuple[str, ...]:
        """Keys that `source` may have: name, version, date, licence, reference (DOI), url, checksum, description."""
        return SOURCE_KEYS

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return int(self.base.attributes.get("n_structures", 0))

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures together."""
        return int(self.base.attributes.get("n_atoms", 0))

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements that occur, by atomic number."""
        return tuple(self.base.attributes.get("elements", ()))

    def __len__(self) -> int:
        """Return the number of structures."""
        return self.n_structures

    def __iter__(self) -> Iterator[Atoms]:
        """Iterate over copies of the structures."""
        return iter(self.get_atoms())

    def get_atoms(self) -> list[Atoms]:
        """Return copies of all structures, identifiers in `info["identifier"]`, constraints included."""
        return [atoms.copy() for atoms in self._read()]

    def get_ase(self, index: int) -> Atoms:
        """Return a copy of one structure.

        Raises
        ------
        LosikoError
            If there is no structure of that index.
        """
        if not -len(self) <= index < len(self):
            raise LosikoError(f"structure {index} of a set of {len(self)}: use an index from 0 to {len(self) - 1}")
        return cast("Atoms", self._read()[index].copy())

    def get_identifiers(self) -> list[str]:
        """Return the identifiers, in order."""
        with self.base.repository.open(self.FILENAME, "rb") as handle:
            return [str(name) for name in _read_arrays(handle, "identifiers")["identifiers"]]

    def index_of(self, identifier: str) -> int:
        """Return the index of the structure with that identifier.

        Raises
        ------
        LosikoError
            If there is none.
        """
        names = self.get_identifiers()
        if identifier not in names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise LosikoError(f"no structure {identifier!r} in the set; it holds {shown} (see get_identifiers())")
        return names.index(identifier)

    def get_structure(self, index: int) -> StructureData:
        """Return one structure as an unstored node, labelled with its identifier.

        The new node has no link to the set. Where provenance matters, hand the set itself to the process.
        """
        from aiida_losiko.data.converters import atoms_to_structure

        return atoms_to_structure(self.get_ase(index))

    def find_stored(self) -> StructureSetData | None:
        """Return a stored set of the same content, or None; see `aiida_losiko.data.deduplicate.find_stored`."""
        from aiida_losiko.data.deduplicate import find_stored

        return find_stored(self)

    def store_once(self) -> StructureSetData:
        """Return the stored set of this content, storing this one if there is none yet."""
        from aiida_losiko.data.deduplicate import store_once

        return store_once(self)

    def clone(self) -> StructureSetData:
        """Return an unstored copy."""
        copy = cast("StructureSetData", super().clone())  # type: ignore[no-untyped-call]
        copy._structures = None
        return copy

    def _read(self) -> list[Atoms]:
        from aiida_losiko.core.structure_file import read_structures

        if self._structures is None:
            with self.base.repository.open(self.FILENAME, "rb") as handle:
                self._structures = read_structures(handle)
        return self._structures

    def _validate(self) -> bool:
        """Check at storing that the file is there and says what the attributes say.

        Raises
        ------
        aiida.common.exceptions.ValidationError
            With the first thing that is wrong.
        """
        super()._validate()
        names = self.base.repository.list_object_names()
        if names != [self.FILENAME]:
            raise ValidationError(f"the node holds the files {names}, not one {self.FILENAME!r}: use set_structures()")
        try:
            with self.base.repository.open(self.FILENAME, "rb") as handle:
                arrays = _read_arrays(handle, "n_atoms", "numbers", "identifiers")
            _check_source(self.source or {})
        except LosikoError as error:
            raise ValidationError(str(error)) from error
        counts = {"n_structures": len(arrays["n_atoms"]), "n_atoms": int(arrays["n_atoms"].sum())}
        counts["n_identifiers"] = len(np.unique(arrays["identifiers"]))
        stated = {"n_structures": self.n_structures, "n_atoms": self.n_atoms, "n_identifiers": self.n_structures}
        if counts != stated or len(arrays["numbers"]) != counts["n_atoms"]:
            raise ValidationError(f"{self.FILENAME} holds {counts}, but the attributes say {stated}")
        if tuple(_symbols(np.unique(arrays["numbers"]))) != self.elements:
            raise ValidationError(f"{self.FILENAME} holds other elements than the attribute says, {self.elements}")
        return True


def _identifiers(structures: Sequence[Atoms], identifiers: Sequence[str] | None) -> list[str]:
    """Return one unique identifier per structure, or say what is wrong with those that were given."""
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


def _summary(structures: Sequence[Atoms]) -> dict[str, Any]:
    formulas = Counter(atoms.get_chemical_formula(mode="hill") for atoms in structures)
    numbers = {int(number) for atoms in structures for number in np.unique(atoms.numbers)}
    return {
        "n_structures": len(structures),
        "n_atoms": sum(len(atoms) for atoms in structures),
        "elements": _symbols(sorted(numbers)),
        "formulas": dict(sorted(formulas.items())) if len(formulas) <= MAX_FORMULAS else None,
    }


def _symbols(numbers: Iterable[int]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[int(number)] for number in numbers]


def _check_source(source: Any) -> dict[str, Any]:
    """Return the source as a JSON-able dict without empty entries."""
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


def _read_arrays(handle: BinaryIO, *names: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read single arrays of a set file without making structures of it."""
    try:
        with np.load(handle, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise LosikoError(f"the set file of the node cannot be read ({error}): build the node again") from error
