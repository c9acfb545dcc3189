"""Limited-memory BFGS for many structures at once, with a backtracking line search of its own for each."""

from __future__ import annotations

import torch
from torch import Tensor

from aiida_losiko.core.optimizers.base import BatchOptimizer

_SUFFICIENT_DECREASE = 1e-4
_CURVATURE = 1e-8
_DESCENT = 1e-8


class LBFGS(BatchOptimizer):
    r"""Batched L-BFGS in the compact form of Byrd, Nocedal and Schnabel (Math. Program. 63, 129 (1994), Eq. 3.1).

    With the kept steps S and gradient differences Y (columns, oldest first), R the upper triangle of :math:`S^T Y`, D
    its diagonal and :math:`\gamma = s^T y / y^T y` of the newest pair, the direction :math:`-H g` is

    .. math:: H g = \gamma g + S w - \gamma Y u,\quad R u = S^T g,\quad R^T w = (D + \gamma Y^T Y) u - \gamma Y^T g

    which equals the two-loop recursion and costs two small triangular solves instead of 2m sums over all atoms in a
    row: single molecules are bound by the number of calls. With a preconditioner P the same holds for P g in place of
    g, P Y in place of Y beside :math:`S w`, and :math:`y^T P y` in place of :math:`y^T y`.

    Each trial is one evaluation. It becomes the current point if the loss falls enough (Armijo), otherwise the step is
    shortened by quadratic interpolation; structures wait for nobody. The loss may be piecewise smooth (a minimum over
    targets): pairs without positive curvature are not kept, and after `reset_after` rejections in a row the structure
    continues with steepest descent, after `max_rejections` it is `stalled`.

    Parameters
    ----------
    structure_index, n_structures, max_step_length
        See `BatchOptimizer`.
    memory : int
        Number m of pairs kept for each structure. More than usual pay here: the loss is stiff, small, and costs more
        than the memory (20 molecules displaced by 0.1 Angstrom: 134 evaluations with 8, 109 with 14, 89 with 20).
    lower_bound : float or None
        A value that no loss falls below; the first step is not longer than a parabola that ends there would make it.
        None if it is not known.
    reset_after, max_rejections : int
        Rejections in a row after which the memory is dropped, and after which the structure is stalled.
    """

    preconditioned = True

    def __init__(
        self,
        structure_index: Tensor,
        n_structures: int,
        *,
        max_step_length: float,
        memory: int = 24,
        lower_bound: float | None = 0.0,
        reset_after: int = 5,
        max_rejections: int = 10,
    ) -> None:
        super().__init__(structure_index, n_structures, max_step_length=max_step_length)
        self.memory = memory
        self.lower_bound = lower_bound
        self.reset_after = reset_after
        self.max_rejections = max_rejections

    def _start(self) -> None:
        n_structures, memory, like = self.n_structures, self.memory, self._x
        # Steps, then gradient differences (P Y with a preconditioner); oldest first.
        self._history = like.new_zeros((2 * memory, *like.shape))
        self._products = like.new_zeros((2, n_structures, memory, memory))  # S^T Y and Y^T P Y of each structure
        self._depth = torch.zeros_like(self._rejections)  # pairs of each structure: the last ones of the history
        self._step = torch.zeros_like(like)  # the trial that is being evaluated, from the current point
        self._slope = torch.zeros_like(self._loss)  # derivative of the loss along it
        self._length = torch.zeros_like(self._loss)  # its longest row
        self._identity = torch.eye(memory, dtype=like.dtype, device=like.device)
        self._upper = torch.ones((memory, memory), dtype=torch.bool, device=like.device).triu()
        self._slot = torch.arange(memory, device=like.device)
        self._tiny = torch.finfo(like.dtype).tiny
        self._rounding = 8 * torch.finfo(like.dtype).eps

    def _propose(self, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        segments = self._segments
        step, change = x - self._x, gradient - self._gradient
        ss, sy, yy = segments.sum(torch.stack((step * step, step * change, change * change)))
        finite = torch.isfinite(loss + yy)
        limit = self._loss + _SUFFICIENT_DECREASE * self._slope + self._rounding * self._loss.abs()
        new_pair = accepted = finite & (loss <= limit)
        if bool(self._fresh.any()):
            new_pair, accepted = accepted & ~self._fresh, torch.where(self._fresh, finite, accepted)
            self._stalled = self._stalled | (self._fresh & ~finite)
            self._depth = torch.where(self._fresh, 0, self._depth)
        new_pair = new_pair & (sy > _CURVATURE * torch.sqrt(ss * yy))
        ratio = loss if bool(accepted.all()) else self._interpolate(loss, finite)  # only read where a trial failed
        self._take(accepted, x, loss, gradient)
        self._remember(new_pair, step, change)
        return self._x + self._next_step(ratio)

    def _interpolate(self, loss: Tensor, finite: Tensor) -> Tensor:
        """Factor that a rejected step is to be shortened by: the minimum of a parabola, within reason."""
        excess = loss - self._loss - self._slope
        ratio = -0.5 * self._slope / excess
        # The first step has no curvature behind it and may be too long by orders of magnitude.
        shortest = torch.where(self._depth == 0, 0.01, 0.1)
        ratio = torch.maximum(torch.clamp(ratio, max=0.5), shortest)
        return torch.where(finite & (excess > 0), ratio, 0.25)

    def _remember(self, new_pair: Tensor, step: Tensor, change: Tensor) -> None:
        """Append the pairs of the structures in the mask, dropping their oldest, and update the products."""
        segments, memory = self._segments, self.memory
        any_new, all_new = bool(new_pair.any()), bool(new_pair.all())
        if any_new:
            history = self._history
            conditioned = self._conditioned(change)[None]
            shifted = torch.cat((history[1:memory], step[None], history[memory + 1 :], conditioned))
            self._history = shifted if all_new else torch.where(segments.spread(new_pair), shifted, history)
            self._depth = torch.where(new_pair, torch.clamp(self._depth + 1, max=memory), self._depth)
        vectors = torch.stack((change, self._gradient)) if any_new else self._gradient[None]
        sums = segments.sum((self._history * vectors[:, None]).flatten(0, 1))
        sums = sums.view(len(vectors), 2, memory, -1).transpose(-1, -2)  # with each vector: S and Y, (B, m)
        self._with_gradient = sums[-1]
        if any_new:
            shifted = torch.nn.functional.pad(self._products[:, :, 1:, 1:], (0, 1, 0, 1))
            shifted[..., -1, :] = sums[0]  # the lower triangle of S^T Y is never read
            shifted[..., -1] = sums[0]
            self._products = shifted if all_new else torch.where(new_pair[:, None, None], shifted, self._products)

    def _direction(self) -> Tensor:
        """Quasi-Newton direction (3, R); meaningless for structures without pairs, unless there is a preconditioner."""
        step_change, change_change = self._products
        valid = self._slot >= (self.memory - self._depth)[:, None]
        triangle = torch.where(valid[..., None] & self._upper, step_change, self._identity)
        step_gradient, change_gradient = torch.where(valid, self._with_gradient, 0.0)
        scale = (step_change[:, -1, -1] / change_change[:, -1, -1])[:, None]
        if self._preconditioner is not None:
            scale = torch.where(self._depth[:, None] > 0, scale, 1.0)
        u = torch.linalg.solve_triangular(triangle, step_gradient[..., None], upper=True)
        product = (change_change * u.mT).sum(-1) - change_gradient
        right = step_change.diagonal(dim1=1, dim2=2) * u[..., 0] + scale * product
        w = torch.linalg.solve_triangular(triangle.mT, torch.where(valid, right, 0.0)[..., None], upper=False)
        weights = torch.cat((-w[..., 0], scale * u[..., 0], -scale), 1).T
        spread = self._segments.spread(weights)
        return _sum_first(spread[:-1, None] * self._history) + spread[-1] * self._conditioned(self._gradient)

    def _conditioned(self, vector: Tensor) -> Tensor:
        return vector if self._preconditioner is None else self._preconditioner.apply(vector)

    def _next_step(self, ratio: Tensor) -> Tensor:
        """Choose between quasi-Newton, steepest descent and a shortened step, limit the length, and keep the choice."""
        segments, gradient, direction = self._segments, self._gradient, self._direction()
        gg, gd, dd = segments.sum(torch.stack((gradient * gradient, gradient * direction, direction * direction)))
        longest = segments.longest_row(direction[None])[0]
        limited = torch.clamp(self.max_step_length / torch.clamp(longest, min=self._tiny), max=1.0)
        newton = (gd < -_DESCENT * torch.sqrt(gg * dd)) & torch.isfinite(dd)
        if self._preconditioner is None:
            newton = newton & (self._depth > 0)
        if bool((newton & (self._rejections == 0) & ~self._stalled).all()):  # the usual case, in few calls
            self._slope, self._length = limited * gd, limited * longest
            self._step = direction * segments.spread(limited)
            return self._step

        reset = self._rejections == self.reset_after
        retry = (self._rejections > 0) & ~reset
        newton = newton & ~reset
        self._stalled = self._stalled | (self._rejections >= self.max_rejections)
        self._depth = torch.where(newton | retry, self._depth, 0)
        longest_gradient = segments.longest_row(gradient[None])[0]
        descent = torch.where(reset, ratio * self._length, self.max_step_length)
        if self.lower_bound is not None:
            above = self._loss - self.lower_bound
            parabola = 2.0 * above * (longest_gradient / torch.clamp(gg, min=self._tiny))
            descent = torch.where(above > 0, torch.minimum(descent, parabola), descent)
        # Nowhere to go without a gradient; a long step over the smallest number would be infinite.
        descent = torch.where(longest_gradient > 0, descent / torch.clamp(longest_gradient, min=self._tiny), 0.0)

        factor = torch.where(retry, ratio, torch.where(newton, limited, -descent))
        factor = torch.where(self._stalled, 0.0, factor)
        self._slope = factor * torch.where(retry, self._slope, torch.where(newton, gd, gg))
        self._length = factor.abs() * torch.where(retry, self._length, torch.where(newton, longest, longest_gradient))
        choice = torch.where(segments.spread(newton), direction, gradient)
        self._step = torch.where(segments.spread(retry), self._step, choice) * segments.spread(factor)
        return self._step

    def _keep(self, structures: Tensor, rows: Tensor) -> None:
        self._history = self._history[..., rows]
        self._products = self._products[:, structures]
        self._step = self._step[:, rows]
        self._depth, self._slope = self._depth[structures], self._slope[structures]
        self._length = self._length[structures]


def _sum_first(values: Tensor) -> Tensor:
    """Sum over the first dimension by halves, overwriting the values.

    `torch.sum` adds in an order that depends on the position in memory, and so on what else is in the batch.
    """
    n_left = len(values)
    while n_left > 1:
        n_added = n_left // 2
        values[:n_added] += values[n_left - n_added : n_left]
        n_left -= n_added
    return values[0]
