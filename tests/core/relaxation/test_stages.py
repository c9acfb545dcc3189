"""Relaxations in the stages of a learnt metric, and what is learnt for them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from aiida_losiko.core import EnvironmentDatabase, LosikoError, RelaxSettings, SoapPowerSpectrum, relax
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.relaxation import training
from aiida_losiko.core.relaxation.run import Run, StepReport
from aiida_losiko.core.relaxation.stages import run_of_stage

SMALL = {"n_components": 20, "n_structures": 15}
# As protocols with a learnt metric have it.
USUAL: dict[str, Any] = {
    "relative_loss_tolerance": 0.02,
    "max_step_length": 0.2,
    "repulsion": 100.0,
    "restraint": 0.2,
    "curvature_probes": 8,
}


@pytest.fixture(scope="module")
def starts(organic: dict[str, Atoms], rattled) -> list[Atoms]:
    return [rattled(atoms, 0.1, seed) for seed, atoms in enumerate(organic.values())]


def deviations(results: list, organic: dict[str, Atoms]) -> np.ndarray:
    return np.array([rmsd(r.atoms, atoms) for r, atoms in zip(results, organic.values(), strict=True)])


# Accuracy


def test_known_molecules_come_back(learnt: EnvironmentDatabase, organic: dict, starts: list[Atoms]) -> None:
    start = np.mean([rmsd(a, b) for a, b in zip(starts, organic.values(), strict=True)])
    found = deviations(relax(starts, learnt, **USUAL), organic)
    assert found.mean() < 0.04 < 0.1 < start
    assert deviations(relax(organic.values(), learnt, **USUAL), organic).max() < 0.03
    # The last stage matches single environments here: most are exact where nothing holds them at their start.
    freely = deviations(relax(starts, learnt, **{**USUAL, "restraint": 0.0}), organic)
    assert np.median(freely) < 1e-3


def test_curvature_saves_evaluations(learnt: EnvironmentDatabase, organic: dict, starts: list[Atoms]) -> None:
    """It also tells steps that are small from those that are at the end."""
    exact = {**USUAL, "relative_loss_tolerance": 1e-5}
    numbers = []
    for n_probes in (0, 8):
        results = relax(starts[:12], learnt, **{**exact, "curvature_probes": n_probes})
        numbers.append(np.array([result.evaluations for result in results]))
        assert all(result.converged for result in results)
    assert numbers[1].mean() < 0.7 * numbers[0].mean()


# Nothing holds the structures at their start: the plain distance is the lesser part of such a loss.
FREE: dict[str, Any] = {"relative_loss_tolerance": 9e-3, "repulsion": 100.0}


@pytest.mark.parametrize(("size", "median"), [(0.0, 0.07), (0.1, 0.11)])
def test_unknown_molecules_come_out_better_than_by_the_plain_distance(
    size: float, median: float, learnt: EnvironmentDatabase, plain: EnvironmentDatabase, organic: dict, rattled
) -> None:
    """Each is left out of a database that has few that are like it."""
    names = [name for name, atoms in organic.items() if len(atoms) >= 8]
    found: dict[int, list[float]] = {0: [], 1: []}
    for seed, name in enumerate(names):
        for k, (database, settings) in enumerate(((learnt, USUAL), (plain, FREE))):
            (result,) = relax(rattled(organic[name], size, seed), database.without([name]), dtype="float32", **settings)
            found[k].append(rmsd(result.atoms, organic[name]))
    assert np.median(found[0]) < median < np.median(found[1])
    assert np.mean(found[0]) < 0.7 * np.mean(found[1])


def test_reach_tells_what_is_unlike_the_database(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    known = relax(starts, learnt, **USUAL)
    assert sum(r.n_out_of_reach for r in known) < 0.1 * sum(map(len, starts))
    (strange,) = relax(Atoms("CHHHHHH", [[0, 0, 0], *(1.1 * np.vstack([np.eye(3), -np.eye(3)]))]), learnt, **USUAL)
    assert strange.n_out_of_reach > 0


# How it goes


def test_results_are_those_of_all_stages(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    start = rattled(organic["CH3CHO"])
    reports: list[StepReport] = []
    (result,) = relax(start, learnt, callback=reports.append, **USUAL)
    assert result.converged and result.status == "converged" and result.error is None
    begun = [k for k, report in enumerate(reports) if report.evaluation == 1]
    assert len(begun) == 3
    last_of_each = [reports[k - 1] for k in (*begun[1:], 0)]
    assert result.steps == sum(int(report.steps[0]) for report in last_of_each)
    assert result.evaluations >= len(reports)
    # Each stage starts where the one before was best.
    assert np.array_equal(reports[begun[0]].positions[0], start.positions)
    for k in begun[1:]:
        earlier = [report for report in reports[:k] if report.evaluation > 0]
        assert any(np.allclose(report.positions[0], reports[k].positions[0]) for report in earlier[-30:])
    # Loss and history are of the last stage.
    assert result.initial_loss == result.loss_history[0] == pytest.approx(reports[begun[2]].loss[0])
    assert len(result.loss_history) == len(reports) - begun[2]
    assert result.loss == min(result.loss_history) < result.initial_loss


def test_stages_differ_in_hops_alone(learnt: EnvironmentDatabase) -> None:
    """All end at the same tolerance."""
    run = Run(RelaxSettings(n_hops=3, **USUAL), learnt)
    rough, last = (run_of_stage(run, stage, 3).settings for stage in (0, 2))
    assert last == run.settings and rough == replace(run.settings, n_hops=0)


def test_every_stage_has_max_steps(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    short, none = relax(starts[:1], learnt, max_steps=3)[0], relax(starts[:1], learnt, max_steps=0)[0]
    assert short.steps == 9 and short.status == "max_steps" and not short.converged
    assert none.steps == 0 and none.evaluations == 3
    assert np.array_equal(none.atoms.positions, starts[0].positions)


def test_saved_and_loaded_it_relaxes_alike(learnt: EnvironmentDatabase, starts: list[Atoms], tmp_path: Path) -> None:
    learnt.save(tmp_path / "learnt.db")
    before = relax(starts[:5], learnt, **USUAL)
    after = relax(starts[:5], EnvironmentDatabase.load(tmp_path / "learnt.db"), **USUAL)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a.atoms.positions, b.atoms.positions)
        assert {**a.to_dict(), "seconds": 0} == {**b.to_dict(), "seconds": 0}


def test_two_processes_give_the_same(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    alone, shared = (relax(starts[:6], learnt, batch_size=3, processes=n, **USUAL) for n in (1, 2))
    for a, b in zip(alone, shared, strict=True):
        assert np.array_equal(a.atoms.positions, b.atoms.positions)
        assert {**a.to_dict(), "seconds": 0} == {**b.to_dict(), "seconds": 0}


def test_single_precision_and_batches_give_nearly_the_same(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    chosen = starts[:4]
    double = relax(chosen, learnt, **USUAL)
    alone = [relax(start, learnt, **USUAL)[0] for start in chosen]
    single = relax(chosen, learnt, dtype="float32", **USUAL)
    for a, b, c in zip(double, alone, single, strict=True):
        assert rmsd(a.atoms, b.atoms) < 1e-5
        assert rmsd(a.atoms, c.atoms) < 0.02
        assert c.atoms.positions.dtype == np.float64


@pytest.mark.parametrize("optimizer", ["L-BFGS-B", "fire"])
def test_other_optimisers(optimizer: str, learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    start = rattled(organic["CH3OH"], 0.05)
    (result,) = relax(start, learnt, optimizer=optimizer, max_steps=300, repulsion=100.0)
    assert rmsd(result.atoms, organic["CH3OH"]) < 5e-3 < 0.03 < rmsd(start, organic["CH3OH"])
    assert set(result.matches.source) == {"CH3OH"}


def test_a_bad_structure_among_good_ones(learnt: EnvironmentDatabase, organic: dict, starts: list[Atoms]) -> None:
    flat = Atoms("OHH", positions=[[0, 0, 0], [0, 0, 0], [0, 1, 0]])
    unknown = molecule("SiH4")
    broken = molecule("H2O")
    broken.positions[1, 1] = np.nan
    results = relax([starts[0], flat, unknown, starts[1], broken], learnt, **USUAL)
    assert [r.status for r in results] == ["converged", "error", "error", "converged", "error"]
    assert "Si" in results[2].error
    for result, start in zip(results[::3], starts[:2], strict=True):
        assert rmsd(result.atoms, relax(start, learnt, **USUAL)[0].atoms) < 1e-5


def test_stopped_in_the_middle_of_the_stages(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    reports: list[StepReport] = []

    def in_the_second() -> bool:
        return sum(report.evaluation == 1 for report in reports) == 2 and reports[-1].evaluation > 1

    results = relax(starts[:3], learnt, callback=reports.append, should_stop=in_the_second, batch_size=3, **USUAL)
    assert [r.status for r in results] == ["interrupted"] * 3
    # Numbers of elements differ, but one batch holds all three, which are in the same stage.
    assert sum(report.evaluation == 1 for report in reports) == 2
    for result, start in zip(results, starts, strict=False):
        assert not result.converged and result.matches is not None and np.isfinite(result.loss)
        assert result.steps > 0 and rmsd(result.atoms, start) > 1e-3


def test_the_time_is_over_in_the_first_stage(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    results = relax(starts[:6], learnt, max_seconds=0.0, batch_size=3, **USUAL)
    assert {r.status for r in results} == {"max_seconds"}
    evaluated = [r for r in results if r.matches is not None]
    assert len(evaluated) == 3 and all(r.evaluations == 1 for r in evaluated)
    assert all(np.array_equal(r.atoms.positions, start.positions) for r, start in zip(results, starts, strict=False))


def test_the_time_is_over_in_the_second_stage(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    begun = []

    def wait(report: StepReport) -> None:
        begun.append(report.evaluation == 1)
        if sum(begun) == 2:
            time.sleep(2.0)

    (result,) = relax(starts[0], learnt, callback=wait, max_seconds=2.0, **USUAL)
    assert result.status == "max_seconds" and sum(begun) == 2
    assert result.steps > 0 and result.matches is not None


def test_frozen_atoms_and_weights(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    start = rattled(organic["CH3CH2OH"])
    start.set_constraint(FixAtoms([0, 4]))
    (result,) = relax(start, learnt, **USUAL)
    moved = np.abs(result.atoms.positions - start.positions).max(1)
    assert (moved[[0, 4]] == 0).all() and (moved[[1, 2, 3, 5, 6, 7, 8]] > 0).all()
    assert result.atoms.constraints
    (nothing,) = relax(start, learnt, weights=[np.zeros(9)], **{**USUAL, "repulsion": 0})
    assert np.array_equal(nothing.atoms.positions, start.positions) and nothing.loss == 0


def test_flags_are_about_the_first_start(learnt: EnvironmentDatabase) -> None:
    pair = molecule("CH4") + molecule("H2O")
    pair.positions[5:] += [0, 0, 2.4]
    apart = pair.copy()
    apart.positions[5:] += [0, 0, 1.1]
    (result,) = relax(apart, learnt, **USUAL)
    assert "fragmented" not in result.flags


def test_hops_are_of_the_last_stage_and_search_anew(
    learnt: EnvironmentDatabase, organic: dict, rattled, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiida_losiko.core.objective import LocalSimilarityObjective

    anew: list[int] = []
    search_anew = LocalSimilarityObjective.search_anew

    def count(self: LocalSimilarityObjective, structures: torch.Tensor) -> None:
        anew.append(int(structures.sum()))
        search_anew(self, structures)

    monkeypatch.setattr(LocalSimilarityObjective, "search_anew", count)
    database = learnt.without([])
    database._reach = dict.fromkeys(learnt.reach, 0.02)
    start = rattled(organic["CH3CH2O"], 0.4)
    (without,), (result,) = (relax(start, database, n_hops=n, **USUAL) for n in (0, 4))
    assert anew == [1] * 4
    assert result.loss <= without.loss and result.steps > without.steps


def test_polynomial_kernel_is_refused(learnt: EnvironmentDatabase, starts: list[Atoms]) -> None:
    with pytest.raises(LosikoError, match="polynomial"):
        relax(starts[0], learnt, kernel="polynomial")


# Learning


def test_a_cell_is_relaxed(rattled) -> None:
    soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=4, l_max=3, sigma=0.4)
    known = [bulk("Si", cubic=True, a=5.43 * (1 + s)) for s in np.linspace(-0.0005, 0.0005, 20)]
    known[3].set_constraint(FixAtoms([0]))
    database = EnvironmentDatabase.build(known, soap, metric=SMALL, duplicate_tolerance=1e-6)
    start = rattled(bulk("Si", cubic=True, a=5.43), 0.05)
    start.set_cell(start.cell * 1.02, scale_atoms=True)
    (result,) = relax(start, database, relax_cell=True, **USUAL)
    assert result.atoms.cell.volume == pytest.approx(5.43**3, rel=5e-3)
    assert known[3].constraints


def test_learning_leaves_own_sources_out(organic: dict, soap: SoapPowerSpectrum, monkeypatch) -> None:
    """The differences that are learnt from are those to other structures, in all stages."""
    seen: list[np.ndarray] = []
    measure = training.measure_pull

    def remember(differences: np.ndarray, *rest: Any) -> Any:
        seen.append(np.linalg.norm(differences, axis=1))
        return measure(differences, *rest)

    monkeypatch.setattr(training, "measure_pull", remember)
    metric = {**SMALL, "n_neighbors": [1, 1], "displacement": 1e-4}
    database = EnvironmentDatabase.build(organic.values(), soap, metric=metric)
    assert len(seen) == 8
    # With so little noise every atom would find itself otherwise.
    assert all(distances.min() > 1e-3 for distances in seen)
    assert all(0.5 < reach < 10 for reach in database.reach.values())


def test_one_is_the_usual_squared_distance(organic: dict, soap: SoapPowerSpectrum) -> None:
    """Reach is a quantile of distances that have one as their usual size, whatever the species."""
    reach = EnvironmentDatabase.build(organic.values(), soap, metric=SMALL, reach_quantile=0.5).reach
    assert all(0.3 < value < 2 for value in reach.values())


@pytest.mark.filterwarnings("error")
def test_copies_of_one_structure(soap: SoapPowerSpectrum, rattled) -> None:
    """Nothing differs, so there is nothing to divide by."""
    known = []
    for k in range(25):
        known.append(molecule("H2O"))
        known[-1].rotate(10 * k, (1, 2, 3))
    database = EnvironmentDatabase.build(known, soap, metric=SMALL)
    assert len(database) == 2
    assert all(tensor.isfinite().all() for tensor in database.metric.tensors().values())
    assert all(reach >= 0.01 for reach in database.reach.values())
    (result,) = relax(rattled(known[0]), database, **USUAL)
    assert rmsd(result.atoms, known[0]) < 1e-3


@pytest.mark.filterwarnings("error")
def test_isolated_atoms(soap: SoapPowerSpectrum) -> None:
    database = EnvironmentDatabase.build([Atoms("H") for _ in range(25)], soap, metric=SMALL)
    (result,) = relax(Atoms("H"), database, **USUAL)
    assert result.loss == pytest.approx(0, abs=1e-6) and result.n_out_of_reach == 0


def test_a_species_with_fewer_environments_than_components_and_neighbors(
    organic: dict, soap: SoapPowerSpectrum, rattled
) -> None:
    known = {name: atoms for name, atoms in organic.items() if "N" not in atoms.symbols}
    known |= {name: organic[name] for name in ("HCN", "NH3")}
    metric = {"n_components": 500, "n_structures": 20, "n_neighbors": [32, 8]}
    database = EnvironmentDatabase.build(known.values(), soap, list(known), metric=metric)
    assert database.n_environments["N"] == 2
    assert database.metric.basis["N"].shape[1] < 5 and database.reach["N"] is not None
    (result,) = relax(rattled(organic["NH3"], 0.05), database, **USUAL)
    assert result.converged and rmsd(result.atoms, organic["NH3"]) < 0.2


def test_learnt_structures_hold_every_element(organic: dict) -> None:
    structures = [organic["CH4"]] * 200 + [organic["HCN"]]
    chosen = training._sample(structures, 5, np.random.default_rng(0))
    assert 200 in chosen and len(chosen) <= 15
    assert len(training._sample(structures, 500, np.random.default_rng(0))) == 201
