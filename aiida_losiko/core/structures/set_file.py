"""The set file: many structures in one uncompressed ``.npz`` without pickle, the same bytes for the same content.

Layout of format ``losiko-structures/1`` (S structures, N atoms in all, structures one after the other):

=================  =================  ===================================================================
key                shape, type        meaning
=================  =================  ===================================================================
``format``         (), unicode        ``"losiko-structures/1"``
``n_atoms``        (S,) int64         atoms of each structure
``numbers``        (N,) int64         atomic numbers
``positions``      (N, 3) float64     Cartesian, Angstrom
``cells``          (S, 3, 3) float64  lattice vectors in rows, Angstrom
``pbc``            (S, 3) bool        periodic directions
``identifiers``    (S,) unicode       label of each structure, ``""`` where there is none
``info``           (S,) unicode       ``Atoms.info`` as JSON with sorted keys, without the identifier
``fixed``          (N,) bool          atoms under ``FixAtoms``; only there when some are
``array:<name>``   (N, ...)           per-atom arrays that all structures have (tags, momenta, own ones)
=================  =================  ===================================================================

Calculators and their results are not part of a set. Other formats are read and written by
:mod:`aiida_losiko.core.structures.formats`.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import temporary_target
from aiida_losiko.core.structures.content import fixed_mask, jsonable_info

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["FORMAT", "read_structures", "write_structures"]

FORMAT = "losiko-structures/1"
_ARRAY_PREFIX = "array:"
_OWN_ARRAYS = ("numbers", "positions")
_REQUIRED = {
    "n_atoms": ("iu", 1),
    "numbers": ("iu", 1),
    "positions": ("f", 2),
    "cells": ("f", 3),
    "pbc": ("b", 2),
    "identifiers": ("U", 1),
    "info": ("U", 1),
}

_Array: TypeAlias = NDArray[Any]


def write_structures(
    path: str | Path | IO[bytes], structures: Sequence[Atoms], identifiers: Sequence[str] | None = None
) -> None:
    """Write structures to one set file.

    Parameters
    ----------
    path : str, Path or binary file object
        Where to write. A path is written beside itself under a temporary name and then moved into place, so that
        an interrupted write leaves the old file as it was.
    structures : sequence of ase.Atoms
        At least one; zero-atom structures and NaN are kept as they are (see ``check_structure``).
    identifiers : sequence of str, optional
        One per structure; default ``info["identifier"]``, or none.

    Raises
    ------
    LosikoError
        No structures, or a number of identifiers that differs from the number of structures.

    Warns
    -----
    UserWarning
        What a set file cannot hold is left out and named: ``info`` entries that are not JSON, per-atom arrays that
        only some structures have or that differ in type or shape, constraints other than ``FixAtoms``.
    """
    structures = list(structures)
    if not structures:
        raise LosikoError(f"there are no structures to write to {path}; give at least one")
    if identifiers is None:
        identifiers = [str(atoms.info.get("identifier", "")) for atoms in structures]
    elif len(identifiers) != len(structures):
        raise LosikoError(f"{len(identifiers)} identifiers for {len(structures)} structures; give one per structure")
    arrays = _collect(structures, [str(identifier) for identifier in identifiers])
    if isinstance(path, str | Path):
        with temporary_target(Path(path)) as temporary, temporary.open("wb") as stream:
            _write_npz(stream, arrays)
    else:
        _write_npz(path, arrays)


def read_structures(path: str | Path | IO[bytes]) -> list[Atoms]:
    """Read a set file.

    Parameters
    ----------
    path : str, Path or binary file object
        What :func:`write_structures` wrote.

    Returns
    -------
    list of ase.Atoms
        In the order written; ``info["identifier"]`` is the identifier where there is one.

    Raises
    ------
    LosikoError
        The file is missing, empty, truncated, altered, of another version or of another kind.
    """
    name = str(path) if isinstance(path, str | Path) else str(getattr(path, "name", "the structure set"))
    arrays = _read_npz(path, name)
    _validate(arrays, name)
    return _assemble(arrays, name)


def _collect(structures: Sequence[Atoms], identifiers: list[str]) -> dict[str, _Array]:
    infos = jsonable_info(structures)
    for info in infos:
        info.pop("identifier", None)
    arrays: dict[str, _Array] = {
        "format": np.array(FORMAT),
        "n_atoms": np.array([len(atoms) for atoms in structures], dtype=np.int64),
        "numbers": np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64),
        "positions": np.concatenate([atoms.positions for atoms in structures]).astype(np.float64),
        "cells": np.array([atoms.cell.array for atoms in structures], dtype=np.float64),
        "pbc": np.array([atoms.pbc for atoms in structures], dtype=bool),
        "identifiers": np.array(identifiers, dtype=np.str_),
        "info": np.array([json.dumps(info, sort_keys=True) for info in infos], dtype=np.str_),
    }
    fixed = np.concatenate([fixed_mask(atoms) for atoms in structures])
    if fixed.any():
        arrays["fixed"] = fixed
    arrays.update(_per_atom_arrays(structures))
    return arrays


def _per_atom_arrays(structures: Sequence[Atoms]) -> dict[str, _Array]:
    names = sorted({name for atoms in structures for name in atoms.arrays} - set(_OWN_ARRAYS))
    collected: dict[str, _Array] = {}
    left_out = []
    for name in names:
        parts = [_words(atoms.arrays[name]) for atoms in structures if name in atoms.arrays]
        kinds = {part.dtype if part.dtype.kind not in "US" else part.dtype.kind for part in parts}
        shapes = {part.shape[1:] for part in parts}
        if len(parts) == len(structures) and len(kinds) == 1 and len(shapes) == 1 and parts[0].dtype.kind in "biufcUS":
            collected[_ARRAY_PREFIX + name] = np.concatenate(parts)
        else:
            left_out.append(name)
    if left_out:
        warnings.warn(
            f"per-atom arrays left out, since not all structures have them with one type and shape: "
            f"{', '.join(left_out)}",
            UserWarning,
            stacklevel=4,
        )
    return collected


def _words(values: _Array) -> _Array:
    """Texts in an array of objects, as ASE's extended XYZ reader gives them, as an array of texts."""
    if values.dtype.kind == "O" and all(isinstance(word, str) for word in values.ravel()):
        return values.astype(np.str_)
    return values


def _write_npz(stream: IO[bytes], arrays: dict[str, _Array]) -> None:
    # np.savez leaves dates and system fields to zipfile's defaults; here they are fixed, so that equal content means
    # equal bytes on every machine (caching and checksums rest on it).
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays.items():
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _little_endian(array), version=(1, 0), allow_pickle=False)


def _little_endian(array: _Array) -> _Array:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")) if array.ndim else array


def _read_npz(path: str | Path | IO[bytes], name: str) -> dict[str, _Array]:
    if isinstance(path, str | Path):
        if not Path(path).is_file():
            raise LosikoError(f"{name}: there is no such file; give the path of a structure set (.npz)")
        if Path(path).stat().st_size == 0:
            raise LosikoError(f"{name}: the file is empty; give a structure set (.npz) with at least one structure")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for entry in archive.namelist():
                with archive.open(entry) as member:
                    arrays[entry.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, MemoryError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise LosikoError(
            f"{name}: not a readable structure set ({reason}); it is truncated, altered or of another kind: "
            "write or copy it again"
        ) from exc


def _validate(arrays: dict[str, _Array], name: str) -> None:
    found = str(arrays["format"]) if "format" in arrays else "none"
    if found != FORMAT:
        raise LosikoError(
            f"{name}: its format is {found[:60]!r}, this version reads {FORMAT!r}; write the set again with it"
        )
    for key, (kinds, ndim) in _REQUIRED.items():
        if key not in arrays:
            raise LosikoError(f"{name}: the structure set has no {key!r}; it was altered, write or copy it again")
        if arrays[key].dtype.kind not in kinds or arrays[key].ndim != ndim:
            raise LosikoError(f"{name}: {key!r} has the wrong type or shape; it was altered, write or copy it again")
    counts = arrays["n_atoms"]
    n_structures, total = len(counts), int(counts.sum())
    shapes = {
        "numbers": (total,),
        "positions": (total, 3),
        "cells": (n_structures, 3, 3),
        "pbc": (n_structures, 3),
        "identifiers": (n_structures,),
        "info": (n_structures,),
    }
    per_atom = [key for key in arrays if key.startswith(_ARRAY_PREFIX) or key == "fixed"]
    shapes.update({key: (total, *arrays[key].shape[1:]) for key in per_atom})
    wrong = [key for key, shape in shapes.items() if arrays[key].shape != shape]
    if wrong or (counts < 0).any() or not ((arrays["numbers"] >= 0) & (arrays["numbers"] <= 118)).all():
        which = ", ".join(wrong) or "n_atoms or numbers"
        raise LosikoError(f"{name}: {which} do not fit the rest of the set; it was altered, write or copy it again")


def _assemble(arrays: dict[str, _Array], name: str) -> list[Atoms]:
    from ase import Atoms
    from ase.constraints import FixAtoms

    ends = np.cumsum(arrays["n_atoms"])
    structures = []
    for i, (end, count) in enumerate(zip(ends.tolist(), arrays["n_atoms"].tolist(), strict=True)):
        part = slice(end - count, end)
        atoms = Atoms(
            numbers=arrays["numbers"][part],
            positions=arrays["positions"][part],
            cell=arrays["cells"][i],
            pbc=arrays["pbc"][i],
        )
        for key, array in arrays.items():
            if key.startswith(_ARRAY_PREFIX):
                atoms.set_array(key.removeprefix(_ARRAY_PREFIX), array[part])
        if "fixed" in arrays and arrays["fixed"][part].any():
            atoms.set_constraint(FixAtoms(mask=arrays["fixed"][part]))
        if identifier := str(arrays["identifiers"][i]):
            atoms.info["identifier"] = identifier
        try:
            atoms.info.update(json.loads(str(arrays["info"][i])))
        except ValueError as exc:
            raise LosikoError(
                f"{name}: info of structure {i} is not JSON; the set was altered, write it again"
            ) from exc
        structures.append(atoms)
    return structures
