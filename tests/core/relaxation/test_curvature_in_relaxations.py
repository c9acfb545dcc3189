"""When relaxations estimate the curvature, and that nothing else depends on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum, relax
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.objective import Evaluation, LocalSimilarityObjective
from aiida_losiko.core.relaxation import batch, jobs

USUAL: dict[str, Any] = {
    "relative_loss_tolerance": 0.02,
    "max_step_length": 0.2,
    "repulsion": 100.0,
    "restraint": 0.2,
    "curvature_probes": 8,
}


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of draws of all evaluations."""
    asked: list[int] = []
    evaluate = LocalSimilarityObjective.evaluate

    def remember(self: LocalSimilarityObjective, positions: Any, cells: Any = None, n_probes: int = 0) -> Evaluation:
        asked.append(n_probes)
        return evaluate(self, positions, cells, n_probes)

    monkeypatch.setattr(LocalSimilarityObjective, "evaluate", remember)
    return asked


def test_the_first_evaluation_of_each_stage_has_them(
    learnt: EnvironmentDatabase, organic: dict, rattled, probes: list[int]
) -> None:
    (result,) = relax(rattled(organic["CH3OH"]), learnt, **USUAL)
    assert len(probes) == result.evaluations and probes[0] == 8
    assert sorted(probes)[-3:] == [8, 8, 8] and set(sorted(probes)[:-3]) == {0}


@pytest.mark.parametrize(
    "changes", [{"curvature_probes": 0}, {"optimizer": "fire"}, {"optimizer": "L-BFGS-B"}, {"relax_cell": True}]
)
def test_where_there_are_none(
    changes: dict, learnt: EnvironmentDatabase, organic: dict, rattled, probes: list[int]
) -> None:
    relax(rattled(organic["H2O"]), learnt, **{**USUAL, **changes, "max_steps": 5})
    assert probes and not any(probes)


def test_large_structures_have_none(
    learnt: EnvironmentDatabase, organic: dict, rattled, probes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (batch, jobs):
        monkeypatch.setattr(module, "LARGEST_WITH_CURVATURE", 5)
    relax(rattled(organic["CH3OH"]), learnt, **{**USUAL, "max_steps": 2})
    assert probes and not any(probes)
    probes.clear()
    relax(rattled(organic["HCN"]), learnt, **{**USUAL, "max_steps": 2})
    assert sum(probes) == 24


def test_a_large_structure_changes_nothing_for_the_others(
    learnt: EnvironmentDatabase, organic: dict, rattled, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (batch, jobs):
        monkeypatch.setattr(module, "LARGEST_WITH_CURVATURE", 5)
    start, large = rattled(organic["H2CO"]), rattled(organic["CH3CHO"])
    alone, among = relax(start, learnt, **USUAL)[0], relax([start, large], learnt, **USUAL)[0]
    assert rmsd(alone.atoms, among.atoms) < 1e-5 and alone.evaluations == among.evaluations


@pytest.mark.parametrize("kind", ["learnt", "plain"])
def test_the_same_again(kind: str, organic: dict, rattled, request: pytest.FixtureRequest) -> None:
    """And nearly the same among others of other sizes; of one kind of structure, so that they share a batch."""
    database = request.getfixturevalue(kind)
    starts = [rattled(organic[name], 0.1, k) for k, name in enumerate(("CH3OH", "CH3CHO", "CH3CH2OH", "H2CO"))]
    first, again = (relax(starts, database, **USUAL) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.atoms.positions, b.atoms.positions)
        assert a.loss_history == b.loss_history
    for start, result in zip(starts, first, strict=True):
        assert rmsd(relax(start, database, **USUAL)[0].atoms, result.atoms) < 1e-5


def test_nothing_to_relax(learnt: EnvironmentDatabase) -> None:
    assert relax([], learnt, **USUAL) == []


def test_a_crystal_needs_fewer_evaluations(rattled) -> None:
    soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=4, l_max=3, sigma=0.4)
    known = [bulk("Si", cubic=True, a=5.43 * (1 + s)) for s in np.linspace(-0.02, 0.02, 20)]
    metric = {"n_components": 20, "n_structures": 15, "n_neighbors": [4, 1]}
    database = EnvironmentDatabase.build(known, soap, metric=metric)
    start: Atoms = rattled(bulk("Si", cubic=True, a=5.43), 0.1)
    exact = {**USUAL, "relative_loss_tolerance": 1e-6}
    without, with_them = (relax(start, database, **{**exact, "curvature_probes": n})[0] for n in (0, 16))
    assert rmsd(without.atoms, with_them.atoms) < 5e-3
    assert with_them.evaluations < without.evaluations
