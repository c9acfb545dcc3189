"""SOAP power spectrum in a basis of Gaussian-type orbitals, equal to DScribe's `SOAP(rbf="gto")`.

The density of Gaussians of width sigma around a centre (Eq. 4 of the LOSIKO paper) is expanded in radial functions
g_nl(r) = sum_n' beta_nn'l r^l exp(-alpha_n'l r^2) and real spherical harmonics. A Gaussian at R contributes

    c_n'lm = (pi / (alpha + eta))^(3/2) (eta / (alpha + eta))^l exp(-alpha eta / (alpha + eta) R^2) R^l Y_lm(R),

with eta = 1 / (2 sigma^2): a radial factor times a solid harmonic, so that the density's coefficients of a centre are
one matrix product over its neighbours, and the power spectrum (Eq. 5) one Gram matrix for each l. Both have their
derivatives written out, which costs less than what automatic differentiation would keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sphericart.torch import SolidHarmonics

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.descriptors.base import Descriptor
from aiida_losiko.core.descriptors.radial_basis import DECAY, RadialConstants, gto_basis
from aiida_losiko.core.descriptors.weighting import RadialWeighting

L_MAX_LARGEST = 20
# Beyond these a neighbourhood is a piece of matter rather than an environment, or its Gaussians are points: what could
# only fill the memory or give vectors of zeros is refused.
R_CUT_LARGEST = 50.0
SIGMAS = (0.01, 5.0)
_ALLOWED_R_CUT = f"a number larger than 1 and at most {R_CUT_LARGEST:g} (Angstrom)"
_ALLOWED_SIGMA = f"a number from {SIGMAS[0]:g} to {SIGMAS[1]:g} (Angstrom)"


class SoapPowerSpectrum(Descriptor):
    """SOAP power spectrum (Eq. 5), with DScribe's values and order of features.

    Parameters
    ----------
    species : iterable of str
        Chemical symbols that can occur.
    r_cut : float
        Radius of the environment in Angstrom, larger than 1 and at most 50. As in DScribe, neighbours count up to
        `r_cut + sigma sqrt(2 ln 1000)`, where their Gaussians have decayed at `r_cut`.
    n_max : int
        Number of radial functions.
    l_max : int
        Highest degree of the spherical harmonics, at most 20.
    sigma : float
        Standard deviation of the Gaussians in Angstrom, from 0.01 to 5.
    weighting : mapping, optional
        Weight of a neighbour by its distance, with the keys of DScribe: `function` (poly, pow or exp) with `r0`, `c`,
        `d`, `m`, and `w0` for the centre itself.

    Notes
    -----
    Features run over pairs of species Z1 <= Z2, then l, then n, then n' (n' >= n where Z1 = Z2).
    """

    name = "soap"

    def __init__(
        self,
        species: Iterable[str],
        r_cut: float,
        n_max: int,
        l_max: int,
        sigma: float,
        weighting: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(species)
        require("r_cut", r_cut, is_real(r_cut) and 1.0 < r_cut <= R_CUT_LARGEST, _ALLOWED_R_CUT)
        require("sigma", sigma, is_real(sigma) and SIGMAS[0] <= sigma <= SIGMAS[1], _ALLOWED_SIGMA)
        self.r_cut, self.sigma = float(r_cut), float(sigma)
        self.n_max = _integer("n_max", n_max, 1, 100)
        self.l_max = _integer("l_max", l_max, 0, L_MAX_LARGEST)
        self.weighting = RadialWeighting.from_dict(weighting)
        self.cutoff = self.r_cut + self.sigma * float(np.sqrt(-2 * np.log(DECAY)))
        self.n_features = _n_features(len(self.species), self.n_max, self.l_max)
        self._alphas, self._betas = gto_basis(self.r_cut, self.n_max, self.l_max)
        self._harmonics = SolidHarmonics(self.l_max)
        self._constants: dict[tuple[torch.dtype, torch.device], RadialConstants] = {}

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {
            "name": self.name,
            "species": list(self.species),
            "r_cut": self.r_cut,
            "n_max": self.n_max,
            "l_max": self.l_max,
            "sigma": self.sigma,
            "weighting": self.weighting.to_dict(),
        }

    def columns(self, present: tuple[int, ...]) -> NDArray[np.int64] | None:
        """Features of pairs of species that are present; None when all are."""
        if present == self.numbers:
            return None
        return _present_columns(
            tuple(self.numbers.index(z) for z in present), len(self.numbers), self.n_max, self.l_max
        )

    def features_of(
        self, vectors: torch.Tensor, inside: torch.Tensor, species_index: torch.Tensor, present: tuple[int, ...]
    ) -> torch.Tensor:
        """See `Descriptor.features_of`."""
        key = (vectors.dtype, vectors.device)
        if key not in self._constants:
            self._constants[key] = RadialConstants.make(self._alphas, self._betas, self.sigma, *key)
        return cast(
            torch.Tensor,
            _PowerSpectrum.apply(  # type: ignore[no-untyped-call]
                vectors, inside, species_index, len(present), self._constants[key], self.weighting, self._harmonics
            ),
        )


class _PowerSpectrum(torch.autograd.Function):
    """From neighbour vectors to the power spectrum p = pi sqrt(8 / (2l + 1)) sum_m c c', in DScribe's order."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: torch.Tensor,
        inside: torch.Tensor,
        species_index: torch.Tensor,
        n_species: int,
        constants: RadialConstants,
        weighting: RadialWeighting,
        harmonics: SolidHarmonics,
    ) -> torch.Tensor:
        n_centers, n_neighbors, _ = vectors.shape
        l_max, n_max = constants.l_max, constants.n_max
        width = n_species * n_max
        flat = vectors.reshape(-1, 3)
        squared = (flat * flat).sum(1)
        needs_gradient = ctx.needs_input_grad[0]
        if needs_gradient:
            angular, angular_gradient = harmonics.compute_with_gradients(flat)
        else:
            angular, angular_gradient = harmonics.compute(flat), None
        angular = angular.view(n_centers, n_neighbors, -1)
        weight, weight_slope = weighting.evaluate(squared)
        weight = inside.reshape(-1) if weight is None else weight * inside.reshape(-1)
        # (l, edge, n'), so that the orthonormalisation is one batched product.
        exponentials = torch.exp(-squared[:, None] * constants.exponents).view(-1, l_max + 1, n_max).transpose(0, 1)
        radial = torch.bmm(exponentials, constants.transform)
        one_hot = torch.nn.functional.one_hot(species_index.reshape(-1), n_species).to(weight.dtype)
        blocks = (radial[:, :, None, :] * (one_hot * weight[:, None])[None, :, :, None]).view(
            l_max + 1, n_centers, n_neighbors, width
        )
        # Outputs of a batched product must be contiguous, or it falls back to one product at a time.
        gram = flat.new_empty((l_max + 1, n_centers, width, width))
        density = []
        for degree in range(l_max + 1):
            part = torch.bmm(angular[:, :, _orders(degree)].transpose(1, 2), blocks[degree])
            torch.bmm(part.transpose(1, 2), part, out=gram[degree])
            density.append(part)
        order, scale, *_ = _feature_order(n_species, n_max, l_max, flat.dtype, flat.device)
        if needs_gradient:
            ctx.constants, ctx.n_species = constants, n_species
            ctx.save_for_backward(
                flat,
                inside,
                species_index,
                weight,
                weight_slope,
                angular,
                angular_gradient,
                exponentials,
                radial,
                blocks,
            )
            ctx.density = density
        return gram.transpose(0, 1).reshape(n_centers, -1).index_select(1, order).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (flat, inside, species_index, weight, slope, angular, angular_gradient, exponentials, radial, blocks) = (
            ctx.saved_tensors
        )
        constants: RadialConstants = ctx.constants
        n_species: int = ctx.n_species
        n_centers, n_neighbors, _ = angular.shape
        l_max, n_max = constants.l_max, constants.n_max
        width = n_species * n_max
        *_, mirror, factor = _feature_order(n_species, n_max, l_max, flat.dtype, flat.device)
        gram_gradient = gradients[0].index_select(1, mirror).mul_(factor).view(n_centers, -1, width, width)
        to_angular = []
        to_radial = torch.empty_like(radial)
        chosen = torch.arange(len(flat), device=flat.device) * n_species + species_index.reshape(-1)
        for degree, part in enumerate(ctx.density):
            to_density = torch.bmm(part, gram_gradient[:, degree])
            to_angular.append(torch.bmm(blocks[degree], to_density.transpose(1, 2)))
            of_all_species = torch.bmm(angular[:, :, _orders(degree)], to_density).view(-1, n_max)
            to_radial[degree] = of_all_species.index_select(0, chosen)
        # The solid harmonics know their gradient; d/dR of exp(-a R^2) is -2 a R exp(-a R^2), along the vector.
        result = torch.bmm(angular_gradient, torch.cat(to_angular, 2).view(len(flat), -1, 1))[:, :, 0]
        to_exponentials = torch.bmm(to_radial, constants.transform.transpose(1, 2)).mul_(exponentials)
        along = -2 * weight * torch.einsum("len,ln->e", to_exponentials, constants.exponents.view(l_max + 1, n_max))
        if slope is not None:
            along = along + slope * inside.reshape(-1) * (to_radial * radial).sum((0, 2))
        result = torch.addcmul(result, along[:, None], flat)
        return (result.view(n_centers, n_neighbors, 3), None, None, None, None, None, None)


def _orders(degree: int) -> slice:
    """Where the 2l + 1 harmonics of a degree stand."""
    return slice(degree**2, (degree + 1) ** 2)


def _n_features(n_species: int, n_max: int, l_max: int) -> int:
    width = n_species * n_max
    return (l_max + 1) * width * (width + 1) // 2


@lru_cache(maxsize=64)
def _feature_table(n_species: int, n_max: int, l_max: int) -> NDArray[np.int64]:
    """Rows (Z1, Z2, l, n, n') of the features in order, with Z1, Z2 as positions among the species."""
    rows = [
        (a, b, degree, n, m)
        for a in range(n_species)
        for b in range(a, n_species)
        for degree in range(l_max + 1)
        for n in range(n_max)
        for m in range(n if a == b else 0, n_max)
    ]
    return np.array(rows, dtype=np.int64)


@lru_cache(maxsize=64)
def _feature_order(
    n_species: int, n_max: int, l_max: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """How the features stand in the flattened Gram matrices (l, Z1 n, Z2 n'), which are symmetric.

    Returns
    -------
    order, scale : Tensor, shape (n_features,)
        Where each feature stands, and its factor.
    mirror, factor : Tensor, shape ((l_max + 1) (n_species n_max)^2,)
        Which feature each entry of the matrices holds, and its factor in the derivative: twice on the diagonal.
    """
    a, b, degree, n, m = _feature_table(n_species, n_max, l_max).T
    width = n_species * n_max
    row, column = a * n_max + n, b * n_max + m
    order = (degree * width + row) * width + column
    scale = np.pi * np.sqrt(8.0 / (2 * degree + 1))
    mirror = np.empty((l_max + 1, width, width), dtype=np.int64)
    mirror[degree, row, column] = mirror[degree, column, row] = np.arange(len(order))
    factor = scale[mirror] * (1 + np.eye(width))
    return (
        torch.as_tensor(order, device=device),
        torch.as_tensor(scale, dtype=dtype, device=device),
        torch.as_tensor(mirror.ravel(), device=device),
        torch.as_tensor(factor.ravel(), dtype=dtype, device=device),
    )


@lru_cache(maxsize=256)
def _present_columns(slots: tuple[int, ...], n_species: int, n_max: int, l_max: int) -> NDArray[np.int64]:
    """Positions, among the features of all species, of those of the species at `slots`, in the latter's own order."""
    table = _feature_table(n_species, n_max, l_max)
    # The order of pairs, l, n and n' is the same in both, so picking the rows keeps it.
    return np.flatnonzero(np.isin(table[:, 0], slots) & np.isin(table[:, 1], slots))


def _integer(name: str, value: Any, least: int, most: int) -> int:
    require(name, value, is_whole(value, least) and value <= most, f"a whole number from {least} to {most}")
    return int(value)
