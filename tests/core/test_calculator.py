"""The ASE calculator: ASE's own checks, optimisers and filters on it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.test import gradient_test
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from aiida_losiko.core import EnvironmentDatabase, LosikoCalculator, LosikoError, SoapPowerSpectrum, relax


def displaced(atoms: Atoms, size: float = 0.05) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(0).normal(0, size, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def water() -> EnvironmentDatabase:
    return EnvironmentDatabase.build([molecule("H2O")], SoapPowerSpectrum(["H", "O"], 4.0, 4, 4, 0.25))


@pytest.fixture(scope="module")
def silicon() -> EnvironmentDatabase:
    return EnvironmentDatabase.build([bulk("Si")], SoapPowerSpectrum(["Si"], 4.0, 4, 3, 0.4), dtype="float64")


def test_energy_is_the_loss_and_forces_are_its_gradient(water: EnvironmentDatabase) -> None:
    atoms = displaced(molecule("H2O"))
    atoms.calc = LosikoCalculator(water)
    (result,) = relax(atoms, water, max_steps=0)
    assert atoms.get_potential_energy() == pytest.approx(result.loss, rel=1e-9)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy())
    analytic, numeric = gradient_test(atoms)
    assert np.abs(analytic - numeric).max() < 1e-6
    assert atoms.calc.results["distances"].shape == (3,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernel": "cosine"}, "kernel='cosine'"),
        ({"kernel_degree": -1}, "kernel_degree=-1"),
        ({"weights": {"Qq": 1.0}}, "Qq"),
        ({"weights": 3}, "weights=3"),
        ({"device": "abacus"}, "device='abacus'"),
    ],
)
def test_wrong_settings_are_told_at_once(settings: dict, words: str, water: EnvironmentDatabase) -> None:
    with pytest.raises(LosikoError, match=words):
        LosikoCalculator(water, **settings)


def test_repulsion_can_be_added(water: EnvironmentDatabase) -> None:
    atoms = Atoms("OHH", positions=[[0, 0, 0], [0.93, 0.3, 0], [0.93, -0.3, 0.1]])
    atoms.calc = LosikoCalculator(water, repulsion=1.0)
    (result,) = relax(atoms, water, max_steps=0)
    assert atoms.get_potential_energy() == pytest.approx(result.loss, rel=1e-9)
    analytic, numeric = gradient_test(atoms)
    assert np.abs(analytic - numeric).max() < 1e-6
    atoms.calc = LosikoCalculator(water)
    assert atoms.get_potential_energy() < result.loss - 0.1


def test_stress_equals_finite_differences(silicon: EnvironmentDatabase) -> None:
    from ase.calculators.fd import calculate_numerical_stress

    atoms = displaced(bulk("Si", cubic=True))
    atoms.calc = LosikoCalculator(silicon)
    assert atoms.get_stress() == pytest.approx(calculate_numerical_stress(atoms, eps=1e-5), abs=1e-8)


def test_ase_optimisers_and_filters_work(water: EnvironmentDatabase, silicon: EnvironmentDatabase) -> None:
    atoms = displaced(molecule("H2O"))
    atoms.calc = LosikoCalculator(water)
    assert BFGS(atoms, logfile=None).run(fmax=1e-5, steps=200)
    assert atoms.get_angle(1, 0, 2) == pytest.approx(molecule("H2O").get_angle(1, 0, 2), abs=0.1)
    cell = bulk("Si")
    cell.set_cell(cell.cell.array * 1.04, scale_atoms=True)
    cell.calc = LosikoCalculator(silicon)
    BFGS(FrechetCellFilter(cell), logfile=None).run(fmax=1e-5, steps=300)
    assert cell.cell.volume == pytest.approx(bulk("Si").cell.volume, rel=1e-3)


def test_it_follows_changes_of_the_structure(water: EnvironmentDatabase) -> None:
    calculator = LosikoCalculator(water)
    first, second = displaced(molecule("H2O")), displaced(molecule("OH"))
    first.calc = calculator
    loss = first.get_potential_energy()
    second.calc = calculator
    assert second.get_potential_energy() != pytest.approx(loss)
    first.calc = calculator
    assert first.get_potential_energy() == pytest.approx(loss)
    first.positions += 1.0
    assert first.get_potential_energy() == pytest.approx(loss)


def test_weights_and_kernel(water: EnvironmentDatabase) -> None:
    atoms = displaced(molecule("H2O"))
    atoms.calc = LosikoCalculator(water)
    energies = atoms.get_potential_energies()
    atoms.calc = LosikoCalculator(water, weights={"O": 2.0, "H": 0.0})
    assert atoms.get_potential_energy() == pytest.approx(2 * energies[0])
    atoms.calc = LosikoCalculator(water, kernel="polynomial", kernel_degree=1)
    assert atoms.get_potential_energy() == pytest.approx(energies.sum() / 2, rel=1e-8)


def test_unknown_species_is_one_line(water: EnvironmentDatabase) -> None:
    atoms = molecule("CH4")
    atoms.calc = LosikoCalculator(water)
    with pytest.raises(LosikoError, match="C"):
        atoms.get_potential_energy()
