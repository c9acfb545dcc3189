"""The bonds of a molecule as it was at the start, and what it costs to stretch them too far."""

from __future__ import annotations

import torch
from ase.data import covalent_radii

from aiida_losiko.core.neighbors import StructureBatch

# Atoms closer than this part of the sum of their covalent radii are bonded, which tells what is one piece.
BONDED = 1.3
# Closer than this at the start, they are held. It is less, since in a start that is off by 0.2 Angstrom some atoms come
# closer than 1.3 that are not bonded, and holding these does more harm than missing bonds that were torn already.
HELD = 1.15
# A bond costs nothing up to this part of the sum; the longest one of G2 (that of F2) has 1.246.
STRETCHED = 1.25


class BondsOfStart:
    """The term k sum (r / R - 1)^2 over bonds of the start that are longer than R.

    Parameters
    ----------
    strength : float
        The k; the term has the unit of the loss.
    batch : StructureBatch
        The structures at the start. Periodic ones have no bonds here: theirs may be what is being sought.
    """

    def __init__(self, strength: float, batch: StructureBatch) -> None:
        self._strength = strength
        self._pairs = _bonds(batch)  # (n_bonds, 2) atoms of the batch

    def add(self, batch: StructureBatch, loss: torch.Tensor, gradient: torch.Tensor) -> None:
        """Add the term to the loss of each structure, and to the gradient."""
        first, second = self._pairs.T
        limit = STRETCHED * _sum_of_radii(batch, first, second)
        vectors = batch.positions[second] - batch.positions[first]
        length = torch.linalg.vector_norm(vectors, dim=1)
        excess = (length / limit - 1).clamp(min=0)
        if not bool((excess > 0).any()):
            return
        loss.index_add_(0, batch.structure_index[first], self._strength * excess**2)
        force = (2 * self._strength * excess / (limit * length.clamp_min(1e-12)))[:, None] * vectors
        gradient.index_add_(0, second, force).index_add_(0, first, -force)

    def keep(self, atoms: torch.Tensor) -> None:
        """Go on with the atoms of the mask."""
        number = torch.cumsum(atoms, 0) - 1
        self._pairs = number[self._pairs[atoms[self._pairs[:, 0]]]]


def _bonds(batch: StructureBatch) -> torch.Tensor:
    parts = [torch.empty((0, 2), dtype=torch.int64, device=batch.positions.device)]
    for structure in torch.nonzero(~batch.pbc.any(1))[:, 0].tolist():
        atoms = torch.nonzero(batch.structure_index == structure)[:, 0]
        first, second = atoms[torch.combinations(torch.arange(len(atoms), device=atoms.device))].T
        length = torch.linalg.vector_norm(batch.positions[second] - batch.positions[first], dim=1)
        bonded = length < HELD * _sum_of_radii(batch, first, second)
        parts.append(torch.stack([first[bonded], second[bonded]], dim=1))
    return torch.cat(parts)


def _sum_of_radii(batch: StructureBatch, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    radii = torch.as_tensor(covalent_radii, dtype=batch.positions.dtype, device=batch.positions.device)
    return radii[batch.numbers[first]] + radii[batch.numbers[second]]
