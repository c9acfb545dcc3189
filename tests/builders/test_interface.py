"""Layers, their common cells, interfaces, and the atoms near them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal

from aiida_losiko.builders import atoms_near_plane, cleave, cut_layer, freeze, interface, random_cells
from aiida_losiko.builders.layers import as_layer
from aiida_losiko.builders.matching import match_layers
from aiida_losiko.core.errors import LosikoError

BONDS = {("Si", "Si"): 2.6, ("Si", "O"): 1.9}
SILICA = Path(os.environ.get("LOSIKO_DATA", Path(__file__).parents[3] / "shared" / "data"), "silica")


@pytest.fixture
def cristobalite() -> Atoms:
    """Beta-cristobalite, Fd-3m, ideal (Wyckoff, Am. J. Sci. 9, 448, 1925)."""
    atoms = crystal(["Si", "O"], [(0, 0, 0), (0.125, 0.125, 0.125)], spacegroup=227, cellpar=[7.16] * 3 + [90] * 3)
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


@pytest.fixture
def amorphous() -> Atoms:
    """As disordered as an amorphous cell: random, with the axes of one."""
    distances = {"Si-O": 1.5, "O-O": 2.1, "Si-Si": 2.5}
    return random_cells(
        "SiO2", density=(2.2, 2.2), formula_units=20, minimal_distances=distances, angles=(90, 90), max_aspect=1.2
    )[0]


@pytest.fixture
def si_layer(silicon) -> Atoms:
    return cleave(silicon, (0, 0, 1), 10.0)


def bond_lengths(atoms: Atoms) -> np.ndarray:
    return np.sort(neighbor_list("d", atoms, BONDS))


def half(atoms: Atoms, side: int) -> Atoms:
    """One layer of an interface, with its strain taken back."""
    layer = atoms[atoms.arrays["layer"] == side]
    layer.pbc = (True, True, False)
    back = np.linalg.inv(np.eye(3) + np.array(atoms.info["interface"]["strain"][side]))
    layer.set_cell(layer.cell.array @ back)
    layer.positions = layer.positions @ back
    return layer


def check_layers(atoms: Atoms, layers: tuple[Atoms, Atoms]) -> None:
    """No atom is lost, and within each layer all bonds are those that were cut out."""
    for side, original in enumerate(layers):
        size = round(np.linalg.det(atoms.info["interface"]["matrix"][side]))
        layer = half(atoms, side)
        assert size >= 1
        assert sorted(layer.symbols) == sorted([*original.symbols] * size)
        expected = np.sort(np.tile(bond_lengths(original), size))
        assert len(expected) > 0
        assert np.allclose(bond_lengths(layer), expected, atol=1e-6)
        assert np.ptp(layer.positions[:, 2]) == pytest.approx(np.ptp(original.positions[:, 2]))


def test_cleaved_silicon(silicon, si_layer):
    assert si_layer.pbc.tolist() == [True, True, False]
    # the smallest cell of the surface, not that of the cube
    assert abs(np.linalg.det(si_layer.cell.array[:2, :2])) == pytest.approx(5.43**2 / 2)
    assert len(np.unique(si_layer.positions[:, 2].round(3))) == len(si_layer) == 8
    assert si_layer.positions[:, 2].min() == 0
    assert si_layer.cell[2, 2] == pytest.approx(7 / 4 * 5.43)
    coordination = np.bincount(neighbor_list("i", si_layer, BONDS))
    assert sorted(coordination) == [2, 2] + [4] * 6
    assert si_layer.info["identifier"] == "Si:slab-0_0_1-0"
    assert si_layer.info["layer"] == {"miller": [0, 0, 1], "thickness": 10.0, "termination": 0}
    # The indices are those of the conventional cell, whichever cell is given.
    assert np.allclose(bond_lengths(cleave(bulk("Si"), (0, 0, 1), 10.0)), bond_lengths(si_layer))
    assert len(cleave(silicon, (1, 1, 1), 6.0)) < len(cleave(silicon, (1, 1, 1), 12.0))


def test_terminations(quartz):
    first, second = (cleave(quartz, (0, 0, 1), 5.0, termination=number) for number in (0, 1))
    tops = [layer.symbols[layer.positions[:, 2].argmax()] for layer in (first, second)]
    ends = [np.ptp(layer.positions[:, 2]) for layer in (first, second)]
    assert tops[0] != tops[1] or abs(ends[0] - ends[1]) > 0.1
    with pytest.raises(LosikoError, match=r"termination=99 .* there are \d+, give a whole number from 0"):
        cleave(quartz, (0, 0, 1), 5.0, termination=99)


def test_quartz_keeps_its_hand(quartz):
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    layer = cleave(quartz, (0, 0, 1), 30.0)
    height = layer.cell[2, 2]
    middle = layer[(layer.positions[:, 2] > 0.3 * height) & (layer.positions[:, 2] < 0.3 * height + 5.4054 - 1e-3)]
    middle.set_cell([*layer.cell.array[:2], [0, 0, 5.4054]])
    middle.pbc = True
    found = SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(middle), symprec=0.01).get_space_group_symbol()
    assert found == "P3_121"


def test_a_whole_cell_is_cut_where_it_is_told(amorphous):
    height = amorphous.cell[2, 2]
    for start in (0.0, 3.0, -2.0, height + 1.0):
        layer = cut_layer(amorphous, start=start)
        assert sorted(layer.symbols) == sorted(amorphous.symbols)
        # what was cut are neighbours across the plane, and only those
        i, j, shift = neighbor_list("ijS", amorphous, 3.0)
        fractions = (amorphous.positions[:, 2] - start) / height
        crossing = np.floor(fractions)[j] + shift[:, 2] != np.floor(fractions)[i]
        assert crossing.any()
        assert len(neighbor_list("i", layer, 3.0)) == len(i) - crossing.sum()


def test_a_thinner_layer_of_a_skewed_cell():
    cell = random_cells("SiO2", density=(2.2, 2.2), formula_units=16, seed=5)[0]
    layer = cut_layer(cell, thickness=4.0, start=1.0)
    normal = np.cross(cell.cell[0], cell.cell[1])
    heights = cell.positions @ normal / np.linalg.norm(normal)
    between = cell[(heights >= 1.0) & (heights < 5.0)]
    between.pbc = (True, True, False)
    assert sorted(layer.symbols) == sorted(between.symbols)
    assert len(neighbor_list("d", between, 3.0)) > 0
    assert np.allclose(np.sort(neighbor_list("d", layer, 3.0)), np.sort(neighbor_list("d", between, 3.0)))


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_a_slab_with_vacuum_is_put_together(si_layer, turn):
    slab = si_layer.copy()
    slab.set_cell([*slab.cell.array[:2], [1.3, 0.4, turn * (slab.cell[2, 2] + 12.0)]])
    slab.pbc = True
    slab.positions += [0.2, 0.1, 0.7 * turn * slab.cell[2, 2]]
    slab.wrap()
    assert np.ptp(slab.positions[:, 2]) > 15
    layer = as_layer(slab, "slab_a")
    assert np.ptp(layer.positions[:, 2]) == pytest.approx(np.ptp(si_layer.positions[:, 2]))
    assert np.allclose(bond_lengths(layer), bond_lengths(si_layer))


@pytest.mark.parametrize("name", ["slab_a", "slab_b"])
def test_a_slab_without_vacuum_said_to_be_periodic(silicon, si_layer, name):
    slabs = {"slab_a": si_layer, "slab_b": si_layer} | {name: silicon}
    message = rf"{name} Si8 is said to be periodic in all directions, but its largest empty space is 1\.36 Angstrom"
    with pytest.raises(LosikoError, match=message):
        interface(**slabs, gap=2.0, max_strain=0.05)


@pytest.mark.parametrize("strained", ["a", "b", "both"])
def test_silicon_on_quartz(si_layer, quartz, strained):
    layers = (si_layer, cleave(quartz, (0, 0, 1), 8.0))
    atoms = interface(*layers, gap=1.8, max_strain=0.05, strained=strained, min_length=7.0)
    check_layers(atoms, layers)
    strains = np.array(atoms.info["interface"]["strain"])
    largest = [np.abs(np.linalg.eigvalsh(strain)).max() for strain in strains]
    assert max(largest) == pytest.approx(atoms.info["interface"]["mismatch"])
    assert 0 < max(largest) <= 0.05
    assert [value < 1e-9 for value in largest] == {"a": [False, True], "b": [True, False], "both": [False] * 2}[
        strained
    ]
    if strained == "both":
        # half of the way each, in opposite directions
        assert np.allclose((np.eye(3) + strains[0]) @ (np.eye(3) + strains[1]), np.eye(3), atol=1e-9)
    assert np.linalg.norm(atoms.cell.array[:2], axis=1).min() >= 7.0 * (1 - 0.05)
    assert atoms.info["identifier"] == "Si:slab-0_0_1-0|SiO2:slab-0_0_1-0"
    assert json.loads(json.dumps(atoms.info)) == atoms.info


def test_silicon_on_cristobalite_with_vacuum(silicon, si_layer, cristobalite):
    layers = (si_layer, cleave(cristobalite, (0, 0, 1), 7.0))
    atoms = interface(*layers, gap=2.0, max_strain=0.05, vacuum=12.0)
    check_layers(atoms, layers)
    heights = [half(atoms, side).positions[:, 2] for side in (0, 1)]
    assert heights[1].min() - heights[0].max() == pytest.approx(2.0)
    assert atoms.info["interface"]["planes"] == [pytest.approx(heights[0].max() + 1.0)]
    assert atoms.cell[2, 2] - np.ptp(atoms.positions[:, 2]) == pytest.approx(12.0)
    assert atoms.pbc.all()
    assert neighbor_list("d", atoms, 3.0).min() > 1.5


def test_without_vacuum_there_are_two_interfaces(si_layer, amorphous):
    layers = (si_layer, cut_layer(amorphous))
    atoms = interface(*layers, gap=1.7, max_strain=0.1, strained="b", max_area=600)
    check_layers(atoms, layers)
    first, second = atoms.info["interface"]["planes"]
    heights = [atoms.positions[atoms.arrays["layer"] == side, 2] for side in (0, 1)]
    assert first == pytest.approx(heights[0].max() + 0.85)
    assert heights[1].min() - heights[0].max() == pytest.approx(1.7)
    assert heights[0].min() + atoms.cell[2, 2] - heights[1].max() == pytest.approx(1.7)
    assert second == pytest.approx(heights[1].max() + 0.85)
    assert 0 < atoms.positions[:, 2].min() < atoms.positions[:, 2].max() < atoms.cell[2, 2]


def test_shift_moves_the_upper_layer_alone(si_layer, amorphous):
    layers, options = (si_layer, cut_layer(amorphous)), {"gap": 1.7, "max_strain": 0.1, "max_area": 600}
    here, there = (interface(*layers, shift=shift, **options) for shift in ((0, 0), (0.25, 0.5)))
    moved = there.get_scaled_positions() - here.get_scaled_positions()
    upper = here.arrays["layer"] == 1
    assert np.allclose(moved[~upper], 0)
    assert np.allclose((moved[upper] - [0.25, 0.5, 0.0] + 0.5) % 1.0, 0.5)


def test_too_large_a_mismatch_says_both_numbers(si_layer, cristobalite):
    layer = cleave(cristobalite, (0, 0, 1), 7.0)
    with pytest.raises(LosikoError, match=r"mismatch is (\S+) % .* allowed is max_strain=0.5 %") as error:
        interface(si_layer, layer, gap=2.0, max_strain=0.005, max_area=130)
    told = float(str(error.value).split("mismatch is ")[1].split(" %")[0]) / 100
    # The number it tells is the one that is found when it is allowed.
    atoms = interface(si_layer, layer, gap=2.0, max_strain=told + 1e-4, max_area=130)
    assert atoms.info["interface"]["mismatch"] == pytest.approx(told, abs=1e-4)


def test_matches_of_known_lattices():
    square = np.diag([3.0, 3.0])
    options = {"strained": "b", "max_strain": 0.02, "max_area": 200.0, "max_atoms": 100}
    # the same lattice turned by 30 degrees: no strain, one cell each
    turned = square @ np.array([[np.sqrt(0.75), 0.5], [-0.5, np.sqrt(0.75)]])
    match = match_layers((square, turned), (1, 1), **options)
    assert (match.mismatch < 1e-9, match.n_atoms) == (True, 2)
    # sqrt(2) times larger: two cells on one, turned by 45 degrees
    match = match_layers((square, np.sqrt(2) * square), (1, 1), **options)
    assert (match.mismatch < 1e-9, match.n_atoms) == (True, 3)
    # 3 on 2 with 1 % to go
    match = match_layers((square, 1.515 * square), (1, 1), **options)
    assert match.mismatch == pytest.approx(1 - 1 / 1.01)
    assert np.allclose(match.strains[1], (1 / 1.01 - 1) * np.eye(2))
    assert match.n_atoms == 9 + 4
    for vectors, rows, matched in zip((square, 1.515 * square), match.matrices, match.maps, strict=True):
        assert np.allclose(rows @ vectors @ matched, match.cell)
        assert np.linalg.det(matched) > 0


def test_a_mirrored_lattice_is_not_the_same():
    oblique = np.array([[3.0, 0.0], [1.0, 4.0]])
    mirrored = np.array([[3.0, 0.0], [-1.0, 4.0]])
    options = {"strained": "b", "max_strain": 1e-6, "max_area": 12.5, "max_atoms": 2}
    with pytest.raises(LosikoError, match="the mismatch is"):
        match_layers((oblique, mirrored), (1, 1), **options)
    assert match_layers((oblique, oblique), (1, 1), **options).mismatch < 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gap": 0}, "gap=0 is not allowed"),
        ({"max_strain": 3}, "0.03 for 3 %"),
        ({"strained": "c"}, "one of a, b, both"),
        ({"strained": ["a"]}, "one of a, b, both"),
        ({"vacuum": 0}, "vacuum=0 is not allowed; it must be at least 5 Angstrom, or left out"),
        ({"max_area": 5}, "no common cell .* raise max_area"),
        ({"max_atoms": 10}, "no common cell"),
        ({"min_length": 100.0}, "at least 100 Angstrom"),
        ({"shift": [1]}, "two numbers"),
        ({"shift": 0.5}, "two numbers"),
        ({"slab_b": molecule("H2O")}, r"slab_b H2O has pbc \[False, False, False\]"),
    ],
)
def test_wrong_parameters(si_layer, changes, message):
    parameters = {"slab_a": si_layer, "slab_b": si_layer, "gap": 2.0, "max_strain": 0.03} | changes
    with pytest.raises(LosikoError, match=message) as error:
        interface(**parameters)
    assert "\n" not in str(error.value)


def test_wrong_cuts(silicon, amorphous):
    for miller in ((0, 0, 0), (1, 0), (0.5, 0, 1), ("1", 0, 0), 1, "001"):
        with pytest.raises(LosikoError, match="three whole numbers, not all zero"):
            cleave(silicon, miller, 5.0)
    with pytest.raises(LosikoError, match="thickness=0"):
        cleave(silicon, (0, 0, 1), 0)
    with pytest.raises(LosikoError, match="at most the height of the cell"):
        cut_layer(amorphous, thickness=1000)
    with pytest.raises(LosikoError, match="no atoms between"):
        cut_layer(silicon, thickness=0.2, start=0.5)


def test_one_plane_of_atoms_is_a_layer(si_layer):
    sheet = graphene(vacuum=10.0)
    sheet.pbc = (True, True, False)
    atoms = interface(sheet, sheet, gap=3.35, max_strain=0.0001)
    assert (len(atoms), atoms.cell[2, 2]) == (4, pytest.approx(6.7, abs=0.01))


def test_atoms_near_the_planes(si_layer, amorphous):
    atoms = interface(si_layer, cut_layer(amorphous), gap=1.7, max_strain=0.1, max_area=600)
    near = atoms_near_plane(atoms, 3.0)
    heights, period = atoms.positions[:, 2], atoms.cell[2, 2]
    expected = [
        min(abs(z - plane + shift * period) for plane in atoms.info["interface"]["planes"] for shift in (-1, 0, 1)) <= 3
        for z in heights
    ]
    assert near.tolist() == expected
    assert 0 < near.sum() < len(atoms)
    # The second plane is the border of the cell: atoms above and below belong to it.
    assert near[heights.argmin()]
    assert near[heights.argmax()]
    frozen = freeze(atoms, ~near)
    assert frozen.constraints[0].index.tolist() == np.flatnonzero(~near).tolist()
    assert not atoms.constraints
    assert atoms_near_plane(atoms, 1000.0).all()
    with_vacuum = interface(si_layer, cut_layer(amorphous), gap=1.7, max_strain=0.1, max_area=600, vacuum=10.0)
    assert not atoms_near_plane(with_vacuum, 3.0)[with_vacuum.positions[:, 2].argmax()]


def test_freeze_adds_to_what_is_frozen():
    atoms = bulk("Si", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    assert freeze(atoms, np.arange(8) == 3).constraints[0].index.tolist() == [0, 3]
    with pytest.raises(LosikoError, match="all of 8 atoms would be frozen"):
        freeze(atoms, np.arange(8) > 0)
    with pytest.raises(LosikoError, match=r"a mask of shape \(3,\)"):
        freeze(atoms, np.zeros(3, dtype=bool))


def test_planes_have_to_come_from_somewhere(silicon):
    with pytest.raises(LosikoError, match=r"planes=None of Si8: give their heights"):
        atoms_near_plane(silicon, 2.0)
    with pytest.raises(LosikoError, match="distance=0"):
        atoms_near_plane(silicon, 0, planes=[1.0])
    assert atoms_near_plane(silicon, 0.1, planes=[0.0]).sum() == 2


@pytest.mark.skipif(
    not list(SILICA.glob("*.extxyz")),
    reason="LOSIKO_DATA has no silica/*.extxyz; any melt-quenched cells of about 200 atoms of SiO2 do",
)
def test_silicon_on_real_amorphous_silica(si_layer):
    from ase.io import read

    glass = read(next(SILICA.glob("*.extxyz")), index=0)
    layers = (si_layer, cut_layer(glass))
    atoms = interface(*layers, gap=1.8, max_strain=0.05)
    check_layers(atoms, layers)
    assert 300 <= len(atoms) <= 400
    assert atoms.info["interface"]["mismatch"] <= 0.05
    near = atoms_near_plane(atoms, 5.0)
    assert 0.2 < near.mean() < 0.8
    assert set(atoms.symbols[near]) == {"Si", "O"}
