"""The curvature of the loss, sampled: which displacements of a structure it feels, and how strongly.

The Gauss-Newton part of the second derivatives of sum_i L_i(p_i) is sum_i J_i^T H_i J_i, with J_i = dp_i / dr and
H_i = d2L_i / dp_i2. A random slope x_i of covariance H_i, taken back to the coordinates, g_i = J_i^T x_i, has the
covariance J_i^T H_i J_i: the mean of g_i g_i^T over a few draws, summed over the atoms, is an estimate of it. One draw
costs one backward pass for all atoms of all structures at once, since each g_i is about its own environment.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from aiida_losiko.core.neighbors import StructureBatch

# Larger structures have no such matrix: it has (3 n_atoms)^2 numbers, and is inverted.
LARGEST = 200


@lru_cache(maxsize=64)
def _standard_normal(probe: int, n_rows: int, size: int) -> torch.Tensor:
    """Rows that are the same however many there are."""
    return torch.from_numpy(np.random.default_rng([probe, size]).standard_normal((n_rows, size), dtype=np.float32))


class CurvatureSketch:
    """Sums up the draws of a batch.

    Parameters
    ----------
    batch : StructureBatch
        The structures.
    n_probes : int
        Number of draws.
    """

    def __init__(self, batch: StructureBatch, n_probes: int) -> None:
        n_atoms = batch.n_atoms
        self._n_structures, self.n_probes = batch.n_structures, n_probes
        self._most = int(n_atoms.max()) if len(n_atoms) else 0
        first = torch.cumsum(n_atoms, 0) - n_atoms
        # The place of each atom in its own structure.
        self._slot = torch.arange(len(batch.numbers), device=first.device) - first[batch.structure_index]
        self._row = batch.structure_index * self._most + self._slot
        shape = (n_probes, self._n_structures * self._most, self._most, 3)
        self._gradients = batch.positions.new_zeros(shape)

    def draw(self, probe: int, atoms: torch.Tensor, size: int) -> torch.Tensor:
        """Standard normal numbers for some atoms, (n, size): the same for the same place in whichever structure."""
        return _standard_normal(probe, self._most, size).to(self._gradients)[self._slot[atoms]]

    def add(self, probe: int, atoms: torch.Tensor, neighbors: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add what a draw gave for some atoms.

        Parameters
        ----------
        probe : int
            Which draw.
        atoms : Tensor, shape (n,)
            Atoms of the batch whose environments these are, each once for every draw.
        neighbors : Tensor, shape (n, width)
            Their neighbours in the batch.
        gradient : Tensor, shape (n, width, 3)
            Of the draw, in the vectors to the neighbours.
        """
        gradients, rows = self._gradients[probe], self._row[atoms]
        flat = (rows[:, None] * self._most + self._slot[neighbors]).reshape(-1)
        gradients.view(-1, 3).index_add_(0, flat, gradient.reshape(-1, 3))
        gradients[rows, self._slot[atoms]] -= gradient.sum(1)

    def matrices(self, free: torch.Tensor | None) -> torch.Tensor:
        """The estimates, (n_structures, 3 m, 3 m) for structures of up to m atoms, zero for atoms that are not free."""
        size = 3 * self._most
        total = self._gradients.new_zeros((self._n_structures, size, size))
        for gradients in self._gradients:
            rows = gradients.view(self._n_structures, self._most, size)
            total.baddbmm_(rows.transpose(1, 2), rows, alpha=1 / self.n_probes)
        if free is not None:
            movable = total.new_zeros(self._n_structures * self._most)
            movable[self._row] = free.to(total.dtype)
            movable = movable.repeat_interleave(3).view(self._n_structures, size)
            total *= movable[:, :, None] * movable[:, None, :]
        return total
