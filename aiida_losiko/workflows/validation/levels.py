"""What the levels of a molecule say: the gap, and Gaussians in their place as a density of states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aiida_losiko.data.density_of_states import MIDDLE_OF_GAP, DensityOfStates

__all__ = ("DOS_STEP", "DOS_WIDTH", "density_of_levels", "gap_of_levels")

#: eV: standard deviation of the Gaussians, and the grid of the densities of states.
DOS_WIDTH, DOS_STEP = 0.2, 0.05


def gap_of_levels(levels: ArrayLike, occupations: ArrayLike) -> float | None:
    """Return the distance between the highest full and the lowest empty level.

    Parameters
    ----------
    levels
        (n,) or, of two spins, (2, n), in eV.
    occupations
        Electrons in each, in the same form.

    Returns
    -------
    float or None
        In eV, 0 where an empty level of one spin lies below a full one of the other. None where there is no empty or
        no full level.
    """
    highest, lowest = _edges(levels, occupations)
    return float(max(lowest - highest, 0.0)) if np.isfinite(lowest - highest) else None


def density_of_levels(
    levels: ArrayLike,
    occupations: ArrayLike,
    shares: Mapping[str, ArrayLike] | None = None,
    states_per_level: int = 2,
) -> DensityOfStates:
    """Return Gaussians in the place of the levels, relative to the middle between the last full and the first empty.

    Parameters
    ----------
    levels, occupations
        As for `gap_of_levels`.
    shares
        By element, its share of each level.
    states_per_level
        2 where electrons of both spins have a place in each level, 1 where each spin has its own.

    Returns
    -------
    DensityOfStates
    """
    edges = [edge for edge in _edges(levels, occupations) if np.isfinite(edge)]
    places = np.ravel(np.asarray(levels, dtype=np.float64)) - np.mean(edges)
    grid = np.arange(places.min() - 5 * DOS_WIDTH, places.max() + 5 * DOS_WIDTH + DOS_STEP, DOS_STEP)
    norm = states_per_level / (DOS_WIDTH * np.sqrt(2 * np.pi))
    gaussians = norm * np.exp(-((grid - places[:, None]) ** 2) / (2 * DOS_WIDTH**2))
    projected = {symbol: np.ravel(share) @ gaussians for symbol, share in (shares or {}).items()}
    return DensityOfStates(grid, gaussians.sum(axis=0), projected, MIDDLE_OF_GAP)


def _edges(levels: Any, occupations: Any) -> tuple[float, float]:
    """Return the highest full and the lowest empty level, infinite where there is none."""
    places, filled = np.asarray(levels, dtype=np.float64), np.asarray(occupations, dtype=np.float64)
    full = filled > 0.5
    return float(places[full].max(initial=-np.inf)), float(places[~full].min(initial=np.inf))
