"""Random draws add up to the curvature of the loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from numpy.typing import NDArray

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum
from aiida_losiko.core.curvature import CurvatureSketch
from aiida_losiko.core.environments.subspace import normalised
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective

from .learnt_loss import goals_of

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def silicon() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=3, l_max=3, sigma=0.4)
    return EnvironmentDatabase.build([bulk("Si", cubic=True)], soap)


@pytest.fixture
def every_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draw is one direction in place of random numbers: all of them together leave nothing to chance."""

    def draw(self: CurvatureSketch, probe: int, atoms: torch.Tensor, size: int) -> torch.Tensor:
        numbers = torch.zeros((len(atoms), size), dtype=torch.float64)
        if probe < size:
            numbers[:, probe] = self.n_probes**0.5
        return numbers

    monkeypatch.setattr(CurvatureSketch, "draw", draw)


def sketched(
    structures: list[Atoms], database: EnvironmentDatabase, n_probes: int, dtype: torch.dtype = torch.float64, **options
) -> torch.Tensor:
    objective = LocalSimilarityObjective(StructureBatch.from_atoms(structures, dtype), database, **options)
    evaluation = objective.evaluate(objective.batch.positions, n_probes=n_probes)
    assert evaluation.curvature is not None
    return evaluation.curvature


def by_differences(
    atoms: Atoms, database: EnvironmentDatabase, curvature_of_atom: Callable[[int, Array], Array]
) -> Array:
    """sum_i J_i^T H_i J_i with J_i from finite differences of the normalised vectors."""
    step, jacobian = 1e-4, []
    for k in range(3 * len(atoms)):
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k // 3, k % 3] += sign * step
            ends.append(normalised(moved, database.descriptor))
        jacobian.append((ends[0] - ends[1]) / (2 * step))
    vectors = normalised(atoms, database.descriptor)
    total = np.zeros((len(jacobian), len(jacobian)))
    for i, vector in enumerate(vectors):
        own = np.stack([part[i] for part in jacobian])
        total += own @ curvature_of_atom(i, vector) @ own.T
    return total


# What the draws add up to


@pytest.mark.parametrize(("kernel", "degree", "constant"), [("distance", 2, 2.0), ("polynomial", 3, 3.0)])
def test_curvature_of_the_plain_distance(
    kernel: str, degree: float, constant: float, plain: EnvironmentDatabase, rattled, every_direction: None
) -> None:
    """A molecule among others, weighted; of the polynomial kernel it is that of small distances."""
    atoms, other = rattled(molecule("HCN")), rattled(molecule("H2O"))
    weights = np.array([0.5, 2.0, 1.5])
    options = {"kernel": kernel, "kernel_degree": degree, "weights": torch.as_tensor([1.0, 1.0, 1.0, *weights])}
    found = sketched([other, atoms], plain, plain.descriptor.n_features, **options)[1].numpy()
    expected = by_differences(atoms, plain, lambda i, p: constant * weights[i] * np.eye(len(p)))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5 * abs(expected).max())


@pytest.mark.parametrize("stage", [0, -1])
def test_curvature_of_a_learnt_stage(stage: int, learnt: EnvironmentDatabase, rattled, every_direction: None) -> None:
    """Near what is known, and far from it, where differences count less than their square."""
    for atoms in (rattled(molecule("CH3OH"), 0.1), rattled(molecule("CH3OH"), 0.5, 1)):
        goals = goals_of(atoms, learnt, stage)
        found = sketched([atoms], learnt, 60, stage=stage)[0].numpy()
        expected = by_differences(atoms, learnt, lambda i, p, goals=goals: goals[i].curvature(p))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4 * abs(expected).max())


def test_curvature_of_a_crystal(silicon: EnvironmentDatabase, rattled, every_direction: None) -> None:
    """Atoms see their neighbours' images, and their own, which move along."""
    atoms = rattled(bulk("Si"), 0.1)
    (found,) = sketched([atoms], silicon, silicon.descriptor.n_features).numpy()
    expected = by_differences(atoms, silicon, lambda i, p: 2 * np.eye(len(p)))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5 * abs(expected).max())
    assert abs(expected).max() > 1e-3
    # One atom, whose neighbours are all its own images.
    alone = Atoms("Si", cell=[2.6, 2.7, 2.8], pbc=True)
    assert sketched([alone], silicon, 5).abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_draws_come_near_it(dtype: torch.dtype, learnt: EnvironmentDatabase, rattled) -> None:
    atoms = rattled(molecule("HCN"))
    goals = goals_of(atoms, learnt, 0)
    expected = by_differences(atoms, learnt, lambda i, p: goals[i].curvature(p))
    errors = []
    for n_probes in (20, 1000):
        found = sketched([atoms], learnt, n_probes, dtype, stage=0)[0]
        assert found.dtype == dtype
        errors.append(np.linalg.norm(found.double().numpy() - expected) / np.linalg.norm(expected))
    assert errors[1] < 0.12 < errors[0] < 1.5


# What it is like


def test_it_is_symmetric_and_feels_no_translation(learnt: EnvironmentDatabase, rattled) -> None:
    short, long = sketched([rattled(molecule("H2O")), rattled(molecule("CH3CHO"))], learnt, 4)
    for matrix, n_atoms in ((short, 3), (long, 7)):
        largest = float(matrix.abs().max())
        assert largest > 1
        assert (matrix - matrix.T).abs().max() < 1e-12 * largest
        assert float(torch.linalg.eigvalsh(matrix)[0]) > -1e-10 * largest
        shift = torch.eye(3, dtype=matrix.dtype).repeat(n_atoms, 1)
        assert (matrix[: 3 * n_atoms, : 3 * n_atoms] @ shift).abs().max() < 1e-10 * largest
    # Rows that the smaller structure has not.
    assert not short[9:].any() and not short[:, 9:].any()


def test_frozen_atoms_have_none(learnt: EnvironmentDatabase, rattled) -> None:
    structures = [rattled(molecule("CO2")), rattled(molecule("CH3CHO"))]
    free = torch.ones(10, dtype=torch.bool)
    free[[0, 4, 5]] = False
    held, loose = sketched(structures, learnt, 4, free=free), sketched(structures, learnt, 4)
    for structure, frozen in ((0, [0]), (1, [1, 2])):
        rows = torch.tensor([3 * k + axis for k in frozen for axis in range(3)])
        others = torch.ones(21, dtype=torch.bool)
        others[rows] = False
        assert not held[structure, rows].any() and not held[structure][:, rows].any()
        assert loose[structure, rows].any()
        assert torch.equal(held[structure][others][:, others], loose[structure][others][:, others])


def test_atoms_that_see_nothing_have_none(learnt: EnvironmentDatabase, plain: EnvironmentDatabase) -> None:
    apart = Atoms("CH", [[0, 0, 0], [0, 0, 9.0]])
    for database in (learnt, plain):
        found = sketched([apart, Atoms("H"), molecule("H2O")], database, 4)
        assert found.isfinite().all()
        assert not found[:2].any() and found[2].any()


def test_it_is_not_asked_for_by_default(learnt: EnvironmentDatabase) -> None:
    objective = LocalSimilarityObjective(StructureBatch.from_atoms([molecule("H2O")]), learnt)
    assert objective.evaluate(objective.batch.positions).curvature is None


@pytest.mark.parametrize("kind", ["learnt", "plain"])
def test_draws_are_the_same_in_another_batch(kind: str, rattled, request: pytest.FixtureRequest) -> None:
    """Whatever the elements and the size of the others."""
    database = request.getfixturevalue(kind)
    atoms = rattled(molecule("HCN"))
    (alone,) = sketched([atoms], database, 8)
    for others in ([rattled(molecule("CO2"))], [rattled(molecule("CH3CH2OH")), molecule("H2O")]):
        among = sketched([*others, atoms], database, 8)[-1, :9, :9]
        assert (among - alone).abs().max() < 1e-10 * alone.abs().max()


def test_draws_are_standard_normal_and_differ() -> None:
    batch = StructureBatch.from_atoms([molecule("CH3CH2OH"), molecule("H2O")])
    sketch = CurvatureSketch(batch, 2)
    atoms = torch.arange(12)
    first, second, narrow = sketch.draw(0, atoms, 500), sketch.draw(1, atoms, 500), sketch.draw(0, atoms, 400)
    assert torch.equal(first, sketch.draw(0, atoms, 500))
    # The third atom of either structure.
    assert torch.equal(first[2], first[11])
    assert abs(float(first[:9].mean())) < 0.05 and abs(float(first[:9].var()) - 1) < 0.1
    for other in (second, narrow, first.roll(1, 0)):
        width = other.shape[1]
        assert abs(float((first[:9, :width] * other[:9]).mean())) < 0.06
