"""Structures that collapse or explode are flagged, and the last sane one is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum, relax
from aiida_losiko.core.neighbors import StructureBatch, close_pairs
from aiida_losiko.core.objective import LocalSimilarityObjective
from aiida_losiko.core.relaxation.best import Best
from aiida_losiko.core.relaxation.sanity import BITS, COLLAPSE, Sanity, flags_of, structure_flags
from aiida_losiko.core.relaxation.snapshot import Snapshot

SHORTEST = 2.35  # Angstrom, in silicon


@pytest.fixture(scope="module")
def silicon_soap() -> SoapPowerSpectrum:
    return SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=6, l_max=4, sigma=0.4)


@pytest.fixture(scope="module")
def silicon(silicon_soap: SoapPowerSpectrum) -> EnvironmentDatabase:
    return EnvironmentDatabase.build([bulk("Si")], silicon_soap)


@pytest.fixture(scope="module")
def dimer(silicon_soap: SoapPowerSpectrum) -> EnvironmentDatabase:
    return EnvironmentDatabase.build([Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]])], silicon_soap)


@pytest.fixture
def doubled() -> Atoms:
    """Silicon twice, which looks like silicon to a normalised descriptor once the atoms are on each other."""
    second = bulk("Si", cubic=True)
    second.positions += [1.75, 0.3, 0.1]
    return bulk("Si", cubic=True) + second


def shortest(atoms: Atoms) -> float:
    return float(close_pairs(atoms, 4.0)[2].min())


@pytest.mark.parametrize("optimizer", ["lbfgs", "fire", "L-BFGS-B"])
def test_a_collapse(optimizer: str, doubled: Atoms, silicon: EnvironmentDatabase) -> None:
    assert structure_flags(doubled, doubled, silicon) == ()
    (result,) = relax(doubled, silicon, repulsion=0.0, optimizer=optimizer)
    assert result.flags == ("collapsed",) and result.status == "stalled" and not result.converged
    assert structure_flags(result.atoms, doubled, silicon) == ()
    assert shortest(result.atoms) >= COLLAPSE * SHORTEST - 0.01
    # There was more to be had by what is not sane; what is given is not worse than the start.
    assert min(result.loss_history) < 0.8 * result.loss and result.loss <= result.initial_loss
    (again,) = relax(result.atoms, silicon, repulsion=0.0, max_steps=0)
    assert again.initial_loss == pytest.approx(result.loss, rel=1e-9)
    assert again.matches.distance == pytest.approx(result.matches.distance, rel=1e-9)


def test_repulsion_prevents_it(doubled: Atoms, silicon: EnvironmentDatabase) -> None:
    (result,) = relax(doubled, silicon)
    assert result.flags == () and result.converged


@pytest.mark.parametrize("optimizer", ["fire", "L-BFGS-B"])
def test_an_explosion(optimizer: str, dimer: EnvironmentDatabase) -> None:
    """To become dimers a crystal has to fly apart, and loses atoms on the way."""
    start = bulk("Si", cubic=True)
    (result,) = relax(start, dimer, relax_cell=True, repulsion=0.0, max_steps=100, optimizer=optimizer)
    assert result.flags == ("exploded_cell", "lost_atoms") and result.status == "stalled"
    assert structure_flags(result.atoms, start, dimer) == ()
    assert 1 < result.atoms.cell.volume / start.cell.volume <= 3
    assert min(result.loss_history) < result.loss < result.initial_loss


def test_a_start_of_the_wrong_volume_is_no_explosion(silicon: EnvironmentDatabase) -> None:
    start = bulk("Si")
    start.set_cell(0.62 * start.cell.array, scale_atoms=True)
    (result,) = relax(start, silicon, relax_cell=True, max_steps=300)
    assert result.flags == ("exploded_cell",) and result.converged and result.loss < 1e-3
    assert result.atoms.cell.volume == pytest.approx(bulk("Si").cell.volume, rel=0.05)


def test_batch_mates_do_not_notice(doubled: Atoms, silicon: EnvironmentDatabase) -> None:
    mate = bulk("Si", cubic=True)
    mate.rattle(0.1, seed=1)
    settings = {"repulsion": 0.0, "max_steps": 40}
    (alone,) = relax(mate, silicon, **settings)
    _, together = relax([doubled, mate], silicon, **settings)
    assert alone.flags == together.flags == ()
    assert np.array_equal(alone.atoms.positions, together.atoms.positions) and alone.status == together.status


def verdicts(structures: list[Atoms], starts: list[Atoms], database: EnvironmentDatabase) -> list[int]:
    batch = StructureBatch.from_atoms(structures)
    objective = LocalSimilarityObjective(batch, database)
    evaluation = objective.evaluate(batch.positions)
    # No atom is where it belongs: a volume counts.
    sanity = Sanity(batch, database, torch.full_like(evaluation.distance, -1.0), starts)
    everything = sanity.judge(batch, *objective.distances, evaluation.distance)
    keep = torch.arange(len(structures)) % 2 == 0
    objective.keep(keep)
    sanity.keep(keep, keep[batch.structure_index])
    half = objective.evaluate(objective.batch.positions)
    assert sanity.judge(objective.batch, *objective.distances, half.distance).tolist() == everything[keep].tolist()
    return everything.tolist()


def test_verdicts_are_those_of_the_flags(silicon: EnvironmentDatabase) -> None:
    rng = np.random.default_rng(0)
    starts, structures = [], []
    for number in range(60):
        start = bulk("Si", cubic=bool(number % 3)) if number % 4 else Atoms("Si3", rng.normal(0, 3, (3, 3)))
        moved = start.copy()
        if start.pbc.all():
            moved.set_cell(start.cell.array * rng.uniform(0.6, 2.2), scale_atoms=True)
        moved.positions += rng.normal(0, 0.3, moved.positions.shape)
        starts.append(start)
        structures.append(moved)
    expected = [structure_flags(a, b, silicon) for a, b in zip(structures, starts, strict=True)]
    wanted = [tuple(flag for flag in flags if flag in BITS) for flags in expected]
    assert [flags_of(verdict) for verdict in verdicts(structures, starts, silicon)] == wanted
    # All of them, and what is sane, were among these.
    assert {*BITS} == {flag for flags in wanted for flag in flags} and () in wanted


def test_single_atoms_have_nothing_to_lose(silicon: EnvironmentDatabase) -> None:
    assert verdicts([Atoms("Si", [[0, 0, 0]]), Atoms("Si2", [[0, 0, 0], [9, 0, 0]])], [], silicon) == [0, 4]


class Course:
    """Losses and verdicts of one structure, one after the other."""

    def __init__(self, loss: float, verdict: int = 0) -> None:
        self.n = 0
        self.best = Best(self._place(), torch.tensor([loss]), torch.tensor([verdict]))

    def go(self, loss: float, verdict: int = 0, converged: bool = False) -> Course:
        self.n += 1
        values = torch.tensor([loss]), torch.tensor([verdict]), torch.tensor([True])
        self.best.compare(torch.tensor([0]), self._place(), *values)
        self.best.settle(torch.tensor([converged]), torch.tensor([loss]))
        return self

    def outcome(self) -> tuple[int, float, tuple[str, ...], int]:
        """The number of the state to give back, its loss, flags, and the number of that to hop from."""
        state, loss, flags = self.best.outcome(0)
        return int(state.rows[0, 0]), round(loss, 4), flags, int(self.best.origin(torch.tensor([0])).rows[0, 0])

    def _place(self) -> Snapshot:
        place = torch.full((1, 3), float(self.n))
        return Snapshot(place, place, torch.zeros(1, 3, 3), place[:, 0], place[:, 0].long())


@pytest.mark.parametrize(
    ("course", "outcome"),
    [
        (Course(3.0).go(2.0).go(1.0, converged=True), (2, 1.0, (), 2)),
        (Course(3.0).go(2.0).go(1.0, 1, converged=True), (1, 2.0, ("collapsed",), 1)),
        (Course(3.0).go(2.0).go(1.5, 2).go(1.0, 6), (1, 2.0, ("exploded_cell", "lost_atoms"), 1)),
        # From an atom that is alone a hop leads back.
        (Course(3.0).go(2.0).go(1.0, 4), (1, 2.0, ("lost_atoms",), 2)),
        # It came back.
        (Course(3.0).go(2.0, 1).go(1.0), (2, 1.0, (), 2)),
        (Course(3.0).go(1.0, 1).go(2.0), (2, 2.0, ("collapsed",), 2)),
        # It never was sane: the lowest loss.
        (Course(3.0, 1).go(2.0, 1).go(1.0, 4), (2, 1.0, (), 2)),
        (Course(3.0, 1).go(2.0, 1).go(2.5), (2, 2.5, ("collapsed",), 2)),
        # A hop from a minimum that goes wrong.
        (Course(3.0).go(2.0, converged=True).go(9.0).go(1.0, 1, converged=True), (1, 2.0, (), 1)),
    ],
)
def test_the_best(course: Course, outcome: tuple[int, float, tuple[str, ...], int]) -> None:
    assert course.outcome() == outcome


def test_molecules_with_a_learnt_metric_are_judged_in_every_stage(learnt: EnvironmentDatabase) -> None:
    close = molecule("CH3OH")
    close.positions[2] = close.positions[3] + [0.3, 0, 0]
    (stuck,) = relax(close, learnt, max_steps=0)
    assert stuck.flags[0] == "collapsed"
    (result,) = relax(close, learnt, repulsion=100.0)
    assert "collapsed" not in result.flags
