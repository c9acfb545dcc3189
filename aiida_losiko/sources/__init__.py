"""Plain records from public collections; no AiiDA.

``load_source`` finds a source by name; a new source is one module and one line in ``_SOURCES``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.selection import SelectionLike

__all__ = ["SourceInfo", "SourceRecord", "load_source", "source_names"]


def _g2(path: str | Path | None, selection: SelectionLike) -> tuple[SourceInfo, list[SourceRecord]]:
    from aiida_losiko.sources.g2 import g2_info, read_g2

    if path is not None:
        raise LosikoError(f"source g2 takes no path (given: {path}); its molecules come with ASE, leave the path out")
    return g2_info(), list(read_g2(selection))


def _qm9(path: str | Path | None, selection: SelectionLike, **options: Any) -> tuple[SourceInfo, list[SourceRecord]]:
    from aiida_losiko.sources.qm9 import ARCHIVE, qm9_info, read_qm9

    if path is None:
        raise LosikoError(
            f"source qm9 needs the path of {ARCHIVE.name}, of a folder of its files or of a collection; "
            "get the archive with aiida_losiko.sources.qm9.download_qm9(folder)"
        )
    return qm9_info(path), list(read_qm9(path, selection, **options))


_SOURCES: dict[str, Callable[..., tuple[SourceInfo, list[SourceRecord]]]] = {"g2": _g2, "qm9": _qm9}


def source_names() -> tuple[str, ...]:
    """Return the names that :func:`load_source` knows."""
    return tuple(_SOURCES)


def load_source(
    name: str, path: str | Path | None = None, selection: SelectionLike = None, **options: Any
) -> tuple[SourceInfo, list[SourceRecord]]:
    """Load records of a source.

    Parameters
    ----------
    name : str
        ``"g2"`` (comes with ASE) or ``"qm9"`` (needs ``path``).
    path : str or Path, optional
        File or folder of the source.
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`.
    **options
        Of the reader of the source; for QM9 those of :func:`aiida_losiko.sources.qm9.read_qm9`.

    Returns
    -------
    (SourceInfo, list of SourceRecord)
        Never an empty list.

    Raises
    ------
    LosikoError
        An unknown source or option, a path or selection that cannot be used, or nothing selected.
    """
    if name not in _SOURCES:
        raise LosikoError(f"unknown source {name!r}; allowed are {', '.join(_SOURCES)}")
    allowed = {"qm9": ("uncharacterized", "include_uncharacterized", "progress")}.get(name, ())
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise LosikoError(
            f"unknown option {', '.join(unknown)} of source {name}; allowed are {', '.join(allowed) or 'none'}"
        )
    info, records = _SOURCES[name](path, selection, **options)
    if not records:
        raise LosikoError(f"the selection {selection!r} leaves nothing of source {name}; select more")
    return info, records
