"""Structures from and to any format that ASE knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import temporary_target
from aiida_losiko.core.structures.check import partial_site
from aiida_losiko.core.structures.extended_xyz import for_extended_xyz
from aiida_losiko.core.structures.set_file import read_structures, write_structures

if TYPE_CHECKING:
    from ase import Atoms

_FORMATS_HINT = "for instance .extxyz or .npz for many structures, .cif, .vasp or POSCAR for one"


def read_any(path: str | Path, index: str | int = ":", *, allow_partial_occupancy: bool = False) -> list[Atoms]:
    """Read every structure of a file: the ``.npz`` set file or anything that ASE reads.

    Parameters
    ----------
    path : str or Path
        The file; ASE tells the format from the name, then from the content.
    index : str or int, default ":"
        Which structures, as in ``ase.io.read``; always a list comes back.
    allow_partial_occupancy : bool, default False
        Leave partly occupied or mixed sites to :func:`check_structure`, which refuses them structure by structure.

    Returns
    -------
    list of ase.Atoms
        In the order of the file, with ``info``, per-atom arrays and ``FixAtoms``. Where the file has
        ``info["identifier"]`` it is made a string; nothing is invented where it has not.

    Raises
    ------
    LosikoError
        No such file, an empty one, an unknown or unreadable format, no structures, partial occupancies.
    """
    path = Path(path)
    if path.is_dir():
        raise LosikoError(f"{path}: this is a folder; give a file")
    if not path.is_file():
        raise LosikoError(f"{path}: there is no such file; check the path")
    if path.stat().st_size == 0:
        raise LosikoError(f"{path}: the file is empty; give a file with at least one structure")
    structures = _read_set(path, index) if path.suffix == ".npz" else _read_ase(path, index)
    if not structures:
        raise LosikoError(f"{path}: there are no structures in it; give a file with at least one")
    for i, atoms in enumerate(structures):
        if "identifier" in atoms.info:
            atoms.info["identifier"] = str(atoms.info["identifier"])
        if not allow_partial_occupancy and (site := partial_site(atoms)):
            raise LosikoError(f"{path}: structure {i}: {site}")
    return structures


def write_any(path: str | Path, structures: Atoms | Iterable[Atoms]) -> None:
    """Write structures: to a ``.npz`` set file or in the ASE format of the file's name.

    The file is written under the same name in a private folder beside it and then moved into place. Extended XYZ
    (``.extxyz``, ``.xyz``) keeps ``info``, per-atom arrays and ``FixAtoms``; other formats keep what they can hold.

    Parameters
    ----------
    path : str or Path
        Its name decides the format.
    structures : ase.Atoms or iterable of ase.Atoms
        At least one.

    Raises
    ------
    LosikoError
        Nothing to write, an unknown format, one that cannot be written or cannot hold many structures, or a
        structure that the format cannot hold.
    """
    path = Path(path)
    items = _as_list(structures)
    if not items:
        raise LosikoError(f"there are no structures to write to {path}; give at least one")
    if path.suffix == ".npz":
        write_structures(path, items)
        return
    name = _writable_format(path, len(items))
    import ase.io
    from ase.io.extxyz import write_extxyz
    from ase.io.formats import open_with_compression

    if name == "extxyz":
        items = for_extended_xyz(items)
    with temporary_target(path) as temporary:
        try:
            if name == "extxyz":
                # One at a time: ASE 3.26 writes the first structure's constraints for all of them.
                with TextIOWrapper(open_with_compression(str(temporary), "wb"), encoding="utf-8") as stream:
                    for atoms in items:
                        write_extxyz(stream, [atoms])
            else:
                ase.io.write(temporary, items if len(items) > 1 else items[0], format=name, parallel=False)
        except Exception as exc:
            if isinstance(exc, OSError) and exc.errno is not None:
                raise
            raise LosikoError(
                f"{path}: ASE cannot write this as {name} ({_reason(exc)}); write .extxyz or .npz instead"
            ) from exc
        if not temporary.is_file():
            raise LosikoError(f"{path}: ASE wrote no single file as {name}; write .extxyz or .npz instead")
        if path.suffix == ".gz":
            # The same content, the same bytes: gzip notes the time there.
            with temporary.open("r+b") as stream:
                stream.seek(4)
                stream.write(bytes(4))


def _as_list(structures: Atoms | Iterable[Atoms]) -> list[Atoms]:
    from ase import Atoms

    return [structures] if isinstance(structures, Atoms) else list(structures)


def _read_set(path: Path, index: str | int) -> list[Atoms]:
    structures = read_structures(path)
    try:
        if isinstance(index, int):
            return [structures[index]]
        if ":" not in index:
            return [structures[int(index)]]
        return structures[slice(*(int(part) if part.strip() else None for part in index.split(":")))]
    except (IndexError, ValueError, TypeError) as exc:
        raise LosikoError(
            f"{path}: the index {index!r} does not fit its {len(structures)} structures; "
            "give a number or start:stop:step"
        ) from exc


def _read_ase(path: Path, index: str | int) -> list[Atoms]:
    import ase.io
    from ase.io.formats import UnknownFileTypeError

    try:
        with warnings.catch_warnings():
            # Readers warn about what they guess (for instance CIF setting choices); errors are raised all the same.
            warnings.simplefilter("ignore")
            found = ase.io.read(path, index=index, do_not_split_by_at_sign=True, parallel=False)
    except UnknownFileTypeError as exc:
        raise LosikoError(f"{path}: ASE knows no format for this file; use a known one, {_FORMATS_HINT}") from exc
    except (IndexError, StopIteration) as exc:
        raise LosikoError(f"{path}: no structure at index {index!r}; give a file or an index that has one") from exc
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise LosikoError(f"cannot read {path}: {exc.strerror}; check the file and its permissions") from exc
        raise LosikoError(
            f"{path}: ASE cannot read it ({_reason(exc)}); the file is damaged or not what its name says: "
            "repair it or rename it"
        ) from exc
    return list(found) if isinstance(found, list) else [found]


def _reason(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0][:160]}" if lines else type(exc).__name__


def _writable_format(path: Path, n_structures: int) -> str:
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        name = str(filetype(path.name, read=False, guess=False))
    except UnknownFileTypeError as exc:
        raise LosikoError(f"{path}: ASE knows no format for this name; use a known one, {_FORMATS_HINT}") from exc
    form = ioformats.get(name)
    if form is None:
        raise LosikoError(f"{path}: ASE knows no format {name!r}; use a known one, {_FORMATS_HINT}")
    if not form.can_write:
        raise LosikoError(f"{path}: ASE cannot write the format {name!r}; use another, {_FORMATS_HINT}")
    if n_structures > 1 and form.single:
        raise LosikoError(
            f"{path}: the format {name!r} holds one structure, not {n_structures}; write .extxyz or .npz instead"
        )
    return name
