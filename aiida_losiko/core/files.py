"""Small helpers for writing files safely and for plain JSON values."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiida_losiko.core.errors import LosikoError


@contextmanager
def temporary_target(path: Path) -> Iterator[Path]:
    """Give a file name to write to in a private folder beside ``path``; moved over ``path`` when the block succeeds.

    The name itself stays the same, since ASE guesses formats from names such as ``POSCAR``.

    Raises
    ------
    LosikoError
        The folder is missing or cannot be written to, or the system fails to write, for instance for want of space.
    """
    if not path.parent.is_dir():
        raise LosikoError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise LosikoError(f"cannot write {path}: it is a folder; give the name of a file")
    try:
        folder = Path(tempfile.mkdtemp(prefix=".losiko-", dir=path.parent))
    except OSError as exc:
        raise LosikoError(f"cannot write {path}: {exc.strerror}; choose a folder that can be written to") from exc
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    except OSError as exc:
        if exc.errno is None:  # raised by a library for reasons of its own
            raise
        raise LosikoError(f"cannot write {path}: {exc.strerror}; make room or choose another folder") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def to_jsonable(value: Any, *, finite: bool = False) -> Any:
    """Turn numpy scalars, arrays, tuples and mappings into plain JSON values.

    Parameters
    ----------
    value
        What is to be written.
    finite : bool
        Put None in the place of NaN and infinities, which strict JSON lacks.

    Raises
    ------
    TypeError
        Something in it has no JSON form (objects, bytes, complex numbers).
    """
    if hasattr(value, "tolist"):  # numpy's, which the program's `--help` need not wait for
        value = value.tolist()
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str | int) for key in value):
            raise TypeError("a mapping whose keys are not strings")
        return {str(key): to_jsonable(item, finite=finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item, finite=finite) for item in value]
    raise TypeError(f"a value of type {type(value).__name__}")
