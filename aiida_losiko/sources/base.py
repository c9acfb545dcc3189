"""What every source gives: plain records, and an account of where they come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class SourceInfo:
    """Where structures come from, as it is kept with every set and database made of them.

    Parameters
    ----------
    name : str
        Name of the collection.
    version : str
        Version or date of it.
    licence : str
        SPDX identifier.
    reference : str
        DOI of the publication.
    url : str
        Where anybody can get it.
    checksum : str
        ``"md5:<hex>"`` of the file that was read; empty when there was no single file.
    """

    name: str
    version: str
    licence: str
    reference: str
    url: str
    checksum: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the entries that are not empty, JSON-able."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass
class SourceRecord:
    """One structure of a source.

    Parameters
    ----------
    identifier : str
        Unique within all sources, for instance ``gdb_57`` or ``g2:CH4``; also in ``atoms.info["identifier"]``.
    atoms : ase.Atoms
        Positions in Angstrom.
    properties : dict
        What the source says about it, JSON-able; names and units are those of the source.
    """

    identifier: str
    atoms: Atoms
    properties: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Label the atoms, so that the identifier travels with them."""
        self.atoms.info["identifier"] = self.identifier
