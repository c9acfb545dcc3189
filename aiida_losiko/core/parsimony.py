"""Few compounds rather than many: which sources of a database a structure is made of, and what others cost.

Atom by atom a rough crystal finds something similar among many compounds; a crystal is of one, and an interface of two.
The environments of a structure are taken for a mixture: an atom is like environment e of source s with a likelihood of

    pi_s (m_e / M_s) exp(-D_e / T),

where pi_s is the share of the source in the structure and m_e of its M_s atoms of the element have this environment, so
that a compound of many different environments is not better for having more of them. The shares come from expectation
and maximisation. T is half the median of the distances D to the nearest environments: the rougher, the more is allowed.

Environments of a source of small share then count as further away: to D is added

    o_s = strength * log((pi_max + a) / (pi_s + a)),

zero for the source that most atoms are like. The constant a makes it end somewhere: a defect is like nothing else in
its host, and what binds it may be of a compound that is nowhere else in the structure. The shares are those of the
first evaluation, and held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from aiida_losiko.core.environments.tracking import TrackedNearest

if TYPE_CHECKING:
    from aiida_losiko.core.environments.database import EnvironmentDatabase
    from aiida_losiko.core.neighbors import StructureBatch

# a: no source costs more than strength * log(11).
UNFORESEEN = 0.1
# T as a part of the median distance, and at least so much: environments that are much nearer are all the same.
WIDTH = 0.5
LEAST_WIDTH = 0.01
# Atoms of a structure that are looked at, evenly spaced: shares need no more.
MOST_ATOMS = 500
# What every source has before any atom is counted, of one atom.
_SEED = 0.01
_MOST_ITERATIONS = 100
_SAME_SHARE = 1e-3


class SourceShares:
    """Shares of the sources of a database in the structures of a batch.

    Parameters
    ----------
    strength : float
        See the module.
    database : EnvironmentDatabase
        Compared by the plain distance.
    batch : StructureBatch
        The structures.

    Attributes
    ----------
    index : Tensor of int64, shape (n_atoms,)
        The structure of each atom.
    shares : Tensor, shape (n_structures, n_sources), float64, or None
        None until `count`.
    """

    def __init__(self, strength: float, database: EnvironmentDatabase, batch: StructureBatch) -> None:
        self._strength, self._database = strength, database
        self._n_sources = len(database.sources)
        self.index = batch.structure_index
        self.shares: torch.Tensor | None = None
        # Whole steps over the atoms of large structures.
        first = batch.n_atoms.cumsum(0) - batch.n_atoms
        number = torch.arange(len(self.index), device=self.index.device) - first[self.index]
        self._chosen = number % (batch.n_atoms[self.index] / MOST_ATOMS).ceil().long().clamp_min(1) == 0
        self._seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._entries: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def look_at(self, symbol: str, rows: torch.Tensor, unit: torch.Tensor, columns: torch.Tensor | None) -> None:
        """Note how far atoms of an element are from all environments, for `count`.

        Parameters
        ----------
        symbol : str
            The element.
        rows : Tensor of int64, shape (n,)
            The atoms in the batch.
        unit : Tensor, shape (n, d)
            Their normalised vectors.
        columns : Tensor of int64, shape (d,), optional
            Which features these consist of; all by default.
        """
        chosen = self._chosen[rows]
        searcher = self._database.searcher(symbol, unit.device)
        # Lower bounds, within a few percents of the distances: enough to count by.
        bounds, length, _ = searcher.seen_in(columns).squared_bounds(unit[chosen].double())
        squared = (bounds[:, : len(searcher)] + length[:, None].float()).clamp_min(0)
        environment, source, part = self._of(symbol)
        self._seen.append((self.index[rows[chosen]], squared[:, environment], source, part.log()))

    def count(self) -> None:
        """Work out the shares from what was looked at."""
        n_structures = int(self.index[-1]) + 1 if len(self.index) else 0
        self.shares = torch.stack([self._count(k) for k in range(n_structures)])
        self._seen = []

    def _count(self, structure: int) -> torch.Tensor:
        parts = [(d[index == structure], source, log_part) for index, d, source, log_part in self._seen]
        parts = [part for part in parts if len(part[0])]
        nearest = torch.cat([d.amin(1) for d, _, _ in parts])
        width = max(WIDTH * float(nearest.median()), LEAST_WIDTH)
        shares = torch.full((self._n_sources,), 1 / self._n_sources, dtype=torch.float64, device=nearest.device)
        for _ in range(_MOST_ITERATIONS):
            atoms = torch.full_like(shares, _SEED)
            for d, source, log_part in parts:
                likeness = torch.softmax(-d / width + (log_part + shares[source].log()).float(), dim=1)
                atoms.index_add_(0, source, likeness.sum(0).double())
            before, shares = shares, atoms / atoms.sum()
            if bool((shares - before).abs().max() < _SAME_SHARE):
                break
        return shares

    def added(self, symbol: str, structure: int) -> torch.Tensor:
        """What is added to the squared distances of the environments of an element, (N,), in a structure."""
        assert self.shares is not None
        environment, source, _ = self._of(symbol)
        own = self.shares[structure]
        # An environment that several sources share is of the one that has the largest share in the structure.
        best = own.new_zeros(self._database.n_environments[symbol])
        best.scatter_reduce_(0, environment, own[source], "amax")
        return self._strength * ((own.max() + UNFORESEEN) / (best + UNFORESEEN)).log()

    def keep(self, structures: torch.Tensor) -> None:
        """Go on with the structures of a mask."""
        kept = structures[self.index]
        self.index = (structures.cumsum(0) - 1)[self.index[kept]]
        self._chosen = self._chosen[kept]
        if self.shares is not None:
            self.shares = self.shares[structures]

    def _of(self, symbol: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Environments and sources that belong together, and which part of the source's atoms of the element it is."""
        if symbol not in self._entries:
            environment, source = self._database.pairs_of_source(symbol)
            device = self.index.device
            pair, count = torch.unique(environment * self._n_sources + source, return_counts=True)
            environment, source = pair // self._n_sources, pair % self._n_sources
            total = torch.zeros(self._n_sources, dtype=torch.int64).index_add_(0, source, count)
            part = count.double() / total[source]
            self._entries[symbol] = environment.to(device), source.to(device), part.to(device)
        return self._entries[symbol]


class SharedTracker:
    """Nearest environments of the atoms of several structures, each with what its sources cost.

    As `TrackedNearest`; the distances are those without what was added.

    Parameters
    ----------
    tracked : callable
        Makes a `TrackedNearest` of `added`.
    shares : SourceShares
        Counted.
    symbol : str
        The element of all atoms.
    rows : Tensor of int64, shape (n,)
        The atoms in the batch.
    """

    def __init__(
        self, tracked: Callable[[torch.Tensor], TrackedNearest], shares: SourceShares, symbol: str, rows: torch.Tensor
    ) -> None:
        index = shares.index[rows]
        self._parts = []
        for structure in torch.unique(index).tolist():
            added = shares.added(symbol, structure)
            self._parts.append((torch.nonzero(index == structure)[:, 0], added, tracked(added)))
        self.distances = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        self.added = torch.zeros_like(self.distances)
        self.targets = torch.empty((0, 0), dtype=torch.float64, device=rows.device)

    def update(self, queries: torch.Tensor) -> torch.Tensor:
        """See `TrackedNearest.update`."""
        indices = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
        # New tensors: the caller may hold those of the last call.
        self.targets = torch.empty_like(queries, dtype=torch.float64)
        self.distances, self.added = torch.empty_like(self.distances), torch.empty_like(self.added)
        for rows, added, tracker in self._parts:
            found = tracker.update(queries[rows])
            indices[rows], self.targets[rows], self.added[rows] = found, tracker.targets, added[found]
            self.distances[rows] = (tracker.distances.square() - added[found]).clamp_min(0).sqrt()
        return indices
