"""The LOSIKO method on numpy, scipy and torch; no AiiDA, no network.

>>> from aiida_losiko.core import SoapPowerSpectrum, EnvironmentDatabase, relax  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiida_losiko.core.calculator import LosikoCalculator
    from aiida_losiko.core.descriptors import SoapPowerSpectrum, make_descriptor
    from aiida_losiko.core.environments.database import EnvironmentDatabase
    from aiida_losiko.core.errors import LosikoError
    from aiida_losiko.core.protocols import load_protocol
    from aiida_losiko.core.relaxation.driver import relax
    from aiida_losiko.core.relaxation.results import Matches, Relaxation
    from aiida_losiko.core.relaxation.run import StepReport
    from aiida_losiko.core.settings import RelaxSettings

_HOMES = {
    "EnvironmentDatabase": "environments.database",
    "LosikoCalculator": "calculator",
    "LosikoError": "errors",
    "Matches": "relaxation.results",
    "RelaxSettings": "settings",
    "Relaxation": "relaxation.results",
    "SoapPowerSpectrum": "descriptors",
    "StepReport": "relaxation.run",
    "load_protocol": "protocols",
    "make_descriptor": "descriptors",
    "relax": "relaxation.driver",
}

__all__ = [
    "EnvironmentDatabase",
    "LosikoCalculator",
    "LosikoError",
    "Matches",
    "RelaxSettings",
    "Relaxation",
    "SoapPowerSpectrum",
    "StepReport",
    "load_protocol",
    "make_descriptor",
    "relax",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, since torch alone takes more than a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
