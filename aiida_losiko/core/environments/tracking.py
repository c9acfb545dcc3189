"""Exact nearest environments of queries that move a little from call to call, as those of an optimiser do."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from aiida_losiko.core.environments.column_view import distance_to, require_finite
from aiida_losiko.core.environments.matching import NearestEnvironments
from aiida_losiko.core.errors import LosikoError

_BOUND_ELEMENTS = 1 << 24  # numbers per chunk of lower bounds (64 MB)
_FEW = 8192  # among so few environments, bounds of all cost no more than bounds of the remembered ones


class _Memory(NamedTuple):
    """What the last search of each query said."""

    reference: torch.Tensor  # (M, d) where the query was
    candidates: torch.Tensor  # (M, c) the environments with the smallest lower bounds there
    horizon: torch.Tensor  # (M,) no other environment is nearer to the reference than this
    second: torch.Tensor  # (M,) nor is any but the winner nearer than this; -inf once another one has won


class TrackedNearest:
    """Exact nearest environments of queries that move a little from call to call.

    The triangle inequality spares most of the work. A search at the place p leaves, per query, the winner and a lower
    bound s of the distance of p to all others. At p' with |p' - p| = m, the others are at least s - m away: while the
    winner is nearer than that, it remains the winner and nothing else is computed. Among very many environments the c
    of the smallest bounds are remembered too, and looked at first; the rest is farther than the next bound less m.

    Parameters
    ----------
    searcher : NearestEnvironments
        The environments.
    n_candidates : int
        Number c of remembered environments per query.
    columns : Tensor of int64, shape (d,), optional
        Queries are zero outside these columns and given in them alone; by default d is the D of the environments.
    added : Tensor, shape (N,), optional
        Added to the squared distances of the environments, which are searched and given with it; zero or more.

    Attributes
    ----------
    distances : Tensor, shape (M,), float64
        Distance of each query to its nearest environment after the last `update`.
    indices : Tensor, shape (M,), int64
        Those environments.
    n_searched : int
        Searches of single queries among all environments so far.

    Examples
    --------
    >>> tracked = TrackedNearest(database.searcher("C"))  # doctest: +SKIP
    >>> indices = tracked.update(vectors)  # doctest: +SKIP
    >>> tracked.keep(still_running)  # doctest: +SKIP
    """

    def __init__(
        self,
        searcher: NearestEnvironments,
        n_candidates: int = 64,
        columns: torch.Tensor | None = None,
        added: torch.Tensor | None = None,
    ) -> None:
        if n_candidates < 1:
            raise LosikoError(f"n_candidates={n_candidates}: at least 1 environment has to be remembered per query")
        self.searcher = searcher
        self.n_candidates = min(n_candidates, len(searcher))
        self.n_searched = 0
        self._columns = columns
        self._view = searcher.seen_in(columns)
        self._added = added is not None
        if added is not None:
            self._view = self._view.with_added(added)
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next update may bring any number of queries."""
        device = self.searcher.vectors.device
        self._memory: _Memory | None = None
        self.indices = torch.empty(0, dtype=torch.int64, device=device)
        self.distances = torch.empty(0, dtype=torch.float64, device=device)
        self._winners = self._view.take(self.indices)

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
            self._winners = self._view.take(self.indices)

    @property
    def targets(self) -> torch.Tensor:
        """The nearest environments of the last update in the columns, shape (M, d), float64."""
        return self._winners[0]

    def update(self, queries: torch.Tensor) -> torch.Tensor:
        """Find the nearest environment of each query.

        Parameters
        ----------
        queries : Tensor, shape (M, d)
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
        if self._columns is None:
            self.searcher.check(queries, 1)
        queries = queries.detach().double()
        if self._memory is None:
            everyone = torch.arange(len(queries), device=queries.device)
            self.indices = torch.zeros_like(everyone)
            self.distances = torch.full((len(queries),), math.inf, dtype=torch.float64, device=queries.device)
            self._memory = _Memory(
                # A copy of the queries: an optimiser may go on to write into its own tensor.
                reference=queries.clone(),
                candidates=torch.zeros(len(queries), self.n_candidates, dtype=torch.int64, device=queries.device),
                horizon=torch.zeros_like(self.distances),
                second=torch.zeros_like(self.distances),
            )
            self._search(queries, self._memory, everyone)
            self._winners = self._view.take(self.indices)
        elif len(queries) != len(self.indices):
            raise LosikoError(
                f"{len(queries)} queries, {len(self.indices)} before: call keep(mask) to drop some, reset() to restart"
            )
        else:
            self._follow(queries, self._memory)
        return self.indices

    def _follow(self, queries: torch.Tensor, memory: _Memory) -> None:
        """Update queries that were searched before."""
        moved = torch.linalg.vector_norm(queries - memory.reference, dim=1)
        require_finite(moved)
        before = self.indices
        # A new tensor: the caller may hold that of the last call.
        self.indices = before.clone()
        self.distances = distance_to(queries, *self._winners)
        slack = 1.0e-12 * (1.0 + moved + self.distances)  # rounding of the distances
        restless = self.distances >= memory.second - moved - slack
        searched = restless
        if len(self.searcher) > _FEW:
            searched = restless & (self.distances >= memory.horizon - moved - slack)
            reviewed = (restless & ~searched).nonzero(as_tuple=True)[0]
            if len(reviewed):
                self._review(queries[reviewed], memory, reviewed)
        rows = searched.nonzero(as_tuple=True)[0]
        if len(rows):
            self._search(queries[rows], memory, rows)
        changed = (self.indices != before).nonzero(as_tuple=True)[0]
        if len(changed):
            self._replace_winners(changed)

    def _replace_winners(self, changed: torch.Tensor) -> None:
        """Take the vectors of new winners, in new tensors."""
        vectors, outside = self._view.take(self.indices[changed])
        targets, beyond = self._winners
        if outside is not None and beyond is not None:
            beyond = beyond.index_copy(0, changed, outside)
        self._winners = targets.index_copy(0, changed, vectors), beyond

    def _review(self, queries: torch.Tensor, memory: _Memory, rows: torch.Tensor) -> None:
        """Look for the winners among the candidates."""
        before = self.indices[rows]
        candidates = memory.candidates[rows]
        bounds, length, margin = self._view.squared_bounds(queries, candidates)
        self._decide(queries, rows, candidates, bounds + (length - margin)[:, None])
        memory.second[rows[self.indices[rows] != before]] = -math.inf

    def _search(self, queries: torch.Tensor, memory: _Memory, rows: torch.Tensor) -> None:
        """Look for the winners among all environments, and remember what the bounds say."""
        self.n_searched += len(queries)
        step = max(1, _BOUND_ELEMENTS // len(self.searcher))
        for start in range(0, len(queries), step):
            self._search_chunk(queries[start : start + step], memory, rows[start : start + step])

    def _search_chunk(self, queries: torch.Tensor, memory: _Memory, rows: torch.Tensor) -> None:
        n, c = len(self.searcher), self.n_candidates
        bounds, length, margin = self._view.squared_bounds(queries)
        values, order = bounds[:, :n].topk(min(c + 1, n), largest=False)
        squared = values.double() + (length - margin)[:, None]
        horizon = squared[:, c].clamp_min(0).sqrt() if n > c else torch.full_like(length, math.inf)
        others = self._decide(queries, rows, order[:, :c], squared[:, :c])
        second = torch.minimum(others, horizon)
        # More environments than candidates may tie within the bounds; then the search that keeps no memory decides.
        unsure = (self.distances[rows] >= horizon).nonzero(as_tuple=True)[0]
        if len(unsure) and self._added:
            everything = torch.arange(n, device=rows.device).expand(len(unsure), n)
            squared = bounds[unsure, :n].double() + (length - margin)[unsure, None]
            self._decide(queries[unsure], rows[unsure], everything, squared)
            second[unsure] = -math.inf
        elif len(unsure):
            distances, indices = self.searcher.search(self._in_full(queries[unsure]))
            self.distances[rows[unsure]], self.indices[rows[unsure]] = distances[:, 0], indices[:, 0]
            second[unsure] = -math.inf
        memory.reference[rows], memory.candidates[rows] = queries, order[:, :c]
        memory.horizon[rows], memory.second[rows] = horizon, second

    def _in_full(self, queries: torch.Tensor) -> torch.Tensor:
        """Queries (m, d) in all columns, (m, D)."""
        if self._columns is None:
            return queries
        return queries.new_zeros(len(queries), self.searcher.vectors.shape[1]).index_copy_(1, self._columns, queries)

    def _decide(
        self, queries: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor, squared: torch.Tensor
    ) -> torch.Tensor:
        """Set the winners of some queries: the best of the present ones and the candidates.

        Parameters
        ----------
        queries : Tensor, shape (m, d)
        rows : Tensor, shape (m,)
            Which queries these are.
        candidates : Tensor, shape (m, c)
            Environments.
        squared : Tensor, shape (m, c), float64
            Lower bounds of their squared distances.

        Returns
        -------
        Tensor, shape (m,)
            A lower bound of the distance to the candidates that did not win.
        """
        everyone = torch.arange(len(rows), device=rows.device)
        table = squared.clamp_min(0).sqrt()
        exact = torch.zeros_like(table, dtype=torch.bool)
        # The candidate of the lowest bound is computed first: it spares most of the others.
        first = squared.argmin(1)
        leader = self._view.distances(queries, everyone, candidates[everyone, first])
        table[everyone, first], exact[everyone, first] = leader, True
        limit = torch.minimum(leader, self.distances[rows]) * (1 + 1.0e-12)
        who, slot = ((table <= limit[:, None]) & ~exact).nonzero(as_tuple=True)
        table[who, slot], exact[who, slot] = self._view.distances(queries, who, candidates[who, slot]), True
        # The present winner takes part, whether it is among the candidates or not.
        times = torch.cat([self.distances[rows, None], table.masked_fill(~exact, math.inf)], dim=1)
        names = torch.cat([self.indices[rows, None], candidates], dim=1)
        least = times.amin(1)
        winner = names.masked_fill(times > least[:, None], len(self.searcher)).amin(1)
        self.distances[rows], self.indices[rows] = least, winner
        return table.masked_fill(candidates == winner[:, None], math.inf).amin(1)
