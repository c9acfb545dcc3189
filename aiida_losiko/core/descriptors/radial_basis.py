"""The radial functions of SOAP: Gaussian-type orbitals, orthonormalised as DScribe does it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, LinAlgWarning, inv, sqrtm
from scipy.special import gamma

from aiida_losiko.core.errors import LosikoError

DECAY = 1e-3  # DScribe's threshold: where basis functions and the Gaussians at the cutoff are taken as zero
ORTHONORMAL = 0.01  # largest error of an overlap that still counts as orthonormal


def gto_basis(r_cut: float, n_max: int, l_max: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exponents and orthonormalisation of the radial functions, as DScribe makes them.

    Returns
    -------
    alphas : ndarray, shape (l_max + 1, n_max)
        In 1 / Angstrom^2; the functions decay to 1e-3 at radii spaced evenly between 1 Angstrom and `r_cut`.
    betas : ndarray, shape (l_max + 1, n_max, n_max)
        Loewdin orthonormalisation, the inverse square root of the overlap matrix.
    """
    radii = np.linspace(1.0, r_cut, n_max)
    alphas = np.empty((l_max + 1, n_max))
    betas = np.empty((l_max + 1, n_max, n_max))
    for degree in range(l_max + 1):
        alphas[degree] = -np.log(DECAY / radii**degree) / radii**2
        overlap = 0.5 * gamma(degree + 1.5) * (alphas[degree][:, None] + alphas[degree]) ** (-degree - 1.5)
        # The overlap matrix is badly conditioned for many functions, so the very operations of DScribe are used:
        # a better way would give other digits. What comes out is judged, not what SciPy thinks of what went in.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LinAlgWarning)
                root = sqrtm(inv(overlap))
            sound = not np.iscomplexobj(root) and np.abs(root @ overlap @ root - np.eye(n_max)).max() < ORTHONORMAL
        except LinAlgError:
            sound = False
        if not sound:
            raise LosikoError(
                f"n_max={n_max} radial functions cannot be orthonormalised within r_cut={r_cut}; "
                "use a smaller n_max or a larger r_cut"
            )
        betas[degree] = root
    return alphas, betas


class RadialConstants:
    """What the radial factors need, on one device and in one precision.

    Attributes
    ----------
    exponents : Tensor, shape ((l_max + 1) n_max,)
        alpha eta / (alpha + eta), in 1 / Angstrom^2.
    transform : Tensor, shape (l_max + 1, n_max, n_max)
        From exp(-exponent R^2) to the orthonormal basis: prefactors and betas in one.
    """

    def __init__(self, exponents: torch.Tensor, transform: torch.Tensor) -> None:
        self.exponents = exponents
        self.transform = transform
        self.l_max, self.n_max = transform.shape[0] - 1, transform.shape[1]

    @classmethod
    def make(
        cls,
        alphas: NDArray[np.float64],
        betas: NDArray[np.float64],
        sigma: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> RadialConstants:
        """Compute the constants in double precision and move them."""
        eta = 0.5 / sigma**2
        degrees = np.arange(len(alphas))[:, None]
        prefactors = (np.pi / (alphas + eta)) ** 1.5 * (eta / (alphas + eta)) ** degrees
        transform = np.einsum("lk,lnk->lkn", prefactors, betas)
        return cls(
            torch.as_tensor((alphas * eta / (alphas + eta)).ravel(), dtype=dtype, device=device),
            torch.as_tensor(transform, dtype=dtype, device=device),
        )
