"""The containers that QM9 comes in; each gives numbered records and is read from front to back."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceRecord
from aiida_losiko.sources.qm9_format import N_MOLECULES, PREFIX, parse_molecule

Wanted: TypeAlias = Callable[[int], bool]
Numbered: TypeAlias = Iterator[tuple[int, SourceRecord]]

_MEMBER = re.compile(r"dsgdb9nsd_(\d{1,6})\.xyz")


def iterate_archive(path: Path, wanted: Wanted, last: int | None, progress: bool = False) -> Numbered:
    """Yield the wanted molecules of ``dsgdb9nsd.xyz.tar.bz2``, decompressing as it goes; nothing is unpacked to disk.

    Parameters
    ----------
    path : Path
        A tar file, compressed in any way that Python knows.
    wanted : callable
        Tells from the gdb number whether a molecule is to be read.
    last : int or None
        Highest number that can be wanted: reading stops behind it, since the archive is in order.
    progress : bool
        Show a progress bar on standard error.

    Raises
    ------
    LosikoError
        Not such an archive, a truncated one, or a molecule that is not as the format says.
    """
    from tqdm import tqdm

    seen = 0
    try:
        with (
            tarfile.open(path, mode="r|*") as archive,
            tqdm(total=last or N_MOLECULES, desc=path.name, unit="molecule", disable=not progress) as bar,
        ):
            for member in archive:
                # tarfile remembers every member for going back, which a stream cannot
                archive.members = []  # type: ignore[attr-defined]
                match = _MEMBER.fullmatch(Path(member.name).name)
                if not match or not member.isfile():
                    continue
                seen += 1
                bar.update(1)
                number = int(match[1])
                if last is not None and number > last:
                    return
                if wanted(number):
                    stream = archive.extractfile(member)
                    text = stream.read().decode("ascii", errors="replace") if stream else ""
                    yield number, parse_molecule(text, f"{path}:{member.name}", number)
    except (tarfile.TarError, OSError, EOFError) as exc:
        raise LosikoError(
            f"{path}: not a readable archive after {seen} molecules ({str(exc)[:100] or type(exc).__name__}); "
            "it is truncated or of another kind: download it again"
        ) from exc
    if not seen:
        raise LosikoError(f"{path}: holds no files dsgdb9nsd_<number>.xyz; give dsgdb9nsd.xyz.tar.bz2")


def iterate_folder(path: Path, wanted: Wanted, last: int | None) -> Numbered:
    """Yield the wanted molecules of a folder of ``dsgdb9nsd_<number>.xyz``, by number."""
    found = {int(match[1]): item for item in path.iterdir() if (match := _MEMBER.fullmatch(item.name))}
    if not found:
        raise LosikoError(f"{path}: holds no files dsgdb9nsd_<number>.xyz; give the folder of the unpacked archive")
    for number in sorted(found):
        if last is not None and number > last:
            return
        if wanted(number):
            item = found[number]
            yield number, parse_molecule(item.read_text(encoding="ascii", errors="replace"), str(item), number)


def iterate_collection(path: Path, wanted: Wanted) -> Numbered:
    """Yield the wanted structures of a file that ASE reads (extended XYZ) or of a set file.

    The gdb number is taken from ``info["identifier"]`` (``gdb_57``) or a number in ``info["gdb"]``.
    """
    from aiida_losiko.core.structures import read_any

    for i, atoms in enumerate(read_any(path)):
        identifier = str(atoms.info.get("identifier", atoms.info.get("gdb", ""))).strip()
        digits = identifier.removeprefix(PREFIX)
        if not digits.isdecimal() or not 1 <= int(digits) <= N_MOLECULES:
            raise LosikoError(
                f"{path}: structure {i} has no gdb number (found {identifier!r}); "
                "its comment line needs gdb=<number> or identifier=gdb_<number>"
            )
        if wanted(int(digits)):
            extra = {key: value for key, value in atoms.info.items() if key not in ("identifier", "gdb")}
            atoms.info = {}
            yield int(digits), SourceRecord(f"{PREFIX}{int(digits)}", atoms, _plain(extra))


def iterate_packed(path: Path, arrays: dict[str, NDArray[Any]], wanted: Wanted) -> Numbered:
    """Yield the wanted molecules of the packed layout.

    Keys: ``index`` (S,) gdb numbers, ``n_atoms`` (S,), ``numbers`` (N,), ``positions_1e5A`` (3, N) in 1e-5 Angstrom.
    """
    from ase import Atoms

    counts = arrays["n_atoms"].astype(int)
    total = int(counts.sum())
    if arrays["index"].shape != counts.shape or arrays["numbers"].shape != (total,):
        raise LosikoError(f"{path}: index, n_atoms and numbers do not fit together; copy the file again")
    if arrays["positions_1e5A"].shape != (3, total):
        raise LosikoError(f"{path}: positions_1e5A is not (3, {total}); copy the file again")
    ends = np.cumsum(counts)
    for number, end, count in zip(arrays["index"].tolist(), ends.tolist(), counts.tolist(), strict=True):
        if wanted(number):
            part = slice(end - count, end)
            positions = arrays["positions_1e5A"][:, part].T * 1e-5
            atoms = Atoms(numbers=arrays["numbers"][part], positions=positions)
            yield number, SourceRecord(f"{PREFIX}{number}", atoms)


def load_packed(path: Path) -> dict[str, NDArray[Any]] | None:
    """Load an npz file of the packed layout; None if it is another npz (a set file)."""
    required = ("index", "n_atoms", "numbers", "positions_1e5A")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "format" in archive.files:
                return None
            missing = [key for key in required if key not in archive.files]
            if missing:
                raise LosikoError(
                    f"{path}: has no {', '.join(missing)}; allowed are a structure set or "
                    f"an npz with {', '.join(required)}"
                )
            keys = [*required, *(key for key in ("uncharacterized",) if key in archive.files)]
            return {key: archive[key] for key in keys}
    except LosikoError:
        raise
    except Exception as exc:  # zipfile and numpy raise many kinds for a damaged file
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise LosikoError(f"{path}: not a readable npz file ({reason}); copy it again") from exc


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    from aiida_losiko.core.files import to_jsonable

    plain = {}
    for key, value in values.items():
        try:
            plain[str(key)] = to_jsonable(value)
        except TypeError:
            continue
    return plain
