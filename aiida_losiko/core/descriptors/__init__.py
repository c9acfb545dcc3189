"""Descriptors of local atomic environments, by name.

To add one, write a subclass of `Descriptor` in a module of this folder and name it in `DESCRIPTORS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from aiida_losiko.core.descriptors.base import Descriptor
from aiida_losiko.core.descriptors.soap import SoapPowerSpectrum
from aiida_losiko.core.errors import LosikoError

DESCRIPTORS: dict[str, type[Descriptor]] = {SoapPowerSpectrum.name: SoapPowerSpectrum}


def make_descriptor(parameters: Mapping[str, Any]) -> Descriptor:
    """Make the descriptor that `parameters` describe: its `name` (default: soap) and its constructor's arguments.

    Raises
    ------
    LosikoError
        For a name or a parameter that does not exist, one that is missing, or a value that is not allowed.
    """
    arguments = dict(parameters)
    name = arguments.pop("name", SoapPowerSpectrum.name)
    if name not in DESCRIPTORS:
        raise LosikoError(f"descriptor {name!r} does not exist; choose one of: {', '.join(DESCRIPTORS)}")
    signature = inspect.signature(DESCRIPTORS[name]).parameters
    unknown = [key for key in arguments if key not in signature]
    missing = [key for key, p in signature.items() if p.default is p.empty and key not in arguments]
    if unknown or missing:
        what = f"has no parameter {unknown[0]!r}" if unknown else f"needs the parameter {missing[0]!r}"
        raise LosikoError(f"descriptor {name!r} {what}; its parameters are: {', '.join(signature)}")
    return DESCRIPTORS[name](**arguments)


__all__ = ["DESCRIPTORS", "Descriptor", "SoapPowerSpectrum", "make_descriptor"]
