"""How far the environments of a database are from each other: what tells an environment that it does not know."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.environments.matching import NearestEnvironments

_ALL = 4000  # up to so many environments of a species, all of them are looked at
_SAMPLE = 2000  # of more than that, so many


def leave_one_source_out(searcher: NearestEnvironments, group: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Distance of each environment to the nearest one that another source has, too.

    Parameters
    ----------
    searcher : NearestEnvironments
        The N environments of a species.
    group : ndarray, shape (N,)
        The source of each; -1 for an environment that several share, whose distance is 0.
    seed : int
        Of the sample that is looked at where the environments are many.

    Returns
    -------
    ndarray, shape (N,)
        NaN for environments that were not looked at, and everywhere when there is a single source.
    """
    n = len(group)
    result = np.full(n, np.nan)
    if (group == group[0]).all() and group[0] >= 0:
        return result
    picked = np.arange(n)
    if n > _ALL:
        picked = np.sort(np.random.default_rng(seed).choice(n, _SAMPLE, replace=False))
    result[picked[group[picked] < 0]] = 0.0
    picked = picked[group[picked] >= 0]
    groups = torch.from_numpy(group)
    distances, _ = searcher.search(searcher.vectors[picked], 1, exclude=(groups, groups[picked]))
    result[picked] = distances[:, 0].numpy()
    return result
