"""Engines that compute energies behind LOSIKO: one small interface, one file and one entry point for each engine."""

from __future__ import annotations

from aiida_losiko.workflows.validation.base import Measurement, Request, ValidationEngine
from aiida_losiko.workflows.validation.registry import engine_names, load_engine

__all__ = ("Measurement", "Request", "ValidationEngine", "engine_names", "load_engine")
