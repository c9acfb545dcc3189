"""Which structures are the same."""

from __future__ import annotations

import numpy as np
from ase.build import bulk, make_supercell, molecule

from aiida_losiko.core.duplicates import same_structure


def turned(atoms):
    """The same molecule somewhere else, its atoms in another order."""
    copy = atoms[np.random.default_rng(0).permutation(len(atoms))]
    copy.rotate(37, (1, 2, 3))
    copy.translate((4, 5, 6))
    return copy


def test_molecules():
    ethanol, ether = molecule("CH3CH2OH"), molecule("CH3OCH3")
    assert same_structure(ethanol, turned(ethanol))
    mirrored = ethanol.copy()
    mirrored.positions[:, 0] *= -1
    assert same_structure(ethanol, mirrored)
    assert not same_structure(ethanol, ether)
    near, far = ethanol.copy(), ethanol.copy()
    near.rattle(0.01, seed=1)
    far.rattle(0.2, seed=1)
    assert same_structure(ethanol, near) and not same_structure(ethanol, far)
    assert same_structure(ethanol, far, tolerance=0.5)
    assert not same_structure(ethanol, molecule("CH3OH"))
    assert same_structure(molecule("H"), molecule("H"))


def test_crystals():
    primitive, cubic = bulk("Si"), bulk("Si", cubic=True)
    assert same_structure(primitive, cubic)
    moved = make_supercell(primitive, [[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    moved.translate((0.3, 0.2, 0.1))
    assert same_structure(primitive, moved)
    near, rough = cubic.copy(), cubic.copy()
    near.rattle(0.02, seed=1)
    rough.rattle(0.2, seed=1)
    assert same_structure(cubic, near) and not same_structure(cubic, near, tolerance=0.01)
    assert not same_structure(cubic, rough)
    assert not same_structure(primitive, bulk("Si", a=5.43 * 1.1))
    assert not same_structure(primitive, bulk("Ge"))
    assert not same_structure(bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "cesiumchloride", a=3.5))


def test_what_is_periodic_is_another_structure():
    alone = molecule("H2O", vacuum=5.0)
    boxed = alone.copy()
    boxed.pbc = True
    slab = alone.copy()
    slab.pbc = (True, True, False)
    assert same_structure(boxed, boxed.copy())
    assert not same_structure(alone, boxed) and not same_structure(boxed, slab)
