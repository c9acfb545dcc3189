"""Which atoms of ours are which of QM9's."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule


@pytest.fixture
def geometries(script):
    pytest.importorskip("networkx")
    return script("reference_geometries")


def test_atoms_in_another_order_turned_and_mirrored(geometries):
    ours = molecule("CH3CH2OH")
    theirs = ours[np.random.default_rng(1).permutation(len(ours))]
    theirs.rotate(70, (1, 2, 3))
    theirs.positions[:, 2] *= -1
    distance, order = geometries.best_match(ours, theirs)
    assert distance < 1e-6
    assert theirs[order].get_chemical_symbols() == ours.get_chemical_symbols()
    assert geometries.best_match(ours, molecule("CH3OCH3")) is None


def test_rows_have_the_closest_record(geometries):
    ours = molecule("CH3CH2OH")
    near, far = ours.copy(), ours.copy()
    near.positions[2] += 0.003 * np.array([1.0, 0, 0])
    far.rattle(0.05, seed=1)
    references = [("gdb_2", far), ("gdb_1", near), ("gdb_3", molecule("CH3OCH3"))]
    (row,) = geometries.compare({"ethanol": ours, "water": molecule("H2O")}, references)
    assert (row["name"], row["record"]) == ("ethanol", "gdb_1")
    assert 0.0001 < row["bond"] <= 0.003 and row["rmsd"] < 0.003
    assert "ethanol" in geometries.table([row])
