"""Results on disk, so that an interrupted benchmark goes on where it was and peers are computed once.

One folder per contestant, start and database. Its name ends with a fingerprint of everything that the results follow
from (settings, seeds, versions, code); ``key.json`` in it says what that was. Results are sets of structures, a file
for each chunk that was finished; `info` of a structure holds its identifier, seconds and whatever else is to be known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from aiida_losiko.core.structures.set_file import read_structures, write_structures


class Kept:
    """The results of one contestant on one kind of start.

    Parameters
    ----------
    output
        The folder of the whole benchmark.
    name
        For people: the folder's name begins with it.
    key
        JSON-able; results are found again only where all of it is the same.
    """

    def __init__(self, output: Path, name: str, key: Mapping[str, Any]) -> None:
        self.folder = output / "results" / f"{name.replace(' ', '-')}-{fingerprint(key)}"
        self.key = dict(key)

    def load(self) -> dict[str, Atoms]:
        """Return all structures that are kept, by identifier."""
        parts = sorted(self.folder.glob("part-*.npz"))
        return {atoms.info["identifier"]: atoms for part in parts for atoms in read_structures(part)}

    def add(self, structures: list[Atoms]) -> None:
        """Keep more structures: either all of them are in place afterwards, or none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "key.json").exists():
            write_json(self.folder / "key.json", self.key)
        # Named by what is in it: two runs on one folder do not write over each other's parts.
        part = fingerprint([atoms.info["identifier"] for atoms in structures])
        write_structures(self.folder / f"part-{part}.npz", structures)


def write_json(path: Path, content: Any) -> None:
    """Write under a temporary name, then move into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def fingerprint(content: Any) -> str:
    """Twelve hexadecimal digits for JSON-able content."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
