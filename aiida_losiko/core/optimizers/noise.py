"""The decaying random displacements of Eq. 9 of the LOSIKO paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NoiseSchedule:
    r"""Gaussian noise on the positions whose variance decays exponentially with the iteration.

    .. math:: \sigma_\mathrm{iter}^2 = \sigma_0^2 \exp(-\alpha\,\mathrm{iter})

    Parameters
    ----------
    variance : float
        :math:`\sigma_0^2` (Angstrom^2) of each coordinate at iteration 0; zero means no noise.
    decay : float
        :math:`\alpha` per iteration; positive when there is noise, or it would never end.
    floor : float
        Standard deviation (Angstrom) below which the noise is over.

    Raises
    ------
    LosikoError
        If a value is negative or not finite, or the noise would never end.
    """

    variance: float = 0.0
    decay: float = 0.0
    floor: float = 1e-3

    def __post_init__(self) -> None:  # noqa: D105
        if not (math.isfinite(self.variance) and self.variance >= 0):
            raise LosikoError(f"noise variance {self.variance!r} must be zero (no noise) or positive, in Angstrom^2")
        if not math.isfinite(self.decay) or (self.variance > 0 and self.decay <= 0):
            raise LosikoError(
                f"noise decay {self.decay!r} with variance {self.variance!r} would never end; "
                "give a positive decay, e.g. 0.05, or variance 0"
            )
        if not (math.isfinite(self.floor) and self.floor > 0):
            raise LosikoError(f"noise floor {self.floor!r} must be a positive length in Angstrom, e.g. 1e-3")

    def standard_deviation(self, iteration: int) -> float:
        """Standard deviation of each coordinate at an iteration (Angstrom), Eq. 9."""
        return math.sqrt(self.variance * math.exp(-self.decay * iteration)) if self.variance > 0 else 0.0

    def active(self, iteration: int) -> bool:
        """Whether there is noise at this iteration: its standard deviation has not yet fallen below the floor."""
        return self.standard_deviation(iteration) >= self.floor

    @property
    def n_iterations(self) -> int:
        """Number of iterations with noise: the first at which `active` is false."""
        if not self.active(0):
            return 0
        last = math.log(self.variance / self.floor**2) / self.decay
        candidates = range(max(int(last) - 1, 0), int(last) + 3)
        return next(iteration for iteration in candidates if not self.active(iteration))

    def sample(
        self,
        shape: tuple[int, ...],
        iteration: int,
        generator: torch.Generator,
        *,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Displacements of an iteration (Angstrom), zero when the noise is over.

        Parameters
        ----------
        shape : tuple of int
            Shape of the positions, (n_rows, 3).
        iteration : int
            Counted from 0.
        generator : torch.Generator
            Source of randomness; the displacements are on its device. It is not advanced when the noise is over.
        dtype : torch.dtype, optional
            Default float64.
        """
        import torch

        dtype = dtype or torch.float64
        if not self.active(iteration):
            return torch.zeros(shape, dtype=dtype, device=generator.device)
        # Drawn in float64 for every dtype, so that a seed means the same displacements in float32.
        noise = torch.randn(shape, dtype=torch.float64, device=generator.device, generator=generator)
        return (noise * self.standard_deviation(iteration)).to(dtype)
