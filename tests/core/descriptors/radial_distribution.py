"""A descriptor as one adds it: how many neighbours of each element there are at each distance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.descriptors import Descriptor


class RadialDistribution(Descriptor):
    """Smooth radial distribution function of an environment, one for each element.

    Feature (Z, k) is the sum over neighbours of element Z at distance r of exp(-(r - r_k)^2 / (2 sigma^2)) f(r), with
    n_bins distances r_k from 0.5 Angstrom to r_cut, and f(r) = (1 + cos(pi r / r_cut)) / 2.

    Parameters
    ----------
    species : iterable of str
        Chemical symbols that can occur.
    r_cut : float
        Radius of the environment in Angstrom.
    n_bins : int
        Number of distances.
    sigma : float
        Width of the Gaussians in Angstrom.
    """

    name = "radial"

    def __init__(self, species: Iterable[str], r_cut: float, n_bins: int = 16, sigma: float = 0.2) -> None:
        super().__init__(species)
        self.r_cut = self.cutoff = float(r_cut)
        self.n_bins, self.sigma = n_bins, sigma
        self.n_features = len(self.species) * n_bins

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments, and the name."""
        return {
            "name": self.name,
            "species": list(self.species),
            "r_cut": self.r_cut,
            "n_bins": self.n_bins,
            "sigma": self.sigma,
        }

    def columns(self, present: tuple[int, ...]) -> NDArray[np.int64] | None:
        """Features of the elements that are there; None when all are."""
        if present == self.numbers:
            return None
        first = np.array([self.numbers.index(z) for z in present]) * self.n_bins
        return (first[:, None] + np.arange(self.n_bins)).ravel()

    def features_of(
        self, vectors: torch.Tensor, inside: torch.Tensor, species_index: torch.Tensor, present: tuple[int, ...]
    ) -> torch.Tensor:
        """See `Descriptor.features_of`; PyTorch differentiates what is written here."""
        squared = (vectors**2).sum(-1)
        is_neighbor = (squared > 0) & (inside > 0)
        # The centre and padding have the distance zero, where a square root has no derivative.
        r = torch.where(is_neighbor, squared, torch.ones_like(squared)).sqrt()
        weight = is_neighbor * 0.5 * (1 + torch.cos(math.pi * r / self.r_cut))
        places = torch.linspace(0.5, self.r_cut, self.n_bins, dtype=r.dtype, device=r.device)
        bins = torch.exp(-((r[..., None] - places) ** 2) / (2 * self.sigma**2)) * weight[..., None]
        kinds = torch.nn.functional.one_hot(species_index, len(present)).to(r.dtype)
        return torch.einsum("aik,ais->ask", bins, kinds).flatten(1)
