"""Crystals to build from, written down as facts."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal


def _crystal(symbols: list[str], sites: list, group: int, cellpar: list[float], **options) -> Atoms:
    atoms = crystal(symbols, sites, spacegroup=group, cellpar=cellpar, **options)
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


@pytest.fixture
def licoo2() -> Atoms:
    """R-3m, hexagonal axes (Orman and Wiseman, Acta Cryst. C40, 12, 1984)."""
    sites = [(0, 0, 0.5), (0, 0, 0), (0, 0, 0.2605)]
    return _crystal(["Li", "Co", "O"], sites, 166, [2.816, 2.816, 14.054, 90, 90, 120])


@pytest.fixture
def co3o4() -> Atoms:
    """Spinel, Fd-3m, origin at the centre (Smith and Hobson, Acta Cryst. B29, 362, 1973)."""
    sites = [(0.125, 0.125, 0.125), (0.5, 0.5, 0.5), (0.2631, 0.2631, 0.2631)]
    return _crystal(["Co", "Co", "O"], sites, 227, [8.084, 8.084, 8.084, 90, 90, 90], setting=2)


@pytest.fixture
def quartz() -> Atoms:
    """Alpha-quartz, P3(1)21 (Levien, Prewitt and Weidner, Am. Mineral. 65, 920, 1980)."""
    sites = [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2142)]
    return _crystal(["Si", "O"], sites, 152, [4.916, 4.916, 5.4054, 90, 90, 120])


@pytest.fixture
def silicon() -> Atoms:
    return bulk("Si", cubic=True)
