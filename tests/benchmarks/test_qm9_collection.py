"""The choice of databases and held-out molecules, on molecules made up for it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation


@pytest.fixture
def qm9(script):
    return script("qm9_collection")


def made_up(n, repeats=None):
    """Distorted ethanols by number; `repeats` maps a number to the one whose geometry it has, moved and mirrored."""
    molecules = {}
    for number in range(1, n + 1):
        atoms = molecule("CH3CH2OH")
        atoms.positions += np.random.default_rng(number).normal(scale=0.3, size=(9, 3))
        molecules[number] = atoms
    for number, original in (repeats or {}).items():
        atoms = molecules[original].copy()
        order = np.random.default_rng(number).permutation(9)
        mirrored = atoms.positions[order] * [1, 1, -1]
        noise = np.random.default_rng(number).normal(scale=1e-3, size=(9, 3))
        atoms.set_atomic_numbers(atoms.numbers[order])
        atoms.positions = Rotation.random(rng=number).apply(mirrored) + noise + 3.0
        molecules[number] = atoms
    return molecules


def test_databases_are_nested_and_heldout_molecules_apart(qm9):
    collection = qm9.Collection.of(made_up(300))
    choice = qm9.choose(0, 50, (20, 378, 150), collection, n_reserved=200)
    small, paper, large = (set(choice.databases[size]) for size in (20, 378, 150))
    assert (len(small), len(paper), len(large), len(choice.heldout)) == (20, 100, 150, 50)
    assert paper == set(range(1, 101))
    assert small < paper < large
    assert large.isdisjoint(choice.heldout)
    assert len(set(choice.heldout)) == 50


def test_heldout_molecules_hang_on_the_seed_alone(qm9):
    collection = qm9.Collection.of(made_up(300))
    choice = qm9.choose(0, 50, (20,), collection, n_reserved=200)
    assert qm9.choose(0, 20, (150,), collection, n_reserved=200).heldout == choice.heldout[:20]
    other = qm9.choose(1, 50, (20,), collection, n_reserved=200)
    assert other.heldout != choice.heldout
    assert other.databases == choice.databases


def test_duplicates_of_the_database_are_left_out(qm9):
    # Every molecule beyond 150 repeats one of the paper's but for ten, so that they are drawn whatever the order.
    originals = {number: number - 150 for number in range(151, 241)}
    collection = qm9.Collection.of(made_up(250, originals))
    choice = qm9.choose(0, 10, (378,), collection, n_reserved=100)
    distinct = qm9.choose(0, 40, (378,), collection, n_reserved=100)
    assert not set(choice.heldout) & set(originals)
    assert not set(distinct.heldout) & set(originals)
    assert distinct.duplicates
    assert all(originals[number] == original for number, original in distinct.duplicates)


def test_too_few_molecules(qm9):
    with pytest.raises(SystemExit, match="only 10 molecules are left"):
        qm9.choose(0, 11, (20,), qm9.Collection.of(made_up(110)), n_reserved=100)


def test_noise_hangs_on_seed_kind_and_molecule(qm9):
    collection = qm9.Collection.of(made_up(110))
    many, few = collection.molecules(range(1, 101)), collection.molecules([7])
    assert few[0].info["identifier"] == "gdb_7"
    starts = {kind: qm9.displaced_starts(many, kind) for kind in "abe"}
    assert np.array_equal(qm9.displaced_starts(few, "a")[0].positions, starts["a"][6].positions)
    assert not np.array_equal(qm9.displaced_starts(few, "a", seed=1)[0].positions, starts["a"][6].positions)
    for kind, deviation in (("a", 0.1), ("b", 0.2), ("e", 0.0)):
        noise = np.concatenate([s.positions - t.positions for s, t in zip(starts[kind], many, strict=True)])
        assert noise.std() == pytest.approx(deviation, rel=0.05)
