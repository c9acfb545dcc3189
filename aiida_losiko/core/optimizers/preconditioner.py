"""An estimate of the inverse second derivatives of each structure, for an optimiser to begin with."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the mean curvature; flatter directions count as this curved, since the estimate knows nothing of them.
_FLATTEST = 1e-4


class Preconditioner:
    """Inverse (H + k)^-1 of each structure.

    Parameters
    ----------
    curvature : Tensor, shape (B, 3 m, 3 m)
        H of structures of up to m rows, symmetric and positive semi-definite.
    added : Tensor, shape (B,)
        k: curvature that is the same in all directions.
    structure_index : Tensor, shape (R,), int64
        The structure of each row, ascending.
    """

    def __init__(self, curvature: Tensor, added: Tensor, structure_index: Tensor) -> None:
        size = curvature.shape[1]
        full = curvature.double()
        mean = full.diagonal(dim1=1, dim2=2).sum(1) / (3 * torch.bincount(structure_index, minlength=len(full)))
        shift = torch.maximum(added.double(), _FLATTEST * mean).clamp_min(torch.finfo(torch.float32).tiny)
        full = full + shift[:, None, None] * torch.eye(size, dtype=full.dtype, device=full.device)
        factor, failed = torch.linalg.cholesky_ex(full)
        failed = (failed != 0) | ~torch.isfinite(factor).flatten(1).all(1)
        # Numbers that are not finite are one structure's own affair: its loss will not be finite either.
        factor = torch.where(failed[:, None, None], torch.eye(size, dtype=full.dtype, device=full.device), factor)
        self._inverse = torch.cholesky_inverse(factor).to(curvature.dtype)
        self._place(structure_index)

    def _place(self, structure_index: Tensor) -> None:
        counts = torch.bincount(structure_index, minlength=len(self._inverse))
        first = torch.cumsum(counts, 0) - counts
        most = self._inverse.shape[1] // 3
        slot = torch.arange(len(structure_index), device=first.device) - first[structure_index]
        self._slots = structure_index * most + slot

    def apply(self, rows: Tensor) -> Tensor:
        """Product with (3, R)."""
        padded = rows.new_zeros((len(self._inverse) * self._inverse.shape[1] // 3, 3))
        padded[self._slots] = rows.T
        product = torch.bmm(self._inverse, padded.view(len(self._inverse), -1, 1))
        return product.view(-1, 3)[self._slots].T.contiguous()

    def keep(self, structures: Tensor, structure_index: Tensor) -> None:
        """Go on with the structures of a mask (B,), whose rows are then `structure_index`."""
        self._inverse = self._inverse[structures]
        self._place(structure_index)
