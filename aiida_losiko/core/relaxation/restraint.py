"""What holds a structure at its start where the database tells little: a normal distribution of displacements.

A start is rough, but not worthless. With a normal error of variance s^2 on each of its coordinates, the likeliest
structure has the least loss plus |x - x0|^2 / (2 s^2) in units in which the loss is a logarithm of a probability. Where
the loss is steep (bonds) that changes nothing; where it is flat (torsions) a place far away must be worth the way.

How rough a start is shows in how far the steep directions moved: after the first stage of a learnt metric s^2 is the
geometric mean of what the metric was learnt for and of the mean square displacement so far. The mean of both, since
the starts of other methods (a force field, tight binding) are often closer in bonds than in torsions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aiida_losiko.core.neighbors import StructureBatch

if TYPE_CHECKING:
    from aiida_losiko.core.environments.metric import LearntMetric

# A structure that hardly moved is not known better than that.
_LEAST = 0.002


class Restraint:
    """Adds k |x - x0|^2 / 2 to the losses of a batch.

    Parameters
    ----------
    strength : float
        k s^2, without a unit.
    batch : StructureBatch
        Where the structures are now; `positions` are those of their rows.
    starts : Tensor, shape (n_atoms, 3)
        x0 in Angstrom, in the lattice of the batch.
    free : Tensor of bool, shape (n_atoms,)
        Atoms that may move.
    metric : LearntMetric
        Of the database, whose losses have the unit that the strength is in.
    stage : int
        Its stage that begins.
    """

    def __init__(
        self,
        strength: float,
        batch: StructureBatch,
        starts: torch.Tensor,
        free: torch.Tensor,
        metric: LearntMetric,
        stage: int,
    ) -> None:
        self._starts, self._index, self._free = starts, batch.structure_index, free
        learnt_for = metric.settings.displacement
        variance = torch.full((batch.n_structures,), learnt_for**2, dtype=starts.dtype, device=starts.device)
        if stage > 0:
            squared = (batch.positions - starts).square().sum(1) * free
            n_free = torch.zeros_like(variance).index_add_(0, self._index, free.to(variance.dtype))
            mean = torch.zeros_like(variance).index_add_(0, self._index, squared) / (3 * n_free).clamp_min(1)
            variance = learnt_for * mean.clamp_min(_LEAST**2).sqrt()
        # 1 / Angstrom^2
        self.force_constant = strength / variance

    def add(self, rows: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add to the losses (B,) and to their gradient in the rows, of which the atoms are the first."""
        n_atoms = len(self._starts)
        moved, constant = rows[:n_atoms] - self._starts, self.force_constant[self._index]
        moved = moved * self._free[:, None]
        loss.index_add_(0, self._index, 0.5 * constant * moved.square().sum(1))
        gradient[:n_atoms] += constant[:, None] * moved

    def keep(self, structures: torch.Tensor, batch: StructureBatch) -> None:
        """Go on with the structures of a mask, of which `batch` is what is left."""
        atoms = structures[self._index]
        self._starts, self._free = self._starts[atoms], self._free[atoms]
        self.force_constant, self._index = self.force_constant[structures], batch.structure_index
