"""Checks of single settings, told in one way."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from aiida_losiko.core.errors import LosikoError


def require(name: str, value: Any, allowed: bool, what: str) -> None:
    """Raise a `LosikoError` that names the setting, its value and `what` it must be, unless it is allowed."""
    if not allowed:
        raise LosikoError(f"{name}={value!r} is not allowed; it must be {what}")


def is_whole(value: Any, least: int = 0) -> bool:
    """Whether it is an integer (no truth value, no float; NumPy's count) of at least that."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_real(value: Any) -> bool:
    """Whether it is a finite number (no truth value; NumPy's count)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
