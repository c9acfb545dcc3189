"""Which state of each structure of a batch is worth giving back."""

from __future__ import annotations

import torch

from aiida_losiko.core.objective import Evaluation
from aiida_losiko.core.relaxation.sanity import flags_of
from aiida_losiko.core.relaxation.snapshot import Snapshot

# Losses of one minimum differ by less than this part.
SAME_LOSS = 1e-3


class Best:
    """The sane state of the lowest loss of each structure; of what never was sane, that of the lowest loss.

    Parameters
    ----------
    snapshot : Snapshot
        The first state.
    loss : Tensor, shape (n_structures,)
        Its losses.
    verdict : Tensor of int64, shape (n_structures,)
        See `Sanity.judge`.

    Attributes
    ----------
    state : Snapshot
        The best one.
    loss : Tensor, shape (n_structures,)
        Its losses.
    """

    def __init__(self, snapshot: Snapshot, loss: torch.Tensor, verdict: torch.Tensor) -> None:
        self.state, self.loss = snapshot, loss.clone()
        self._verdict = self._now = verdict
        # The lowest losses of what was not sane, with its verdicts, and of sane minima.
        self._astray_loss, self._settled_loss = (torch.full_like(loss, torch.inf) for _ in range(2))
        self._astray_verdict = torch.zeros_like(verdict)

    def compare(
        self,
        structure_index: torch.Tensor,
        rows: torch.Tensor,
        positions: torch.Tensor,
        cells: torch.Tensor,
        evaluation: Evaluation,
        verdict: torch.Tensor,
        running: torch.Tensor,
        accepted: torch.Tensor,
    ) -> None:
        """Take over what is better among the structures that are running.

        `structure_index` is that of the rows; `accepted` the structures whose optimiser goes on from here.
        """
        loss, self._now = evaluation.loss, verdict
        better = running & (loss < self.loss)
        if bool((verdict + self._verdict).any()):
            sane, was_sane = verdict == 0, self._verdict == 0
            further = running & ~sane & (loss < self._astray_loss)
            self._astray_loss = torch.where(further, loss, self._astray_loss)
            self._astray_verdict = torch.where(further, verdict, self._astray_verdict)
            # What is not finite at the start is an error, whatever comes later.
            saved = running & accepted & sane & ~was_sane & torch.isfinite(self.loss)
            better = (better & (sane == was_sane)) | saved
        if bool(better.any()):
            self.state.replace(better, structure_index, rows, positions, cells, evaluation)
            self.loss = torch.where(better, loss, self.loss)
            self._verdict = torch.where(better, verdict, self._verdict)

    def settle(self, converged: torch.Tensor, loss: torch.Tensor) -> None:
        """Note that the structures of a mask are at a minimum."""
        settled = converged & (self._now == 0) & (loss < self._settled_loss)
        self._settled_loss = torch.where(settled, loss, self._settled_loss)

    def astray(self, k: int) -> tuple[str, ...]:
        """Flags of what lies beyond a state that is but the last sane one on the way; none for a minimum."""
        best = float(self.loss[k])
        lower = float(self._astray_loss[k]) < best
        # A sane minimum is still one when a hop from there goes wrong.
        if int(self._verdict[k]) or not lower or float(self._settled_loss[k]) <= best * (1 + SAME_LOSS):
            return ()
        return flags_of(int(self._astray_verdict[k]))

    def keep(self, structures: torch.Tensor, row_mask: torch.Tensor) -> None:
        """Leave out the structures (mask of n_structures) and the rows (mask of n_rows) that are false."""
        self.state = self.state.keep(structures, row_mask)
        for name in ("loss", "_verdict", "_now", "_astray_loss", "_settled_loss", "_astray_verdict"):
            setattr(self, name, getattr(self, name)[structures])
