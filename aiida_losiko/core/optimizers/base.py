"""What every batched optimiser shares: sums over the rows of each structure, and the interface that a driver calls."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.optimizers.preconditioner import Preconditioner


class Segments:
    """Sums and maxima over the rows that belong to each structure.

    On the CPU the sum of a structure is taken in the order of its rows whatever else is in the batch, so that results
    do not depend on batch mates, not even in the last digit. On other devices padded sums replace the atomic
    additions, whose order changes from run to run.

    Parameters
    ----------
    structure_index : Tensor, shape (R,), int64
        The structure of each row, in any order.
    n_structures : int
        Number of structures B; each needs at least one row.
    """

    def __init__(self, structure_index: Tensor, n_structures: int) -> None:
        counts = torch.bincount(structure_index, minlength=n_structures)
        if len(counts) != n_structures or (n_structures and int(counts.min()) == 0):
            raise LosikoError(
                f"the rows' structure indices give {len(counts)} structures with {counts.tolist()} rows; "
                f"expected {n_structures} structures with at least one row each"
            )
        self.n_structures = n_structures
        self.index = structure_index
        self._rows = _padded_rows(structure_index, counts)
        self._is_padding = torch.arange(self._rows.shape[1], device=counts.device) >= counts[:, None]
        self._sum_index: dict[int, Tensor] = {}
        self._on_cpu = structure_index.device.type == "cpu"

    def sum(self, values: Tensor) -> Tensor:
        """Sum of each structure: (K, 3, R) to (K, B)."""
        n_vectors, n_structures = values.shape[0], self.n_structures
        rows = values[:, 0] + values[:, 1]
        rows += values[:, 2]
        if not self._on_cpu:
            padded = rows[:, self._rows].masked_fill(self._is_padding, 0.0)
            sums: Tensor = padded.sum(-1)
            return sums
        index = self._sum_index.get(n_vectors)
        if index is None:
            offsets = torch.arange(n_vectors) * n_structures
            index = self._sum_index[n_vectors] = (offsets[:, None] + self.index).view(-1)
        result = values.new_zeros(n_vectors * n_structures)
        result.index_add_(0, index, rows.view(-1))
        return result.view(n_vectors, n_structures)

    def longest_row(self, values: Tensor) -> Tensor:
        """Norm of the longest row of each structure: (K, 3, R) to (K, B)."""
        norms = torch.linalg.vector_norm(values, dim=1)
        grouped = norms[:, None] if self.n_structures == 1 else norms[:, self._rows]
        longest: Tensor = grouped.amax(-1)
        return longest

    def spread(self, values: Tensor) -> Tensor:
        """Value of each structure at all of its rows: (..., B) to (..., R)."""
        spread: Tensor = values.index_select(-1, self.index)
        return spread

    def keep(self, structures: Tensor) -> tuple[Segments, Tensor]:
        """Segments of the structures that a mask (B,) keeps, and the mask (R,) of their rows."""
        rows = structures[self.index]
        renumbered = torch.cumsum(structures.long(), 0) - 1
        return Segments(renumbered[self.index[rows]], int(structures.sum())), rows


def _padded_rows(structure_index: Tensor, counts: Tensor) -> Tensor:
    """Row numbers of each structure, (B, longest); short structures repeat their first row."""
    if counts.numel() == 0:
        return counts.new_zeros((0, 1))
    order = torch.argsort(structure_index, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    columns = torch.arange(int(counts.max()), device=counts.device).expand(len(counts), -1)
    return order[starts[:, None] + torch.where(columns < counts[:, None], columns, 0)]


class BatchOptimizer(ABC):
    """Minimises many independent functions at once; a caller evaluates, the optimiser proposes.

    ::

        trial = start
        while ...:
            loss, gradient = evaluate(trial)
            trial = optimizer.propose(trial, loss, gradient)

    Rows whose gradient is zero at every evaluation (frozen atoms) stay exactly where they are.

    Parameters
    ----------
    structure_index : Tensor, shape (R,), int64
        The structure of each row (atoms, and three rows for a free cell), in any order.
    n_structures : int
        Number of structures B.
    max_step_length : float
        No row moves further than this in one step (Angstrom); a step that is too long is shortened as a whole.

    Raises
    ------
    LosikoError
        If ``max_step_length`` is not positive or a structure has no row.
    """

    preconditioned = False
    """Whether the method makes use of `precondition`."""

    judged_by_loss_change = True
    """Whether a step that hardly changes the loss, by its own measure, is a sign of the end."""

    def __init__(self, structure_index: Tensor, n_structures: int, *, max_step_length: float) -> None:
        if not max_step_length > 0:
            raise LosikoError(f"max_step_length {max_step_length!r} must be a positive length in Angstrom, e.g. 0.1")
        self.max_step_length = float(max_step_length)
        self._segments = Segments(structure_index, n_structures)
        device = structure_index.device
        self._started = False
        self._fresh = torch.ones(n_structures, dtype=torch.bool, device=device)
        self._accepted = torch.zeros(n_structures, dtype=torch.bool, device=device)
        self._stalled = torch.zeros(n_structures, dtype=torch.bool, device=device)
        self._rejections = torch.zeros(n_structures, dtype=torch.int64, device=device)
        self._preconditioner: Preconditioner | None = None

    def precondition(self, preconditioner: Preconditioner) -> None:
        """Begin with these second derivatives, where the method can; before the first `propose`."""
        self._preconditioner = preconditioner

    def propose(self, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """Take the values at the last trial and give the next one.

        Parameters
        ----------
        x : Tensor, shape (R, 3)
            Where the functions were evaluated: what the last call returned, or the start (Angstrom). Structures that
            were forgotten may be anywhere.
        loss : Tensor, shape (B,)
            Values there; nan or inf rejects the trial of that structure only.
        gradient : Tensor, shape (R, 3)
            Derivatives there, zero in rows that must not move.

        Returns
        -------
        Tensor, shape (R, 3)
            Where to evaluate next.
        """
        x, loss, gradient = x.detach().T.contiguous(), loss.detach(), gradient.detach().T.contiguous()
        if not self._started:
            self._started = True
            self._x, self._gradient = x, torch.zeros_like(gradient)
            self._loss = torch.full_like(loss, torch.nan)
            self._start()
        return self._propose(x, loss, gradient).T.contiguous()

    @abstractmethod
    def _start(self) -> None:
        """Allocate the state; ``_x``, ``_loss`` and ``_gradient`` are there."""

    @abstractmethod
    def _propose(self, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """Do the work of `propose`; inside, coordinates are (3, R), since short last dimensions are slow."""

    @abstractmethod
    def _keep(self, structures: Tensor, rows: Tensor) -> None:
        """Drop state of structures and rows that the masks (B,), (R,) leave out."""

    def _take(self, accepted: Tensor, x: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Make the accepted trials the current points and count the rejections of the others."""
        self._accepted = accepted
        if bool(accepted.all()):
            self._x, self._loss, self._gradient = x, loss, gradient
            self._rejections, self._fresh = torch.zeros_like(self._rejections), torch.zeros_like(accepted)
            return
        moved = self._segments.spread(accepted)
        self._x = torch.where(moved, x, self._x)
        self._gradient = torch.where(moved, gradient, self._gradient)
        self._loss = torch.where(accepted, loss, self._loss)
        self._rejections = torch.where(accepted, 0, self._rejections + 1)
        self._fresh = self._fresh & ~accepted

    @property
    def n_structures(self) -> int:
        """Number of structures B that are left."""
        return self._segments.n_structures

    @property
    def structure_index(self) -> Tensor:
        """Structure of each row (R,), renumbered after `keep`."""
        return self._segments.index

    @property
    def accepted(self) -> Tensor:
        """Whether the last trial became the current point (B,): a step; False is a rejection by the line search."""
        return self._accepted

    @property
    def stalled(self) -> Tensor:
        """Whether a structure has given up (B,): no step lowers its loss, or its values are not finite."""
        return self._stalled

    @property
    def x(self) -> Tensor:
        """Current point (R, 3): the last accepted trial (Angstrom)."""
        return self._x.T

    @property
    def loss(self) -> Tensor:
        """Loss at the current point (B,); nan before the first finite value."""
        return self._loss

    @property
    def gradient(self) -> Tensor:
        """Gradient at the current point (R, 3)."""
        return self._gradient.T

    def keep(self, structures: Tensor) -> None:
        """Drop finished structures and their rows; the others are renumbered and go on as if nothing had happened.

        Parameters
        ----------
        structures : Tensor, shape (B,), bool
            True for structures that stay.
        """
        self._segments, rows = self._segments.keep(structures)
        for name in ("_fresh", "_accepted", "_stalled", "_rejections"):
            setattr(self, name, getattr(self, name)[structures])
        if self._preconditioner is not None:
            self._preconditioner.keep(structures, self._segments.index)
        if self._started:
            self._x, self._gradient = self._x[:, rows], self._gradient[:, rows]
            self._loss = self._loss[structures]
            self._keep(structures, rows)

    def forget(
        self,
        structures: Tensor | None = None,
        *,
        x: Tensor | None = None,
        loss: Tensor | None = None,
        gradient: Tensor | None = None,
    ) -> None:
        """Restart structures that were changed from outside (noise, other targets) at the next evaluated point.

        That point is accepted whatever its loss, without a memory of the points before; stalled structures go on.

        Parameters
        ----------
        structures : Tensor, shape (B,), bool, optional
            Which; default all.
        x, loss, gradient : Tensor, shapes (R, 3), (B,), (R, 3), optional
            What the properties of these structures report until then; default as before.
        """
        if structures is None:
            structures = torch.ones_like(self._fresh)
        self._fresh = self._fresh | structures
        self._stalled = self._stalled & ~structures
        self._rejections = torch.where(structures, 0, self._rejections)
        if not self._started:
            return
        rows = self._segments.spread(structures)
        if x is not None:
            self._x = torch.where(rows, x.detach().T, self._x)
        if gradient is not None:
            self._gradient = torch.where(rows, gradient.detach().T, self._gradient)
        if loss is not None:
            self._loss = torch.where(structures, loss.detach(), self._loss)
