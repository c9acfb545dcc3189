"""Engines by name: the entry points of the group `losiko.validation`, of this package and of others."""

from __future__ import annotations

from importlib.metadata import entry_points

from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.workflows.validation.base import ValidationEngine

__all__ = ("ENTRY_POINT_GROUP", "engine_names", "load_engine")

ENTRY_POINT_GROUP = "losiko.validation"


def engine_names() -> list[str]:
    """Return the names of the engines, sorted; nothing is imported."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def load_engine(name: str) -> ValidationEngine:
    """Return an engine.

    Parameters
    ----------
    name
        Name of its entry point. The optional package that it needs is not imported, see `ValidationEngine.require`.

    Raises
    ------
    LosikoError
        For an unknown name, and for an entry point that is no engine or cannot be imported.
    """
    names = engine_names()
    if name not in names:
        hint = did_you_mean(name, names)
        raise LosikoError(f"unknown validation engine {name!r}{hint}; there are: {', '.join(names) or 'none'}")
    point = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)))
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        raise LosikoError(f"the validation engine {name!r} ({point.value}) cannot be imported: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, ValidationEngine)):
        raise LosikoError(f"the validation engine {name!r} ({point.value}) is no subclass of ValidationEngine")
    engine: ValidationEngine = loaded()
    return engine
