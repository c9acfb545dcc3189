"""Which state of each structure of a batch is worth going on with, and which is worth giving back."""

from __future__ import annotations

import torch

from aiida_losiko.core.relaxation.sanity import LOST_ATOMS, flags_of
from aiida_losiko.core.relaxation.snapshot import Snapshot

# Losses of one minimum differ by less than this part.
SAME_LOSS = 1e-3


class Best:
    """The states of the lowest loss, and where these are not sane, the last ones that were.

    Parameters
    ----------
    state : Snapshot
        The first state.
    loss : Tensor, shape (n_structures,)
        Its losses.
    verdict : Tensor of int64, shape (n_structures,)
        See `Sanity.judge`.

    Attributes
    ----------
    state : Snapshot
        Of the lowest losses.
    loss : Tensor, shape (n_structures,)
        These.
    """

    def __init__(self, state: Snapshot, loss: torch.Tensor, verdict: torch.Tensor) -> None:
        self.state, self.loss = state, loss.clone()
        self._verdict = self._now = verdict
        self._sane, self._sane_loss = state, torch.full_like(loss, torch.inf)
        # Of sane minima.
        self._settled_loss = self._sane_loss

    def compare(
        self,
        structure_index: torch.Tensor,
        now: Snapshot,
        loss: torch.Tensor,
        verdict: torch.Tensor,
        mask: torch.Tensor,
    ) -> None:
        """Take over what is better now among the structures of a mask; `structure_index` is that of the rows."""
        self._now = verdict
        better = mask & (loss < self.loss)
        if bool((verdict + self._verdict).any()):
            sane, was_sane = verdict == 0, self._verdict == 0
            left = better & was_sane & ~sane
            self._sane = self._sane.replaced(left, structure_index, self.state)
            self._sane_loss = torch.where(left, self.loss, self._sane_loss)
            # Sane again, but not as low.
            back = mask & sane & ~was_sane & (loss < self._sane_loss)
            self._sane = self._sane.replaced(back, structure_index, now)
            self._sane_loss = torch.where(back, loss, self._sane_loss)
        if bool(better.any()):
            self.state = self.state.replaced(better, structure_index, now)
            self.loss = torch.where(better, loss, self.loss)
            self._verdict = torch.where(better, verdict, self._verdict)

    def settle(self, converged: torch.Tensor, loss: torch.Tensor) -> None:
        """Note that the structures of a mask are at a minimum."""
        settled = converged & (self._now == 0) & (loss < self._settled_loss)
        self._settled_loss = torch.where(settled, loss, self._settled_loss)

    def origin(self, structure_index: torch.Tensor) -> Snapshot:
        """Where a search goes on: at the lowest loss, but not in what has collapsed or exploded."""
        spoilt = torch.isfinite(self._sane_loss) & (self._verdict != 0) & (self._verdict != LOST_ATOMS)
        return self.state.replaced(spoilt, structure_index, self._sane) if bool(spoilt.any()) else self.state

    def outcome(self, k: int) -> tuple[Snapshot, float, tuple[str, ...]]:
        """What to give back of a structure: a state that holds it, its loss, and flags of what was found below that.

        There are flags where the state is but the last sane one on the way, and none where it is a minimum.
        """
        if not int(self._verdict[k]) or not bool(torch.isfinite(self._sane_loss[k])):
            return self.state, float(self.loss[k]), ()
        loss = float(self._sane_loss[k])
        # A sane minimum is still one when a hop from there goes wrong.
        settled = float(self._settled_loss[k]) <= loss * (1 + SAME_LOSS)
        return self._sane, loss, () if settled else flags_of(int(self._verdict[k]))

    def keep(self, structures: torch.Tensor, row_mask: torch.Tensor) -> None:
        """Leave out the structures (mask of n_structures) and the rows (mask of n_rows) that are false."""
        self.state, self._sane = self.state.keep(structures, row_mask), self._sane.keep(structures, row_mask)
        for name in ("loss", "_verdict", "_now", "_sane_loss", "_settled_loss"):
            setattr(self, name, getattr(self, name)[structures])
