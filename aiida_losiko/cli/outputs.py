"""Output files: checked before the work, complete or untouched after it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms


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
        The folder is missing or may not be written, the path is a folder, or another file of the command.
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

    with tempfile.TemporaryDirectory() as folder:
        write_any(Path(folder) / Path(name).name, list(sample[:_SAMPLE]))


@contextmanager
def staged(name: str | None, content: str) -> Iterator[None]:
    """Lay the text beside its target before the body runs, and move it there after the body has succeeded."""
    if name is None:
        yield
        return
    path = Path(name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        yield
        os.replace(temporary, path)  # noqa: PTH105 (the atomic call, named)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    """Return strict JSON of plain Python and numpy values; NaN and infinities become null."""
    return json.dumps(_plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
