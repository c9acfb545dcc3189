"""Relaxations of whole structures: results, limits, noise, frozen atoms, cells, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, diamond100, molecule
from ase.constraints import FixAtoms

from aiida_losiko.core import EnvironmentDatabase, LosikoError, RelaxSettings, SoapPowerSpectrum, relax
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.objective import Evaluation, LocalSimilarityObjective
from aiida_losiko.core.relaxation.run import StepReport

TIGHT = {"fmax": 1e-7, "loss_tolerance": 1e-15}


def displaced(atoms: Atoms, size: float = 0.1, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def water() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["H", "O"], r_cut=4.0, n_max=4, l_max=4, sigma=0.25)
    return EnvironmentDatabase.build([molecule("H2O")], soap, sources=["water"])


@pytest.fixture(scope="module")
def molecules() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["H", "C", "O", "N"], r_cut=4.0, n_max=4, l_max=3, sigma=0.35)
    names = ["CH4", "CH3OH", "H2O", "CH3CHO", "C2H6", "CH3CH2OH"]
    return EnvironmentDatabase.build([molecule(name) for name in names], soap, sources=names)


@pytest.fixture(scope="module")
def silicon() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=4, l_max=3, sigma=0.4)
    return EnvironmentDatabase.build([bulk("Si")], soap, sources=["diamond"])


def test_water_is_found_from_random_starts(water: EnvironmentDatabase) -> None:
    rng = np.random.default_rng(7)
    starts = [Atoms("OHH", positions=rng.uniform(-1, 1, (3, 3))) for _ in range(20)]
    results = relax(starts, water, n_hops=5, **TIGHT)
    angle = molecule("H2O").get_angle(1, 0, 2)
    good = [r for r in results if r.loss < 1e-8 and abs(r.atoms.get_angle(1, 0, 2) - angle) < 0.1]
    assert len(good) >= 19
    assert np.median([r.evaluations for r in results]) <= 40
    assert all(r.converged and r.status == "converged" and not r.flags for r in good)


def test_matches_say_where_an_atom_came_from(molecules: EnvironmentDatabase) -> None:
    (result,) = relax(displaced(molecule("CH3OH"), 0.05), molecules, **TIGHT)
    assert result.loss < 1e-8 < result.initial_loss
    assert rmsd(result.atoms, molecule("CH3OH")) < 1e-3
    assert set(result.matches.source) == {"CH3OH"}
    reference = molecule("CH3OH")
    symbols = [reference.symbols[k] for k in result.matches.atom_index]
    assert symbols == list(result.atoms.symbols)
    assert result.matches.out_of_reach == [False] * 6 and result.n_out_of_reach == 0
    assert result.loss == pytest.approx((result.matches.distance**2).sum(), rel=1e-6, abs=1e-13)


def test_out_of_reach_is_told(molecules: EnvironmentDatabase) -> None:
    (result,) = relax(molecule("C6H6"), molecules, max_steps=0)
    assert result.n_out_of_reach > 0
    assert result.status == "max_steps" and not result.converged


def test_order_labels_and_input_are_kept(molecules: EnvironmentDatabase) -> None:
    starts = [displaced(molecule(name)) for name in ("CH3CH2OH", "H2O", "CH3OH", "CH4")]
    for k, atoms in enumerate(starts):
        atoms.info["identifier"] = f"start {k}"
        atoms.set_array("mark", np.arange(len(atoms)))
    before = [atoms.positions.copy() for atoms in starts]
    results = relax(starts, molecules, batch_size=3)
    assert [r.atoms.info["identifier"] for r in results] == [f"start {k}" for k in range(4)]
    assert all((r.atoms.arrays["mark"] == np.arange(len(r.atoms))).all() for r in results)
    assert all((atoms.positions == b).all() for atoms, b in zip(starts, before, strict=True))


def test_results_do_not_depend_on_batch_mates(molecules: EnvironmentDatabase) -> None:
    starts = [displaced(molecule(name), 0.1, k) for k, name in enumerate(("CH3CH2OH", "H2O", "CH3OH", "C2H6", "CH4"))]
    together = relax(starts, molecules, max_steps=12)
    for start, result in zip(starts, together, strict=True):
        (alone,) = relax(start, molecules, max_steps=12)
        assert alone.steps == result.steps
        assert np.abs(alone.atoms.positions - result.atoms.positions).max() < 1e-7


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire", "L-BFGS-B", "BFGS"])
def test_optimisers_find_the_same_minimum(optimizer: str, molecules: EnvironmentDatabase) -> None:
    (result,) = relax(displaced(molecule("CH3OH"), 0.05), molecules, optimizer=optimizer, max_steps=2000, **TIGHT)
    assert result.loss < 1e-7
    assert rmsd(result.atoms, molecule("CH3OH")) < 5e-3


def test_nelder_mead_as_in_the_paper(water: EnvironmentDatabase) -> None:
    (result,) = relax(displaced(molecule("H2O"), 0.05), water, optimizer="Nelder-Mead", max_steps=2000, **TIGHT)
    assert result.loss < 1e-8
    assert result.evaluations > result.steps > 20


def test_frozen_atoms_stay(molecules: EnvironmentDatabase) -> None:
    start = displaced(molecule("CH3CH2OH"))
    start.set_constraint(FixAtoms([0, 4]))
    for optimizer in ("lbfgs", "Nelder-Mead"):
        (result,) = relax(start, molecules, optimizer=optimizer, max_steps=30)
        moved = np.abs(result.atoms.positions - start.positions).max(1)
        assert (moved[[0, 4]] == 0).all() and (moved[[1, 2, 3, 5, 6, 7, 8]] > 0).all()
        assert result.loss < result.initial_loss
        assert result.atoms.constraints


def test_a_free_cell_relaxes_to_the_known_lattice(silicon: EnvironmentDatabase) -> None:
    start = bulk("Si")
    start.set_cell(start.cell.array * [1.06, 0.97, 1.02], scale_atoms=True)
    (fixed,) = relax(start, silicon, **TIGHT)
    (free,) = relax(start, silicon, relax_cell=True, **TIGHT)
    assert (fixed.atoms.cell.array == start.cell.array).all() and fixed.loss > 1e-4
    assert free.loss < 1e-9
    assert free.atoms.cell.volume == pytest.approx(bulk("Si").cell.volume, rel=1e-3)
    assert free.atoms.get_distance(0, 1, mic=True) == pytest.approx(bulk("Si").get_distance(0, 1, mic=True), rel=1e-3)


@pytest.mark.parametrize("optimizer", ["lbfgs", "Nelder-Mead", "COBYLA"])
def test_a_slab_keeps_its_vacuum(optimizer: str, silicon: EnvironmentDatabase) -> None:
    slab = diamond100("Si", size=(1, 1, 4), vacuum=5.0)
    slab.set_cell(slab.cell * [1.04, 0.97, 1.0], scale_atoms=True)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms([0, 1]))
    (result,) = relax(slab, silicon, optimizer=optimizer, relax_cell=True, max_steps=30)
    change = result.atoms.cell.array - slab.cell.array
    assert np.abs(change[:2, :2]).max() > 1e-3
    assert (change[2] == 0).all() and np.abs(change[:, 2]).max() < 1e-12
    place = result.atoms.get_scaled_positions(wrap=False) - slab.get_scaled_positions(wrap=False)
    assert np.abs(place[:2]).max() < 1e-9 and np.abs(place[2:]).max() > 1e-4


def test_a_molecule_has_no_cell_to_relax(molecules: EnvironmentDatabase) -> None:
    start = displaced(molecule("CH3OH"), 0.05)
    fixed, free = (relax(start, molecules, relax_cell=flag)[0] for flag in (False, True))
    assert free.converged and (free.atoms.cell == start.cell).all()
    assert np.abs(free.atoms.positions - fixed.atoms.positions).max() < 1e-6


def test_a_cell_that_explodes_is_flagged(silicon: EnvironmentDatabase) -> None:
    start = bulk("Si")
    start.set_cell(start.cell.array * 0.62, scale_atoms=True)
    (result,) = relax(start, silicon, relax_cell=True, max_steps=300)
    ratio = result.atoms.cell.volume / start.cell.volume
    assert ("exploded_cell" in result.flags) == (not 1 / 3 <= ratio <= 3)
    assert ratio > 3  # from 0.24 of the volume back to diamond


def test_collapsed_and_lost_atoms_are_flagged(water: EnvironmentDatabase) -> None:
    close = Atoms("OHH", positions=[[0, 0, 0], [0.9, 0, 0], [0.9, 0.1, 0]])
    far = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [30, 0, 0]])
    results = relax([close, far], water, max_steps=0)
    assert results[0].flags == ("collapsed",)
    assert results[1].flags == ("lost_atoms",)


def test_a_molecule_that_falls_apart_is_flagged() -> None:
    # The database knows the two halves of ethane only, as radicals, so that the whole is driven apart.
    soap = SoapPowerSpectrum(["H", "C"], r_cut=4.0, n_max=4, l_max=3, sigma=0.35)
    radical = EnvironmentDatabase.build([molecule("CH3")], soap)
    (result,) = relax(displaced(molecule("C2H6")), radical, max_steps=200)
    assert result.atoms.get_distance(0, 1) > 2.0
    assert result.flags == ("fragmented",)


def test_repulsion_parts_atoms_that_sit_on_each_other(water: EnvironmentDatabase) -> None:
    start = Atoms("OHH", positions=[[0, 0, 0], [0.93, 0.02, 0], [0.93, -0.02, 0]])
    (bare,) = relax(start, water, repulsion=0.0, **TIGHT)
    (result,) = relax(start, water, **TIGHT)
    assert "collapsed" in bare.flags
    assert result.flags == () and result.loss < 1e-8


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire"])
def test_small_first_steps_are_not_the_end(optimizer: str, silicon: EnvironmentDatabase) -> None:
    start = bulk("Si", cubic=True)
    start.set_cell(start.cell * 1.05, scale_atoms=True)
    (result,) = relax(
        start, silicon, optimizer=optimizer, relax_cell=True, fmax=1e-6, relative_loss_tolerance=0.01, max_steps=1000
    )
    assert result.converged and result.steps >= 2
    assert result.atoms.cell.lengths() == pytest.approx(5.43, abs=0.03)


def test_noise_is_the_same_for_the_same_seed(molecules: EnvironmentDatabase) -> None:
    starts = [displaced(molecule("CH3OH")), displaced(molecule("CH4"))]
    settings = RelaxSettings(noise_variance=0.01, noise_decay=0.3, seed=5)
    first = relax(starts, molecules, settings=settings)
    again = relax(starts, molecules, settings=settings)
    other = relax(starts, molecules, settings=settings, seed=6)
    # The noise of a structure belongs to its number in the list, not to its place in a batch.
    split = relax(starts, molecules, settings=settings, batch_size=1)
    for a, b, c, d in zip(first, again, other, split, strict=True):
        assert (a.atoms.positions == b.atoms.positions).all()
        assert np.abs(a.atoms.positions - c.atoms.positions).max() > 1e-6
        assert a.steps >= 7 and d.loss == pytest.approx(a.loss, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire"])
def test_what_noise_made_worse_is_relaxed_from_the_best_point(optimizer: str, molecules: EnvironmentDatabase) -> None:
    starts = [displaced(molecule("CH3OH"), 0.05), displaced(molecule("CH4"), 0.05)]
    # Noise that throws the atoms far apart: nothing better than the start is found on the way.
    settings = RelaxSettings(optimizer=optimizer, noise_variance=100.0, noise_decay=2.0, max_steps=1000)
    for result in relax(starts, molecules, settings=settings):
        assert result.converged and result.loss < 0.02 * result.initial_loss


def test_limits_give_the_last_structure(molecules: EnvironmentDatabase) -> None:
    starts = [displaced(molecule("CH3CH2OH")), displaced(molecule("CH3OH"))]
    few = relax(starts, molecules, max_steps=3, **TIGHT)
    assert all(r.status == "max_steps" and r.steps == 3 and not r.converged for r in few)
    assert all(r.loss < r.initial_loss for r in few)
    late = relax(starts, molecules, max_seconds=0.0, **TIGHT)
    assert all(r.status == "max_seconds" and r.matches is not None and math.isfinite(r.loss) for r in late)
    calls = iter([False, False, False] + [True] * 100)
    stopped = relax(starts, molecules, should_stop=lambda: next(calls), **TIGHT)
    assert all(r.status == "interrupted" and r.loss < r.initial_loss for r in stopped)


@pytest.mark.parametrize("optimizer", ["lbfgs", "BFGS"])
def test_batches_that_were_not_begun_in_time_are_not_evaluated(optimizer: str, molecules: EnvironmentDatabase) -> None:
    starts = [displaced(molecule("CH3OH")) for _ in range(5)]
    results = relax(starts, molecules, max_seconds=0.0, batch_size=2, optimizer=optimizer)
    assert all(r.status == "max_seconds" and not r.converged and r.error is None for r in results)
    begun = [r.matches is not None for r in results]
    assert begun == ([True, True, False, False, False] if optimizer == "lbfgs" else [True] + 4 * [False])
    for result, start in zip(results, starts, strict=True):
        assert (result.matches is None) == math.isnan(result.loss)
        assert (result.atoms.positions == start.positions).all()
        assert (result.to_dict()["loss"] is None) == (result.matches is None)


def test_callback_sees_every_step(molecules: EnvironmentDatabase) -> None:
    reports: list[StepReport] = []
    starts = [displaced(molecule("CH3OH")), displaced(molecule("H2O"))]
    results = relax(starts, molecules, callback=reports.append, max_steps=10)
    assert reports[0].evaluation == 1 and (reports[0].steps == 0).all()
    for number, result in enumerate(results):
        seen = [
            (int(s), loss, positions)
            for report in reports
            for n, s, loss, positions in zip(report.numbers, report.steps, report.loss, report.positions, strict=True)
            if n == number
        ]
        assert [s for s, *_ in seen] == list(range(result.steps + 1))
        assert [loss for _, loss, _ in seen] == pytest.approx(result.loss_history)
        assert np.abs(seen[-1][2] - result.atoms.positions).max() < 1e-12


def test_weights_bias_the_result(molecules: EnvironmentDatabase) -> None:
    start = displaced(molecule("C6H6"))
    (plain,) = relax(start, molecules)
    (biased,) = relax(start, molecules, settings=RelaxSettings(weights={"C": 50.0}))
    carbon = start.numbers == 6
    assert (biased.matches.distance[carbon] ** 2).sum() < (plain.matches.distance[carbon] ** 2).sum()
    same = relax(start, molecules, weights=[np.where(carbon, 25.0, 1.0)], settings=RelaxSettings(weights={"C": 2.0}))[0]
    assert same.loss == pytest.approx(biased.loss, rel=1e-9)


def test_float32_comes_close(molecules: EnvironmentDatabase) -> None:
    (result,) = relax(displaced(molecule("CH3OH"), 0.05), molecules, dtype="float32")
    assert result.loss < 1e-4
    assert rmsd(result.atoms, molecule("CH3OH")) < 0.02


@pytest.mark.parametrize("optimizer", ["lbfgs", "BFGS"])
def test_what_float32_found_is_reported_in_float64(optimizer: str, molecules: EnvironmentDatabase) -> None:
    nan = molecule("H2O")
    nan.positions[0] = np.nan
    starts = [displaced(molecule(name), 0.2) for name in ("CH3CHO", "CH4", "NH3", "CH3CH2OH")]
    settings = RelaxSettings(dtype="float32", optimizer=optimizer, max_steps=10, weights={"H": 2.0})
    for result in relax([*starts[:2], nan, *starts[2:]], molecules, settings=settings):
        if result.status == "error":
            continue
        (again,) = relax(result.atoms, molecules, settings=settings, dtype="float64", max_steps=0)
        assert result.loss == pytest.approx(again.loss, rel=1e-12)
        assert result.matches is not None and again.matches is not None
        assert result.matches.distance == pytest.approx(again.matches.distance, rel=1e-9)
        assert result.matches.source == again.matches.source


def test_what_does_not_move_keeps_its_digits_in_float32(silicon: EnvironmentDatabase) -> None:
    start = displaced(bulk("Si", cubic=True), 0.05)
    start.set_cell(start.cell.array * (1 + 1e-9 / 3))
    start.set_constraint(FixAtoms([0, 3]))
    (result,) = relax(start, silicon, dtype="float32", max_steps=5)
    assert (result.atoms.cell.array == start.cell.array).all()
    assert (result.atoms.positions[[0, 3]] == start.positions[[0, 3]]).all()
    assert (result.atoms.positions[[1, 2]] != start.positions[[1, 2]]).any(axis=1).all()


def test_bad_structures_do_not_stop_the_others(molecules: EnvironmentDatabase) -> None:
    nan = molecule("H2O")
    nan.positions[1, 2] = np.nan
    flat = molecule("H2O")
    flat.set_cell([5, 5, 0])
    flat.pbc = True
    twice = molecule("H2O")
    twice.positions[1] = twice.positions[2]
    bad = {
        "nan": nan,
        "Si": molecule("SiH4"),
        "N": molecule("NH3"),
        "no atoms": Atoms(),
        "apart": twice,
        "volume": flat,
    }
    good = displaced(molecule("CH3OH"), 0.05)
    results = relax([*bad.values(), good], molecules)
    assert results[-1].converged
    for words, result in zip(bad, results, strict=False):
        assert result.status == "error" and result.matches is None
        assert words in result.error and "\n" not in result.error
        assert result.to_dict()["loss"] is None


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire", "BFGS"])
def test_a_loss_that_is_not_finite_ends(
    optimizer: str, molecules: EnvironmentDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = LocalSimilarityObjective.evaluate

    def broken(self: LocalSimilarityObjective, *arguments: Any) -> Evaluation:
        evaluation = evaluate(self, *arguments)
        evaluation.loss[0] = np.inf
        return evaluation

    monkeypatch.setattr(LocalSimilarityObjective, "evaluate", broken)
    start = displaced(molecule("H2O"))
    calls = iter(range(10_000))
    (result,) = relax(start, molecules, optimizer=optimizer, should_stop=lambda: next(calls) > 50)
    assert result.status == "error" and "not finite" in result.error
    assert (result.atoms.positions == start.positions).all()


@pytest.mark.parametrize("weights", [{"Qq": 1.0}, {"H": -1.0}, {"H": 1e300}, [1.0], {"H": "much"}])
def test_wrong_weights_by_species(weights: object) -> None:
    with pytest.raises(LosikoError, match="weights="):
        RelaxSettings(weights=weights)  # type: ignore[arg-type]


def test_a_single_atom_and_a_frozen_structure(molecules: EnvironmentDatabase) -> None:
    frozen = displaced(molecule("CH3OH"))
    frozen.set_constraint(FixAtoms(range(6)))
    results = relax([Atoms("O"), frozen], molecules)
    assert [r.status for r in results] == ["converged", "converged"]
    assert (results[1].atoms.positions == frozen.positions).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "newton"}, "newton"),
        ({"max_step": 3}, "max_step_length"),
        ({"fmax": -1.0}, "fmax=-1.0"),
        ({"max_steps": 2.5}, "max_steps=2.5"),
        ({"noise_variance": 0.1}, "noise_decay"),
        ({"noise_variance": 0.1, "noise_decay": 0.1, "optimizer": "Nelder-Mead"}, "Nelder-Mead"),
        ({"dtype": "float16"}, "float16"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "meta"}, "meta"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"max_steps": 10**30}, "max_steps=1000"),
        ({"noise_variance": 0.1, "noise_decay": 1e-300}, "noise_decay=1e-300"),
        ({"repulsion": 1e300}, "repulsion=1e+300"),
        ({"weights": [[1.0, 1.0]]}, "weights of structure 0"),
        ({"weights": [["a", "b", "c"]]}, "weights of structure 0"),
        ({"weights": [[1.0, 1.0, 1e300]]}, "weights of structure 0"),
    ],
)
def test_wrong_settings_are_told_in_one_line(change: dict, words: str, molecules: EnvironmentDatabase) -> None:
    with pytest.raises(LosikoError) as error:
        relax(molecule("H2O"), molecules, **change)
    assert words in str(error.value) and "\n" not in str(error.value)
