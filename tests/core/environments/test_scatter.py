"""The scatter of matches, and what a stage measures of the differences that its targets have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from aiida_losiko.core import EnvironmentDatabase, LosikoError, SoapPowerSpectrum, relax
from aiida_losiko.core.environments.covariance import covariance, measure_pull, whitening
from aiida_losiko.core.environments.metric import LearntMetric, MetricSettings, narrowing, scatter_directions

SMALL = {"n_components": 20, "n_structures": 15, "n_neighbors": [4, 1]}


def apart_of(n_atoms: int, k: int, r: int, seed: int = 0) -> torch.Tensor:
    """Differences of very different size, in some directions far more than in others."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(10, 0.01, r) * np.geomspace(0.1, 10, n_atoms)[:, None, None]
    return torch.as_tensor(rng.normal(size=(n_atoms, k, r)) * scale)


# Directions


@pytest.mark.parametrize(("k", "r"), [(4, 9), (9, 4), (1, 3), (5, 5)])
def test_directions_are_those_of_the_scatter(k: int, r: int) -> None:
    apart = apart_of(6, k, r)
    variance, axes = scatter_directions(apart)
    assert variance.shape == (6, k) and axes.shape == (6, k, r)
    for own, values, rows in zip(apart.numpy(), variance.numpy(), axes.numpy(), strict=True):
        scatter = own.T @ own / k
        assert rows.T @ np.diag(values) @ rows == pytest.approx(scatter, abs=1e-5 * abs(scatter).max())
        used = rows[values > 0]
        assert 1 <= len(used) <= min(k, r)
        assert used @ used.T == pytest.approx(np.eye(len(used)), abs=1e-8)
        assert not rows[values == 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_scatter_has_no_directions(dtype: torch.dtype) -> None:
    """One neighbour, which is the target; several of the same; no atoms at all."""
    for apart in (torch.zeros(3, 1, 5), torch.zeros(2, 4, 5), torch.zeros(0, 4, 5)):
        variance, axes = scatter_directions(apart.to(dtype))
        assert not variance.any() and not axes.any()
        rows = narrowing(variance, axes, torch.ones(len(apart), dtype=dtype), 2.0)
        assert rows.shape == apart.shape and not rows.any()


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 2e-3), (torch.float64, 1e-4)])
@pytest.mark.parametrize("strength", [0.0, 0.3, 20.0])
def test_narrowing_gives_the_inverse(dtype: torch.dtype, precision: float, strength: float) -> None:
    """(u + b S)^-1, of atoms that differ in u."""
    apart = apart_of(6, 4, 9)
    usual = torch.as_tensor(np.geomspace(0.5, 20, 6))
    rows = narrowing(*scatter_directions(apart.to(dtype)), usual.to(dtype), strength).double().numpy()
    for own, u, f in zip(apart.numpy(), usual.tolist(), rows, strict=True):
        expected = np.linalg.inv(u * np.eye(9) + strength * own.T @ own / 4)
        assert (np.eye(9) - f.T @ f) / u == pytest.approx(expected, abs=precision / u)


# Measuring


def drawn(n: int, g: float, a: float, b: float, seed: int = 0) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, float]:
    """Normal differences of covariance E = a (d / e^m)^g C + b S, with distances d and what gives S."""
    rng = np.random.default_rng(seed)
    r, k = 8, 4
    distances = np.exp(rng.normal(0, 0.5, n))
    m = np.log(distances**2).mean()
    usual = a * (distances**2 / np.exp(m)) ** g
    apart = rng.normal(size=(n, k, r)) * np.exp(rng.normal(0, 0.7, (n, 1, 1))) / 2
    own = rng.normal(size=(n, r)) * np.sqrt(usual)[:, None]
    shared = np.einsum("nk,nkr->nr", rng.normal(size=(n, k)), apart) * np.sqrt(b / k)
    return own + shared, torch.as_tensor(distances), torch.as_tensor(apart), m


def test_the_power_of_the_distance_is_found_back() -> None:
    for g in (0.0, 0.5, 1.0):
        differences, distances, apart, m = drawn(4000, g, 1.0, 0.0)
        pull, trust, squared = measure_pull(differences, distances, 0 * apart, 0.01)
        assert trust[:2].tolist() == pytest.approx([g, m], abs=0.1)
        assert trust[3:].tolist() == [1.0, 0.0]
        # C is one in the space of the pull, but for the shrinkage: D is a sum over eight directions.
        assert squared.mean() == pytest.approx(8, rel=0.05)
        assert (pull @ pull.T).numpy() == pytest.approx(np.eye(8), abs=0.15)
    # No more than that, and not less than none.
    for g, expected in ((3.0, 1.5), (-1.0, 0.0)):
        assert float(measure_pull(*drawn(2000, g, 1.0, 0.0)[:3], 0.01)[1][0]) == pytest.approx(expected, abs=1e-6)


def test_shares_of_distance_and_scatter_are_found_back() -> None:
    """Only their ratio is known beforehand: C is measured on the same differences."""
    for a, b in ((1.0, 0.0), (1.0, 0.5), (0.3, 1.0), (0.2, 2.0)):
        differences, distances, apart, _ = drawn(4000, 0.0, a, b)
        pull, trust, squared = measure_pull(differences, distances, apart, 1e-3)
        # In the space of the pull differences are one in all: a is that part of them which S does not have.
        share, strength = float(trust[3]), float(trust[4])
        assert share == pytest.approx(a / (a + b * float(apart.square().mean())), rel=0.3)
        assert strength == pytest.approx(b, rel=0.35, abs=0.01)
        assert squared.mean() == pytest.approx(8, rel=0.15)
        # By hand: these are (p - t)^T E^-1 (p - t).
        for k in (0, 7):
            own = (apart[k] @ pull.double()).numpy()
            expected = share * np.eye(8) * float((distances[k] ** 2 / trust[1].exp()) ** trust[0])
            y = differences[k] @ pull.double().numpy()
            assert squared[k] == pytest.approx(y @ np.linalg.solve(expected + strength * own.T @ own / 4, y), rel=1e-3)


@pytest.mark.filterwarnings("error")
def test_few_differences_and_none_at_all() -> None:
    for n in (0, 1, 49):
        differences, distances, apart, _ = (
            drawn(n, 1.0, 0.5, 1.0) if n else (np.zeros((0, 8)), *map(torch.zeros, ((0,), (0, 4, 8))), 0.0)
        )
        pull, trust, squared = measure_pull(differences, distances, apart, 0.01)
        assert trust.tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
        assert pull.shape == (8, 8) and pull.isfinite().all() and squared.shape == (n,)
        assert np.isfinite(squared).all()


@pytest.mark.filterwarnings("error")
def test_copies_have_nothing_to_measure() -> None:
    pull, trust, squared = measure_pull(
        np.zeros((60, 3)), torch.zeros(60).double(), torch.zeros(60, 4, 3).double(), 0.01
    )
    assert pull.isfinite().all() and trust.isfinite().all() and not squared.any()
    assert trust[0] == 0 and trust[3] > 0


def test_whitening_and_covariance() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    scatter = covariance(differences)
    assert scatter == pytest.approx(differences.T @ differences / 200)
    matrix = whitening(scatter, 0.1).double().numpy()
    largest = np.linalg.eigvalsh(scatter)[-1]
    x = rng.normal(size=5)
    expected = x @ np.linalg.solve(scatter + 0.1 * largest * np.eye(5), x)
    assert np.square(x @ matrix).sum() == pytest.approx(expected, rel=1e-5)
    # Of nothing that is known, a guess that is the same in all directions.
    guess = covariance(np.zeros((0, 5)))
    assert guess == pytest.approx(guess[0, 0] * np.eye(5)) and guess[0, 0] > 0


# Databases


def test_trust_has_all_numbers_and_goes_through_files(learnt: EnvironmentDatabase, tmp_path) -> None:
    learnt.save(tmp_path / "learnt.db")
    again = EnvironmentDatabase.load(tmp_path / "learnt.db").metric
    assert again.settings == learnt.metric.settings and again.settings.n_scatter == 16
    for stage, loaded in zip(learnt.metric.stages, again.stages, strict=True):
        for symbol, trust in stage.trust.items():
            assert trust.shape == (5,) and torch.equal(trust, loaded.trust[symbol])
            g, _, s, a, b = trust.tolist()
            assert 0 <= g <= 1.5 and s > 0 and 0.05 <= a <= 1 + 1e-6 and b >= 0
    # The matches of hydrogen disagree, and that tells something.
    assert all(float(stage.trust["H"][4]) > 0 for stage in learnt.metric.stages)


def test_a_metric_of_an_earlier_version_is_told_so(learnt: EnvironmentDatabase, tmp_path) -> None:
    """It had three numbers of trust, and no n_scatter."""
    old = learnt.without([])
    settings = {k: v for k, v in learnt.metric.settings.to_dict().items() if k != "n_scatter"}
    tensors = {name: t[:3] if name.startswith("trust") else t for name, t in learnt.metric.tensors().items()}
    with pytest.raises(LosikoError, match="anew"):
        old._metric = LearntMetric.of(settings, tensors)
        relax(molecule("H2O"), old)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many", None])
def test_n_scatter_is_a_whole_number(value: object) -> None:
    with pytest.raises(LosikoError, match=r"metric\.n_scatter") as info:
        MetricSettings.from_dict({"n_scatter": value})
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("n_scatter", [1, 2, 1000])
def test_any_number_of_neighbours_for_the_scatter(
    n_scatter: int, organic: dict[str, Atoms], soap: SoapPowerSpectrum, rattled
) -> None:
    """Fewer than a target is the mean of, and more than there are environments."""
    database = EnvironmentDatabase.build(organic.values(), soap, metric={**SMALL, "n_scatter": n_scatter})
    assert database.metric.settings.n_scatter == n_scatter
    known = rattled(organic["CH3OH"])
    (result,) = relax(known, database, repulsion=100.0, relative_loss_tolerance=0.01)
    assert result.converged and np.isfinite(result.loss)
    if n_scatter == 1:
        # The last stage has a single neighbour, which is its own target.
        assert all(float(trust[4]) == 0 for trust in database.metric.stages[1].trust.values())


def test_without_the_database_of_one_species_there_is_no_scatter(
    soap: SoapPowerSpectrum, organic: dict, rattled
) -> None:
    """A source that is left out leaves fewer environments than are wanted; one of them is enough."""
    known = {name: atoms for name, atoms in organic.items() if "N" not in atoms.symbols}
    known |= {name: organic[name] for name in ("HCN", "NH3")}
    database = EnvironmentDatabase.build(known.values(), soap, list(known), metric=SMALL).without(["HCN"])
    assert database.n_environments["N"] == 1
    (result,) = relax(rattled(organic["NH3"], 0.05), database, repulsion=100.0, relative_loss_tolerance=0.01)
    assert np.isfinite(result.loss) and {"NH3"} == {
        source for source, symbol in zip(result.matches.source, organic["NH3"].symbols, strict=True) if symbol == "N"
    }
