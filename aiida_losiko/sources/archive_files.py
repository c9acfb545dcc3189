"""The files of an archive of structures: one file, a folder, a tar or a zip, read without being unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO

from aiida_losiko.core.errors import LosikoError

EXTENDED_XYZ = (".extxyz", ".xyz")
RES = ".res"
SUFFIXES = (*EXTENDED_XYZ, RES)

_COMPRESSIONS: tuple[tuple[bytes, ModuleType], ...] = ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma))

# RuntimeError and NotImplementedError: zip files with a password or an odd compression.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,
)

_OPENERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
}


def iterate_members(path: Path) -> Iterator[tuple[str, str | LosikoError]]:
    """Yield name and text of every extended XYZ or ``.res`` file, or why this one cannot be read.

    Parameters
    ----------
    path : Path
        A file (``.gz``, ``.xz`` and ``.bz2`` may follow its suffix), a folder (with its subfolders, by name), or a
        ``.tar``, ``.tar.gz``, ``.tar.xz``, ``.tar.bz2``, ``.zip``. Other files in there are passed over.

    Raises
    ------
    LosikoError
        No such path, none of these, an archive that is damaged as a whole, or without any such file.
    """
    if not path.exists():
        raise LosikoError(f"{path}: there is no such file or folder; check the path")
    found = 0
    try:
        for name, read in _members(path):
            found += 1
            try:
                yield name, _decompressed(name, read()).decode("utf-8", errors="replace")
            except _DAMAGED as exc:
                yield name, LosikoError(f"not readable ({_reason(exc)}); the file is damaged")
    except _DAMAGED as exc:
        raise LosikoError(
            f"{path}: not a readable archive after {found} files ({_reason(exc)}); it is cut off or of another kind: "
            "copy it again or give a folder"
        ) from exc
    if not found:
        raise LosikoError(f"{path}: holds no {' or '.join(SUFFIXES)} file; give one, a folder, a tar or a zip of them")


def kind_of(name: str) -> str:
    """Return the suffix that tells the format, without that of a compression; empty for a name of another kind."""
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix in _OPENERS else path.suffix
    return suffix if suffix in SUFFIXES else ""


def stem_of(name: str) -> str:
    """Return the file name without folders and these suffixes."""
    file = Path(name)
    return Path(file.stem).stem if file.suffix.lower() in _OPENERS else file.stem


def _members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield names and what reads them; in a tar that has to be done before the next is asked for."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and kind_of(file.name):
                yield str(file.relative_to(path)), file.read_bytes
    elif kind_of(path.name):
        yield path.name, path.read_bytes
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and kind_of(entry.filename):
                    yield entry.filename, partial(archive.read, entry)
    else:
        yield from _tar_members(path)


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with path.open("rb") as raw:
        magic, decompress = raw.read(6), None
        for start, module in _COMPRESSIONS:
            if magic.startswith(start):
                decompress = module
        raw.seek(0)
        stream: IO[bytes] = decompress.open(raw) if decompress else raw
        with stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                # tarfile remembers every member for going back, which a stream cannot
                archive.members = []  # type: ignore[attr-defined]
                file = archive.extractfile(member) if member.isfile() and kind_of(member.name) else None
                if file is not None:
                    content = file.read()  # here, since a tar that is cut off ends in this
                    yield member.name, partial(bytes, content)
            # tarfile takes a cut before a header for the end: the compression knows better, or the last block does,
            # which is empty in a whole tar.
            while stream.read(1 << 16):
                pass
            if not decompress:
                raw.seek(-512, io.SEEK_END)
                if any(raw.read()):
                    raise EOFError("its end is missing")


def _decompressed(name: str, content: bytes) -> bytes:
    opener = _OPENERS.get(Path(name).suffix.lower())
    return opener(content) if opener else content


def _reason(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:100]
