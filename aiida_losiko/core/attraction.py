"""What pulls environments towards those of the database: targets, losses of single atoms, and their slopes.

Each class is about the atoms of one species in a chunk of a batch (`objective`). `evaluate` takes their normalised
vectors p, shape (n, d), and gives what they add to the loss and its slope dL/dp; what follows from p being normalised
is up to the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

import torch
from ase.data import chemical_symbols

from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.environments.metric import (
    LearntMetric,
    expected_scatter,
    narrowing,
    scatter_directions,
    soft_targets,
)
from aiida_losiko.core.environments.tracking import TrackedNearest
from aiida_losiko.core.parsimony import SharedTracker, SourceShares

Draw: TypeAlias = Callable[[int], torch.Tensor]
"""Standard normal numbers, as many as asked for of each atom: (n, size)."""


class Pulled(NamedTuple):
    """Losses without weights (n,), distances (n,), matches (n,) and slopes in the normalised vectors (n, d)."""

    loss: torch.Tensor
    distance: torch.Tensor
    environment: torch.Tensor
    slope: torch.Tensor


class Attraction(Protocol):
    """The pull on the atoms of one species."""

    def evaluate(self, unit: torch.Tensor) -> Pulled:
        """Losses and slopes at the normalised vectors, (n, d)."""

    def probe(self, draw: Draw) -> torch.Tensor:
        """Random slopes (n, d) whose covariance is the Gauss-Newton part of the second derivatives d2L/dp2.

        At the vectors of the last `evaluate`. Back in coordinates, they sample that part of the loss's own.
        """


class NearestAttraction:
    """Every atom is pulled to the environment that is nearest at this moment (Eq. 2 and 6, or 7 and 8).

    Parameters
    ----------
    database : EnvironmentDatabase
        Where the targets are.
    number : int
        Atomic number of the species.
    columns : Tensor of int64, shape (d,), optional
        Which features the vectors consist of; all by default.
    device : torch.device
        Where the vectors are.
    kernel, degree
        See `LocalSimilarityObjective`.
    shares : SourceShares, optional
        What the sources cost; counted before the first evaluation. For the kernel `distance`.
    rows : Tensor of int64, shape (n,), optional
        The atoms in the batch, where there are shares.
    """

    def __init__(
        self,
        database: EnvironmentDatabase,
        number: int,
        columns: torch.Tensor | None,
        device: torch.device,
        kernel: str,
        degree: float,
        shares: SourceShares | None = None,
        rows: torch.Tensor | None = None,
    ) -> None:
        self.symbol, self._shares, self._rows = chemical_symbols[number], shares, rows
        self._make = partial(TrackedNearest, database.searcher(self.symbol, device), columns=columns)
        self._tracker: TrackedNearest | SharedTracker | None = None
        self._kernel, self._degree = kernel, degree
        # As many numbers are drawn whichever features are there: a structure's do not depend on its batch mates.
        self._columns, self._n_features = columns, database.descriptor.n_features

    def evaluate(self, unit: torch.Tensor) -> Pulled:
        """See `Attraction`."""
        if self._tracker is None:
            self._tracker = self._begin()
        environment = self._tracker.update(unit)
        distance = self._tracker.distances.to(unit.dtype)
        target = self._tracker.targets.to(unit.dtype)
        squared = distance.square()
        if self._kernel == "distance":
            loss = squared + self._tracker.added.to(squared) if isinstance(self._tracker, SharedTracker) else squared
            # |p - t|^2 = 2 - 2 p.t, also where t has features outside of the columns.
            return Pulled(loss, distance, environment, -2 * target)
        # 1 - cos = D / 2 for unit vectors keeps the digits that 1 - cos^d would lose near one.
        loss = -torch.expm1(self._degree * torch.log1p(-0.5 * squared).clamp(min=-1e3))
        similarity = torch.linalg.vecdot(unit, target).clamp(min=0)
        slope = -self._degree * similarity ** (self._degree - 1)
        return Pulled(loss, distance, environment, slope[:, None] * target)

    def _begin(self) -> TrackedNearest | SharedTracker:
        if self._shares is None or self._rows is None:
            return self._make()
        return SharedTracker(lambda added: self._make(added=added), self._shares, self.symbol, self._rows)

    def look(self, unit: torch.Tensor) -> None:
        """Have the sources counted by the normalised vectors, (n, d), where there are shares."""
        if self._shares is not None and self._rows is not None:
            self._shares.look_at(self.symbol, self._rows, unit, self._columns)

    def probe(self, draw: Draw) -> torch.Tensor:
        """See `Attraction`; of the kernel what it is for small distances, 1 - cos^d = d D / 2."""
        curvature = 2.0 if self._kernel == "distance" else self._degree
        slope: torch.Tensor = curvature**0.5 * draw(self._n_features)
        return slope if self._columns is None else slope.index_select(1, self._columns)


class Goals:
    """Targets of a batch in one stage: coordinates in the subspaces, how much they count, and the nearest environments.

    They are found when the atoms of a chunk are first evaluated, and held from then on (but see `forget`).

    Parameters
    ----------
    metric : LearntMetric
        The database's.
    n_atoms : int
        Atoms of the batch.
    like : Tensor
        Of the type and on the device of the vectors.
    """

    def __init__(self, metric: LearntMetric, n_atoms: int, like: torch.Tensor) -> None:
        width = max(basis.shape[1] for basis in metric.basis.values())
        self.coordinates = torch.zeros((n_atoms, width), dtype=like.dtype, device=like.device)
        self.weights = torch.ones_like(self.coordinates[:, 0])
        # F of `metric.narrowing`.
        self.narrowing = self.coordinates.new_zeros((n_atoms, 0, width))
        # -1: not found yet.
        self.environment = torch.full((n_atoms,), -1, dtype=torch.int64, device=like.device)

    def keep(self, atoms: torch.Tensor) -> None:
        """Go on with the atoms of the mask."""
        self.coordinates, self.weights = self.coordinates[atoms], self.weights[atoms]
        self.narrowing = self.narrowing[atoms]
        self.environment = self.environment[atoms]

    def narrow(self, rows: torch.Tensor, narrowing: torch.Tensor) -> None:
        """Note F (n, q, r) of some atoms; species may differ in q and r."""
        missing = narrowing.shape[1] - self.narrowing.shape[1]
        if missing > 0:
            self.narrowing = torch.nn.functional.pad(self.narrowing, (0, 0, 0, missing))
        self.narrowing[rows] = 0.0
        self.narrowing[rows, : narrowing.shape[1], : narrowing.shape[2]] = narrowing

    def forget(self, atoms: torch.Tensor) -> None:
        """Have the targets of the atoms of the mask looked for again, by attractions that are made anew."""
        self.environment[atoms] = -1


class StageAttraction:
    """Every atom is pulled, in the metric of a stage, to the target that it had when it was first evaluated.

    Parameters
    ----------
    database : EnvironmentDatabase
        With a learnt metric.
    stage : int
        Which of its stages.
    number : int
        Atomic number of the species.
    columns : Tensor of int64, shape (d,), optional
        Which features the vectors consist of; all by default.
    goals : Goals
        The targets of the batch; filled in for the atoms of this species and chunk.
    rows : Tensor of int64, shape (n,)
        The atoms in the batch.
    exclude : (Tensor of shape (N,), Tensor of shape (n,)), optional
        A group for each environment and each atom; an atom's own group is not searched.
    """

    def __init__(
        self,
        database: EnvironmentDatabase,
        stage: int,
        number: int,
        columns: torch.Tensor | None,
        goals: Goals,
        rows: torch.Tensor,
        exclude: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        metric = database.metric
        assert metric is not None
        symbol = chemical_symbols[number]
        self._stage, self._symbol = metric.stages[stage], symbol
        self._basis, self._pull = metric.matrices(stage, symbol, columns, goals.coordinates)
        self._pull_of_coordinates = self._stage.pull[symbol].to(goals.coordinates)
        self._trust = self._stage.trust[symbol].to(goals.coordinates)
        self._limit = float(self._trust[2])
        self._n_scatter = metric.settings.n_scatter
        self._searcher = database.searcher(symbol, goals.coordinates.device, stage)
        self._vectors = database.vectors(symbol)
        self._goals, self._rows, self._exclude = goals, rows, exclude
        self._target: torch.Tensor | None = None

    def evaluate(self, unit: torch.Tensor) -> Pulled:
        """See `Attraction`."""
        if self._target is None:
            missing = self._goals.environment[self._rows] < 0
            if bool(missing.any()):
                self._search(unit, missing)
            coordinates = self._goals.coordinates[self._rows, : self._basis.shape[1]]
            self._target = coordinates @ self._pull_of_coordinates
            self._environment = self._goals.environment[self._rows]
            self._weights = self._goals.weights[self._rows]
            self._narrowing = self._goals.narrowing[self._rows, :, : self._basis.shape[1]]
        difference = unit @ self._pull - self._target
        # Far quicker than a batched product with a vector.
        along = torch.linalg.vecdot(self._narrowing, difference[:, None])
        squared = (difference.square().sum(1) - along.square().sum(1)).clamp_min(0)
        unusual = self._weights * squared / self._limit
        loss = self._limit * torch.log1p(unusual)
        self._factor = 2 * self._weights / (1 + unusual)
        slope = torch.baddbmm(difference[:, None], along[:, None], self._narrowing, alpha=-1)[:, 0]
        return Pulled(loss, squared.sqrt(), self._environment, (self._factor[:, None] * slope) @ self._pull.T)

    def probe(self, draw: Draw) -> torch.Tensor:
        """See `Attraction`."""
        random = draw(self._pull.shape[1])
        # The root of 1 - F^T F, whose rows F are orthogonal: along each of them, of length f, it is sqrt(1 - f^2).
        length = self._narrowing.square().sum(2)
        part = (1 - (1 - length).clamp_min(0).sqrt()) / length.clamp_min(1e-12)
        along = torch.linalg.vecdot(self._narrowing, random[:, None]) * part
        random = torch.baddbmm(random[:, None], along[:, None], self._narrowing, alpha=-1)[:, 0]
        slope: torch.Tensor = (self._factor.sqrt()[:, None] * random) @ self._pull.T
        return slope

    def _search(self, unit: torch.Tensor, missing: torch.Tensor) -> None:
        """Find the targets of the atoms of a mask."""
        rows, coordinates = self._rows[missing], unit[missing] @ self._basis
        queries = coordinates @ self._stage.match[self._symbol].to(coordinates)
        k = min(self._stage.n_neighbors, len(self._searcher))
        exclude = None if self._exclude is None else (self._exclude[0], self._exclude[1][missing])
        n_scatter = min(max(k, self._n_scatter), len(self._searcher))
        distances, indices = self._searcher.search(queries, n_scatter, exclude=exclude)
        nearby = indices.clamp(min=0)
        found = self._vectors[nearby.to(self._vectors.device)].to(coordinates)
        target, apart = soft_targets(distances, indices, found, k)
        self._goals.coordinates[rows, : target.shape[1]] = target
        nearest = distances[:, 0].to(coordinates)
        # Where nothing but its own source has an atom's species, there is no target.
        usual = self._trust[3] * expected_scatter(nearest, self._trust)
        self._goals.weights[rows] = torch.isfinite(nearest) / usual
        scatter = scatter_directions(apart @ self._pull_of_coordinates)
        self._goals.narrow(rows, narrowing(*scatter, usual, float(self._trust[4])))
        self._goals.environment[rows] = nearby[:, 0]
