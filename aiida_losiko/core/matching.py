"""Exact nearest-neighbour search among environments, and the same along a trajectory.

Both searches return the true nearest vectors, not likely ones: bounds only decide which distances have to be computed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from aiida_losiko.core.errors import LosikoError

_FAR = 1.0e30  # stands for "not to be found" in float32 products, where an infinity would breed NaN
_PAIR_ELEMENTS = 1 << 17  # numbers per chunk of exact differences, what a cache holds (1 MB)
_PRODUCT_ELEMENTS = 1 << 24  # numbers per chunk of lower bounds (64 MB)


class _Projection(NamedTuple):
    """An orthonormal basis (D, r), its origin (D,), and the projected environments (n_padded, r + 2) as float32."""

    basis: torch.Tensor
    mean: torch.Tensor
    rows: torch.Tensor
    width: int
    largest: float


def principal_basis(
    vectors: torch.Tensor, n_components: int, n_sample: int = 1024
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find orthonormal directions that hold most of the variance of some vectors.

    Parameters
    ----------
    vectors : Tensor, shape (N, D)
        Where the directions are sought; an evenly spaced sample is looked at.
    n_components : int
        Directions wanted at most; fewer are returned when N or D do not allow for more.
    n_sample : int
        Number of vectors that are looked at.

    Returns
    -------
    basis : Tensor, shape (D, r), float64
        Orthonormal columns, the largest variance first.
    mean : Tensor, shape (D,), float64
        Mean of the sample.
    """
    n = len(vectors)
    picked = torch.linspace(0, n - 1, min(n, n_sample), device=vectors.device).round().long()
    sample = vectors[picked].double()
    mean = sample.mean(0)
    sample = sample - mean
    r = min(n_components, *sample.shape)
    if sample.shape[0] <= sample.shape[1]:  # the smaller of the two symmetric eigenproblems
        _, modes = torch.linalg.eigh(sample @ sample.T)
        directions = sample.T @ modes[:, -r:].flip(1)
    else:
        _, modes = torch.linalg.eigh(sample.T @ sample)
        directions = modes[:, -r:].flip(1)
    # QR makes the columns orthonormal whatever the rank of the sample is.
    basis, _ = torch.linalg.qr(directions)
    return basis, mean


def pair_distances(
    queries: torch.Tensor, vectors: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Distances |queries[rows] - vectors[columns]| as norms of differences in float64, in chunks; shape (P,)."""
    result = torch.empty(len(rows), dtype=torch.float64, device=vectors.device)
    chunk = max(1, _PAIR_ELEMENTS // max(1, vectors.shape[1]))
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        difference = vectors[columns[part]].double()
        difference -= queries[rows[part]]
        result[part] = torch.linalg.vector_norm(difference, dim=1)
    return result


def _require_finite(numbers: torch.Tensor) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise LosikoError("queries hold NaN or infinite numbers: check the coordinates they were made from")


class NearestEnvironments:
    """Exact nearest and k nearest among the vectors of one block.

    With an orthonormal basis V around a point m and the norm r of what V leaves out, every distance is bounded by
    ``|p - q|^2 >= |V^T (p - q)|^2 + (r_p - r_q)^2``. The bounds of all pairs are one small float32 matrix product; only
    where the bound, less its own rounding error, lies below the k-th best distance found so far is the distance itself
    computed, in float64 as the norm of the difference. Equal distances are ordered by index.

    Parameters
    ----------
    vectors : Tensor, shape (N, D)
        The environments, float32 or float64, on the device where the search is to run. Kept, not copied.
    n_components : int
        Size of the basis at most.
    """

    def __init__(self, vectors: torch.Tensor, n_components: int = 96) -> None:
        """See the class."""
        if vectors.ndim != 2 or len(vectors) == 0:
            raise LosikoError(f"vectors of shape {tuple(vectors.shape)}: a search needs (N, D) with N of at least 1")
        self.vectors = vectors
        self._n_components = n_components
        self._lazy: _Projection | None = None

    def __len__(self) -> int:
        """Return the number of environments."""
        return len(self.vectors)

    @property
    def _projection(self) -> _Projection:
        """The projected environments, made on first use; columns: coordinates, residual norm, squared length."""
        if self._lazy is None:
            n, dim = self.vectors.shape
            basis, mean = principal_basis(self.vectors, self._n_components)
            width = 32 if n >= 4096 else 1
            rows = torch.zeros(math.ceil(n / width) * width, basis.shape[1] + 2, device=self.vectors.device)
            rows[n:, -1] = _FAR
            chunk = max(1, 4 * _PAIR_ELEMENTS // dim)
            for start in range(0, n, chunk):
                coordinates = self._coordinates(self.vectors[start : start + chunk], basis, mean)
                rows[start : start + len(coordinates), :-1] = coordinates
                rows[start : start + len(coordinates), -1] = coordinates.square().sum(1)
            largest = math.sqrt(float(rows[:n, -1].max()))
            self._lazy = _Projection(basis, mean, rows, width, largest)
        return self._lazy

    @staticmethod
    def _coordinates(vectors: torch.Tensor, basis: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Coordinates in the basis and the norm of what is left, (n, r + 1) in float64."""
        centred = vectors.double() - mean
        inside = centred @ basis
        left = (centred.square().sum(1) - inside.square().sum(1)).clamp_min(0).sqrt()
        return torch.cat([inside, left[:, None]], dim=1)

    def search(
        self,
        queries: torch.Tensor,
        k: int = 1,
        *,
        exclude: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the k nearest environments of each query.

        Parameters
        ----------
        queries : Tensor, shape (M, D)
            On the device of the environments, any floating type; not normalised here.
        k : int
            Number of neighbours, at most N.
        exclude : (Tensor of shape (N,), Tensor of shape (M,)), optional
            A group (integer) per environment and per query; pairs of the same group are left out of the search.

        Returns
        -------
        distances : Tensor, shape (M, k), float64
            Norms of the differences, ascending; infinity where `exclude` leaves fewer than k environments.
        indices : Tensor, shape (M, k), int64
            Row numbers of the environments; -1 where the distance is infinite.

        Raises
        ------
        LosikoError
            For queries of another length than the environments, NaN or infinite numbers, or k outside 1..N.
        """
        self._check(queries, k)
        queries = queries.detach().double()
        parts = []
        step = max(1, _PRODUCT_ELEMENTS // len(self._projection.rows))
        for start in range(0, len(queries), step):
            chunk = queries[start : start + step]
            groups = None if exclude is None else (exclude[0], exclude[1][start : start + step])
            parts.append(self._search_chunk(chunk, k, groups))
        if not parts:
            return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device)
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _check(self, queries: torch.Tensor, k: int) -> None:
        n, dim = self.vectors.shape
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise LosikoError(f"queries of shape {tuple(queries.shape)}: expected (M, {dim}), as the database has")
        if not 1 <= k <= n:
            raise LosikoError(f"k={k} neighbours asked for: allowed are 1 to {n}, the number of environments")

    def _search_chunk(
        self, queries: torch.Tensor, k: int, groups: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        basis, mean, rows, width, largest = self._projection
        m, n = len(queries), len(self)
        coordinates = self._coordinates(queries, basis, mean)
        length = coordinates.square().sum(1)
        _require_finite(length)
        # bounds[i, j] + length[i] is the squared lower bound; the length is left out so that one product does it all.
        left = torch.cat([-2.0 * coordinates, torch.ones_like(coordinates[:, :1])], dim=1).float()
        bounds = left @ rows.T
        if groups is not None:
            bounds[:, :n].masked_fill_(groups[0][None, :] == groups[1][:, None], _FAR)
        # Blocks are columns j, j + n_blocks, ...: their minimum is taken over whole rows, which vectorises.
        blocks = bounds.view(m, width, -1)
        lowest = blocks.amin(1) if width > 1 else bounds
        n_blocks = lowest.shape[1]
        worst = torch.full((m,), _FAR, dtype=torch.float64, device=queries.device)
        known = None
        if n_blocks >= k:
            # The k blocks with the lowest bounds name k environments; the farthest of them limits what has to be seen.
            values, picked = lowest.topk(k, largest=False)
            columns = blocks.gather(2, picked[:, None, :].expand(-1, width, -1)).argmin(1) * n_blocks + picked
            who = torch.arange(m, device=queries.device).repeat_interleave(k)
            found = pair_distances(queries, self.vectors, who, columns.reshape(-1).clamp_max(n - 1)).view(m, k)
            found[values > _FAR / 2] = math.inf
            worst = found.amax(1).square()
            bounds.scatter_(1, columns, _FAR)
            real = found.reshape(-1) < math.inf
            known = who[real], columns.reshape(-1)[real], found.reshape(-1)[real]
        # A product of n float32 terms errs by at most n * 2^-24 * |a| |b|, so this covers it twice, with the casts.
        margin = (rows.shape[1] + 12) * torch.finfo(torch.float32).eps * length.sqrt().clamp_min(largest).square()
        limit = (worst * (1.0 + 1.0e-12) - length + margin).clamp_max(_FAR / 2).float()
        limit = torch.nextafter(limit, torch.full_like(limit, math.inf))
        if width > 1:
            who, block = (lowest <= limit[:, None]).nonzero(as_tuple=True)
            inside, inner = (blocks[who, :, block] <= limit[who, None]).nonzero(as_tuple=True)
            who, columns = who[inside], inner * n_blocks + block[inside]
        else:
            who, columns = (bounds <= limit[:, None]).nonzero(as_tuple=True)
        found = pair_distances(queries, self.vectors, who, columns)
        if known is not None:
            who, columns, found = (torch.cat(both) for both in zip(known, (who, columns, found), strict=True))
        return _k_smallest(who, columns, found, m, k)


def _k_smallest(
    who: torch.Tensor, columns: torch.Tensor, found: torch.Tensor, m: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the k smallest distances of each of m queries, in order of distance, then index."""
    order = columns.argsort(stable=True)
    order = order[found[order].argsort(stable=True)]
    order = order[who[order].argsort(stable=True)]
    who, columns, found = who[order], columns[order], found[order]
    counts = torch.bincount(who, minlength=m)
    first = counts.cumsum(0) - counts
    ranks = torch.arange(len(who), device=who.device) - first[who]
    kept = ranks < k
    distances = torch.full((m, k), math.inf, dtype=torch.float64, device=found.device)
    indices = torch.full((m, k), -1, dtype=torch.int64, device=found.device)
    distances[who[kept], ranks[kept]] = found[kept]
    indices[who[kept], ranks[kept]] = columns[kept]
    return distances, indices


class _Memory(NamedTuple):
    """What the last full search of each query said."""

    reference: torch.Tensor  # (M, D) where the query was
    candidates: torch.Tensor  # (M, c) the nearest environments then
    distances: torch.Tensor  # (M, c) and how far they were
    horizon: torch.Tensor  # (M,) no other environment was nearer than this
    spread: torch.Tensor  # (M,) horizon less smallest distance, of the last search for all c candidates
    age: torch.Tensor  # (M,) updates since the search


class TrackedNearest:
    """Exact nearest environments of queries that move a little from call to call.

    The triangle inequality does most of the work. A full search leaves, per query, the c nearest environments at
    distances d_1..d_c from the place p of the search, and the distance h of the next one. At p' with |p' - p| = s,
    candidate i is at least d_i - s away and every other environment at least h - s: only candidates that can beat the
    last winner are computed, and only a query whose best exceeds h - s is searched in full again.

    Parameters
    ----------
    searcher : NearestEnvironments
        The environments.
    n_candidates : int
        Number c of remembered environments per query.

    Attributes
    ----------
    distances : Tensor, shape (M,), float64
        Distance of each query to its nearest environment after the last `update`.
    indices : Tensor, shape (M,), int64
        Those environments.
    n_searched : int
        Full searches of single queries so far.

    Examples
    --------
    >>> tracked = TrackedNearest(database.searcher("C"))  # doctest: +SKIP
    >>> indices = tracked.update(vectors)  # doctest: +SKIP
    >>> tracked.keep(still_running)  # doctest: +SKIP
    """

    def __init__(self, searcher: NearestEnvironments, n_candidates: int = 16) -> None:
        """See the class."""
        if n_candidates < 1:
            raise LosikoError(f"n_candidates={n_candidates}: at least 1 environment has to be remembered per query")
        self.searcher = searcher
        self.n_candidates = min(n_candidates, len(searcher))
        self.n_searched = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next update may bring any number of queries."""
        device = self.searcher.vectors.device
        self._memory: _Memory | None = None
        self.indices = torch.empty(0, dtype=torch.int64, device=device)
        self.distances = torch.empty(0, dtype=torch.float64, device=device)

    def keep(self, mask: torch.Tensor) -> None:
        """Drop queries, for instance of structures that have converged.

        Parameters
        ----------
        mask : Tensor, shape (M,), bool or int64
            True for the queries that stay, or their numbers.
        """
        if self._memory is not None:
            mask = mask.to(self.indices.device)
            self._memory = _Memory(*(part[mask] for part in self._memory))
            self.indices, self.distances = self.indices[mask], self.distances[mask]

    def targets(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the vectors of the nearest environments of the last update, shape (M, D)."""
        vectors = self.searcher.vectors[self.indices]
        return vectors if dtype is None else vectors.to(dtype)

    def update(self, queries: torch.Tensor) -> torch.Tensor:
        """Find the nearest environment of each query.

        Parameters
        ----------
        queries : Tensor, shape (M, D)
            The same queries as at the last call, in the same order, moved.

        Returns
        -------
        Tensor, shape (M,), int64
            The nearest environments. Among several at the same distance the lowest index wins.

        Raises
        ------
        LosikoError
            When the number of queries is not that of the last call (use `keep` or `reset`).
        """
        self.searcher._check(queries, 1)
        queries = queries.detach().double()
        if self._memory is None:
            self._memory = self._full(queries, self.n_candidates)
            self._set_winners(self._memory)
            return self.indices
        if len(queries) != len(self.indices):
            raise LosikoError(
                f"{len(queries)} queries, {len(self.indices)} before: call keep(mask) to drop some, reset() to restart"
            )
        self._follow(queries, self._memory)
        return self.indices

    def _set_winners(self, memory: _Memory) -> None:
        self.indices, self.distances = memory.candidates[:, 0].clone(), memory.distances[:, 0].clone()

    def _full(self, queries: torch.Tensor, n_candidates: int) -> _Memory:
        """Search from scratch; the places of candidates beyond `n_candidates` repeat the nearest."""
        self.n_searched += len(queries)
        n = len(self.searcher)
        distances, indices = self.searcher.search(queries, min(n_candidates + 1, n))
        horizon = distances[:, n_candidates] if n > n_candidates else torch.full_like(distances[:, 0], math.inf)
        slots = torch.arange(self.n_candidates, device=queries.device)
        slots[n_candidates:] = 0
        # A copy of the queries: an optimiser may go on to write into its own tensor.
        return _Memory(
            reference=queries.clone(),
            candidates=indices[:, slots],
            distances=distances[:, slots],
            horizon=horizon,
            spread=horizon - distances[:, 0],
            age=torch.zeros_like(horizon),
        )

    def _renew(self, queries: torch.Tensor, memory: _Memory, moved: torch.Tensor, lost: torch.Tensor) -> None:
        """Search for the queries that left their horizon.

        Where a query moves so far in each step that even all candidates would not outlast the next one, only the
        nearest is looked for, which is several times cheaper.
        """
        hasty = 2.0 * moved[lost] > memory.spread[lost] * memory.age[lost]
        for rows, n_candidates in ((lost[hasty], 1), (lost[~hasty], self.n_candidates)):
            if not len(rows):
                continue
            fresh = self._full(queries[rows], n_candidates)
            if n_candidates < self.n_candidates:
                fresh = fresh._replace(spread=memory.spread[rows])
            for old, new in zip(memory, fresh, strict=True):
                old[rows] = new
            self.indices[rows], self.distances[rows] = fresh.candidates[:, 0], fresh.distances[:, 0]

    def _follow(self, queries: torch.Tensor, memory: _Memory) -> None:
        vectors = self.searcher.vectors
        everyone = torch.arange(len(queries), device=queries.device)
        moved = pair_distances(queries, memory.reference, everyone, everyone)
        _require_finite(moved)
        memory.age.add_(1.0)
        best = pair_distances(queries, vectors, everyone, self.indices)
        slack = 1.0e-12 * (1.0 + moved + best)  # rounding of the three distances
        # A query that left its horizon is searched anyway, and its candidates need no look.
        inside = best <= memory.horizon - moved - slack
        rivals = (memory.distances - moved[:, None] <= (best + slack)[:, None]) & inside[:, None]
        rivals &= memory.candidates != self.indices[:, None]
        who, slot = rivals.nonzero(as_tuple=True)
        columns = memory.candidates[who, slot]
        found = pair_distances(queries, vectors, who, columns)
        table = torch.full_like(memory.distances, math.inf)
        table[who, slot] = found
        table = torch.cat([best[:, None], table], dim=1)
        names = torch.cat([self.indices[:, None], memory.candidates], dim=1)
        least = table.amin(1)
        self.indices = names.masked_fill(table > least[:, None], len(vectors)).amin(1)
        self.distances = least
        lost = (~inside).nonzero(as_tuple=True)[0]
        if len(lost):
            self._renew(queries, memory, moved, lost)
