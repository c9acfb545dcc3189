"""Structures in files, and the checks that every structure has to pass."""

from __future__ import annotations

from aiida_losiko.core.structures.check import check_structure
from aiida_losiko.core.structures.content import fixed_mask
from aiida_losiko.core.structures.formats import read_any, write_any
from aiida_losiko.core.structures.set_file import FORMAT, read_structures, write_structures

__all__ = ["FORMAT", "check_structure", "fixed_mask", "read_any", "read_structures", "write_any", "write_structures"]
