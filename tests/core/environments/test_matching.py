"""The nearest environments are the true ones, in one search and along a trajectory."""

from __future__ import annotations

import pytest
import torch

from aiida_losiko.core.environments.matching import NearestEnvironments, principal_basis
from aiida_losiko.core.environments.tracking import TrackedNearest
from aiida_losiko.core.errors import LosikoError


def brute(queries, vectors, k):
    difference = vectors.double()[None] - queries.double()[:, None]
    distances = torch.linalg.vector_norm(difference, dim=2)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return distances.gather(1, order), order


def unit(vectors):
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def random_vectors(kind, n, dim, dtype, seed=0):
    """Vectors that are spread out, in clusters, of low rank, or partly the same."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "random":
        return unit(torch.randn(n, dim, generator=generator, dtype=dtype))
    if kind == "low rank":
        mixing = torch.randn(3, dim, generator=generator, dtype=dtype)
        return unit(1.0 + 0.2 * torch.randn(n, 3, generator=generator, dtype=dtype) @ mixing)
    centres = 1.0 + 0.3 * torch.randn(12, dim, generator=generator, dtype=dtype)
    vectors = centres[torch.randint(12, (n,), generator=generator)]
    if kind == "clustered":
        vectors = vectors + 1e-4 * torch.randn(n, dim, generator=generator, dtype=dtype)
    return unit(vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "dim"), [(1, 4), (2, 30), (150, 7), (150, 300), (4500, 40)])
@pytest.mark.parametrize("kind", ["random", "low rank", "clustered", "duplicates"])
def test_search_is_exact(kind, n, dim, dtype):
    vectors = random_vectors(kind, n, dim, dtype)
    generator = torch.Generator().manual_seed(1)
    near = vectors[torch.randint(n, (8,), generator=generator)]
    near = near + 1e-3 * torch.randn(8, dim, generator=generator, dtype=dtype)
    queries = torch.cat([unit(near), vectors[:3], random_vectors("random", 5, dim, dtype, seed=3)])
    searcher = NearestEnvironments(vectors, n_components=16)
    for k in {1, min(5, n), min(40, n)}:
        distances, indices = searcher.search(queries, k)
        expected, order = brute(queries, vectors, k)
        torch.testing.assert_close(distances, expected, rtol=1e-12, atol=1e-15)
        assert torch.equal(indices, order)


def test_all_neighbours_can_be_asked_for():
    vectors = random_vectors("random", 4500, 5, torch.float32)
    distances, indices = NearestEnvironments(vectors).search(vectors[:2], 4500)
    assert torch.equal(indices.sort(1).values, torch.arange(4500).expand(2, -1))
    assert bool((distances.diff(dim=1) >= 0).all())


def test_distances_near_zero_keep_their_digits():
    vectors = random_vectors("random", 500, 100, torch.float64)
    shift = 1e-11 * torch.ones(100, dtype=torch.float64)
    distances, indices = NearestEnvironments(vectors).search(vectors[:10] + shift)
    assert torch.equal(indices[:, 0], torch.arange(10))
    torch.testing.assert_close(distances, torch.full((10, 1), 1e-10, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("n", [60, 4500])
def test_excluded_groups_are_not_found(n):
    vectors = random_vectors("random", n, 10, torch.float32)
    groups = torch.arange(n) // 20
    groups[7] = -1
    distances, indices = NearestEnvironments(vectors).search(vectors[:40], 3, exclude=(groups, groups[:40]))
    full, order = brute(vectors[:40], vectors, n)
    for row in range(40):
        allowed = [int(j) for j in order[row] if groups[j] != groups[row]][:3]
        assert indices[row].tolist() == allowed
        torch.testing.assert_close(distances[row], full[row][torch.isin(order[row], torch.tensor(allowed))])


def test_everything_excluded():
    vectors = random_vectors("random", 6, 10, torch.float32)
    groups = torch.tensor([0, 0, 0, 0, 0, 1])
    distances, indices = NearestEnvironments(vectors).search(vectors[:1], 2, exclude=(groups, groups[:1]))
    assert indices.tolist() == [[5, -1]]
    assert distances[0, 1] == torch.inf


def test_no_queries():
    distances, indices = NearestEnvironments(random_vectors("random", 6, 10, torch.float32)).search(
        torch.empty(0, 10), 2
    )
    assert distances.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("kind", ["random", "clustered", "duplicates"])
def test_tracking_equals_brute_force_along_a_walk(kind):
    vectors = random_vectors(kind, 700, 25, torch.float32)
    generator = torch.Generator().manual_seed(5)
    queries = unit(vectors[:30].double() + 0.05 * torch.randn(30, 25, generator=generator, dtype=torch.float64))
    tracked = TrackedNearest(NearestEnvironments(vectors, n_components=8), n_candidates=4)
    for step in range(60):
        length = 0.3 if step % 17 == 0 else 0.02 * 0.9**step
        queries = unit(queries + length * torch.randn(queries.shape, generator=generator, dtype=torch.float64))
        indices = tracked.update(queries)
        distances, expected = brute(queries, vectors, 1)
        assert torch.equal(indices, expected[:, 0])
        torch.testing.assert_close(tracked.distances, distances[:, 0])
        assert torch.equal(tracked.targets, vectors[expected[:, 0]].double())
        if step in (20, 40):
            mask = torch.rand(len(queries), generator=generator) < 0.7
            queries = queries[mask]
            tracked.keep(mask)


def test_tracking_among_many_environments_looks_at_the_remembered_ones_first():
    vectors = random_vectors("low rank", 9000, 12, torch.float32)
    generator = torch.Generator().manual_seed(9)
    queries = unit(vectors[::900].double() + 0.01 * torch.randn(10, 12, generator=generator, dtype=torch.float64))
    tracked = TrackedNearest(NearestEnvironments(vectors), n_candidates=200)
    for _ in range(30):
        queries = unit(queries + 3e-4 * torch.randn(queries.shape, generator=generator, dtype=torch.float64))
        _, expected = brute(queries, vectors, 1)
        assert torch.equal(tracked.update(queries), expected[:, 0])
    assert tracked.n_searched < 100


def test_tracking_spares_searches():
    vectors = random_vectors("random", 700, 25, torch.float32)
    queries = unit(vectors[:30] + 0.01)
    tracked = TrackedNearest(NearestEnvironments(vectors))
    for step in range(10):
        tracked.update(unit(queries + 1e-3 * step))
    assert tracked.n_searched == 30


def test_tracking_survives_queries_changed_in_place():
    vectors = random_vectors("clustered", 300, 12, torch.float64)
    queries = vectors[:20].clone()
    tracked = TrackedNearest(NearestEnvironments(vectors), n_candidates=2)
    tracked.update(queries)
    queries.copy_(vectors[20:40])
    assert torch.equal(tracked.update(queries), torch.arange(20, 40))


def test_tracking_with_fewer_environments_than_candidates():
    vectors = random_vectors("random", 3, 5, torch.float32)
    tracked = TrackedNearest(NearestEnvironments(vectors), n_candidates=16)
    assert tracked.update(vectors).tolist() == [0, 1, 2]
    assert tracked.update(vectors.flip(0)).tolist() == [2, 1, 0]


def test_errors():
    vectors = random_vectors("random", 6, 10, torch.float32)
    searcher = NearestEnvironments(vectors)
    with pytest.raises(LosikoError, match=r"expected \(M, 10\)"):
        searcher.search(vectors[:, :4])
    with pytest.raises(LosikoError, match=r"k=7 .* 1 to 6"):
        searcher.search(vectors, 7)
    with pytest.raises(LosikoError, match="NaN"):
        searcher.search(torch.full((1, 10), torch.nan))
    tracked = TrackedNearest(searcher)
    tracked.update(vectors)
    with pytest.raises(LosikoError, match="2 queries, 6 before"):
        tracked.update(vectors[:2])
    with pytest.raises(LosikoError, match="NaN"):
        tracked.update(vectors * torch.nan)
    with pytest.raises(LosikoError, match="n_candidates=0"):
        TrackedNearest(searcher, 0)
    with pytest.raises(LosikoError, match="at least 1"):
        NearestEnvironments(vectors[:0])


def test_basis_is_orthonormal_also_for_degenerate_samples():
    for vectors in (torch.ones(50, 8), random_vectors("low rank", 40, 200, torch.float32), torch.ones(1, 3)):
        basis, _ = principal_basis(vectors, 6)
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
