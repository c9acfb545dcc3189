"""Settings of a learnt metric, its parts, and databases that have one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from aiida_losiko.core import EnvironmentDatabase, LosikoError, SoapPowerSpectrum
from aiida_losiko.core.environments.metric import (
    FEWEST_STRUCTURES,
    LearntMetric,
    MetricSettings,
    expected_scatter,
    soft_weights,
)
from aiida_losiko.core.environments.subspace import displaced, find_subspaces, normalised

SMALL = {"n_components": 20, "n_structures": 15}


# Settings


def test_settings_go_through_json() -> None:
    settings = MetricSettings(n_components=7, n_neighbors=(3, 1), displacement=0.2, n_structures=9, shrinkage=0.5)
    assert MetricSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert MetricSettings.from_dict({}) == MetricSettings()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_component": 3}, "metric.n_component'.*did you mean 'n_components'"),
        ({"n_components": 0}, "metric.n_components=0"),
        ({"n_components": 1.5}, "metric.n_components=1.5"),
        ({"n_components": True}, "metric.n_components=True"),
        ({"n_structures": -1}, "metric.n_structures=-1"),
        ({"n_neighbors": []}, r"metric.n_neighbors=\[\]"),
        ({"n_neighbors": 8}, "metric.n_neighbors=8"),
        ({"n_neighbors": "8"}, "metric.n_neighbors='8'"),
        ({"n_neighbors": [8, 0]}, r"metric.n_neighbors=\[8, 0\]"),
        ({"displacement": 0}, "metric.displacement=0"),
        ({"displacement": float("nan")}, "metric.displacement=nan"),
        ({"shrinkage": 2}, "metric.shrinkage=2"),
        ({"shrinkage": "much"}, "metric.shrinkage='much'"),
    ],
)
def test_settings_that_are_not_allowed(values: dict, words: str, soap: SoapPowerSpectrum) -> None:
    with pytest.raises(LosikoError, match=words):
        EnvironmentDatabase.build([molecule("H2O")], soap, metric=values)


def test_a_metric_is_a_mapping(soap: SoapPowerSpectrum) -> None:
    with pytest.raises(LosikoError, match="metric='learn'"):
        EnvironmentDatabase.build([molecule("H2O")], soap, metric="learn")  # type: ignore[arg-type]


# Weights


def test_weights_of_targets_fall_with_the_distance() -> None:
    weights = soft_weights(torch.tensor([[1.0, 1.0, 3.0, torch.inf], [50.0, 51.0, torch.inf, torch.inf]]))
    assert weights.sum(1).tolist() == pytest.approx([1, 1])
    assert weights[0, 0] == weights[0, 1] > weights[0, 2] > 0
    assert weights[0, 3] == weights[1, 2] == 0
    assert weights[1, 0] > 0.999
    # Nothing was found at all: no NaN, and the caller gives it no weight.
    assert torch.isfinite(soft_weights(torch.full((1, 2), torch.inf))).all()


def test_scatter_is_a_power_of_the_distance_within_limits() -> None:
    trust = torch.tensor([1.5, 2.0, 1.0], dtype=torch.float64)
    distances = torch.tensor([np.e, np.e**1.25, 0.0, 1e6, np.inf], dtype=torch.float64)
    assert expected_scatter(distances, trust).tolist() == pytest.approx([1.0, np.exp(0.75), 1 / 30, 30, 30])


# Subspaces


def test_subspaces_are_orthonormal_and_hold_what_differs(organic: dict[str, Atoms], soap: SoapPowerSpectrum) -> None:
    structures = list(organic.values())
    wide = find_subspaces(structures, soap, MetricSettings(n_components=1000), seed=0)
    narrow = find_subspaces(structures, soap, MetricSettings(n_components=5), seed=0)
    assert list(wide) == ["H", "C", "N", "O"]
    for symbol, basis in wide.items():
        assert basis.dtype == torch.float32 and basis.shape[0] == soap.n_features
        assert basis.T @ basis == pytest.approx(np.eye(basis.shape[1]), abs=1e-5)
        assert narrow[symbol].shape[1] == 5
        assert (narrow[symbol] - basis[:, :5]).abs().max() < 1e-5
        # Known environments differ within it.
        vectors = np.concatenate([normalised(a, soap)[a.symbols == symbol] for a in structures])
        centred = vectors - vectors.mean(0)
        left = centred - centred @ basis.double().numpy() @ basis.double().numpy().T
        assert np.linalg.norm(left, axis=1).max() < 0.02 * np.linalg.norm(centred, axis=1).max()
        # The largest variance comes first.
        variance = (centred @ basis.double().numpy()).var(0)
        assert variance[:5].sum() > variance[5:].sum()


def test_a_species_that_is_rare_or_alone_has_a_subspace(soap: SoapPowerSpectrum) -> None:
    settings = MetricSettings(n_components=50)
    found = find_subspaces([molecule("CH4")] * 30 + [molecule("HCN")], soap, settings, seed=0)
    # One atom and its displaced copy differ in one direction.
    assert found["N"].shape[1] == 1 < found["H"].shape[1]
    (alone,) = find_subspaces([Atoms("H")], soap, settings, seed=0).values()
    assert alone.shape == (soap.n_features, 1)
    assert float(alone.norm()) == pytest.approx(1, abs=1e-6)


def test_a_large_cell_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiida_losiko.core.environments.subspace._ROWS", 6)
    silicon = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=5, l_max=4, sigma=0.3)
    cell = displaced(bulk("Si", cubic=True) * (2, 1, 1), 0.1, np.random.default_rng(0))
    basis = find_subspaces([cell], silicon, MetricSettings(n_components=100), seed=0)["Si"]
    # Six of sixteen atoms, and the same of the copy.
    assert basis.shape[1] == 11


# Databases


def test_vectors_are_coordinates_in_the_subspaces(
    learnt: EnvironmentDatabase, plain: EnvironmentDatabase, soap: SoapPowerSpectrum
) -> None:
    assert learnt.n_environments == plain.n_environments
    for symbol in learnt.n_environments:
        basis = learnt.metric.basis[symbol]
        expected = plain.vectors(symbol).double() @ basis.double()
        assert learnt.vectors(symbol).shape == (learnt.n_environments[symbol], basis.shape[1])
        assert torch.allclose(learnt.vectors(symbol).double(), expected, atol=1e-6)
        assert learnt.origins(symbol, 3) == plain.origins(symbol, 3)
    assert learnt.min_distances == plain.min_distances


def test_equal_structures_give_equal_files(organic: dict[str, Atoms], soap: SoapPowerSpectrum, tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        database = EnvironmentDatabase.build(iter(organic.values()), soap, iter(organic), metric=SMALL, seed=seed)
        database.save(tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_saved_and_loaded_it_is_the_same(learnt: EnvironmentDatabase, tmp_path: Path) -> None:
    learnt.save(tmp_path / "learnt.db")
    loaded = EnvironmentDatabase.load(tmp_path / "learnt.db", verify=True)
    assert loaded.metric.settings == learnt.metric.settings
    before, after = learnt.metric.tensors(), loaded.metric.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.reach == learnt.reach
    assert loaded.summary() == learnt.summary()
    loaded.save(tmp_path / "again.db")
    assert (tmp_path / "again.db").read_bytes() == (tmp_path / "learnt.db").read_bytes()
    assert loaded.file == tmp_path / "learnt.db"


def test_an_altered_metric_is_noticed(learnt: EnvironmentDatabase, tmp_path: Path) -> None:
    learnt.save(tmp_path / "learnt.db")
    content = (tmp_path / "learnt.db").read_bytes()
    part = learnt.metric.stages[1].match["N"].numpy().tobytes()
    assert content.count(part) == 1
    where = content.index(part) + 5
    (tmp_path / "learnt.db").write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
    with pytest.raises(LosikoError, match="checksum of 'match/1/N' is wrong"):
        EnvironmentDatabase.load(tmp_path / "learnt.db").searcher("N")


def test_the_summary_says_that_a_metric_was_learnt(learnt: EnvironmentDatabase, plain: EnvironmentDatabase) -> None:
    assert json.loads(json.dumps(learnt.summary()))["metric"] == learnt.metric.settings.to_dict()
    assert plain.summary()["metric"] is None and plain.metric is None


def test_few_structures_teach_nothing(organic: dict[str, Atoms], soap: SoapPowerSpectrum, tmp_path: Path) -> None:
    few = list(organic.values())[: FEWEST_STRUCTURES - 1]
    database = EnvironmentDatabase.build(few, soap, metric=SMALL)
    assert database.metric is None and database.summary()["metric"] is None
    assert database.settings["metric"]["n_components"] == 20
    assert database.vectors("H").shape[1] == soap.n_features
    database.save(tmp_path / "few.db")
    assert EnvironmentDatabase.load(tmp_path / "few.db").metric is None
    enough = [*few, organic["NO2"]]
    assert EnvironmentDatabase.build(enough, soap, metric=SMALL).metric is not None


def test_match_is_exact_in_the_metric_of_the_last_stage(learnt: EnvironmentDatabase, organic: dict, rattled) -> None:
    vectors = normalised(rattled(organic["CH3CHO"]), learnt.descriptor)[organic["CH3CHO"].symbols == "H"]
    matrix = learnt.metric.stages[-1].match["H"].double()
    known = (learnt.vectors("H") @ matrix.float()).double()
    queries = torch.from_numpy(vectors) @ learnt.metric.basis["H"].double() @ matrix
    expected, order = torch.cdist(queries, known).sort(dim=1)
    distances, indices = learnt.match(3.7 * vectors, "H", k=4)
    assert distances == pytest.approx(expected[:, :4].numpy(), rel=1e-5)
    assert (indices == order[:, :4].numpy()).all()
    assert learnt.match(torch.from_numpy(vectors), "H")[1][:, 0].tolist() == indices[:, 0].tolist()
    with pytest.raises(LosikoError, match="k=99"):
        learnt.match(vectors, "H", k=99)
    with pytest.raises(LosikoError, match="zeros"):
        learnt.match(0 * vectors, "H")


def test_each_stage_has_a_search_of_its_own(learnt: EnvironmentDatabase) -> None:
    searchers = [learnt.searcher("C", stage=stage) for stage in range(3)]
    assert len(set(map(id, searchers))) == 3
    assert learnt.searcher("C") is searchers[2] is learnt.searcher("C", stage=-1)
    # The first has to look through the noise of the starts: distances in it are shorter.
    assert searchers[0].vectors.std(0).sum() < searchers[2].vectors.std(0).sum()


def test_without_keeps_the_metric(learnt: EnvironmentDatabase, organic: dict, tmp_path: Path) -> None:
    # The oxygens of ozone are the only ones of three in a row: their environments go with it.
    left = learnt.without(["O3", "CH4"])
    assert "O3" not in left.sources and left.n_environments["O"] < learnt.n_environments["O"]
    assert left.reach == learnt.reach
    before, after = learnt.metric.tensors(), left.metric.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    left.save(tmp_path / "left.db")
    assert EnvironmentDatabase.load(tmp_path / "left.db").metric is not None
    oxygens = normalised(organic["O3"], learnt.descriptor)
    assert learnt.match(oxygens, "O")[0].max() < 1e-3 < left.match(oxygens, "O")[0].min()


def test_without_all_of_a_species(learnt: EnvironmentDatabase, organic: dict) -> None:
    left = learnt.without([name for name, atoms in organic.items() if "N" in atoms.symbols])
    assert list(left.n_environments) == list(left.reach) == ["H", "C", "O"]
    with pytest.raises(LosikoError, match="species N"):
        left.searcher("N")


def test_leave_one_out_is_in_the_metric(learnt: EnvironmentDatabase) -> None:
    database = learnt.without([])
    alone = database.only_source("N").numpy()
    vectors = database.searcher("N").vectors.double()
    distances = torch.cdist(vectors, vectors).numpy()
    distances[alone[:, None] == alone] = np.inf
    expected = np.where(alone < 0, 0, distances.min(1))
    assert database.leave_one_out("N") == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_thinned_vectors_and_types(organic: dict[str, Atoms], soap: SoapPowerSpectrum) -> None:
    thinned = EnvironmentDatabase.build(
        organic.values(), soap, metric=SMALL, selection="farthest", max_environments=12, dtype="float64"
    )
    assert set(thinned.n_environments.values()) == {12}
    assert thinned.vectors("H").dtype == torch.float64
    assert all(reach > 0 for reach in thinned.reach.values())


def test_tensors_put_together_are_the_metric(learnt: EnvironmentDatabase) -> None:
    metric = learnt.metric
    copy = LearntMetric.of(metric.settings.to_dict(), {"vectors/H": torch.zeros(1), **metric.tensors()})
    assert [stage.n_neighbors for stage in copy.stages] == [8, 4, 1]
    assert copy.tensors().keys() == metric.tensors().keys()
