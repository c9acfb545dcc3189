"""What holds structures at their start while they are relaxed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms

from aiida_losiko.core import EnvironmentDatabase, LosikoError, RelaxSettings, SoapPowerSpectrum, relax
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.relaxation.batch import Preparation
from aiida_losiko.core.relaxation.restraint import Restraint
from aiida_losiko.core.relaxation.run import Run

USUAL: dict[str, Any] = {"relative_loss_tolerance": 0.02, "max_step_length": 0.2, "repulsion": 100.0}


@pytest.fixture(scope="module")
def silicon() -> EnvironmentDatabase:
    """Crystals of nearly one lattice constant, with a metric."""
    soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=4, l_max=3, sigma=0.4)
    known = [bulk("Si", cubic=True, a=5.43 * (1 + s)) for s in np.linspace(-0.0005, 0.0005, 20)]
    metric = {"n_components": 20, "n_structures": 15, "n_neighbors": [4, 2]}
    return EnvironmentDatabase.build(known, soap, metric=metric, duplicate_tolerance=1e-6)


def strained(rattled, by: float = 1.05) -> Atoms:
    atoms = rattled(bulk("Si", cubic=True, a=5.43), 0.05)
    atoms.set_cell(atoms.cell * by, scale_atoms=True)
    return atoms


def prepared(
    structures: list[Atoms], database: EnvironmentDatabase, stage: int = 0, starts: list[Atoms] | None = None, **changes
) -> Preparation:
    run = Run(RelaxSettings(**{"restraint": 0.2, **changes}), database)
    return Preparation.of(run, structures, [np.ones(len(a)) for a in structures], stage, starts=starts)


def batch_of(*structures: Atoms) -> StructureBatch:
    return StructureBatch.from_atoms(list(structures))


def restraint_of(strength: float, batch: StructureBatch, starts: torch.Tensor, metric, stage: int) -> Restraint:
    return Restraint(strength, batch, starts, torch.ones(len(starts), dtype=torch.bool), metric, stage)


# Force constants


def test_force_constant_of_the_first_stage(learnt: EnvironmentDatabase, organic: dict) -> None:
    """Of a metric for starts of 0.1 Angstrom, and of one for other starts."""
    batch = batch_of(organic["H2O"], organic["CH3OH"])
    restraint = restraint_of(0.3, batch, batch.positions + 0.5, learnt.metric, 0)
    assert restraint.force_constant.tolist() == pytest.approx([0.3 / 0.1**2] * 2)
    other = EnvironmentDatabase.build(
        organic.values(), learnt.descriptor, metric={"n_components": 5, "n_structures": 5, "displacement": 0.25}
    )
    restraint = restraint_of(0.3, batch, batch.positions, other.metric, 0)
    assert restraint.force_constant.tolist() == pytest.approx([0.3 / 0.25**2] * 2)


def test_later_stages_look_at_how_far_atoms_moved(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    starts = [rattled(organic["H2O"], 0.05), rattled(organic["CH3OH"], 0.3, 1), organic["HCN"]]
    now = batch_of(organic["H2O"], organic["CH3OH"], organic["HCN"])
    expected = []
    for start, name in zip(starts, ("H2O", "CH3OH", "HCN"), strict=True):
        root_mean_square = np.sqrt(((start.positions - organic[name].positions) ** 2).mean())
        # One that did not move is not known better than 0.002 Angstrom.
        expected.append(0.2 / (0.1 * max(root_mean_square, 0.002)))
    for stage in (1, 2):
        restraint = restraint_of(0.2, now, batch_of(*starts).positions, learnt.metric, stage)
        assert restraint.force_constant.tolist() == pytest.approx(expected)
    assert expected[2] == pytest.approx(1000) and expected[0] > 20 > expected[1]


def test_frozen_atoms_do_not_tell_how_rough_a_start_is(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    start, now = rattled(organic["CH3CHO"]), rattled(organic["CH3CHO"])
    now.positions[[0, 1]] += 0.1
    start.set_constraint(FixAtoms([2, 3, 4, 5, 6]))
    now.set_constraint(FixAtoms([2, 3, 4, 5, 6]))
    restraint = prepared([now], learnt, 1, [start]).restraint
    assert restraint.force_constant.tolist() == pytest.approx([0.2 / (0.1 * 0.1)])


# The term


def test_a_plain_distance_has_no_unit_to_hold_by(plain: EnvironmentDatabase, organic: dict) -> None:
    assert prepared([organic["CH3OH"]], plain, -1).restraint is None


def test_the_gradient_is_that_of_the_loss(learnt: EnvironmentDatabase, rattled, organic: dict) -> None:
    starts = [rattled(organic["CH3OH"]), rattled(organic["HCN"], 0.1, 1)]
    now = [rattled(atoms, 0.05, 2) for atoms in starts]
    whole = prepared(now, learnt, 1, starts, restraint=3.0)
    bare = prepared(now, learnt, 1, starts, restraint=0.0)
    assert bare.restraint is None
    here = whole.batch.positions.clone()
    added = whole.evaluate(here)[0].loss - bare.evaluate(here)[0].loss
    for k in range(2):
        moved = now[k].positions - starts[k].positions
        constant = float(whole.restraint.force_constant[k])
        assert float(added[k]) == pytest.approx(0.5 * constant * (moved**2).sum())
    _, gradient = whole.evaluate(here)
    gradient, step = gradient.clone(), 1e-5
    for seed in range(2):
        shift = torch.as_tensor(np.random.default_rng(seed).normal(size=here.shape))
        ends = [float(whole.evaluate(here + sign * step * shift)[0].loss.sum()) for sign in (1, -1)]
        assert float((gradient * shift).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_keep_goes_on_with_some_structures(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    names = ("CH3OH", "HCN", "CO2")
    starts = [rattled(organic[name], 0.1, k) for k, name in enumerate(names)]
    now = [rattled(atoms, 0.05, 9) for atoms in starts]
    whole, part = (prepared(now, learnt, 1, starts) for _ in range(2))
    here = whole.batch.positions.clone()
    whole.evaluate(here), part.evaluate(here)
    index = whole.batch.structure_index
    for kept in (torch.tensor([False, True, True]), torch.tensor([False, True])):
        part.keep(kept)
        chosen = torch.isin(index, torch.tensor([1, 2] if len(kept) == 3 else [2]))
        (expected, slope), (found, own) = whole.evaluate(here + 0.02), part.evaluate(here[chosen] + 0.02)
        assert torch.allclose(found.loss, expected.loss[-int(kept.sum()) :], rtol=1e-12)
        assert torch.allclose(own, slope[chosen], rtol=1e-9, atol=1e-12)


def test_rows_of_a_lattice_are_not_held(silicon: EnvironmentDatabase, rattled) -> None:
    atoms = strained(rattled)
    whole, bare = (prepared([atoms], silicon, relax_cell=True, restraint=strength) for strength in (5.0, 0.0))
    rows = whole.dof.start(whole.batch.positions)
    other = rows.clone()
    other[8:] += torch.as_tensor(np.random.default_rng(0).normal(0, 0.1, (3, 3)))
    (first, slope), (second, expected) = whole.evaluate(other), bare.evaluate(other)
    assert torch.equal(first.loss, second.loss) and torch.equal(slope, expected)
    other[:8] += 0.1
    (first, slope), (second, expected) = whole.evaluate(other), bare.evaluate(other)
    assert float(first.loss - second.loss) == pytest.approx(0.5 * 500 * 8 * 3 * 0.01)
    assert torch.equal(slope[8:], expected[8:]) and not torch.equal(slope[:8], expected[:8])


def test_a_lattice_that_changed_before_does_not_pull_atoms(silicon: EnvironmentDatabase, rattled) -> None:
    start = strained(rattled)
    now = start.copy()
    now.set_cell(now.cell * 0.95, scale_atoms=True)
    whole, bare = (prepared([now], silicon, 1, [start], relax_cell=True, restraint=x) for x in (5.0, 0.0))
    rows = whole.dof.start(whole.batch.positions)
    assert torch.allclose(whole.evaluate(rows)[0].loss, bare.evaluate(rows)[0].loss)


# Relaxations


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire", "L-BFGS-B"])
def test_structures_stay_closer_to_their_start(
    optimizer: str, learnt: EnvironmentDatabase, organic: dict, rattled
) -> None:
    start = rattled(organic["CH3CHO"])
    settings = {**USUAL, "optimizer": optimizer, "max_steps": 200}
    moved = [rmsd(relax(start, learnt, restraint=k, **settings)[0].atoms, start) for k in (0.0, 0.2, 5.0, 1e4)]
    assert moved == sorted(moved, reverse=True)
    assert moved[2] < 0.9 * moved[0] and moved[3] < 0.01


def test_optimisers_find_the_same_minimum(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    start = rattled(organic["CH3OH"])
    exact = {"repulsion": 100.0, "restraint": 1.0, "fmax": 1e-3, "max_steps": 1000, "curvature_probes": 8}
    first, second = (relax(start, learnt, optimizer=name, **exact)[0] for name in ("lbfgs", "L-BFGS-B"))
    assert first.converged and second.converged
    assert rmsd(first.atoms, second.atoms) < 1e-3
    assert first.evaluations < second.evaluations


@pytest.mark.parametrize(
    ("optimizer", "dtype", "kind"),
    [
        ("lbfgs", "float64", "learnt"),
        ("lbfgs", "float32", "learnt"),
        ("lbfgs", "float64", "plain"),
        ("lbfgs", "float32", "plain"),
        ("L-BFGS-B", "float64", "learnt"),
    ],
)
def test_the_loss_is_that_which_was_made_smaller(
    optimizer: str, dtype: str, kind: str, organic: dict, rattled, request: pytest.FixtureRequest
) -> None:
    database = request.getfixturevalue(kind)
    settings = {**USUAL, "repulsion": 1.0, "restraint": 0.2, "dtype": dtype, "optimizer": optimizer}
    (result,) = relax(rattled(organic["CH3OH"]), database, **settings)
    assert result.loss == pytest.approx(min(result.loss_history), rel=1e-4, abs=1e-9)


def test_bonds_are_mended_where_a_torsion_stays(learnt: EnvironmentDatabase, organic: dict) -> None:
    """What the loss is steep in follows the database; what it is flat in stays at the start."""
    start = organic["CH3CH2OH"].copy()
    carbons = [k for k, symbol in enumerate(start.symbols) if symbol == "C"]
    (oxygen,) = np.flatnonzero(start.symbols == "O")
    distances = start.get_all_distances()
    middle = min(carbons, key=lambda k: distances[k, oxygen])
    end = next(k for k in carbons if k != middle)
    hydrogens = np.flatnonzero(start.symbols == "H")
    hydroxyl = int(min(hydrogens, key=lambda k: distances[k, oxygen]))
    four = (end, middle, int(oxygen), hydroxyl)
    start.set_dihedral(*four, start.get_dihedral(*four) + 30, indices=[hydroxyl])
    start.set_distance(int(oxygen), hydroxyl, 1.07, fix=0)
    turned, bonds = [], []
    for strength in (0.0, 0.2, 2.0):
        (result,) = relax(start, learnt, restraint=strength, curvature_probes=8, **USUAL)
        turned.append(abs((result.atoms.get_dihedral(*four) - start.get_dihedral(*four) + 180) % 360 - 180))
        bonds.append(result.atoms.get_distance(int(oxygen), hydroxyl))
    assert bonds[:2] == pytest.approx([organic["CH3CH2OH"].get_distance(int(oxygen), hydroxyl)] * 2, abs=0.02)
    assert turned[0] > 20 and turned[0] > turned[1] > turned[2]
    assert turned[2] < 0.6 * turned[0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire", "L-BFGS-B"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_frozen_atoms_stay_exactly(
    optimizer: str, dtype: str, learnt: EnvironmentDatabase, organic: dict, rattled
) -> None:
    start = rattled(organic["CH3CH2OH"])
    start.positions += 17.3
    start.set_constraint(FixAtoms([0, 4]))
    settings = {**USUAL, "restraint": 0.2, "curvature_probes": 8, "optimizer": optimizer, "dtype": dtype}
    (result,) = relax(start, learnt, max_steps=30, **settings)
    moved = np.abs(result.atoms.positions - start.positions).max(1)
    assert (moved[[0, 4]] == 0).all() and (moved[[1, 2, 3, 5, 6, 7, 8]] > 0).all()


@pytest.mark.parametrize(
    "optimizer",
    ["lbfgs", "L-BFGS-B"],
)
def test_frozen_atoms_keep_their_place_in_a_lattice(optimizer: str, silicon: EnvironmentDatabase, rattled) -> None:
    start = strained(rattled)
    start.set_constraint(FixAtoms([0, 3]))
    (result,) = relax(start, silicon, relax_cell=True, restraint=5.0, optimizer=optimizer, max_steps=60, **USUAL)
    assert abs(result.atoms.cell.volume / start.cell.volume - 1) > 0.05
    places = [atoms.get_scaled_positions(wrap=False)[[0, 3]] for atoms in (start, result.atoms)]
    assert np.abs(places[0] - places[1]).max() < 1e-12


def test_single_atoms_and_what_sees_nothing(learnt: EnvironmentDatabase, plain: EnvironmentDatabase, rattled) -> None:
    apart = Atoms("CH", [[0, 0, 0], [0, 0, 9.0]])
    start = rattled(molecule("H2O"))
    for database in (learnt, plain):
        for settings in ({"restraint": 0.2}, {"restraint": 0.0}, {"restraint": 0.2, "dtype": "float32"}):
            results = relax([Atoms("H"), apart, start], database, curvature_probes=8, **{**USUAL, **settings})
            assert [r.status for r in results] == ["converged"] * 3
            for result, atoms in zip(results, (Atoms("H"), apart), strict=False):
                assert np.array_equal(result.atoms.positions, atoms.positions)
            assert rmsd(results[2].atoms, start) > 1e-3


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("restraint", -0.1),
        ("restraint", float("nan")),
        ("restraint", float("inf")),
        ("restraint", 1e7),
        ("restraint", "much"),
        ("restraint", True),
        ("curvature_probes", -1),
        ("curvature_probes", 1.5),
        ("curvature_probes", 1001),
        ("curvature_probes", True),
        ("curvature_probes", None),
    ],
)
def test_settings_that_are_not_allowed(name: str, value: Any) -> None:
    with pytest.raises(LosikoError, match=name) as info:
        RelaxSettings.from_dict({name: value})
    assert "\n" not in str(info.value)
