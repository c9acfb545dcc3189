"""Random cells: what was asked for is what there is, whoever asks, in whatever order."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from aiida_losiko.builders import random_cells
from aiida_losiko.builders.distances import minimal_distances, push_apart, smallest_ratio
from aiida_losiko.builders.random_search import random_lattice, shortest_vector
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import density

CARBON = {"density": (3.7, 4.2), "seed": 1}
needs_pyxtal = pytest.mark.skipif(
    importlib.util.find_spec("pyxtal") is None, reason="PyXtal is not installed: pip install 'aiida-losiko[pyxtal]'"
)


def shortest_distance(atoms: Atoms, pair: tuple[str, str], cutoff: float = 6.0) -> float:
    """Shortest distance of a pair with all images, by ASE's neighbour list."""
    distances = neighbor_list("d", atoms, {pair: cutoff})
    return float(distances.min()) if len(distances) else np.inf


@pytest.mark.parametrize("formula_units", [(1, 8), (20, 24)])
def test_carbon_of_the_paper(formula_units):
    cells = random_cells("C", 30, formula_units=formula_units, **CARBON)
    sizes = [len(cell) for cell in cells]
    densities = np.array([density(cell) for cell in cells])
    assert formula_units[0] == min(sizes)
    assert max(sizes) == formula_units[1]
    # drawn from the whole range, and never outside it
    assert 3.7 <= densities.min() < 3.8 < 4.1 < densities.max() <= 4.2
    assert min(shortest_distance(cell, ("C", "C")) for cell in cells) >= 0.8 * 2 * 0.76
    for cell in cells:
        assert cell.pbc.all()
        assert cell.info["random_cell"]["density"] == pytest.approx(density(cell), rel=1e-6)
        lengths, angles = cell.cell.lengths(), cell.cell.angles()
        assert lengths.max() / lengths.min() <= 2.0 + 1e-9
        assert 60 <= angles.min() <= angles.max() <= 120
    assert len({cell.info["identifier"] for cell in cells}) == 30


def test_a_cell_depends_on_seed_and_index_alone():
    many = random_cells("SiO2", 5, density=(2.0, 2.6), formula_units=(1, 4), seed=7)
    one = random_cells("SiO2", 1, density=(2.0, 2.6), formula_units=(1, 4), seed=7, first=3)[0]
    other = random_cells("SiO2", 1, density=(2.0, 2.6), formula_units=(1, 4), seed=8, first=3)[0]
    assert one.info["identifier"] == many[3].info["identifier"]
    assert np.array_equal(one.positions, many[3].positions)
    assert np.array_equal(one.cell.array, many[3].cell.array)
    assert not np.allclose(other.cell.array, one.cell.array)


def test_cells_are_repeated_to_a_multiple():
    cells = random_cells("C", 12, formula_units=(1, 4), **CARBON)
    repeated = random_cells("C", 12, formula_units=(1, 4), multiple_of=2, **CARBON)
    assert {len(cell) % 2 for cell in cells} == {0, 1}
    for cell, twice in zip(cells, repeated, strict=True):
        assert len(twice) == len(cell) * (1 + len(cell) % 2)
        assert density(twice) == pytest.approx(density(cell))
        # The same crystal, and as little oblong as it can be.
        assert np.sort(neighbor_list("d", twice, 3.0)) == pytest.approx(
            np.sort(np.tile(neighbor_list("d", cell, 3.0), len(twice) // len(cell)))
        )
        assert twice.info["identifier"] == cell.info["identifier"]
        if len(cell) % 2:
            assert twice.info["random_cell"]["repeats"] == 2
            changed = twice.cell.lengths() / cell.cell.lengths()
            assert np.argmax(changed) == np.argmin(cell.cell.lengths())
    assert len(random_cells("C", formula_units=4, multiple_of=6, **CARBON)[0]) == 12


def test_composition_and_distances_of_each_pair():
    distances = {"O-Si": 1.5, "O-O": 2.2}
    cells = random_cells({"Si": 1, "O": 2}, 6, density=(2.2, 2.4), formula_units=8, minimal_distances=distances)
    for cell in cells:
        assert cell.get_chemical_formula() == "O16Si8"
        assert cell.get_chemical_symbols() == ["Si"] * 8 + ["O"] * 16
        assert shortest_distance(cell, ("Si", "O")) >= 1.5
        assert shortest_distance(cell, ("O", "O")) >= 2.2
        assert shortest_distance(cell, ("Si", "Si")) >= 0.8 * 2 * 1.11


def test_dense_cells_are_pushed_apart():
    cells = random_cells("C", 5, density=(4.0, 4.2), formula_units=24, minimal_distances={"C-C": 1.45})
    assert any(cell.info["random_cell"]["pushed"] for cell in cells)
    assert min(shortest_distance(cell, ("C", "C")) for cell in cells) >= 1.45


def test_push_apart_knows_images_and_says_when_it_failed():
    # Four atoms in one corner have room; the cell is so small that images are what they would hit next.
    corner = 0.2 * np.random.default_rng(0).random((4, 3))
    atoms = Atoms("C4", positions=corner, cell=[2.6, 2.6, 2.6], pbc=True)
    allowed = minimal_distances(["C"], {"C-C": 1.5})
    assert smallest_ratio(atoms, allowed) < 0.2
    assert push_apart(atoms, allowed)
    assert shortest_distance(atoms, ("C", "C")) >= 1.5
    assert not push_apart(atoms, minimal_distances(["C"], {"C-C": 2.2}))


def test_lattices_are_bounded_and_have_the_volume():
    generator = np.random.default_rng(3)
    cells = [random_lattice(40.0, 3.0, (50.0, 130.0), generator) for _ in range(300)]
    full = [cell for cell in cells if cell is not None]
    assert len(full) > 200
    assert np.allclose([np.linalg.det(cell) for cell in full], 40.0)
    lengths = np.linalg.norm(full, axis=2)
    assert (lengths.max(axis=1) / lengths.min(axis=1)).max() <= 3.0
    assert (lengths.max(axis=1) / lengths.min(axis=1)).max() > 2.0
    # Skewed: the vector between the ends of a and b is shorter than both.
    assert shortest_vector(np.array([[3.0, 0, 0], [2.5, 1.0, 0], [0, 0, 4.0]])) == pytest.approx(np.hypot(0.5, 1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"composition": "Xx2"}, "composition='Xx2' is not allowed"),
        ({"composition": {"C": 0}}, "composition"),
        ({"composition": {}}, "composition"),
        ({"density": (4.2, 3.7)}, "density=.*g/cm3"),
        ({"density": (0, 1)}, "above zero"),
        ({"density": 3.7}, "smallest and largest"),
        ({"count": 0}, "count=0"),
        ({"formula_units": (3, 2)}, "formula_units"),
        ({"minimal_distances": -1}, "minimal_distances=-1"),
        ({"minimal_distances": {"C-O": 1.0}}, "allowed pairs are C-C"),
        ({"minimal_distances": {"C-C": "x"}}, "minimal distance C-C is 'x'"),
        ({"max_aspect": 0.5}, "max_aspect=0.5"),
        ({"angles": (10, 90)}, "within 30 to 150"),
        ({"space_groups": [231]}, "from 1 to 230"),
        ({"space_groups": []}, "from 1 to 230"),
        ({"space_groups": 227}, "from 1 to 230"),
        ({"formula_units": 1.5}, "formula_units=1.5"),
        ({"formula_units": "12"}, "formula_units='12'"),
        ({"seed": -1}, "seed=-1"),
        ({"multiple_of": 0}, "multiple_of=0"),
        ({"multiple_of": 101}, "1 to 100"),
    ],
)
def test_wrong_parameters(changes, message):
    parameters = {"composition": "C", "density": (3.7, 4.2)} | changes
    with pytest.raises(LosikoError, match=message) as error:
        random_cells(**parameters)
    assert "\n" not in str(error.value)


def test_too_dense_is_an_error_that_tells_the_way_out():
    with pytest.raises(LosikoError, match=r"at 9 to 9 g/cm3 .* C-C 1.5 Angstrom in 3 tries .* lower density"):
        random_cells("C", density=(9, 9), formula_units=12, minimal_distances={"C-C": 1.5}, max_tries=3)


def test_without_pyxtal_the_error_names_the_command(monkeypatch):
    monkeypatch.setattr("aiida_losiko.builders.space_groups.find_spec", lambda name: None)
    with pytest.raises(LosikoError, match=r"pip install 'aiida-losiko\[pyxtal\]'"):
        random_cells("C", space_groups=[227], **CARBON)


@needs_pyxtal
def test_space_groups():
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    cells = random_cells("SiO2", 6, density=(2.2, 2.8), formula_units=(2, 4), space_groups=[14, 19, 62, 136], seed=2)
    again = random_cells("SiO2", 1, density=(2.2, 2.8), formula_units=(2, 4), space_groups=[14, 19, 62, 136], seed=2)
    assert np.array_equal(cells[0].positions, again[0].positions)
    for cell in cells:
        assert 2.2 <= density(cell) <= 2.8
        assert cell.symbols.count("O") == 2 * cell.symbols.count("Si")
        assert shortest_distance(cell, ("Si", "O")) >= 0.8 * (1.11 + 0.66)
        number = cell.info["random_cell"]["space_group"]
        operations = SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(Atoms(cell))).get_symmetry_operations()
        # The group asked for is a subgroup of what is there, which few atoms may make larger (Lagrange).
        assert len(operations) % {14: 4, 19: 4, 62: 8, 136: 16}[number] == 0


@needs_pyxtal
def test_a_group_without_sites_for_the_atoms_is_an_error():
    with pytest.raises(LosikoError, match="in space groups 227"):
        random_cells("C", formula_units=3, space_groups=[227], max_tries=3, **CARBON)
