"""The metric that a database learnt on itself: which differences of environments matter, and in which order.

The plain distance of Eq. 7 counts every feature alike. But environments of one kind differ from molecule to molecule
far more in some directions (neighbours further away, torsions) than in others (bond lengths). With p the normalised
vector of an atom where it belongs and t its target, the differences p - t of a database's own structures, each with
its source left out, have a covariance C for every central species, and

    D = (p - t)^T C^-1 (p - t)

is the distance by which a normal distribution of these differences tells likely environments from unlikely ones.

An atom that is not yet where it belongs adds the covariance of what displaced it, so that a first search is not misled
by noise: D = (q - t)^T (C + C_noise)^-1 (q - t), with q the present vector. The way from the rough structure to the
final one has *stages*: in each the targets are searched in the stage's own `match` metric, averaged over the nearest
few, and held while the atoms move in the stage's `pull` metric. How good a target is shows in two things. One is how
far away it was found: the squared difference p - t that is expected grows as a power g of the squared distance of the
search. The other is how the environments that were found differ among themselves: where they disagree, the target is a
guess. With S their scatter about the target, the covariance that is expected is

    E = a (d / e^m)^g C + b S

for each atom, and D = (p - t)^T E^-1 (p - t). Differences beyond what is usual count less than their square, as with
Student's distribution: s log(1 + D / s). `core.relaxation.training` measures all of these on structures of the
database.

Vectors are kept as coordinates in a subspace of each central species (`subspace`), a few hundred numbers instead of
thousands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.core.files import to_jsonable

# Products of matrices that are kept: those of the elements that a batch holds, a few megabytes each.
_MOST_PRODUCTS = 32
# Below so many structures there is nothing to learn from: the plain distance is used.
FEWEST_STRUCTURES = 20


@dataclass(frozen=True)
class MetricSettings:
    """How a metric is learnt.

    Attributes
    ----------
    n_components : int
        Dimension of the subspace of each central species.
    n_neighbors : tuple of int
        For each stage, over how many of the nearest environments its targets are averaged, with weights that fall with
        the distance. The nearest one is reported as the match.
    displacement : float
        Standard deviation in Angstrom of the normal noise on each coordinate of the structures that are learnt on: how
        rough the starts are that the stages are made for.
    n_structures : int
        Number of the database's structures that are displaced, relaxed and learnt from.
    n_scatter : int
        Over how many of the nearest environments their scatter S is taken.
    shrinkage : float
        Part of the largest variance that is added to all: no direction counts as known better than this.

    Raises
    ------
    LosikoError
        For a value that is not allowed.
    """

    n_components: int = 200
    n_neighbors: tuple[int, ...] = (8, 4, 4)
    displacement: float = 0.1
    n_structures: int = 150
    n_scatter: int = 16
    shrinkage: float = 0.01

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("n_components", "n_structures", "n_scatter"):
            value = getattr(self, name)
            require(f"metric.{name}", value, is_whole(value, 1), "a whole number, 1 or larger")
        stages = self.n_neighbors
        allowed = len(stages) > 0 and all(is_whole(k, 1) for k in stages)
        require("metric.n_neighbors", list(stages), allowed, "a list of whole numbers from 1, one for each stage")
        for name, largest in (("displacement", 1.0), ("shrinkage", 1.0)):
            value = getattr(self, name)
            require(f"metric.{name}", value, is_real(value) and 0 < value <= largest, f"above 0, at most {largest:g}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MetricSettings:
        """Make settings of plain values; an unknown name is a `LosikoError`."""
        names = list(cls.__dataclass_fields__)
        for key in values:
            if key not in names:
                hint = did_you_mean(key, names)
                raise LosikoError(f"unknown key 'metric.{key}'{hint}; metric has: {', '.join(names)}")
        given = dict(values)
        if isinstance(given.get("n_neighbors"), list | tuple):
            given["n_neighbors"] = tuple(given["n_neighbors"])
        elif "n_neighbors" in given:
            require("metric.n_neighbors", given["n_neighbors"], False, "a list of whole numbers, one for each stage")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        values: dict[str, Any] = to_jsonable({**asdict(self), "n_neighbors": list(self.n_neighbors)})
        return values


@dataclass
class Stage:
    """One search and the move that follows.

    Attributes
    ----------
    n_neighbors : int
        Over how many of the nearest environments a target is averaged.
    match, pull : dict of Tensor, shape (r, r)
        By central species: from the coordinates in the subspace to the space in which the distance of the search, and
        that of the loss, are plain L2 distances.
    trust : dict of Tensor, shape (5,)
        By central species g, m, s, a and b of the module's formulas: in the space of the pull C is one.
    """

    n_neighbors: int
    match: dict[str, torch.Tensor] = field(default_factory=dict)
    pull: dict[str, torch.Tensor] = field(default_factory=dict)
    trust: dict[str, torch.Tensor] = field(default_factory=dict)


# In the space of the search squared distances are in units of the variance that is expected: the weights of a target's
# environments fall with exp(-d^2 / (2 * TEMPERATURE)). They are far from independent, so that this is not 1; the
# results hardly depend on it.
TEMPERATURE = 5.0


def soft_weights(distances: torch.Tensor) -> torch.Tensor:
    """Weights of the k nearest environments in a target, (M, k), of their distances (M, k) in the `match` metric.

    Environments that the search could not give (an infinite distance) weigh nothing beside those that it gave.
    """
    squared = distances.clamp(max=1e15).square()
    return torch.softmax(-(squared - squared[:, :1]) / (2 * TEMPERATURE), dim=1)


def soft_targets(
    distances: torch.Tensor, indices: torch.Tensor, found: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets, and what the environments that were found differ from them by.

    Parameters
    ----------
    distances, indices : Tensor, shape (M, K)
        As the search gave them; -1 and infinity where it found fewer.
    found : Tensor, shape (M, K, r)
        The environments.
    k : int
        Over how many of the nearest a target is averaged.

    Returns
    -------
    targets : Tensor, shape (M, r)
    apart : Tensor, shape (M, K, r)
        For `scatter_directions`: where fewer were found the others are zero, and these larger.
    """
    known = (indices >= 0).to(found)
    targets = torch.einsum("nk,nkr->nr", soft_weights(distances[:, :k]).to(found), found[:, :k])
    share = (known.shape[1] / known.sum(1, keepdim=True).clamp_min(1)).sqrt()
    return targets, (found - targets[:, None]) * (known * share)[:, :, None]


# A target may count so many times more, or less, than usual.
_LARGEST_TRUST = 30.0


def expected_scatter(distances: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
    """How much larger than usual the squared difference p - t is expected, of the distance (M,) of the nearest.

    That is (d / e^m)^g, within bounds; `trust` begins with g and m.
    """
    exponent, centre = trust[0], trust[1]
    log = exponent * (distances.clamp(1e-3, 1e15).square().log() - centre)
    return log.clamp(-math.log(_LARGEST_TRUST), math.log(_LARGEST_TRUST)).exp()


def scatter_directions(apart: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal directions of the scatter S = sum_k x_k x_k^T / K.

    Parameters
    ----------
    apart : Tensor, shape (M, K, r)
        What the K nearest environments of each atom differ from its target by.

    Returns
    -------
    variance : Tensor, shape (M, K)
        Along each direction.
    axes : Tensor, shape (M, K, r)
        Orthonormal rows; zero where there is no variance.
    """
    k = apart.shape[1]
    # Of the two symmetric eigenproblems that give the directions, that of the environments is the smaller one.
    variance, weights = torch.linalg.eigh(apart @ apart.transpose(1, 2) / k)
    variance = variance.clamp_min(0)
    known = variance > 1e-6 * variance[:, -1:].clamp_min(1e-30)
    length = (k * variance).sqrt()
    axes = weights.transpose(1, 2) @ apart * torch.where(known, 1 / length.clamp_min(1e-30), 0.0)[:, :, None]
    return variance * known, axes


def narrowing(variance: torch.Tensor, axes: torch.Tensor, usual: torch.Tensor, strength: float) -> torch.Tensor:
    """Rows F with (u + b S)^-1 = (1 - F^T F) / u, (M, K, r).

    Parameters
    ----------
    variance, axes
        Of S, see `scatter_directions`.
    usual : Tensor, shape (M,)
        u for each atom.
    strength : float
        b.
    """
    scaled = strength * variance
    return (scaled / (scaled + usual[:, None])).sqrt()[:, :, None] * axes


@dataclass
class LearntMetric:
    """Subspace and stages of a database.

    Attributes
    ----------
    settings : MetricSettings
        How it was learnt.
    basis : dict of Tensor, shape (D, r)
        By central species: orthonormal columns; the coordinates of a normalised vector are its products with these.
    stages : list of Stage
        In order.
    """

    settings: MetricSettings
    basis: dict[str, torch.Tensor]
    stages: list[Stage]
    _products: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, repr=False)

    def matrices(
        self, stage: int, symbol: str, columns: torch.Tensor | None, like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What leads from the features of a species to coordinates and to the space of a pull; made once and kept.

        Parameters
        ----------
        stage, symbol
            Whose pull.
        columns : Tensor of int64, shape (d,), optional
            Features that are given; all D by default.
        like : Tensor
            Of the type and on the device that the matrices are wanted in.

        Returns
        -------
        basis, pull : Tensor, shape (d, r)
        """
        stage = stage % len(self.stages)
        chosen = None if columns is None else columns.cpu().numpy().tobytes()
        key = (stage, symbol, chosen, like.dtype, like.device)
        if key not in self._products:
            basis = self.basis[symbol].to(like)
            basis = basis if columns is None else basis.index_select(0, columns)
            if len(self._products) >= _MOST_PRODUCTS:
                del self._products[next(iter(self._products))]
            self._products[key] = basis, basis @ self.stages[stage].pull[symbol].to(like)
        return self._products[key]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything as named tensors, as they are kept in the file."""
        named = {f"basis/{symbol}": basis for symbol, basis in self.basis.items()}
        for number, stage in enumerate(self.stages):
            named.update({f"match/{number}/{symbol}": matrix for symbol, matrix in stage.match.items()})
            named.update({f"pull/{number}/{symbol}": matrix for symbol, matrix in stage.pull.items()})
            named.update({f"trust/{number}/{symbol}": values for symbol, values in stage.trust.items()})
        return named

    @classmethod
    def of(cls, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> LearntMetric:
        """Put together what `tensors` gave; `settings` as of `MetricSettings.to_dict`."""
        own = MetricSettings.from_dict(settings)
        metric = cls(own, {}, [Stage(k) for k in own.n_neighbors])
        if any(tensors[name].shape != (5,) for name in tensors if name.startswith("trust/")):
            raise LosikoError("the metric of the database was learnt by an older version: build the database anew")
        for name in tensors:
            kind, *place = name.split("/")
            if kind == "basis":
                metric.basis[place[0]] = tensors[name]
            elif kind in ("match", "pull", "trust"):
                getattr(metric.stages[int(place[0])], kind)[place[1]] = tensors[name]
        return metric
