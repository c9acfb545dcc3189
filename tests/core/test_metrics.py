"""Displacements, bonds and angles against motions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import (
    angle_errors,
    bond_length_errors,
    bonds,
    coordination_numbers,
    density,
    displacements,
    rmsd,
)


def chiral() -> Atoms:
    """CHFClBr, the textbook chiral molecule, its four ligands at different distances."""
    ligands = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return Atoms("CHFClBr", np.vstack([[0, 0, 0], ligands * np.array([[1.09], [1.35], [1.77], [1.94]])]))


@pytest.mark.parametrize("name", ["H2O", "CO2", "CH3CH2OH", "H2", "C6H6"])
def test_rigid_motion_is_no_displacement(name):
    reference = molecule(name)
    moved = reference.copy()
    moved.positions = Rotation.random(rng=3).apply(moved.positions)
    moved.positions += [3.0, -7.0, 0.5]
    assert rmsd(moved, reference) < 1e-12
    assert rmsd(moved, reference, align=False) > 1.0
    assert bond_length_errors(moved, reference).max() < 1e-12


def test_known_displacement():
    reference = molecule("H2")
    stretched = reference.copy()
    stretched.positions[:, 2] *= 1 + 0.2 / reference.get_distance(0, 1)
    assert rmsd(stretched, reference) == pytest.approx(0.1, abs=1e-12)
    assert bond_length_errors(stretched, reference) == pytest.approx([0.2], abs=1e-12)


def test_unaligned_is_the_plain_formula():
    reference = molecule("CH4")
    moved = reference.copy()
    moved.positions[0] += [0.3, 0.0, 0.4]
    assert rmsd(moved, reference, align=False) == pytest.approx(np.sqrt(0.25 / 5), abs=1e-12)
    assert rmsd(moved, reference) < rmsd(moved, reference, align=False)


def test_enantiomers_differ():
    reference = chiral()
    mirrored = reference.copy()
    mirrored.positions[:, 0] *= -1
    assert rmsd(mirrored, reference) > 0.5
    # A planar molecule is its own mirror image, by a proper rotation.
    water = molecule("H2O")
    flipped = water.copy()
    flipped.positions *= -1
    assert rmsd(flipped, water) < 1e-12


def test_is_the_least_over_rotations():
    rng = np.random.default_rng(0)
    reference, moved = chiral(), chiral()
    moved.positions += rng.normal(scale=0.2, size=(5, 3))
    best = rmsd(moved, reference)
    a, b = (s.positions - s.positions.mean(0) for s in (moved, reference))
    others = [np.sqrt(((r.apply(a) - b) ** 2).sum(1).mean()) for r in Rotation.random(500, rng=1)]
    assert best <= min(others) + 1e-12
    assert best == pytest.approx(Rotation.align_vectors(b, a)[1] / np.sqrt(5), rel=1e-9)


def test_same_atoms_are_asked_for():
    with pytest.raises(LosikoError, match="same elements in the same order"):
        rmsd(molecule("H2O"), molecule("CH4"))
    swapped = molecule("H2O")[[1, 0, 2]]
    with pytest.raises(LosikoError, match="same order"):
        bond_length_errors(swapped, molecule("H2O"))
    with pytest.raises(LosikoError, match="0 atoms"):
        rmsd(Atoms(), Atoms())


def test_periodic_shift_and_wrapping_are_no_displacement():
    reference = bulk("Si", cubic=True) * (2, 1, 1)
    for shift in ([0.3, 0.1, -0.2], [5.4, 2.7, 2.7], [2.71, 0.0, 0.0]):
        moved = reference.copy()
        moved.positions += shift
        moved.wrap()
        assert rmsd(moved, reference) < 1e-10
    one = reference.copy()
    one.positions[0] -= [0.4, 0.0, 0.0]
    one.wrap()
    assert rmsd(one, reference, align=False) == pytest.approx(0.4 / 4, abs=1e-10)
    # The mean shift of one atom in 16 is removed from all.
    assert rmsd(one, reference) == pytest.approx(np.sqrt((0.4 * 15 / 16) ** 2 + 15 * (0.4 / 16) ** 2) / 4, abs=1e-10)


def test_cell_change_alone_is_no_displacement():
    reference = bulk("NaCl", "rocksalt", a=5.64)
    strained = reference.copy()
    strained.set_cell(reference.cell * 1.1, scale_atoms=True)
    assert rmsd(strained, reference) < 1e-12
    assert bond_length_errors(strained, reference) == pytest.approx(np.full(6, 0.282), abs=1e-9)


def test_slab_is_wrapped_in_its_plane_only():
    slab = Atoms("Si2", [[0.1, 0, 0], [1.5, 1.5, 2.0]], cell=[3, 3, 0], pbc=[True, True, False])
    moved = slab.copy()
    moved.positions[0, 0] -= 0.2
    moved.wrap()
    assert np.abs(displacements(moved, slab, align=False)[0]) == pytest.approx([0.2, 0, 0], abs=1e-12)
    moved.positions[1, 2] += 4.0
    assert displacements(moved, slab, align=False)[1] == pytest.approx([0, 0, 4.0], abs=1e-12)


def test_bonds_and_coordination():
    i, j, _ = bonds(molecule("CH3CH2OH"))
    assert len(i) == 8 and (i < j).all()
    assert sorted(coordination_numbers(molecule("CH3CH2OH"))) == [1] * 6 + [2] + [4] * 2
    # An fcc atom is bonded to images of itself: 12 neighbours, 6 bonds.
    copper = bulk("Cu")
    assert coordination_numbers(copper) == [12]
    assert len(bonds(copper)[0]) == 6
    assert list(coordination_numbers(Atoms("He"))) == [0]


def test_angle_errors():
    reference = molecule("H2O")
    opened = reference.copy()
    opened.set_angle(1, 0, 2, reference.get_angle(1, 0, 2) + 7.0)
    assert angle_errors(opened, reference) == pytest.approx([7.0], abs=1e-9)
    assert bond_length_errors(opened, reference) == pytest.approx([0, 0], abs=1e-9)
    assert len(angle_errors(molecule("H2"), molecule("H2"))) == 0
    # Each of two silicon atoms has the six angles of a tetrahedron; a wrapped copy has no error.
    silicon = bulk("Si")
    moved = silicon.copy()
    moved.positions -= 0.1
    moved.wrap()
    assert angle_errors(moved, silicon) == pytest.approx(np.zeros(12), abs=1e-9)


def test_density():
    assert density(bulk("Si")) == pytest.approx(2.329, abs=0.002)
    assert density(bulk("C", cubic=True)) == pytest.approx(3.51, abs=0.02)
    with pytest.raises(LosikoError, match="three cell vectors"):
        density(molecule("H2O"))
