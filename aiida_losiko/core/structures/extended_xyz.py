"""What a structure has to look like for ASE's writer of extended XYZ to give it back as it was.

ASE 3.26 writes some values so that its reader sees others, or loses the ones beside them: an empty text swallows the
next key, a line break ends the header, ``"007"`` comes back as a number, a text with a blank in a column shifts the
columns after it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.structures.content import fixed_mask, jsonable_info

if TYPE_CHECKING:
    from ase import Atoms

_OF_THE_FORMAT = ("Lattice", "Properties", "pbc")


def for_extended_xyz(structures: Sequence[Atoms]) -> list[Atoms]:
    """Return copies that survive ASE's writer: ``info`` encoded where needed, sound arrays, one ``FixAtoms`` at most.

    Warns
    -----
    UserWarning
        What the format cannot hold is left out and named, once for each key.
    """
    from ase.constraints import FixAtoms

    copies = []
    left_out: dict[str, str] = {}
    for atoms, clean in zip(structures, jsonable_info(structures), strict=True):
        copy: Atoms = atoms.copy()
        copy.calc = atoms.calc
        copy.info = {}
        for name, value in atoms.info.items():
            key = str(name)
            if key not in clean:
                continue
            encoded = _encoded(key, value, clean[key])
            if encoded is None:
                left_out[key] = "its key or value cannot be written in extended XYZ"
            else:
                copy.info[key] = encoded
        for key in [key for key in copy.arrays if key not in ("numbers", "positions")]:
            column = _column(key, copy.arrays.pop(key))
            if column is None:
                left_out[key] = "it is no column of extended XYZ (numbers or words, one or two dimensions)"
            else:
                copy.arrays[key] = column
        mask = fixed_mask(atoms)
        copy.set_constraint(FixAtoms(mask=mask) if mask.any() else None)
        copies.append(copy)
    for key, reason in left_out.items():
        warnings.warn(f"{key!r} is left out: {reason}; a .npz file can hold it", UserWarning, stacklevel=3)
    return copies


def _encoded(key: str, value: Any, plain: Any) -> Any:
    """A value that the reader gives back as `value` (or as `plain`, its JSON form); None if there is none."""
    if key in _OF_THE_FORMAT:
        return None
    numeric = isinstance(value, bool | int | float | np.bool_ | np.number)
    array = isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size > 0
    if (numeric or array) and _survives(key, value, None):
        return value
    if isinstance(value, str) and _survives(key, value, value):
        return value
    # The writer puts quotes around the text and masks those within, but no backslash.
    text = "_JSON " + json.dumps(plain).replace("\\", "\\\\")
    return text if _survives(key, text, plain) else None


def _survives(key: str, value: Any, expected: Any) -> bool:
    """Whether ASE's reader finds the key with the expected value (None: any), and the one that follows."""
    from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

    following = "n" if key != "n" else "m"
    line = key_val_dict_to_str({key: value, following: 1})
    if "\n" in line or "\r" in line:
        return False
    try:
        found = key_val_str_to_dict(line)
    except (ValueError, IndexError):
        return False
    if set(found) != {key, following}:
        return False
    if expected is None:
        return True
    back = found[key].tolist() if isinstance(found[key], np.ndarray | np.generic) else found[key]
    return type(back) is type(expected) and bool(back == expected)


def _column(key: str, values: NDArray[Any]) -> NDArray[Any] | None:
    """The array in a type that the writer knows; None where it would spoil the line."""
    sound_key = key.isprintable() and not set(key) & set(" :=\"'{}[]\\")
    if not sound_key or not key or values.ndim > 2 or 0 in values.shape[1:]:
        return None
    if values.dtype.kind in "ifb":
        return values
    if values.dtype.kind == "u":
        return values.astype(np.int64)
    words = values.ravel().tolist()
    if all(isinstance(word, str) and word.split() == [word] for word in words):
        return values.astype(np.str_)
    return None
