"""QM9: 133,885 organic molecules of up to nine C, N, O, F atoms, B3LYP/6-31G(2df,p) minima.

Ramakrishnan, Dral, Rupp and von Lilienfeld, Sci. Data 1, 140022 (2014), CC0. Identifiers are ``gdb_<number>``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.download import RemoteFile, download, md5_of
from aiida_losiko.sources.qm9_archive import (
    Numbered,
    iterate_archive,
    iterate_collection,
    iterate_folder,
    iterate_packed,
    load_packed,
)
from aiida_losiko.sources.qm9_format import N_MOLECULES, PREFIX, read_uncharacterized
from aiida_losiko.sources.selection import SelectionLike, parse_selection

ARCHIVE = RemoteFile(
    "dsgdb9nsd.xyz.tar.bz2",
    "https://ndownloader.figshare.com/files/3195389",
    size=86_144_227,
    md5="ad1ebd51ee7f5b3a6e32e974e5d54012",
)
UNCHARACTERIZED = RemoteFile(
    "uncharacterized.txt",
    "https://ndownloader.figshare.com/files/3195404",
    size=486_752,
    md5="a361887bacb427b8a0ce7903d92a53b4",
)
"""Sizes and checksums are those that figshare states for the files of collection 978904."""

_ARCHIVE_SUFFIXES = (".tar", ".bz2", ".gz", ".xz", ".tgz", ".tbz2", ".txz")


def paper_numbers() -> frozenset[int]:
    """Return the LOSIKO paper's database: gdb 1 to 100 and every 500th of all (1, 501, 1001, ...), 367 molecules.

    The reading whose element counts are those that the paper prints.
    """
    return frozenset(range(1, 101)) | frozenset(range(1, N_MOLECULES + 1, 500))


def paper_b_numbers() -> frozenset[int]:
    """Return the other reading: gdb 1 to 100 and every 500th of the rest (101, 601, ...), 368 molecules."""
    return frozenset(range(1, 101)) | frozenset(range(101, N_MOLECULES + 1, 500))


NAMED = {"paper": paper_numbers, "paper-b": paper_b_numbers}


def qm9_info(path: str | Path | None = None) -> SourceInfo:
    """Return the account of the source, with the md5 of ``path`` where it is a file."""
    checksum = f"md5:{md5_of(Path(path))}" if path is not None and Path(path).is_file() else ""
    return SourceInfo(
        name="QM9",
        version="figshare collection 978904 v5",
        licence="CC0-1.0",
        reference="10.1038/sdata.2014.22",
        url="https://doi.org/10.6084/m9.figshare.c.978904.v5",
        checksum=checksum,
    )


def load_qm9(
    path: str | Path | None,
    selection: SelectionLike,
    *,
    uncharacterized: str | Path | None = None,
    include_uncharacterized: bool = False,
    progress: bool = False,
) -> tuple[SourceInfo, list[SourceRecord]]:
    """Load molecules for `aiida_losiko.sources.load_source`; the parameters are those of `read_qm9`."""
    if path is None:
        raise LosikoError(
            f"source qm9 needs the path of {ARCHIVE.name}, of a folder of its files or of a collection; "
            "get the archive with aiida_losiko.sources.qm9.download_qm9(folder)"
        )
    records = read_qm9(
        path,
        selection,
        uncharacterized=uncharacterized,
        include_uncharacterized=include_uncharacterized,
        progress=progress,
    )
    return qm9_info(path), list(records)


def read_qm9(
    path: str | Path,
    selection: SelectionLike = None,
    *,
    uncharacterized: str | Path | None = None,
    include_uncharacterized: bool = False,
    progress: bool = False,
) -> Iterator[SourceRecord]:
    """Yield molecules of QM9.

    Parameters
    ----------
    path : str or Path
        The official archive ``dsgdb9nsd.xyz.tar.bz2`` (read as a stream), a folder of its ``dsgdb9nsd_*.xyz`` files,
        a set file or extended XYZ collection whose structures are labelled ``identifier=gdb_<n>`` or ``gdb=<n>``, or
        a packed ``.npz`` (see :func:`aiida_losiko.sources.qm9_archive.iterate_packed`).
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`; numbers are gdb numbers, named selections ``paper`` and ``paper-b``.
    uncharacterized : str or Path, optional
        The official ``uncharacterized.txt``; by default the one beside (or in) ``path``, or the list in a packed file.
    include_uncharacterized : bool, default False
        Keep the molecules whose relaxed geometry is another molecule than its SMILES says.
    progress : bool, default False
        Show a progress bar on standard error while an archive is read.

    Yields
    ------
    SourceRecord
        ``gdb_<number>``, positions in Angstrom, properties as far as the file has them
        (:data:`aiida_losiko.sources.qm9_format.PROPERTY_UNITS`).

    Raises
    ------
    LosikoError
        A path or selection that cannot be used, a damaged file; the message names file and line.

    Warns
    -----
    UserWarning
        The list of uncharacterised molecules is not there, so that none is left out.
    """
    path = Path(path)
    if not path.exists():
        raise LosikoError(
            f"{path}: there is no such file or folder; give {ARCHIVE.name} or get it with "
            "aiida_losiko.sources.qm9.download_qm9(folder)"
        )
    chosen = parse_selection(selection, NAMED, PREFIX)
    packed = load_packed(path) if path.suffix == ".npz" else None
    left_out: frozenset[int] = frozenset()
    if not include_uncharacterized:
        if uncharacterized is None and packed is not None and "uncharacterized" in packed:
            left_out = frozenset(packed["uncharacterized"].tolist())
        else:
            left_out = _uncharacterized(path, uncharacterized)

    def wanted(number: int) -> bool:
        return number not in left_out and chosen.wants(number, f"{PREFIX}{number}")

    last = chosen.last_number()
    records: Numbered
    if path.is_dir():
        records = iterate_folder(path, wanted, last)
    elif packed is not None:
        records = iterate_packed(path, packed, wanted)
    elif path.suffix in _ARCHIVE_SUFFIXES:
        records = iterate_archive(path, wanted, last, progress)
    else:
        records = iterate_collection(path, wanted)
    return chosen.draw(record for _, record in records if chosen.fits(record.atoms.symbols))


def download_qm9(
    folder: str | Path,
    progress: bool = True,
    *,
    files: Sequence[RemoteFile] = (UNCHARACTERIZED, ARCHIVE),
    retries: int = 5,
    pause: float = 1.0,
) -> Path:
    """Download the archive (86 MB) and the list of uncharacterised molecules from figshare; nothing else ever does.

    Parameters
    ----------
    folder : str or Path
        Where to put them. What is there already is checked and kept, a download that was cut off is continued.
    progress : bool
        Show a progress bar.
    files : sequence of RemoteFile
        Other addresses of the same files; the last one's path is returned.
    retries, pause
        See :func:`aiida_losiko.sources.download.download`.

    Returns
    -------
    Path
        The archive, to be given to :func:`read_qm9`.

    Raises
    ------
    LosikoError
        The server fails or the files are not those expected.
    """
    paths = [download(remote, folder, progress=progress, retries=retries, pause=pause) for remote in files]
    return paths[-1]


def _uncharacterized(path: Path, given: str | Path | None) -> frozenset[int]:
    if given is not None:
        return read_uncharacterized(given)
    candidates = [(path if path.is_dir() else path.parent) / UNCHARACTERIZED.name, path.parent / UNCHARACTERIZED.name]
    for candidate in candidates:
        if candidate.is_file():
            return read_uncharacterized(candidate)
    warnings.warn(
        f"no {UNCHARACTERIZED.name} beside {path.name}: the uncharacterised molecules of QM9 are not left out; "
        f"get the list from {UNCHARACTERIZED.url} or ask for them on purpose (include_uncharacterized)",
        UserWarning,
        stacklevel=3,
    )
    return frozenset()
