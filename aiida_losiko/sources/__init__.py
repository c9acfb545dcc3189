"""Plain records from public collections; no AiiDA.

``load_source`` finds a source by name; a new source is one module and one line in ``SOURCES``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.selection import SelectionLike

__all__ = ["SOURCES", "SourceInfo", "SourceRecord", "load_source", "source_names"]

Loader: TypeAlias = Callable[..., tuple[SourceInfo, list[SourceRecord]]]


SOURCES = {
    "archive": "aiida_losiko.sources.archive:load_archive",
    "g2": "aiida_losiko.sources.g2:load_g2",
    "materials_project": "aiida_losiko.sources.materials_project:load_materials_project",
    "optimade": "aiida_losiko.sources.optimade:load_optimade",
    "qm9": "aiida_losiko.sources.qm9:load_qm9",
    "reference_crystals": "aiida_losiko.sources.reference_crystals:load_reference_crystals",
}
"""Where the loaders are: functions of a path (or None), a selection, and options of their own as keywords."""


def source_names() -> tuple[str, ...]:
    """Return the names that :func:`load_source` knows."""
    return tuple(SOURCES)


def load_source(
    name: str, path: str | Path | None = None, selection: SelectionLike = None, **options: Any
) -> tuple[SourceInfo, list[SourceRecord]]:
    """Load records of a source.

    Parameters
    ----------
    name : str
        One of :data:`SOURCES`; ``qm9`` and ``archive`` need ``path``.
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
    if name not in SOURCES:
        raise LosikoError(f"unknown source {name!r}{did_you_mean(name, SOURCES)}; allowed are {', '.join(SOURCES)}")
    module, _, attribute = SOURCES[name].partition(":")
    load: Loader = getattr(import_module(module), attribute)
    allowed = [key for key, p in inspect.signature(load).parameters.items() if p.kind is p.KEYWORD_ONLY]
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise LosikoError(
            f"unknown option {', '.join(unknown)} of source {name}; allowed are {', '.join(allowed) or 'none'}"
        )
    info, records = load(path, selection, **options)
    if not records:
        raise LosikoError(f"the selection {selection!r} leaves nothing of source {name}; select more")
    return info, records
