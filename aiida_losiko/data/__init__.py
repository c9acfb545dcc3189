"""AiiDA node types and the converters to and from them."""

from __future__ import annotations

from aiida_losiko.data.converters import atoms_to_structure, node_to_atoms, structure_to_atoms
from aiida_losiko.data.deduplicate import find_stored, store_once
from aiida_losiko.data.environment_database import EnvironmentDatabaseData
from aiida_losiko.data.structure_set import StructureSetData

__all__ = [
    "EnvironmentDatabaseData",
    "StructureSetData",
    "atoms_to_structure",
    "find_stored",
    "node_to_atoms",
    "store_once",
    "structure_to_atoms",
]
