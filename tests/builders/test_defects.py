"""Supercells, orbits, voids and the point defects made of them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry import get_distances, minkowski_reduce

from aiida_losiko.builders import find_orbits, interstitial, make_supercell, substitute, vacancy
from aiida_losiko.builders.voids import find_voids
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import density


def same_crystal(a: Atoms, b: Atoms) -> bool:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    return StructureMatcher(scale=False).fit(AseAtomsAdaptor.get_structure(a), AseAtomsAdaptor.get_structure(b))


def image_distance(atoms: Atoms) -> float:
    """Distance of an atom to its nearest own image."""
    return float(np.linalg.norm(minkowski_reduce(atoms.cell.array)[0], axis=1).min())


def test_orbits_of_known_crystals(licoo2, co3o4, quartz):
    found = [(orbit.symbol, orbit.wyckoff, len(orbit.indices)) for orbit in find_orbits(licoo2)]
    assert sorted(found) == [("Co", "3a", 3), ("Li", "3b", 3), ("O", "6c", 6)]
    found = [(orbit.symbol, orbit.multiplicity, orbit.space_group) for orbit in find_orbits(co3o4)]
    assert sorted(found) == [("Co", 8, "Fd-3m"), ("Co", 16, "Fd-3m"), ("O", 32, "Fd-3m")]
    assert [orbit.wyckoff for orbit in find_orbits(quartz)] == ["3a", "6c"]
    every = [index for orbit in find_orbits(co3o4) for index in orbit.indices]
    assert sorted(every) == list(range(len(co3o4)))


def test_multiplicity_is_that_of_the_conventional_cell():
    (orbit,) = find_orbits(bulk("Si"))
    assert (len(orbit.indices), orbit.multiplicity) == (2, 8)


def test_symprec_decides_what_is_equivalent(licoo2):
    licoo2.rattle(0.02, seed=1)
    assert len(find_orbits(licoo2)) == 12
    assert len(find_orbits(licoo2, symprec=0.2)) == 3


@pytest.mark.parametrize("matrix", [[3, 3, 1], [[2, 1, 0], [0, 2, 0], [0, 0, 1]], np.diag([1, 2, 2])])
def test_supercell_by_matrix(licoo2, matrix):
    supercell, cell, rows = make_supercell(licoo2, matrix)
    assert len(supercell) == round(np.linalg.det(rows)) * 12
    assert np.allclose(supercell.cell.array, rows @ licoo2.cell.array)
    assert same_crystal(supercell, licoo2)
    # atom k is a copy of atom k % n: the same element, a lattice vector away
    shifts = supercell.positions - np.tile(cell.positions, (len(supercell) // 12, 1))
    fractions = np.linalg.solve(cell.cell.array.T, shifts.T).T
    assert np.allclose(fractions, np.round(fractions), atol=1e-6)
    assert (supercell.numbers == np.tile(cell.numbers, len(supercell) // 12)).all()


@pytest.mark.parametrize(("name", "lattice_constant"), [("Si", None), ("Cu", None), ("Fe", None), ("Mg", None)])
def test_supercells_of_about_so_many_atoms_are_cubic(name, lattice_constant):
    host = bulk(name)
    supercell, _, _ = make_supercell(host, n_atoms=100)
    assert 85 <= len(supercell) <= 115
    assert same_crystal(supercell, host)
    # a cube has its nearest image at the cube root of the volume
    assert image_distance(supercell) > 0.8 * supercell.get_volume() ** (1 / 3)


def test_licoo2_of_about_100_atoms(licoo2):
    supercell, cell, rows = make_supercell(licoo2, n_atoms=100)
    assert len(cell) == 4
    assert 85 <= len(supercell) <= 115
    assert np.linalg.det(rows) > 0
    assert np.linalg.det(supercell.cell.array) > 0
    assert density(supercell) == pytest.approx(density(licoo2))
    # wider than the 8.45 Angstrom of the 3 x 3 x 1 cell of 108 atoms
    assert image_distance(supercell) > 9.5
    assert np.allclose(supercell.cell.array, rows @ cell.cell.array)
    # the orientation is the host's: the layers of cobalt lie on planes of z
    heights = supercell.positions[supercell.symbols == "Co", 2] / (14.054 / 3)
    assert np.allclose(heights - heights[0], np.round(heights - heights[0]), atol=1e-4)


def test_one_lithium_replaced_by_hydrogen(licoo2):
    licoo2.info["identifier"] = "mp-22526"
    (atoms,) = substitute(licoo2, "Li", "H", n_atoms=100)
    host, _, _ = make_supercell(licoo2, n_atoms=100)
    assert atoms.info["identifier"] == "mp-22526:H_Li-0"
    defect = atoms.info["defect"]
    assert (defect["wyckoff"], defect["multiplicity"], defect["space_group"]) == ("3b", 3, "R-3m")
    changed = np.flatnonzero(atoms.numbers != host.numbers)
    assert changed.tolist() == [defect["index"]]
    assert host.symbols[changed[0]] == "Li"
    assert np.array_equal(atoms.positions, host.positions)
    assert np.allclose(atoms.positions[defect["index"]], defect["position"])
    middle = 0.5 * atoms.cell.array.sum(axis=0)
    assert np.linalg.norm(defect["position"] - middle) < 3.0
    assert json.loads(json.dumps(atoms.info)) == atoms.info


def test_each_orbit_gives_a_structure(co3o4):
    every = substitute(co3o4, "Co", "Li")
    assert [atoms.info["identifier"] for atoms in every] == ["Co3O4:Li_Co-0", "Co3O4:Li_Co-1"]
    assert sorted(atoms.info["defect"]["multiplicity"] for atoms in every) == [8, 16]
    assert not same_crystal(*every)
    (second,) = substitute(co3o4, "Co", "Li", orbit=1)
    assert np.array_equal(second.numbers, every[1].numbers)


def test_vacancies(co3o4):
    every = vacancy(co3o4, "Co")
    assert [Counter(atoms.symbols) for atoms in every] == [{"Co": 23, "O": 32}] * 2
    for atoms in every:
        defect = atoms.info["defect"]
        kept = np.delete(np.arange(56), defect["removed_index"])
        assert np.allclose(atoms.positions, co3o4.positions[kept])
        assert np.allclose(co3o4.positions[defect["removed_index"]], defect["position"])
    assert every[0].info["identifier"] == "Co3O4:v_Co-0"
    with pytest.raises(LosikoError, match="leaves nothing"):
        vacancy(bulk("Cu"), "Cu")


@pytest.mark.parametrize(
    ("name", "expected"),
    # octahedral and tetrahedral sites of fcc, tetrahedral of bcc, tetrahedral and hexagonal of diamond
    [
        ("Cu", [(4, 0.5), (8, np.sqrt(3) / 4)]),
        ("Fe", [(12, np.sqrt(5) / 4)]),
        ("Si", [(8, np.sqrt(3) / 4), (16, np.sqrt(11) / 8)]),
    ],
)
def test_voids_of_known_crystals(name, expected):
    host = bulk(name, cubic=True)
    found = [(len(void.positions), void.radius / host.cell[0, 0]) for void in find_voids(host)]
    assert [count for count, _ in found] == [count for count, _ in expected]
    assert np.allclose([radius for _, radius in found], [radius for _, radius in expected])
    primitive = find_voids(bulk(name))
    assert np.allclose([void.radius for void in primitive], [radius * host.cell[0, 0] for _, radius in expected])


def test_interstitials(licoo2):
    every = interstitial(licoo2, "H", n_atoms=100, minimal_distance=1.5)
    assert len(every) > 1
    for rank, atoms in enumerate(every):
        defect = atoms.info["defect"]
        assert atoms.info["identifier"] == f"LiCoO2:H_i-{rank}"
        assert atoms.symbols[-1] == "H"
        assert defect["index"] == len(atoms) - 1
        apart = get_distances(atoms.positions[-1:], atoms.positions[:-1], cell=atoms.cell, pbc=True)[1]
        assert apart.min() == pytest.approx(defect["radius"], abs=1e-6)
        assert apart.min() >= 1.5
    radii = [atoms.info["defect"]["radius"] for atoms in every]
    assert radii == sorted(radii, reverse=True)
    with pytest.raises(LosikoError, match=r"minimal_distance=3 leaves no void of .* the largest is 1\.7\d\d Angstrom"):
        interstitial(licoo2, "H", minimal_distance=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"old": "Na"}, "'Na' is not in .* allowed are Co, Li, O"),
        ({"new": "Hh"}, "new='Hh' is not allowed"),
        ({"new": "Li"}, "another element than Li"),
        ({"orbit": 1}, "orbit=1 of 1 orbits of Li"),
        ({"orbit": -1}, "orbit=-1"),
        ({"supercell": [1, 1]}, "three whole numbers"),
        ({"supercell": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}, "determinant"),
        ({"supercell": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}, "determinant"),
        ({"supercell": [1.5, 1, 1]}, "three whole numbers"),
        ({"supercell": ["1", 1, 1]}, "three whole numbers"),
        ({"supercell": [2, 2, 1], "n_atoms": 100}, "both given"),
        ({"n_atoms": 0}, "n_atoms=0"),
        ({"n_atoms": "100"}, "n_atoms='100'"),
        ({"n_atoms": (101, 102)}, "no supercell of .* has 101 to 102 atoms; allow multiples of 4"),
        ({"supercell": [100, 100, 100]}, "12000000 atoms"),
        ({"symprec": -1}, "symprec=-1"),
    ],
)
def test_wrong_parameters(licoo2, changes, message):
    with pytest.raises(LosikoError, match=message) as error:
        substitute(**({"host": licoo2, "old": "Li", "new": "H"} | changes))
    assert "\n" not in str(error.value)


def test_a_molecule_is_no_host():
    with pytest.raises(LosikoError, match=r"pbc \[False, False, False\]; a crystal is needed"):
        substitute(molecule("H2O"), "O", "S")
