"""Output files: checked before the work, complete or untouched after it."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import temporary_target, to_jsonable

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.environments.database import EnvironmentDatabase

_SAMPLE = 50


def check_output_paths(outputs: Mapping[str, str | None], inputs: Sequence[str]) -> None:
    """Check that the outputs can be written and are neither an input nor each other.

    Parameters
    ----------
    outputs
        Paths by the option that gave them; None where it was not given.
    inputs
        Files that the command reads.

    Raises
    ------
    LosikoError
        The folder is missing or may not be written, the path is a folder or a device, or another file of the command.
    """
    taken = {Path(file).resolve(): "an input of this command" for file in inputs}
    for option, name in outputs.items():
        if name is None:
            continue
        path = Path(name)
        folder = path.parent
        if not folder.is_dir():
            raise LosikoError(f"{option} '{name}': no such folder '{folder}'; make it first: mkdir -p {folder}")
        if path.is_dir():
            raise LosikoError(f"{option} '{name}' is a folder; give a file name")
        if path.exists() and not path.is_file():
            # A file is moved into place at the end: that would take the device or pipe away.
            raise LosikoError(f"{option} '{name}' is a device or a pipe; give the name of a file")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise LosikoError(f"{option} '{name}': no permission to write in '{folder.resolve()}'")
        resolved = path.resolve()
        if resolved in taken:
            raise LosikoError(f"{option} '{name}' is {taken[resolved]}; give another name")
        taken[resolved] = f"also the file of {option}"


def check_output_format(name: str, sample: Sequence[Atoms]) -> None:
    """Write some of the structures to a file of that name elsewhere, so that hours of work do not end in an error.

    Raises
    ------
    LosikoError
        The format is not known or cannot hold these structures.
    """
    from aiida_losiko.core.structures import write_any

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the structures are written
        trial = Path(folder) / Path(name).name
        try:
            write_any(trial, list(sample[:_SAMPLE]))
        except LosikoError as error:
            raise LosikoError(str(error).replace(str(trial), name)) from error


@contextmanager
def staged(name: str | None, content: str) -> Iterator[None]:
    """Lay the text beside its target before the body runs, and move it there after the body has succeeded."""
    if name is None:
        yield
        return
    with temporary_target(Path(name)) as temporary:
        temporary.write_text(content, encoding="utf-8")
        yield


@contextmanager
def staged_database(name: str | None, database: EnvironmentDatabase) -> Iterator[None]:
    """Do the same with the file of a database."""
    if name is None:
        yield
        return
    with temporary_target(Path(name)) as temporary:
        database.save(temporary)
        yield


def to_json(value: Any) -> str:
    """Return strict JSON of plain Python and numpy values; NaN and infinities become null."""
    return json.dumps(to_jsonable(value, finite=True), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def as_text(value: Any) -> str:
    """Return a parameter or an entry of metadata as a person would write it; long lists are cut."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        shown = ", ".join(as_text(item) for item in value[:6])
        return f"{shown}, ... ({len(value)})" if len(value) > 6 else shown
    return "none" if value is None else str(value)
