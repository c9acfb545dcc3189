"""Glass by switching bonds, oxidised silicon, and the springs that both are relaxed by."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from aiida_losiko.builders import make_supercell, oxidize, switch_bonds
from aiida_losiko.builders.network import Network
from aiida_losiko.builders.valence_forces import ValenceForces, relax_network, relax_with_cell
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import bonds, coordination_numbers, density

VALENCE = {"Si": 4, "O": 2}


@pytest.fixture(scope="module")
def cristobalite() -> Atoms:
    """Beta-cristobalite, I-42d (Wright and Leadbetter, Philos. Mag. 31, 1391, 1975)."""
    sites = [(0, 0, 0), (0.09, 0.25, 0.125)]
    atoms = crystal(["Si", "O"], sites, spacegroup=122, cellpar=[5.042, 5.042, 7.131, 90, 90, 90])
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


@pytest.fixture(scope="module")
def glass(cristobalite) -> Atoms:
    return switch_bonds(cristobalite, supercell=[2, 2, 2], trials=2, seed=3)


def fully_bonded(atoms: Atoms) -> bool:
    return coordination_numbers(atoms).tolist() == [VALENCE[symbol] for symbol in atoms.symbols]


def corners_linked(atoms: Atoms) -> set[tuple[int, int]]:
    network, _ = Network.of(atoms)
    links = ((corner, link.corner) for corner in range(network.n_corners) for link in network.links(corner))
    return {(min(pair), max(pair)) for pair in links}


@pytest.mark.parametrize("name", ["cristobalite", "oxide"])
def test_gradients_are_those_of_the_energy(name, cristobalite, silicon):
    if name == "oxide":
        atoms = oxidize(silicon, 0.3, supercell=[2, 2, 2])
    else:
        atoms = make_supercell(cristobalite, [2, 2, 2])[0]
    network, order = Network.of(atoms)
    generator = np.random.default_rng(1)
    cell = atoms.cell.array
    positions = atoms.positions[order] + 0.15 * generator.normal(size=(len(atoms), 3))
    # Two that are not bonded, too close.
    positions[-1] = positions[0] + [0.3, 2.0, 0.1]
    forces = ValenceForces(network, positions, cell)
    _, gradient, virial = forces(positions, cell)
    shift, strain, step = generator.normal(size=positions.shape), generator.normal(size=(3, 3)), 1e-5
    slope = (forces(positions + step * shift, cell)[0] - forces(positions - step * shift, cell)[0]) / (2 * step)
    assert slope == pytest.approx(float((gradient * shift).sum()), rel=1e-6)
    more, less = np.eye(3) + step * strain, np.eye(3) - step * strain
    slope = (forces(positions @ more, cell @ more)[0] - forces(positions @ less, cell @ less)[0]) / (2 * step)
    assert slope == pytest.approx(float((virial * strain).sum()), rel=1e-6)


def test_silicon_and_cristobalite_are_hardly_strained(silicon, cristobalite):
    for host, volume in ((silicon, 20.02), (cristobalite, 45.3)):
        atoms = make_supercell(host, [2, 2, 2])[0]
        network, order = Network.of(atoms)
        _, energy = relax_network(network, atoms.positions[order], atoms.cell.array, 300)
        assert 0 <= energy / network.n_corners < 0.03
        _, cell, energy = relax_with_cell(network, atoms.positions[order], atoms.cell.array, 300)
        assert 0 <= energy / network.n_corners < 1e-4
        assert abs(np.linalg.det(cell)) / network.n_corners == pytest.approx(volume, rel=0.03)


def test_glass_has_all_its_bonds_but_other_ones(glass, cristobalite):
    start = make_supercell(cristobalite, [2, 2, 2])[0]
    assert fully_bonded(glass) and density(glass) == pytest.approx(density(start))
    assert glass.get_chemical_symbols() == ["Si"] * 32 + ["O"] * 64
    details = glass.info["glass"]
    assert glass.info["identifier"] == "O2Si:glass-seed3" or glass.info["identifier"] == "SiO2:glass-seed3"
    assert details["seed"] == 3 and 0 < details["accepted"] <= 2 * 32
    _, order = Network.of(start)
    kept = corners_linked(glass) & corners_linked(start[order])
    assert len(kept) < 0.9 * len(corners_linked(glass))
    first, second, _ = bonds(glass)
    lengths = np.array([glass.get_distance(i, j, mic=True) for i, j in zip(first, second, strict=True)])
    assert ((lengths > 1.5) & (lengths < 1.8)).all()


def test_a_glass_depends_on_its_seed_alone(glass, cristobalite):
    again = switch_bonds(cristobalite, supercell=[2, 2, 2], trials=2, seed=3)
    other = switch_bonds(cristobalite, supercell=[2, 2, 2], trials=2, seed=4)
    assert np.array_equal(again.positions, glass.positions)
    assert corners_linked(other) != corners_linked(glass)
    none = switch_bonds(cristobalite, supercell=[2, 2, 2], trials=0)
    _, order = Network.of(make_supercell(cristobalite, [2, 2, 2])[0])
    assert corners_linked(none) == corners_linked(make_supercell(cristobalite, [2, 2, 2])[0][order])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_oxidized_silicon_has_all_its_bonds(silicon, share):
    oxide = oxidize(silicon, share, supercell=[2, 2, 2], seed=1)
    assert fully_bonded(oxide)
    assert (oxide.numbers == 8).sum() == round(share * 128) and (oxide.numbers == 14).sum() == 64
    assert oxide.info["identifier"] == f"Si:oxidized-{share:g}-seed1"
    assert 2.1 < density(oxide) < 2.5
    mixed = np.zeros((64, 2), dtype=int)
    for i, j in zip(*bonds(oxide)[:2], strict=True):
        for one, other in ((i, j), (j, i)):
            if one < 64:
                mixed[one, int(other >= 64)] += 1
    assert (mixed.sum(1) == 4).all() and ((mixed > 0).all(1).any() or share == 1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda silicon, quartz: switch_bonds(quartz), "larger supercell"),
        (lambda silicon, quartz: switch_bonds(bulk("NaCl", "rocksalt", a=5.64)), "is no network of fourfold atoms"),
        (lambda silicon, quartz: switch_bonds(bulk("C", cubic=True), n_atoms=64), "only fourfold Si and twofold O"),
        (lambda silicon, quartz: switch_bonds(quartz, n_atoms=100, temperatures=(1.0, 2.0)), "temperatures"),
        (lambda silicon, quartz: switch_bonds(quartz, n_atoms=100, trials=-1), "trials"),
        (lambda silicon, quartz: switch_bonds(quartz, n_atoms=100, seed=0.5), "seed"),
        (lambda silicon, quartz: oxidize(silicon, 0.0, supercell=[2, 2, 2]), "share"),
        (lambda silicon, quartz: oxidize(silicon, 0.5), "larger supercell"),
        (lambda silicon, quartz: oxidize(quartz, 0.5, n_atoms=200), "has oxygen already"),
    ],
)
def test_what_cannot_be_built_is_told(silicon, quartz, build, message):
    with pytest.raises(LosikoError, match=message):
        build(silicon, quartz)
