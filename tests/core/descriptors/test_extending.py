"""One file and one line in the registry: everything works with a descriptor that the package has never seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from aiida_losiko.core import EnvironmentDatabase, LosikoCalculator, make_descriptor, relax
from aiida_losiko.core.descriptors import DESCRIPTORS
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective

from .radial_distribution import RadialDistribution

NAMES = ("CH4", "CH3OH", "H2O", "C2H6")


@pytest.fixture
def registered(monkeypatch) -> None:
    monkeypatch.setitem(DESCRIPTORS, RadialDistribution.name, RadialDistribution)


@pytest.fixture(scope="module")
def database() -> EnvironmentDatabase:
    descriptor = RadialDistribution(["O", "H", "C"], r_cut=4.0)
    return EnvironmentDatabase.build([molecule(name) for name in NAMES], descriptor, sources=NAMES, dtype="float64")


def displaced(atoms: Atoms, size: float, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
    return atoms


def test_features_are_those_of_the_formula() -> None:
    descriptor = RadialDistribution(["O", "H"], r_cut=3.0, n_bins=4, sigma=0.3)
    features = descriptor.create(Atoms("OH", [[0, 0, 0], [0, 0, 0.96]]))
    places = np.linspace(0.5, 3.0, 4)
    expected = np.exp(-((0.96 - places) ** 2) / 0.18) * 0.5 * (1 + np.cos(np.pi * 0.96 / 3.0))
    # Elements in the order of their atomic numbers: hydrogen, then oxygen.
    assert features == pytest.approx(np.array([[*expected, *np.zeros(4)], [*np.zeros(4), *expected]]), abs=1e-15)


@pytest.mark.parametrize("structure", [molecule("CH3OH"), bulk("C", cubic=True)], ids=["molecule", "crystal"])
def test_gradients_are_the_slopes(structure: Atoms, database: EnvironmentDatabase) -> None:
    start = displaced(structure, 0.05)
    batch = StructureBatch.from_atoms([start])
    objective = LocalSimilarityObjective(batch, database)
    found = objective.evaluate(batch.positions, batch.cells)

    def loss(positions: torch.Tensor, cells: torch.Tensor) -> float:
        fresh = LocalSimilarityObjective(StructureBatch.from_atoms([start]), database)
        return float(fresh.evaluate(positions, cells).loss[0])

    step = 1e-5
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        shift = torch.zeros_like(batch.positions)
        shift[atom, axis] = step
        slope = loss(batch.positions + shift, batch.cells) - loss(batch.positions - shift, batch.cells)
        assert float(found.gradient[atom, axis]) == pytest.approx(slope / (2 * step), rel=1e-5, abs=1e-7)
    strain = torch.zeros(3, 3, dtype=torch.float64)
    strain[0, 1] = step
    plus, minus = ((torch.eye(3, dtype=torch.float64) + sign * strain).T for sign in (1, -1))
    slope = loss(batch.positions @ plus, batch.cells @ plus) - loss(batch.positions @ minus, batch.cells @ minus)
    assert float(found.strain_gradient[0, 0, 1]) == pytest.approx(slope / (2 * step), rel=1e-5, abs=1e-7)


def test_a_relaxation_finds_the_known_molecule(database: EnvironmentDatabase) -> None:
    starts = [displaced(molecule(name), 0.05, seed) for seed, name in enumerate(("CH4", "H2O"))]
    results = relax(starts, database, fmax=1e-7, loss_tolerance=1e-15)
    for name, start, result in zip(("CH4", "H2O"), starts, results, strict=True):
        assert result.loss < 1e-8 < result.initial_loss
        assert set(result.matches.source) == {name}
        assert rmsd(result.atoms, molecule(name)) < 1e-3 < rmsd(start, molecule(name))
    single = relax(starts[1], database, dtype="float32")[0]
    assert single.loss < 1e-5


def test_the_calculator_takes_it(database: EnvironmentDatabase) -> None:
    atoms = molecule("H2O")
    atoms.calc = LosikoCalculator(database)
    assert atoms.get_potential_energy() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.usefixtures("registered")
def test_a_file_brings_its_descriptor_back(database: EnvironmentDatabase, tmp_path) -> None:
    database.save(tmp_path / "radial.db")
    loaded = EnvironmentDatabase.load(tmp_path / "radial.db")
    assert loaded.descriptor == database.descriptor and isinstance(loaded.descriptor, RadialDistribution)
    assert make_descriptor(database.descriptor.parameters) == database.descriptor


@pytest.mark.usefixtures("registered")
def test_the_program_takes_it_by_name(tmp_path) -> None:
    from ase.io import write
    from click.testing import CliRunner

    from aiida_losiko.cli.losiko import main

    known, rough, built, out = (str(tmp_path / name) for name in ("known.xyz", "rough.xyz", "r.db", "out.extxyz"))
    write(known, [molecule(name) for name in NAMES])
    write(rough, displaced(molecule("H2O"), 0.05))
    settings = ("--set", "descriptor.name=radial", "--set", "descriptor.r_cut=4", "--set", "descriptor.n_bins=12")
    made = CliRunner().invoke(main, ["database", "build", known, "-o", built, *settings])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(main, ["database", "info", built, "--json"])
    assert json.loads(shown.output)["descriptor"] == {
        "name": "radial",
        "species": ["H", "C", "O"],
        "r_cut": 4.0,
        "n_bins": 12,
        "sigma": 0.2,
    }
    relaxed = CliRunner().invoke(main, ["relax", rough, "-d", built, "-o", out, "--set", "relax.max_steps=5"])
    assert relaxed.exit_code == 0, relaxed.output
    wrong = CliRunner().invoke(
        main, ["database", "build", known, "-o", built, *settings, "--set", "descriptor.l_max=3"]
    )
    assert wrong.exit_code == 1
    assert "'l_max'" in wrong.output and "n_bins" in wrong.output
