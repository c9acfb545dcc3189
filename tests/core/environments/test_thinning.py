"""Merging of duplicates and thinning, against the plain algorithms."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_losiko.core.environments.thinning import DuplicateMerger, farthest_points, thin
from aiida_losiko.core.errors import LosikoError


def merge_naively(vectors, tolerance):
    """One vector after the other: the first representative that is close, else a new one."""
    representatives: list[np.ndarray] = []
    joined = []
    for vector in vectors.astype(np.float64):
        close = [i for i, known in enumerate(representatives) if np.linalg.norm(vector - known) <= tolerance]
        if not close:
            close = [len(representatives)]
            representatives.append(vector)
        joined.append(close[0])
    return np.array(joined)


def choose_naively(vectors, n_wanted):
    vectors = vectors.astype(np.float64)
    chosen = [int(np.argmin(((vectors - vectors.mean(0)) ** 2).sum(1)))]
    while len(chosen) < n_wanted:
        distances = ((vectors[:, None] - vectors[None, chosen]) ** 2).sum(2).min(1)
        distances[chosen] = -1
        chosen.append(int(np.argmax(distances)))
    return np.array(chosen)


@pytest.mark.parametrize(
    ("n", "dim", "spread", "tolerance"),
    [
        (2500, 20, 0.01, 0.02),
        (2500, 2, 0.02, 0.05),
        (1500, 200, 0.003, 0.05),
        (1500, 5, 0.0, 0.0),
        (1200, 8, 1.0, 1e-4),
    ],
)
def test_merging_is_greedy_in_order(n, dim, spread, tolerance):
    rng = np.random.default_rng(0)
    vectors = 0.2 * rng.normal(size=(200, dim))[rng.integers(200, size=n)]
    vectors = (vectors + spread * rng.normal(size=(n, dim)) / np.sqrt(dim)).astype(np.float32)
    expected = merge_naively(vectors, tolerance)
    for n_parts in (1, 9):  # however the stream is cut
        merger = DuplicateMerger(dim, tolerance)
        joined = np.concatenate([merger.add(part) for part in np.array_split(vectors, n_parts)])
        np.testing.assert_array_equal(joined, expected)
        first = [int(np.argmax(joined == i)) for i in range(len(merger))]
        np.testing.assert_array_equal(merger.representatives, vectors[first])


def test_many_equal_vectors_are_one():
    merger = DuplicateMerger(3, 1e-4)
    assert set(merger.add(np.ones((3000, 3)))) == {0}
    assert len(merger) == 1


def test_chains_do_not_collapse():
    merger = DuplicateMerger(1, 1.0, "float64")
    assert merger.add(np.array([[0.0], [0.9], [1.8], [2.7], [0.95]])).tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("dim", [3, 60])
def test_farthest_points_are_those_of_the_plain_algorithm(dim):
    vectors = np.random.default_rng(1).normal(size=(400, dim)).astype(np.float32)
    np.testing.assert_array_equal(farthest_points(vectors, 60), choose_naively(vectors, 60))


def test_farthest_points_of_equal_vectors_are_distinct():
    assert sorted(farthest_points(np.ones((5, 2), dtype=np.float32), 4).tolist()) == [0, 1, 2, 3]


def test_thinning_is_deterministic_and_ordered():
    vectors = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    for selection in ("farthest", "random"):
        kept = thin(vectors, selection, 25, seed=3)
        np.testing.assert_array_equal(kept, thin(vectors, selection, 25, seed=3))
        assert len(kept) == 25
        assert bool((np.diff(kept) > 0).all())
    assert thin(vectors, "random", 25, seed=4).tolist() != thin(vectors, "random", 25, seed=3).tolist()
    assert len(thin(vectors, None, None, seed=0)) == len(thin(vectors, "farthest", 300, seed=0)) == 300


def test_errors():
    for tolerance in (-1.0, float("nan")):
        with pytest.raises(LosikoError, match="duplicate_tolerance"):
            DuplicateMerger(3, tolerance)
