"""Covariances of the differences between environments and their targets: the numbers of a learnt stage."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.environments.metric import expected_scatter, scatter_directions

Array = NDArray[np.float64]

# With fewer differences of a species than this the trust in targets is not measured, and all count alike.
_FEWEST_DIFFERENCES = 50
_STEEPEST = 1.5
# What is merged as one environment has such differences.
_LEAST_VARIANCE = 1e-8
# A species of a single source has no differences to learn from; these are guessed, as a distance of plain vectors.
_UNKNOWN_DIFFERENCE = 0.1
# Among these a and b of the expected covariance are looked for.
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
_STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)


def measure_pull(
    differences: Array, distances: torch.Tensor, apart: torch.Tensor, shrinkage: float
) -> tuple[torch.Tensor, torch.Tensor, Array]:
    """Measure the pull of a species, see `environments.metric` for the formulas.

    Parameters
    ----------
    differences : ndarray, shape (n, r)
        p - t of atoms that are where they belong.
    distances : Tensor, shape (n,)
        To the nearest environment, in the search that gave the targets t.
    apart : Tensor, shape (n, K, r)
        What the environments that were found differ from t by.
    shrinkage : float
        See `MetricSettings`.

    Returns
    -------
    pull : Tensor, shape (r, r)
        Whitens the differences after those that were expected to be larger are made smaller.
    trust : Tensor, shape (5,)
        As of `Stage`, without s.
    squared : ndarray, shape (n,)
        Squared distances D.
    """
    trust = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
    pull = whitening(covariance(differences), shrinkage)
    squared = ((differences @ pull.double().numpy()) ** 2).sum(1)
    if len(differences) < _FEWEST_DIFFERENCES:
        return pull, trust, squared
    expected = np.ones(len(differences))
    log = distances.clamp(min=1e-3).square().log()
    trust[1] = log.mean()
    if log.std() > 1e-6:  # of copies the distances tell nothing
        for _ in range(2):
            # The slope of log D over log d: how much worse a target is that was found further away.
            slope = np.polyfit(log.numpy(), np.log(squared + 1e-9), 1)[0]
            trust[0] = float(np.clip(slope, 0.0, _STEEPEST))
            expected = expected_scatter(distances, trust.double()).numpy()
            pull = whitening(covariance(differences / np.sqrt(expected)[:, None]), shrinkage)
            squared = ((differences @ pull.double().numpy()) ** 2).sum(1)
    trust[3], trust[4], squared = _likeliest(differences, apart, pull.double(), torch.from_numpy(expected))
    return pull, trust, squared


def _likeliest(
    differences: Array, apart: torch.Tensor, pull: torch.Tensor, expected: torch.Tensor
) -> tuple[float, float, Array]:
    """The a and b under which a normal distribution of covariance E makes the differences likeliest, and their D."""
    y = torch.from_numpy(differences) @ pull
    variance, axes = scatter_directions(apart.double() @ pull)
    along = torch.bmm(axes, y[:, :, None])[:, :, 0].square()
    length = y.square().sum(1)
    best = (torch.inf, 1.0, 0.0, length)
    for share in _SHARES:
        usual = share * expected
        for strength in _STRENGTHS:
            widening = strength * variance / usual[:, None]
            squared = (length - (along * widening / (1 + widening)).sum(1)) / usual
            log_volume = y.shape[1] * usual.log() + widening.log1p().sum(1)
            unlikeliness = float((squared + log_volume).mean())
            if unlikeliness < best[0]:
                best = unlikeliness, share, strength, squared
    return best[1], best[2], best[3].numpy()


def covariance(differences: Array) -> Array:
    """Mean outer product about zero, (r, r), of differences (n, r); a guess where nothing is known."""
    if not len(differences):
        size = differences.shape[1]
        differences = np.eye(size) * _UNKNOWN_DIFFERENCE
    mean: Array = differences.T @ differences / len(differences)
    return mean


def whitening(covariance: Array, shrinkage: float) -> torch.Tensor:
    """Matrix W (r, r) with which |x W|^2 = x^T (C + shrinkage * largest variance)^-1 x, as float32."""
    variance, axes = np.linalg.eigh(covariance)
    variance = np.clip(variance, 0, None)
    added = max(shrinkage * float(variance[-1]), _LEAST_VARIANCE)
    return torch.from_numpy((axes / np.sqrt(variance + added)).astype(np.float32))
