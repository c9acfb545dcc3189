"""Starting structures: random cells, point defects, interfaces. Plain functions on `ase.Atoms`; no AiiDA, no network.

>>> from aiida_losiko.builders import random_cells
>>> cells = random_cells("C", 300, density=(3.7, 4.2), formula_units=(2, 8), seed=1)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiida_losiko.builders.assembly import interface
    from aiida_losiko.builders.bond_switching import switch_bonds
    from aiida_losiko.builders.defects import interstitial, substitute, vacancy
    from aiida_losiko.builders.layers import cleave, cut_layer
    from aiida_losiko.builders.orbits import find_orbits
    from aiida_losiko.builders.oxidation import oxidize
    from aiida_losiko.builders.random_search import random_cells
    from aiida_losiko.builders.region import atoms_near_plane, freeze
    from aiida_losiko.builders.registry import interfaces
    from aiida_losiko.builders.supercell import make_supercell

_HOMES = {
    "atoms_near_plane": "region",
    "cleave": "layers",
    "cut_layer": "layers",
    "find_orbits": "orbits",
    "freeze": "region",
    "interface": "assembly",
    "interfaces": "registry",
    "interstitial": "defects",
    "make_supercell": "supercell",
    "oxidize": "oxidation",
    "random_cells": "random_search",
    "substitute": "defects",
    "switch_bonds": "bond_switching",
    "vacancy": "defects",
}

__all__ = [
    "atoms_near_plane",
    "cleave",
    "cut_layer",
    "find_orbits",
    "freeze",
    "interface",
    "interfaces",
    "interstitial",
    "make_supercell",
    "oxidize",
    "random_cells",
    "substitute",
    "switch_bonds",
    "vacancy",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: symmetry and ASE's builders take their time to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
