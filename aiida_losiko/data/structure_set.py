"""Many structures in one node."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from aiida.common.exceptions import ValidationError
from aiida.orm import Data, StructureData

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.converters import atoms_to_structure
from aiida_losiko.data.set_content import (
    SOURCE_KEYS,
    check_arrays,
    check_source,
    read_arrays,
    summarise_structures,
    symbols_of,
    unique_identifiers,
)
from aiida_losiko.data.set_properties import Columns, columns_of, read_columns, rows_of, write_columns

if TYPE_CHECKING:
    from io import BufferedReader

    from ase import Atoms

    from aiida_losiko.sources.base import SourceInfo, SourceRecord

__all__ = ("StructureSetData",)


class StructureSetData(Data):
    """A set of structures: what a database is built from, what a relaxation works through.

    The arrays lie in the node's repository as `structures.npz`, the set file of `aiida_losiko.core.structures`:
    numbers, positions (Angstrom), cells, periodicity, identifiers, `Atoms.info`, `FixAtoms` constraints and per-atom
    arrays. What a source says about its entries lies beside it, in `properties.json`. Equal content gives equal bytes,
    hence the same node hash, and thus caching. In the database itself there are only small attributes to search for:
    `n_structures`, `n_atoms` (total), `elements` (sorted by atomic number), `formulas` (Hill formula to count, None
    where there are more than 30), `property_names` where there are some, and `source`.

    Parameters
    ----------
    structures
        `ase.Atoms`; empty only when AiiDA itself makes the node.
    identifiers
        One unique text per structure. Default: `info["identifier"]`, where all structures have one, else
        `structure-0`, `structure-1`, ...
    source
        Where the structures come from, see `source_keys`. A `SourceInfo` of `aiida_losiko.sources` does as well.
    properties
        What is known of each structure (`energy_above_hull`, `space_group`, ...), JSON-able; units are those of the
        source, in `aiida_losiko.sources` eV/atom and Angstrom.
    **kwargs
        Of `aiida.orm.Node`: `label`, `description`, ...

    Raises
    ------
    LosikoError
        For no structures, for identifiers that are empty or there twice, for unknown or local sources. Structures that
        cannot be relaxed (not finite, coincident atoms) are no error here: they are reported where they are used.
    """

    FILENAME: ClassVar[str] = "structures.npz"
    PROPERTIES: ClassVar[str] = "properties.json"

    #: Structures that were read, kept since a stored node does not change. AiiDA makes nodes without `__init__`.
    _structures: list[Atoms] | None = None

    def __init__(
        self,
        structures: Iterable[Atoms] | None = None,
        identifiers: Sequence[str] | None = None,
        source: Any = None,
        properties: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if structures is not None:
            self.set_structures(structures, identifiers)
        if properties is not None:
            self.set_properties(properties)
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
        from aiida_losiko.core.structures import read_any

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

        return cls.from_records(*load_source(name, path, selection), **kwargs)

    @classmethod
    def from_records(cls, info: SourceInfo, records: Sequence[SourceRecord], **kwargs: Any) -> StructureSetData:
        """Return an unstored set of what `aiida_losiko.sources.load_source` gives, properties included."""
        properties = [record.properties for record in records]
        return cls((record.atoms for record in records), source=info, properties=properties, **kwargs)

    def set_structures(self, structures: Iterable[Atoms], identifiers: Sequence[str] | None = None) -> None:
        """Put the structures into the (unstored) node, in place of those that are there.

        Raises
        ------
        LosikoError
            See the class.
        """
        from aiida_losiko.core.structures import write_structures

        structures = list(structures)
        if not structures:
            raise LosikoError("a set of 0 structures: a StructureSetData holds at least 1, check the selection")
        names = unique_identifiers(structures, identifiers)
        check_arrays(structures)
        with tempfile.TemporaryFile(prefix="losiko-") as handle:
            write_structures(handle, structures, names)
            handle.seek(0)
            self.base.repository.put_object_from_filelike(cast("BufferedReader", handle), self.FILENAME)
        self._structures = None
        self.base.attributes.set_many(summarise_structures(structures))
        self._put_columns({})

    def set_properties(self, properties: Sequence[Mapping[str, Any]]) -> None:
        """Put the properties of the structures into the (unstored) node, in place of those that are there.

        Raises
        ------
        LosikoError
            If there is not one mapping for each structure, or a value has no JSON form.
        """
        if len(properties) != len(self):
            raise LosikoError(f"properties of {len(properties)} structures for {len(self)}: give a mapping for each")
        self._put_columns(columns_of(properties))

    def _put_columns(self, columns: Columns) -> None:
        if self.PROPERTIES in self.base.repository.list_object_names():
            self.base.repository.delete_object(self.PROPERTIES)
            self.base.attributes.delete("property_names")
        if columns:
            self.base.repository.put_object_from_bytes(write_columns(columns), self.PROPERTIES)
            self.base.attributes.set("property_names", list(columns))

    @property
    def source(self) -> dict[str, Any] | None:
        """Where the structures come from: some of the keys `source_keys`, or None."""
        return cast("dict[str, Any] | None", self.base.attributes.get("source", None))

    @source.setter
    def source(self, value: Any) -> None:
        self.base.attributes.set("source", check_source(value))

    @classmethod
    def source_keys(cls) -> tuple[str, ...]:
        """Keys that `source` may have: name, version, date, licence, reference (DOI), url, checksum, description."""
        return SOURCE_KEYS

    def get_description(self) -> str:
        """Return a line about the content, as pictures of the graph show it."""
        name = (self.source or {}).get("name")
        count = f"{self.n_structures} structure{'s' if self.n_structures != 1 else ''}"
        return f"{count} of {', '.join(self.elements)}" + (f", {name}" if name else "")

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
        return tuple(self.base.attributes.get("elements", []))

    @property
    def property_names(self) -> tuple[str, ...]:
        """Names of the properties that some structure has, sorted."""
        return tuple(self.base.attributes.get("property_names", []))

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
            return [str(name) for name in read_arrays(handle, "identifiers")["identifiers"]]

    def get_properties(self) -> list[dict[str, Any]]:
        """Return what the source said of each structure, in order; without what it does not know."""
        return rows_of(self._columns(), len(self))

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

        The new node has no link to the set; the calculation function `losiko.extract` gives one that has.
        """
        return atoms_to_structure(self.get_ase(index))

    def subset(self, indices: Sequence[int]) -> StructureSetData:
        """Return an unstored set of some of the structures, with their properties and the `source`.

        Raises
        ------
        LosikoError
            If there is no structure of an index, or none is left.
        """
        properties = self.get_properties()
        return StructureSetData(
            [self.get_ase(index) for index in indices],
            source=self.source,
            properties=[properties[index] for index in indices],
        )

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
        from aiida_losiko.core.structures import read_structures

        if self._structures is None:
            with self.base.repository.open(self.FILENAME, "rb") as handle:
                self._structures = read_structures(handle)
        return self._structures

    def _columns(self) -> Columns:
        if not self.property_names:
            return {}
        content = self.base.repository.get_object_content(self.PROPERTIES, "rb")
        return read_columns(content, len(self))

    def _validate(self) -> bool:
        """Check at storing that the files are there and say what the attributes say.

        Raises
        ------
        aiida.common.exceptions.ValidationError
            With the first thing that is wrong.
        """
        super()._validate()
        names, expected = self.base.repository.list_object_names(), [self.FILENAME]
        if self.property_names:
            expected.append(self.PROPERTIES)
        if sorted(names) != sorted(expected):
            raise ValidationError(f"the node holds the files {names}, not {expected}: use set_structures()")
        try:
            with self.base.repository.open(self.FILENAME, "rb") as handle:
                arrays = read_arrays(handle, "n_atoms", "numbers", "identifiers")
            check_source(self.source or {})
            columns = self._columns()
        except LosikoError as error:
            raise ValidationError(str(error)) from error
        counts = {"n_structures": len(arrays["n_atoms"]), "n_atoms": int(arrays["n_atoms"].sum())}
        counts["n_identifiers"] = len(np.unique(arrays["identifiers"]))
        stated = {"n_structures": self.n_structures, "n_atoms": self.n_atoms, "n_identifiers": self.n_structures}
        if counts != stated or len(arrays["numbers"]) != counts["n_atoms"]:
            raise ValidationError(f"{self.FILENAME} holds {counts}, but the attributes say {stated}")
        if tuple(symbols_of(np.unique(arrays["numbers"]))) != self.elements:
            raise ValidationError(f"{self.FILENAME} holds other elements than the attribute says, {self.elements}")
        if tuple(columns) != self.property_names:
            raise ValidationError(f"{self.PROPERTIES} holds other names than the attribute, {self.property_names}")
        return True
