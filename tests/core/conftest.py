"""A database with a learnt metric, which several tests of core look at; to learn it takes a second."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.collections import g2

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum

METRIC = {"n_components": 60, "n_structures": 50, "n_neighbors": [8, 4, 1]}
SPECIES = ["H", "C", "N", "O"]


@pytest.fixture(scope="session")
def soap() -> SoapPowerSpectrum:
    return SoapPowerSpectrum(SPECIES, r_cut=3.5, n_max=4, l_max=3, sigma=0.3)


@pytest.fixture(scope="session")
def organic() -> dict[str, Atoms]:
    """The 50 molecules of ASE's G2 collection with three to nine atoms of these elements."""
    made = {name: molecule(name) for name in g2.names}
    return {name: atoms for name, atoms in made.items() if set(atoms.symbols) <= set(SPECIES) and 3 <= len(atoms) <= 9}


@pytest.fixture(scope="session")
def learnt(organic: dict[str, Atoms], soap: SoapPowerSpectrum) -> EnvironmentDatabase:
    return EnvironmentDatabase.build(organic.values(), soap, list(organic), metric=METRIC)


@pytest.fixture(scope="session")
def plain(organic: dict[str, Atoms], soap: SoapPowerSpectrum) -> EnvironmentDatabase:
    return EnvironmentDatabase.build(organic.values(), soap, list(organic))


@pytest.fixture(scope="session")
def rattled():
    """Displace every coordinate by normal noise, in Angstrom."""

    def displace(atoms: Atoms, size: float = 0.1, seed: int = 0) -> Atoms:
        atoms = atoms.copy()
        atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
        return atoms

    return displace
