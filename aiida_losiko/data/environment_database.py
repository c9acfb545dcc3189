"""A database of atomic environments as a node."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from aiida.common.exceptions import ValidationError
from aiida.orm import Data

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from aiida_losiko.core.environments.database import EnvironmentDatabase

__all__ = ("EnvironmentDatabaseData",)


class EnvironmentDatabaseData(Data):
    """The known environments that a relaxation steers towards: one `database.safetensors` in the repository.

    What `EnvironmentDatabase.summary()` says (descriptor parameters, environments per species, number of sources,
    calibrated reach, protocol, checksum, ...) is in the attribute `summary`, with the most asked for beside it to be
    found by queries: `descriptor`, `species`, `n_environments` (per species) and `n_sources`.

    Parameters
    ----------
    database
        An `EnvironmentDatabase`, or the path of a database file; None only when AiiDA itself makes the node.
    **kwargs
        Of `aiida.orm.Node`: `label`, `description`, ...

    Raises
    ------
    LosikoError
        If the file is no environment database.
    """

    FILENAME: ClassVar[str] = "database.safetensors"

    #: The open database of a stored node. AiiDA makes nodes without calling `__init__`.
    _database: EnvironmentDatabase | None = None

    def __init__(self, database: EnvironmentDatabase | str | Path | None = None, **kwargs: Any) -> None:
        """See the class."""
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        if database is not None:
            self.set_database(database)

    @classmethod
    def from_file(cls, path: str | Path, **kwargs: Any) -> EnvironmentDatabaseData:
        """Return an unstored node of a database file.

        Raises
        ------
        LosikoError
            If the file is no environment database.
        """
        return cls(path, **kwargs)

    def set_database(self, database: EnvironmentDatabase | str | Path) -> None:
        """Put a database, or the file of one, into the (unstored) node.

        Raises
        ------
        LosikoError
            If the file is no environment database.
        """
        from aiida_losiko.core.environments.database import EnvironmentDatabase

        if isinstance(database, str | Path):
            path = Path(database).absolute()
            summary = EnvironmentDatabase.load(path).summary()
            self.base.repository.put_object_from_file(str(path), self.FILENAME)
        else:
            summary = database.summary()
            with tempfile.TemporaryDirectory(prefix="losiko-") as folder:
                path = Path(folder) / self.FILENAME
                database.save(path)
                self.base.repository.put_object_from_file(str(path), self.FILENAME)
        self._database = None
        self.base.attributes.set_many(_attributes(summary))

    def get_description(self) -> str:
        """Return a line about the content, as pictures of the graph show it."""
        counts = ", ".join(f"{count} {symbol}" for symbol, count in self.n_environments.items() if count)
        return f"{counts} environments of {self.n_sources} structures"

    @property
    def summary(self) -> dict[str, Any]:
        """What `EnvironmentDatabase.summary()` said of the database."""
        return cast("dict[str, Any]", self.base.attributes.get("summary"))

    @property
    def descriptor(self) -> dict[str, Any]:
        """Name and parameters of the descriptor, its species included; lengths in Angstrom."""
        return cast("dict[str, Any]", self.base.attributes.get("descriptor"))

    @property
    def species(self) -> tuple[str, ...]:
        """Symbols that the descriptor knows, by atomic number."""
        return tuple(self.descriptor.get("species", ()))

    @property
    def n_environments(self) -> dict[str, int]:
        """Number of distinct environments of each central species."""
        return cast("dict[str, int]", self.base.attributes.get("n_environments"))

    @property
    def n_sources(self) -> int:
        """Number of structures that the environments come from."""
        return int(self.base.attributes.get("n_sources"))

    @property
    def protocol(self) -> str | None:
        """Name of the protocol that the database was built with, where that is known."""
        metadata = self.summary.get("metadata") or {}
        return self.summary.get("protocol") or metadata.get("protocol")

    def load(self) -> EnvironmentDatabase:
        """Open the database, memory-mapped.

        A stored node is opened once: its file in the repository directly where AiiDA keeps it as a plain file, else a
        temporary copy that lives as long as the database that is returned.

        Returns
        -------
        EnvironmentDatabase

        Raises
        ------
        LosikoError
            If the file was altered or truncated.
        """
        if self._database is None or not self.is_stored:
            self._database = self._open()
        return self._database

    def export_file(self, path: str | Path) -> Path:
        """Copy the database file to `path`, for use with the `losiko` program, and return the path."""
        path = Path(path)
        with self.base.repository.open(self.FILENAME, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        return path

    def find_stored(self) -> EnvironmentDatabaseData | None:
        """Return a stored database of the same content, or None; see `aiida_losiko.data.deduplicate.find_stored`."""
        from aiida_losiko.data.deduplicate import find_stored

        return find_stored(self)

    def store_once(self) -> EnvironmentDatabaseData:
        """Return the stored node of this content, storing this one if there is none yet."""
        from aiida_losiko.data.deduplicate import store_once

        return store_once(self)

    def clone(self) -> EnvironmentDatabaseData:
        """Return an unstored copy."""
        copy = cast("EnvironmentDatabaseData", super().clone())  # type: ignore[no-untyped-call]
        copy._database = None
        return copy

    def _open(self) -> EnvironmentDatabase:
        from aiida_losiko.core.environments.database import EnvironmentDatabase

        path = self._plain_file()
        if path is not None:
            return EnvironmentDatabase.load(path)
        folder = Path(tempfile.mkdtemp(prefix="losiko-"))
        try:
            database = EnvironmentDatabase.load(self.export_file(folder / self.FILENAME))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(database, shutil.rmtree, folder, ignore_errors=True)
        return database

    def _plain_file(self) -> Path | None:
        """Return the path of the repository object, if it is a whole file: not in a pack, an archive or a sandbox."""
        if not self.is_stored:
            return None
        size = self.base.repository.get_object_size(self.FILENAME)
        with self.base.repository.open(self.FILENAME, "rb") as handle:
            name = getattr(handle, "name", None)
            if not isinstance(name, str | Path):
                return None
            path = Path(name)
            # A pack is a file as well, but holds other objects too: only a file of exactly this size will do.
            return path if path.is_file() and path.stat().st_size == size else None

    def _validate(self) -> bool:
        """Check at storing that the file opens and says what the attributes say.

        Raises
        ------
        aiida.common.exceptions.ValidationError
            With the first thing that is wrong.
        """
        super()._validate()
        names = self.base.repository.list_object_names()
        if names != [self.FILENAME]:
            raise ValidationError(f"the node holds the files {names}, not one {self.FILENAME!r}: use set_database()")
        try:
            found = _attributes(self._open().summary())
        except LosikoError as error:
            raise ValidationError(str(error)) from error
        for key in ("descriptor", "n_environments", "n_sources"):
            if found[key] != self.base.attributes.get(key, None):
                stated = self.base.attributes.get(key, None)
                raise ValidationError(f"{self.FILENAME} has {key} {found[key]}, but the attribute says {stated}")
        return True


def _attributes(summary: dict[str, Any]) -> dict[str, Any]:
    """Pick what goes to the AiiDA database; a list of all sources (there may be 100,000) does not."""
    kept = {key: value for key, value in summary.items() if key != "sources"}
    return {
        "summary": kept,
        "descriptor": summary["descriptor"],
        "n_environments": summary["n_environments"],
        "n_sources": summary["n_sources"],
    }
