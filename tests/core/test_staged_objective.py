"""The loss of a stage of a learnt metric, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.optimize import BFGS

from aiida_losiko.core import EnvironmentDatabase, LosikoCalculator, LosikoError, SoapPowerSpectrum
from aiida_losiko.core.environments.subspace import normalised
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective

from .learnt_loss import goals_of


@pytest.fixture(scope="module")
def crystals() -> EnvironmentDatabase:
    """Strained silicon and aluminium, a metric learnt on them."""
    soap = SoapPowerSpectrum(["Al", "Si"], r_cut=3.6, n_max=4, l_max=3, sigma=0.4)
    strains = np.linspace(-0.06, 0.06, 12)
    known = [bulk("Si", cubic=True, a=5.43 * (1 + s)) for s in strains]
    known += [bulk("Al", cubic=True, a=4.05 * (1 + s)) for s in strains]
    metric = {"n_components": 20, "n_structures": 12, "n_neighbors": [4, 2]}
    return EnvironmentDatabase.build(known, soap, metric=metric, dtype="float64")


def objective_of(structures: list[Atoms], database: EnvironmentDatabase, **options: Any) -> LocalSimilarityObjective:
    return LocalSimilarityObjective(StructureBatch.from_atoms(structures), database, **options)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_loss_of_a_stage(stage: int, learnt: EnvironmentDatabase, organic: dict[str, Atoms], rattled) -> None:
    """Of targets that are held, s log(1 + D / s) with D = (p - t)^T E^-1 (p - t)."""
    starts = [rattled(organic["CH3CHO"], 0.1), rattled(organic["HCN"], 0.1, 1)]
    objective = objective_of(starts, learnt, stage=stage)
    goals = [goals_of(atoms, learnt, stage) for atoms in starts]
    for moved in (starts, [rattled(atoms, 0.1, 2) for atoms in starts]):
        evaluation = objective.evaluate(StructureBatch.from_atoms(moved).positions)
        vectors = [normalised(atoms, learnt.descriptor) for atoms in moved]
        losses = [[g.loss(v) for g, v in zip(*own, strict=True)] for own in zip(goals, vectors, strict=True)]
        distances = [[g.distance(v) for g, v in zip(*own, strict=True)] for own in zip(goals, vectors, strict=True)]
        assert evaluation.atom_loss.numpy() == pytest.approx(np.concatenate(losses), rel=1e-4)
        assert evaluation.distance.numpy() == pytest.approx(np.concatenate(distances), rel=1e-4)
        assert evaluation.loss.numpy() == pytest.approx([sum(own) for own in losses], rel=1e-4)


def test_of_small_differences_the_loss_is_the_squared_distance(
    learnt: EnvironmentDatabase, organic: dict[str, Atoms], rattled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With s to infinity: nothing is unusual."""
    atoms = rattled(organic["CH3OH"])
    for trust in learnt.metric.stages[0].trust.values():
        limitless = trust.clone()
        limitless[2] = 1e12
        monkeypatch.setattr(trust, "data", limitless)
    objective = objective_of([atoms], learnt, stage=0)
    evaluation = objective.evaluate(objective.batch.positions)
    goals, vectors = goals_of(atoms, learnt, 0), normalised(atoms, learnt.descriptor)
    expected = [goal.unusual(vector) for goal, vector in zip(goals, vectors, strict=True)]
    assert evaluation.atom_loss.numpy() == pytest.approx(expected, rel=1e-4)
    # Where the matches disagree less is lost than the distance from their mean alone tells.
    plain = [float(((v @ g.matrix - g.target) ** 2).sum()) / g.usual for g, v in zip(goals, vectors, strict=True)]
    assert all(e <= p * (1 + 1e-9) for e, p in zip(expected, plain, strict=True))
    assert sum(expected) < 0.95 * sum(plain)


def test_own_sources_are_left_out_of_the_scatter(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    atoms = rattled(organic["CH3CHO"])
    own = torch.full((len(atoms),), learnt.sources.index("CH3CHO"))
    objective = objective_of([atoms], learnt, stage=0, own=own)
    evaluation = objective.evaluate(objective.batch.positions)
    goals = goals_of(atoms, learnt, 0, hidden="CH3CHO")
    vectors = normalised(atoms, learnt.descriptor)
    expected = [goal.loss(vector) for goal, vector in zip(goals, vectors, strict=True)]
    assert evaluation.atom_loss.numpy() == pytest.approx(expected, rel=1e-4)


def test_single_precision_loses_little_far_from_all_that_is_known(
    learnt: EnvironmentDatabase, organic: dict, rattled
) -> None:
    for seed in range(4):
        start = rattled(organic["CH3CHO"], 0.6, seed)
        found = []
        for dtype in (torch.float32, torch.float64):
            objective = LocalSimilarityObjective(StructureBatch.from_atoms([start], dtype), learnt, stage=0)
            found.append(objective.evaluate(objective.batch.positions))
        single, double = found
        assert torch.equal(single.environment, double.environment)
        assert single.atom_loss.numpy() == pytest.approx(double.atom_loss.numpy(), rel=1e-4)
        largest = float(double.gradient.abs().max())
        assert (single.gradient - double.gradient).abs().max() < 1e-4 * largest


@pytest.mark.parametrize("stage", [0, -1])
@pytest.mark.parametrize("kind", ["learnt", "crystals"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_finite_differences(
    kind: str, stage: int, weighted: bool, rattled, request: pytest.FixtureRequest
) -> None:
    database = request.getfixturevalue(kind)
    if kind == "learnt":
        # One far from all that is known, where differences count less than their square.
        structures = [rattled(molecule("CH3CHO"), 0.1), rattled(molecule("CH3CN"), 0.4, 1), molecule("C6H6")]
    else:
        slab = fcc111("Al", (1, 2, 2), vacuum=5.0)
        slab.pbc = (True, True, False)
        structures = [rattled(bulk("Si"), 0.1), rattled(slab, 0.1, 1), rattled(bulk("Si", cubic=True), 0.2, 2)]
    options: dict[str, Any] = {"repulsion": 2.0}
    if weighted:
        n_atoms = sum(len(atoms) for atoms in structures)
        options["weights"] = torch.as_tensor(np.random.default_rng(3).uniform(0, 2, n_atoms))
    objective = objective_of(structures, database, stage=stage, **options)
    positions, cells = objective.batch.positions.clone(), objective.batch.cells.clone()
    index = objective.batch.structure_index
    # The targets are found here, and held for what follows.
    objective.evaluate(positions, cells)
    positions = positions + torch.as_tensor(np.random.default_rng(5).normal(0, 0.05, positions.shape))
    evaluation = objective.evaluate(positions, cells)
    rng = np.random.default_rng(4)
    step = 1e-5
    for _ in range(2):
        shift = torch.as_tensor(rng.normal(size=positions.shape))
        plus = objective.evaluate(positions + step * shift, cells).loss
        minus = objective.evaluate(positions - step * shift, cells).loss
        analytic = torch.zeros(len(structures), dtype=torch.float64)
        analytic.index_add_(0, index, (evaluation.gradient * shift).sum(1))
        assert analytic.numpy() == pytest.approx(((plus - minus) / 2 / step).numpy(), rel=1e-5, abs=1e-5)
        strain = torch.as_tensor(rng.normal(size=(len(structures), 3, 3)))
        losses = []
        for sign in (1, -1):
            deformation = torch.eye(3, dtype=torch.float64) + sign * step * strain
            strained = torch.einsum("aij,aj->ai", deformation[index], positions)
            losses.append(objective.evaluate(strained, cells @ deformation.transpose(1, 2)).loss)
        analytic = (evaluation.strain_gradient * strain).sum((1, 2))
        assert analytic.numpy() == pytest.approx(((losses[0] - losses[1]) / 2 / step).numpy(), rel=1e-5, abs=1e-5)


def test_targets_are_held_until_told_otherwise(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    first, second = rattled(organic["CH3OH"], 0.02), rattled(organic["CH3OH"], 0.5, 1)
    objective = objective_of([first, first], learnt)
    here, there = (StructureBatch.from_atoms([a, a]).positions for a in (first, second))
    before = objective.evaluate(here)
    held = objective.evaluate(there)
    assert torch.equal(held.environment, before.environment)
    objective.search_anew(torch.tensor([False, True]))
    anew = objective.evaluate(there)
    assert torch.equal(anew.environment[:6], before.environment[:6])
    assert not torch.equal(anew.environment[6:], before.environment[6:])
    assert float(anew.loss[0]) == pytest.approx(float(held.loss[0]), rel=1e-9)
    fresh = objective_of([second], learnt).evaluate(there[6:])
    assert float(anew.loss[1]) == pytest.approx(float(fresh.loss[0]), rel=1e-9)
    assert torch.equal(anew.environment[6:], fresh.environment)


def test_keep_in_the_middle_changes_nothing(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    starts = [rattled(organic[name], 0.2, k) for k, name in enumerate(("CH3OH", "HCN", "CH3CHO", "CO2"))]
    weights = torch.as_tensor(np.random.default_rng(0).uniform(0.5, 2, sum(map(len, starts))))
    own = torch.tensor([learnt.sources.index(n) for n in ("CH3OH", "HCN", "CH3CHO", "CO2")]).repeat_interleave(
        torch.tensor([len(atoms) for atoms in starts])
    )
    whole, part = (objective_of(starts, learnt, stage=0, weights=weights, own=own) for _ in range(2))
    here = whole.batch.positions.clone()
    there = here + 0.1 * torch.randn(here.shape, generator=torch.Generator().manual_seed(0), dtype=here.dtype)
    whole.evaluate(here)
    part.evaluate(here)
    expected = whole.evaluate(there)
    kept = torch.tensor([False, True, False, True])
    atoms = kept[whole.batch.structure_index]
    part.keep(kept)
    found = part.evaluate(there[atoms])
    assert torch.allclose(found.loss, expected.loss[kept], rtol=1e-12)
    assert torch.allclose(found.gradient, expected.gradient[atoms], rtol=1e-9, atol=1e-12)
    assert torch.equal(found.environment, expected.environment[atoms])


def test_own_sources_are_not_looked_at(learnt: EnvironmentDatabase, organic: dict) -> None:
    atoms = organic["CH3CHO"]
    number = learnt.sources.index("CH3CHO")
    own = torch.full((len(atoms),), number)
    objective, hidden = objective_of([atoms], learnt), objective_of([atoms], learnt, own=own)
    seen, unseen = (o.evaluate(o.batch.positions) for o in (objective, hidden))
    symbols = list(atoms.symbols)

    def sources(environment: torch.Tensor) -> list[set[str]]:
        found = zip(symbols, environment.tolist(), strict=True)
        return [{source for source, _ in learnt.origins(symbol, k)} for symbol, k in found]

    assert all("CH3CHO" in origin for origin in sources(seen.environment))
    assert not any(origin == {"CH3CHO"} for origin in sources(unseen.environment))
    assert float(seen.loss[0]) < 1e-3 < float(unseen.loss[0])


def test_an_atom_without_targets_is_not_pulled(soap: SoapPowerSpectrum, organic: dict, rattled) -> None:
    """While a metric is learnt, a species of one source only must not see itself."""
    known = [atoms for atoms in organic.values() if "N" not in atoms.symbols]
    metric = {"n_components": 20, "n_structures": 15}
    database = EnvironmentDatabase.build([*known, organic["HCN"]], soap, metric=metric)
    assert database.reach["N"] is None and database.reach["C"] > 0
    start = rattled(organic["HCN"])
    for k, own in ((0, None), (1, torch.full((3,), len(known)))):
        objective = objective_of([start], database, own=own)
        evaluation = objective.evaluate(objective.batch.positions)
        nitrogen = [symbol == "N" for symbol in start.symbols].index(True)
        assert (float(evaluation.atom_loss[nitrogen]) == 0) is bool(k)
        assert float(evaluation.atom_loss.sum()) > 0 and evaluation.gradient.isfinite().all()


def test_kernel_polynomial_is_refused(learnt: EnvironmentDatabase, organic: dict) -> None:
    with pytest.raises(LosikoError, match=r"polynomial.*learnt metric"):
        objective_of([organic["H2O"]], learnt, kernel="polynomial")


def test_the_calculator_looks_targets_up_anew(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    start, other = rattled(organic["CH3OH"]), rattled(organic["CH3OH"], 0.4, 1)
    atoms = start.copy()
    atoms.calc = LosikoCalculator(learnt)
    energy = atoms.get_potential_energy()
    objective = objective_of([start], learnt)
    assert energy == pytest.approx(float(objective.evaluate(objective.batch.positions).loss[0]), rel=1e-9)
    # The energy is a function of the structure, whatever was asked before.
    atoms.positions = other.positions
    fresh = other.copy()
    fresh.calc = LosikoCalculator(learnt)
    assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), rel=1e-9)
    atoms.positions = start.positions
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-9)
    BFGS(atoms, logfile=None).run(fmax=1e-2, steps=400)
    assert atoms.get_potential_energy() < 0.1 * energy
