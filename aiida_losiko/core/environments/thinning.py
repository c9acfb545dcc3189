"""Which environments of one species are kept: merging of duplicates and thinning."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from aiida_losiko.core.environments.matching import principal_basis
from aiida_losiko.core.errors import LosikoError

_BLOCK = 1024  # vectors that are merged at a time
_N_AXES = 8  # axes of the trees that propose duplicates
_ROWS = 4096  # rows per pass over many vectors, so that temporary copies stay small


class DuplicateMerger:
    """Merge vectors that come closer than a tolerance, greedily in the order of arrival.

    A vector joins the first representative (in order of arrival) at a distance of at most the tolerance; when there is
    none it becomes a representative itself. The outcome does not depend on how the vectors are cut into calls of `add`.
    Trees over a few orthonormal axes propose the candidates (a projection never lengthens a distance) and the full
    vectors decide, so the result is exact; memory grows with the representatives only.

    Parameters
    ----------
    n_features : int
        Length D of the vectors.
    tolerance : float
        Largest L2 distance between duplicates; 0 merges equal vectors only.
    dtype : {"float32", "float64"}
        How the vectors are kept and compared.

    Raises
    ------
    LosikoError
        For a tolerance that is negative or not a number.
    """

    def __init__(self, n_features: int, tolerance: float, dtype: str = "float32") -> None:
        """See the class."""
        if not tolerance >= 0.0:
            raise LosikoError(f"duplicate_tolerance={tolerance}: expected a distance of 0 or more, for example 1e-4")
        self.tolerance = float(tolerance)
        self._store = np.empty((256, n_features), dtype=dtype)
        self._n = 0
        self._trees: list[tuple[int, cKDTree]] = []  # (number of the first point, tree)
        self._projected = np.empty((256, 0))
        self._basis_from = 0  # representatives known when the axes were chosen
        self._basis = np.empty((n_features, 0))
        self._mean = np.zeros(n_features)

    def __len__(self) -> int:
        """Return the number of representatives so far."""
        return self._n

    @property
    def representatives(self) -> NDArray[np.floating]:
        """The representatives, shape (N, D), in order of arrival."""
        return self._store[: self._n]

    def add(self, vectors: NDArray[np.floating]) -> NDArray[np.int64]:
        """Take in vectors and tell which representative each of them joined.

        Parameters
        ----------
        vectors : ndarray, shape (M, D)
            Vectors in order; converted to the dtype of the store before anything is compared.

        Returns
        -------
        ndarray, shape (M,), int64
            Numbers of the representatives.
        """
        vectors = vectors.astype(self._store.dtype, copy=False)
        parts = [self._add_block(vectors[start : start + _BLOCK]) for start in range(0, len(vectors), _BLOCK)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _add_block(self, block: NDArray[np.floating]) -> NDArray[np.int64]:
        if self._n == 0:
            self._choose_axes(block)
        projected = self._project(block)
        joined = self._join_known(block, projected)
        new = self._join_each_other(block, projected, joined)
        self._append(block[new], projected[new])
        return joined

    def _radius(self) -> float:
        return self.tolerance * (1.0 + 1.0e-9) + 1.0e-12  # rounding of the projection

    def _close(self, vector: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.bool_]:
        difference = others.astype(np.float64) - vector.astype(np.float64)
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", difference, difference)) <= self.tolerance)

    def _join_known(self, block: NDArray[np.floating], projected: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the first representative close to each vector, -1 where there is none."""
        joined = np.full(len(block), -1, dtype=np.int64)
        candidates: list[list[int]] = [[] for _ in block]
        for first, tree in self._trees:
            for row, found in enumerate(tree.query_ball_point(projected, self._radius())):
                candidates[row].extend(first + i for i in found)
        for row, found in enumerate(candidates):
            if found:
                numbers = np.sort(np.asarray(found, dtype=np.int64))
                close = self._close(block[row], self._store[numbers])
                if close.any():
                    joined[row] = numbers[np.argmax(close)]
        return joined

    def _join_each_other(
        self, block: NDArray[np.floating], projected: NDArray[np.float64], joined: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Merge what is left among itself, in order; fills `joined` and returns the rows that are new."""
        left = np.flatnonzero(joined < 0)
        if len(left) == 0:
            return left
        pairs = cKDTree(projected[left]).query_pairs(self._radius(), output_type="ndarray")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        starts = np.searchsorted(pairs[:, 0], np.arange(len(left) + 1))
        new: list[int] = []
        for i, row in enumerate(left):
            if joined[row] >= 0:
                continue
            joined[row] = self._n + len(new)
            new.append(int(row))
            rivals = left[pairs[starts[i] : starts[i + 1], 1]]
            rivals = rivals[joined[rivals] < 0]
            if len(rivals):
                joined[rivals[self._close(block[row], block[rivals])]] = joined[row]
        return np.asarray(new, dtype=np.int64)

    def _append(self, vectors: NDArray[np.floating], projected: NDArray[np.float64]) -> None:
        if len(vectors) == 0:
            return
        total = self._n + len(vectors)
        if total > len(self._store):
            grown = np.empty((max(total, len(self._store) * 3 // 2), self._store.shape[1]), dtype=self._store.dtype)
            grown[: self._n] = self.representatives
            self._store = grown
        if total > len(self._projected):
            grown_axes = np.empty((len(self._store), self._projected.shape[1]))
            grown_axes[: self._n] = self._projected[: self._n]
            self._projected = grown_axes
        self._store[self._n : total] = vectors
        self._projected[self._n : total] = projected
        first, self._n = self._n, total
        if self._basis_from < _ROWS and total >= 4 * self._basis_from:
            self._choose_axes(self.representatives)
            self._projected = self._project(self.representatives)
            first, self._trees = 0, []
        # Trees are united like the digits of a binary counter: each point is sorted in only log(N) times.
        while self._trees and self._trees[-1][1].n <= 2 * (total - first):
            first = self._trees.pop()[0]
        self._trees.append((first, cKDTree(self._projected[first:total])))

    def _choose_axes(self, vectors: NDArray[np.floating]) -> None:
        """Take the principal axes of a sample; any orthonormal axes give the right answer, these give it soon."""
        sample = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), 512)).round().astype(np.int64)]
        self._mean = sample.mean(axis=0, dtype=np.float64)
        centred = sample - self._mean
        n_axes = min(_N_AXES, *centred.shape)
        _, modes = np.linalg.eigh(centred @ centred.T)
        self._basis = np.linalg.qr(centred.T @ modes[:, ::-1][:, :n_axes])[0]
        self._basis_from = len(vectors)
        self._projected = np.empty((len(self._store), n_axes))

    def _project(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        parts = [(vectors[i : i + _ROWS] - self._mean) @ self._basis for i in range(0, len(vectors), _ROWS)]
        return np.concatenate(parts)


def farthest_points(vectors: NDArray[np.floating], n_wanted: int) -> NDArray[np.int64]:
    """Choose vectors by farthest-point sampling.

    The first is the one nearest to the mean; then always the one with the largest distance to those chosen so far.
    Ties go to the lower index. The result is that of the plain algorithm; a projection on principal axes, which never
    lengthens a distance, tells which distances can have shrunk and have to be computed.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Normalised vectors of one species.
    n_wanted : int
        How many to choose; all of them are returned (in order) when N is not larger.

    Returns
    -------
    ndarray, shape (min(N, n_wanted),), int64
        Row numbers in the order in which they were chosen.
    """
    n = len(vectors)
    if n <= n_wanted:
        return np.arange(n, dtype=np.int64)
    basis, _ = (part.numpy() for part in principal_basis(torch.from_numpy(vectors), 32))
    mean = vectors.mean(axis=0, dtype=np.float64)
    projected = np.concatenate([(vectors[i : i + _ROWS] - mean) @ basis for i in range(0, n, _ROWS)])
    lengths = np.einsum("ij,ij->i", projected, projected)
    rounding = 1.0e-12 * float(lengths.max(initial=1.0))
    chosen = np.empty(n_wanted, dtype=np.int64)
    chosen[0] = np.argmin(_squared(vectors, np.arange(n), mean))
    nearest = np.full(n, np.inf)  # squared distance to the nearest chosen vector
    for count in range(n_wanted):
        if count:
            chosen[count] = np.argmax(nearest)
        new = int(chosen[count])
        bound = lengths + lengths[new] - 2.0 * (projected @ projected[new]) - rounding
        rows = np.flatnonzero(bound < nearest)
        nearest[rows] = np.minimum(nearest[rows], _squared(vectors, rows, vectors[new].astype(np.float64)))
        nearest[new] = -1.0  # never chosen twice, also among equal vectors
    return chosen


def _squared(vectors: NDArray[np.floating], rows: NDArray[np.int64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances of some rows to a point, in passes of bounded memory."""
    result = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        difference = vectors[rows[start : start + _ROWS]] - point
        result[start : start + _ROWS] = np.einsum("ij,ij->i", difference, difference)
    return result


def thin(
    vectors: NDArray[np.floating], selection: str | None, max_environments: int | None, seed: int
) -> NDArray[np.int64]:
    """Choose the environments of one species that a database keeps.

    Parameters
    ----------
    vectors : ndarray, shape (N, D)
        Normalised vectors.
    selection : {None, "farthest", "random"}
        How to choose; None keeps all.
    max_environments : int or None
        Largest number to keep; None keeps all.
    seed : int
        Seed of the random choice.

    Returns
    -------
    ndarray, shape (n_kept,), int64
        Ascending row numbers.
    """
    n = len(vectors)
    if selection is None or max_environments is None or n <= max_environments:
        return np.arange(n, dtype=np.int64)
    if selection == "random":
        return np.sort(np.random.default_rng(seed).choice(n, max_environments, replace=False)).astype(np.int64)
    return np.sort(farthest_points(vectors, max_environments))
