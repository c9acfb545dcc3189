"""Distances, and lower bounds of them, between queries and environments in the columns that a query can have."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

PAIR_ELEMENTS = 1 << 17  # numbers per chunk of exact differences, what a cache holds (1 MB)


class Projection(NamedTuple):
    """An orthonormal basis (D, r), its origin (D,), and the projected environments (n_padded, r + 2) as float32."""

    basis: torch.Tensor
    mean: torch.Tensor
    rows: torch.Tensor
    width: int
    largest: float


def require_finite(numbers: torch.Tensor) -> None:
    """Raise a `LosikoError` for NaN or infinite numbers among what was made from queries."""
    if not bool(torch.isfinite(numbers).all()):
        raise LosikoError("queries hold NaN or infinite numbers: check the coordinates they were made from")


class ColumnView:
    """Environments as seen by queries that are zero outside some columns, of which they are given these alone.

    A molecule without fluorine has no features of pairs with fluorine: most of the vectors of a database of many
    elements need not be looked at for it.

    Parameters
    ----------
    vectors : Tensor, shape (N, D)
        The environments.
    projection : Projection
        Their coordinates in a basis.
    columns : Tensor of int64, shape (d,), optional
        Columns that can differ from zero in a query; all by default, and then d is D.
    """

    def __init__(self, vectors: torch.Tensor, projection: Projection, columns: torch.Tensor | None) -> None:
        self._vectors, self._projection, self._columns = vectors, projection, columns
        self._added: torch.Tensor | None = None
        if columns is None:
            self._basis = projection.basis
            self._mean = projection.mean
        else:
            self._basis = projection.basis.index_select(0, columns)
            self._mean = projection.mean.index_select(0, columns)
            chosen = np.isin(np.arange(vectors.shape[1]), columns.cpu().numpy())
            self._inside, self._outside = _runs(chosen), _runs(~chosen)
        self._mean_product = projection.mean @ projection.basis
        self._mean_square = projection.mean.square().sum()

    def with_added(self, added: torch.Tensor) -> ColumnView:
        """Return a view in which `added` (N,), zero or more, is added to the squared distances of the environments.

        That is one more dimension, in which every query is zero: what holds for distances goes on to hold.
        """
        view = copy.copy(self)
        view._added = added.double()
        rows = self._projection.rows.clone()
        rows[: len(added), -1] += added
        largest = math.sqrt(self._projection.largest**2 + float(added.max()))
        view._projection = self._projection._replace(rows=rows, largest=largest)
        return view

    def squared_bounds(
        self, queries: torch.Tensor, environments: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Lower bounds of the squared distances of some queries to environments.

        Parameters
        ----------
        queries : Tensor, shape (M, d), float64
        environments : Tensor of int64, shape (M, c), optional
            The environments that each query is compared with; all by default.

        Returns
        -------
        bounds : Tensor, shape (M, c) or (M, N'), float32
            Squared bounds less `length`, and `margin` too high at most; N' is N and padding that is far away.
        length, margin : Tensor, shape (M,), float64
            What is to be added, and the rounding error.
        """
        rows, largest = self._projection.rows, self._projection.largest
        inside = torch.addmm(self._mean_product, queries, self._basis, beta=-1)
        # Squared distance from the mean, inside the basis and in all.
        length = queries.square().sum(1) - 2 * (queries @ self._mean) + self._mean_square
        require_finite(length)
        left = (length - inside.square().sum(1)).clamp_min(0).sqrt()
        # One product does it all: -2 p.q of the coordinates and residuals, and the length of the environment.
        factors = torch.cat([-2.0 * inside, -2.0 * left[:, None], torch.ones_like(left)[:, None]], dim=1).float()
        # A product of n float32 terms errs by at most n * 2^-24 * |a| |b|, so this covers it twice, with the casts.
        margin = (rows.shape[1] + 12) * torch.finfo(torch.float32).eps * length.sqrt().clamp_min(largest).square()
        if environments is None:
            return factors @ rows.T, length, margin
        return torch.bmm(rows[environments], factors[:, :, None])[:, :, 0], length, margin

    def take(self, environments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Take environments (m,) in the columns, (m, d) in float64, and squares of what is outside or added, (m,)."""
        found = self._vectors.index_select(0, environments)
        added = None if self._added is None else self._added[environments]
        if self._columns is None:
            return found.double(), added
        inside = torch.cat([found[:, run] for run in self._inside], dim=1).double()
        outside = torch.cat([found[:, run] for run in self._outside], dim=1).double().square().sum(1)
        return inside, outside if added is None else outside + added

    def distances(self, queries: torch.Tensor, rows: torch.Tensor, environments: torch.Tensor) -> torch.Tensor:
        """Distances |queries[rows] - environments| as norms of differences in float64, in chunks; shape (P,)."""
        result = torch.empty(len(rows), dtype=torch.float64, device=queries.device)
        chunk = max(1, PAIR_ELEMENTS // max(1, self._vectors.shape[1]))
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            found, outside = self.take(environments[part])
            result[part] = distance_to(queries.index_select(0, rows[part]), found, outside)
        return result


def _runs(chosen: NDArray[np.bool_]) -> list[slice]:
    """Stretches of neighbouring columns that are chosen: copying these is quicker than picking single columns."""
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    return [slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def distance_to(queries: torch.Tensor, found: torch.Tensor, outside: torch.Tensor | None) -> torch.Tensor:
    """Distances of queries (m, d) to as many environments, as `ColumnView.take` gives them; shape (m,)."""
    inside = torch.linalg.vector_norm(queries - found, dim=1)
    return inside if outside is None else torch.hypot(inside, outside.sqrt())
