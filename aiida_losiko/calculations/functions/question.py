"""What the queries share: a question that holds no secret, input files on disk, warnings as text."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from aiida.orm import Dict, FolderData, SinglefileData

from aiida_losiko.core.errors import LosikoError

__all__ = ("SELECTION", "collect_warnings", "validate_question", "write_file")

#: The key of a question that is no option of the source: which of its records to take.
SELECTION = "selection"

_SECRET_NAME = re.compile(r"api.?key|^key$|mp.?key|token|secret|passw(or)?d", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://[^/\s]*@")


def validate_question(value: Dict | None, _: Any) -> str | None:
    """Return what in a question must not be stored, or None: called before anything is.

    Inputs are in the graph whatever becomes of the process, and cannot be taken out of it by halves.
    """
    if value is None:
        return None
    key = _current_key()
    for path, text in _texts(value.get_dict()):
        *_, name = path.rpartition(".")
        if _SECRET_NAME.search(name) or (key and key in text):
            place = path.replace(key, "...") if key else path
            return (
                f"the question holds a key or password in {place!r}, which would be stored with it: set MP_API_KEY, or "
                "PMG_MAPI_KEY in pymatgen's settings file, where the query runs"
            )
        if _CREDENTIALS.search(text):
            return f"the question holds a user name or password in the address {path!r}: give the address alone"
    return None


def write_file(node: SinglefileData | FolderData, folder: Path) -> Path:
    """Write a file, or the files of a folder, into a new folder and return the path of the file or of that folder."""
    folder.mkdir()
    if isinstance(node, SinglefileData):
        target = folder / PurePosixPath(node.filename).name
        with node.open(mode="rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        return target
    node.base.repository.copy_tree(folder)
    return folder


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect what this package warns of; the warnings of others go their way."""
    package = str(Path(__file__).resolve().parents[2])
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    for each in caught:
        if each.category is UserWarning and str(Path(each.filename).resolve()).startswith(package):
            messages.append(" ".join(str(each.message).split()))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of every value of a question, and the value as a text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield f"{path}.{name}".lstrip("."), ""
            yield from _texts(item, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, path)
    else:
        yield path, str(value)


def _current_key() -> str:
    """Return the key of the Materials Project that is set here, if there is one."""
    from aiida_losiko.sources.materials_project_key import find_key

    try:
        return find_key()
    except LosikoError:
        return ""
