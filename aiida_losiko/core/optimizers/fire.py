"""FIRE: damped molecular dynamics on the loss, for many structures at once."""

from __future__ import annotations

import torch
from torch import Tensor

from aiida_losiko.core.optimizers.base import BatchOptimizer


class FIRE(BatchOptimizer):
    """Batched FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)) with ASE's parameters.

    Time step, damping and counter belong to each structure. Every finite trial is accepted, also when the loss rises;
    after one that is not finite the structure starts again from its last point, at rest, with half the time step.

    Parameters
    ----------
    structure_index, n_structures, max_step_length
        See `BatchOptimizer`.
    dt, dt_max : float
        First and largest time step (unit masses: Angstrom per square root of the loss).
    n_min : int
        Steps downhill before the time step grows.
    f_inc, f_dec, alpha_start, f_alpha : float
        Growth and reduction of the time step, first damping and its reduction.
    max_rejections : int
        Trials in a row without finite values after which the structure is stalled.
    """

    # It starts from rest: the first steps are small wherever the minimum is.
    judged_by_loss_change = False

    def __init__(
        self,
        structure_index: Tensor,
        n_structures: int,
        *,
        max_step_length: float,
        dt: float = 0.1,
        dt_max: float = 1.0,
        n_min: int = 5,
        f_inc: float = 1.1,
        f_dec: float = 0.5,
        alpha_start: float = 0.1,
        f_alpha: float = 0.99,
        max_rejections: int = 10,
    ) -> None:
        super().__init__(structure_index, n_structures, max_step_length=max_step_length)
        self.dt, self.dt_max, self.n_min = dt, dt_max, n_min
        self.f_inc, self.f_dec = f_inc, f_dec
        self.alpha_start, self.f_alpha = alpha_start, f_alpha
        self.max_rejections = max_rejections

    def _start(self) -> None:
        self._velocity = torch.zeros_like(self._x)
        self._dt = torch.full_like(self._loss, self.dt)
        self._alpha = torch.full_like(self._loss, self.alpha_start)
        self._n_downhill = torch.zeros_like(self._rejections)
        self._tiny = torch.finfo(self._x.dtype).tiny

    def _propose(self, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        segments = self._segments
        finite = torch.isfinite(loss + segments.sum((gradient * gradient)[None])[0])
        fresh = self._fresh
        self._stalled = self._stalled | (fresh & ~finite) | (self._rejections + 1 >= self.max_rejections) & ~finite
        self._dt = torch.where(fresh, self.dt, self._dt)
        self._take(finite, x, loss, gradient)
        force, velocity = -self._gradient, self._velocity
        power, ff, vv = segments.sum(torch.stack((force * velocity, force * force, velocity * velocity)))
        downhill = (power > 0) & finite & ~fresh
        rested = fresh & finite

        mixing = self._alpha * torch.sqrt(vv / torch.clamp(ff, min=self._tiny))
        factors = torch.where(downhill, torch.stack((1.0 - self._alpha, mixing)), 0.0)
        grows = downhill & (self._n_downhill > self.n_min)
        longer, shorter = torch.clamp(self._dt * self.f_inc, max=self.dt_max), self._dt * self.f_dec
        # A structure at rest for lack of a past (fresh) keeps its time step; one that went uphill halves it.
        uphill = ~downhill & ~rested & ((vv > 0) | ~finite)
        self._dt = torch.where(grows, longer, torch.where(uphill, shorter, self._dt))
        self._alpha = torch.where(
            downhill, torch.where(grows, self._alpha * self.f_alpha, self._alpha), self.alpha_start
        )
        self._n_downhill = torch.where(downhill, self._n_downhill + 1, 0)

        keep, add = segments.spread(torch.stack((factors[0], factors[1] + self._dt)))
        self._velocity = velocity * keep + force * add
        step = self._velocity * segments.spread(self._dt)
        longest = torch.clamp(segments.longest_row(step[None])[0], min=self._tiny)
        limited = torch.clamp(self.max_step_length / longest, max=1.0)
        limited = torch.where(self._stalled, 0.0, limited)
        return self._x + step * segments.spread(limited)

    def _keep(self, structures: Tensor, rows: Tensor) -> None:
        self._velocity = self._velocity[:, rows]
        self._dt, self._alpha = self._dt[structures], self._alpha[structures]
        self._n_downhill = self._n_downhill[structures]
