"""Displacements, bonds, angles and torsions against motions whose answer is known."""

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
    torsion_errors,
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


def hydrogen_peroxide(torsion: float) -> Atoms:
    atoms = Atoms("HOOH", [[0.3, 0.9, 0.0], [0.0, 0.0, 0.0], [1.45, 0.0, 0.0], [1.15, 0.9, 0.0]])
    atoms.set_dihedral(0, 1, 2, 3, torsion, indices=[3])
    return atoms


def test_torsion_errors():
    assert torsion_errors(hydrogen_peroxide(111.0), hydrogen_peroxide(90.0)) == pytest.approx([21.0], abs=1e-9)
    # Periodic, and with a sign: mirror images differ.
    assert torsion_errors(hydrogen_peroxide(179.0), hydrogen_peroxide(-178.0)) == pytest.approx([3.0], abs=1e-9)
    assert torsion_errors(hydrogen_peroxide(60.0), hydrogen_peroxide(-60.0)) == pytest.approx([120.0], abs=1e-9)
    # Ethane has nine, and turning one methyl group by 10 degrees changes all of them.
    ethane = molecule("C2H6")
    turned = ethane.copy()
    axis = ethane.positions[1] - ethane.positions[0]
    turned.positions[:] = [
        position if ethane.get_distance(0, index) < ethane.get_distance(1, index) else rotated
        for index, (position, rotated) in enumerate(
            zip(
                ethane.positions,
                Rotation.from_rotvec(np.radians(10) * axis / np.linalg.norm(axis)).apply(ethane.positions),
                strict=True,
            )
        )
    ]
    assert torsion_errors(turned, ethane) == pytest.approx(np.full(9, 10.0), abs=1e-9)
    assert angle_errors(turned, ethane).max() < 1e-9


def test_torsions_are_those_of_ase():
    reference, moved = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    moved.positions += np.random.default_rng(0).normal(scale=0.1, size=(9, 3))
    i, j, _ = bonds(reference)
    neighbours = {a: {*j[i == a].tolist(), *i[j == a].tolist()} for a in range(9)}
    quadruples = [
        (a, b, c, d)
        for b, c in zip(i.tolist(), j.tolist(), strict=True)
        for a in neighbours[b] - {c}
        for d in neighbours[c] - {b}
    ]
    turns = [moved.get_dihedral(*q) - reference.get_dihedral(*q) for q in quadruples]
    expected = np.abs((np.array(turns) + 180) % 360 - 180)
    assert len(quadruples) == 12
    assert np.sort(torsion_errors(moved, reference)) == pytest.approx(np.sort(expected), abs=1e-9)


def test_torsions_that_are_not_defined_are_left_out():
    # Along a triple bond all is linear; a molecule of one angle has none.
    for name in ("C2H2", "CO2", "H2O", "H2"):
        assert len(torsion_errors(molecule(name), molecule(name))) == 0
    # Cyclopropene's ring atoms are no torsion of their own: i would be l.
    three_ring = molecule("C3H4_C2v")
    i, j, _ = bonds(three_ring)
    n_neighbours = np.bincount(np.concatenate([i, j]))
    in_ring = [(a, b) for a, b in zip(i, j, strict=True) if n_neighbours[a] > 1 and n_neighbours[b] > 1]
    with_ring = sum((n_neighbours[a] - 1) * (n_neighbours[b] - 1) for a, b in in_ring)
    assert len(torsion_errors(three_ring, three_ring)) == with_ring - len(in_ring)


def test_torsions_of_a_crystal():
    # Each Si-Si bond has 3 x 3 torsions; 4 bonds in the cell. A wrapped copy has no error.
    silicon = bulk("Si")
    moved = silicon.copy()
    moved.positions -= 0.1
    moved.wrap()
    assert torsion_errors(moved, silicon) == pytest.approx(np.zeros(36), abs=1e-6)


def test_density():
    assert density(bulk("Si")) == pytest.approx(2.329, abs=0.002)
    assert density(bulk("C", cubic=True)) == pytest.approx(3.51, abs=0.02)
    with pytest.raises(LosikoError, match="three cell vectors"):
        density(molecule("H2O"))
