"""What the calculation functions share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from aiida.engine import ExitCode, Process

from aiida_losiko.core.errors import LosikoError

__all__ = ("INPUT_REJECTED", "check_keys", "keep_from_cache", "number", "rejected")

#: Exit status of a function whose input is wrong; as for the jobs, 2xx stands for input.
INPUT_REJECTED = 201


def rejected(error: LosikoError) -> ExitCode:
    """Return the exit code of a wrong input, which another version may take: it is not for the cache."""
    keep_from_cache()
    return ExitCode(INPUT_REJECTED, f"The input was rejected: {error}")


def keep_from_cache() -> None:
    """Let no later call take the result of the function that is running from the cache.

    AiiDA compares the inputs and the file of a function; for a result that depends on more than these.
    """
    process: Any = Process.current()
    if process is not None:
        process.node.base.caching.is_valid_cache = False


def check_keys(parameters: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Check that there are no keys but the allowed ones.

    Raises
    ------
    LosikoError
        With the first unknown key.
    """
    for key in parameters:
        if key not in allowed:
            raise LosikoError(f"unknown key {key!r} in parameters: allowed are {', '.join(allowed)}")


def number(parameters: Mapping[str, Any], key: str, default: float | None, smallest: float, unit: str = "") -> float:
    """Return a finite number of the parameters.

    Raises
    ------
    LosikoError
        If it is missing without a default, no number, or below `smallest`.
    """
    value = parameters.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < smallest:
        raise LosikoError(f"{key} is {value!r}: give a number of at least {smallest:g}{unit and ' ' + unit}")
    return float(value)
