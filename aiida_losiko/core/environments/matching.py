"""Exact nearest-neighbour search among environments.

The search returns the true nearest vectors, not likely ones: bounds only decide which distances have to be computed.
"""

from __future__ import annotations

import math

import torch

from aiida_losiko.core.environments.column_view import PAIR_ELEMENTS, ColumnView, Projection
from aiida_losiko.core.errors import LosikoError

_FAR = 1.0e30  # stands for "not to be found" in float32 products, where an infinity would breed NaN
_PRODUCT_ELEMENTS = 1 << 24  # numbers per chunk of lower bounds (64 MB)


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


def coordinates_in(vectors: torch.Tensor, basis: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Coordinates of some vectors in a basis and the norm of what it leaves out, (n, r + 1) in float64."""
    vectors = vectors.double()
    # The mean is taken off the products, not off the vectors, which would be copied for it.
    inside = torch.addmm(mean @ basis, vectors, basis, beta=-1)
    length = vectors.square().sum(1) - 2 * (vectors @ mean) + mean.square().sum()
    left = (length - inside.square().sum(1)).clamp_min(0).sqrt()
    return torch.cat([inside, left[:, None]], dim=1)


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

    def __init__(self, vectors: torch.Tensor, n_components: int = 64) -> None:
        """See the class."""
        if vectors.ndim != 2 or len(vectors) == 0:
            raise LosikoError(f"vectors of shape {tuple(vectors.shape)}: a search needs (N, D) with N of at least 1")
        self.vectors = vectors
        self._n_components = n_components
        self._lazy: Projection | None = None
        self._views: dict[bytes | None, ColumnView] = {}

    def __len__(self) -> int:
        """Return the number of environments."""
        return len(self.vectors)

    @property
    def _projection(self) -> Projection:
        """The projected environments, made on first use; columns: coordinates, residual norm, squared length."""
        if self._lazy is None:
            n, dim = self.vectors.shape
            basis, mean = principal_basis(self.vectors, self._n_components)
            width = 32 if n >= 4096 else 1
            rows = torch.zeros(math.ceil(n / width) * width, basis.shape[1] + 2, device=self.vectors.device)
            rows[n:, -1] = _FAR
            chunk = max(1, 4 * PAIR_ELEMENTS // dim)
            for start in range(0, n, chunk):
                coordinates = coordinates_in(self.vectors[start : start + chunk], basis, mean)
                rows[start : start + len(coordinates), :-1] = coordinates
                rows[start : start + len(coordinates), -1] = coordinates.square().sum(1)
            largest = math.sqrt(float(rows[:n, -1].max()))
            self._lazy = Projection(basis, mean, rows, width, largest)
        return self._lazy

    def seen_in(self, columns: torch.Tensor | None) -> ColumnView:
        """Return the environments as queries see them that are zero outside `columns`; None for any query."""
        if columns is not None and len(columns) == self.vectors.shape[1]:
            columns = None
        key = None if columns is None else columns.cpu().numpy().tobytes()
        if key not in self._views:
            self._views[key] = ColumnView(self.vectors, self._projection, columns)
        return self._views[key]

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
        self.check(queries, k)
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

    def check(self, queries: torch.Tensor, k: int) -> None:
        """Raise a `LosikoError` for queries of another length, or more neighbours than there are environments."""
        n, dim = self.vectors.shape
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise LosikoError(f"queries of shape {tuple(queries.shape)}: expected (M, {dim}), as the database has")
        if not 1 <= k <= n:
            raise LosikoError(f"k={k} neighbours asked for: allowed are 1 to {n}, the number of environments")

    def _search_chunk(
        self, queries: torch.Tensor, k: int, groups: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        view = self.seen_in(None)
        bounds, length, margin = view.squared_bounds(queries)
        m, n, width = len(queries), len(self), self._projection.width
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
            found = view.distances(queries, who, columns.reshape(-1).clamp_max(n - 1)).view(m, k)
            found[values > _FAR / 2] = math.inf
            worst = found.amax(1).square()
            bounds.scatter_(1, columns, _FAR)
            real = found.reshape(-1) < math.inf
            known = who[real], columns.reshape(-1)[real], found.reshape(-1)[real]
        limit = (worst * (1.0 + 1.0e-12) - length + margin).clamp_max(_FAR / 2).float()
        limit = torch.nextafter(limit, torch.full_like(limit, math.inf))
        if width > 1:
            who, block = (lowest <= limit[:, None]).nonzero(as_tuple=True)
            inside, inner = (blocks[who, :, block] <= limit[who, None]).nonzero(as_tuple=True)
            who, columns = who[inside], inner * n_blocks + block[inside]
        else:
            who, columns = (bounds <= limit[:, None]).nonzero(as_tuple=True)
        found = view.distances(queries, who, columns)
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
