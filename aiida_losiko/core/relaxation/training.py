"""Learning the stages of a metric on the structures of a database itself.

Some structures are displaced, and relaxed stage after stage against the database without themselves. Before each stage
it is known where every atom is (q), where it belongs (p) and which target it gets (t): the covariance of q - p is what
the search of this stage has to look through, that of p - t what its loss has to allow for. No energy and nothing
outside of the database is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from tqdm import tqdm

from aiida_losiko.core.environments.covariance import covariance, measure_pull, whitening
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.environments.matching import NearestEnvironments
from aiida_losiko.core.environments.metric import MetricSettings, soft_targets
from aiida_losiko.core.environments.subspace import displaced, normalised
from aiida_losiko.core.relaxation.batch import relax_batch
from aiida_losiko.core.relaxation.jobs import cut_into_jobs
from aiida_losiko.core.relaxation.run import Run
from aiida_losiko.core.relaxation.stages import run_of_stage
from aiida_losiko.core.settings import RelaxSettings

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]

# How structures are relaxed while the stages are learnt. The loss is in units of what is usual; more than that is to
# be gained by keeping atoms apart.
_RELAX = RelaxSettings(
    dtype="float32",
    relative_loss_tolerance=0.02,
    max_steps=150,
    max_step_length=0.2,
    repulsion=100.0,
    restraint=0.2,
    curvature_probes=8,
)
# Structures of each element that are among those that are learnt from, where there are so many.
_OF_EACH_ELEMENT = 10
# Differences count less than their square from so many times their median on.
_UNUSUAL = 2.0
# ... which are at least so many times what is usual, also where most environments have copies in other structures.
_LEAST_UNUSUAL = 0.1
# Nearer than this is not out of reach, however well all of the database's own environments are known.
_LEAST_REACH = 0.01


def learn_stages(
    database: EnvironmentDatabase, structures: Sequence[Atoms], progress: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, float | None]]:
    """Learn the stages of a database that has the vectors in the subspaces of its species, and no stages yet.

    Parameters
    ----------
    database : EnvironmentDatabase
        With the `settings` of the metric to be learnt.
    structures : sequence of Atoms
        What it was built from, in order.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    tensors : dict
        The stages, as `LearntMetric.tensors` names them.
    reach : dict
        By species, see `EnvironmentDatabase.reach`.
    """
    metric = database.metric
    assert metric is not None
    lesson = _Lesson(database, structures, metric.settings)
    with tqdm(total=len(metric.stages), unit="stage", desc="learn", disable=not progress) as bar:
        for number in range(len(metric.stages)):
            lesson.learn(number)
            lesson.relax(number)
            bar.update()
    return {name: t for name, t in metric.tensors().items() if not name.startswith("basis")}, lesson.reach()


class _Lesson:
    """The structures that are learnt on, and where their atoms are at present."""

    def __init__(self, database: EnvironmentDatabase, structures: Sequence[Atoms], settings: MetricSettings) -> None:
        assert database.metric is not None
        self.database, self.metric, self.settings = database, database.metric, settings
        random = np.random.default_rng(database.settings["seed"])
        self.sources = _sample(structures, settings.n_structures, random)
        self.true = [structures[k] for k in self.sources]
        self.starts = [displaced(atoms, settings.displacement, random) for atoms in self.true]
        self.present = list(self.starts)
        self.symbols = [chemical_symbols[z] for z in sorted({int(z) for a in self.true for z in a.numbers})]
        self.source_of = np.repeat(self.sources, [len(atoms) for atoms in self.true])
        self.goal = self._coordinates(self.true)
        self.distances: dict[str, Array] = {}
        self.scatter = {symbol: self._leave_one_out(symbol) for symbol in self.symbols}

    def _coordinates(self, structures: Sequence[Atoms]) -> dict[str, Array]:
        """Coordinates of all atoms of some structures by species, in the order of the structures."""
        found: dict[str, list[Array]] = {}
        for atoms in structures:
            vectors = normalised(atoms, self.database.descriptor)
            for symbol in set(atoms.symbols):
                basis = self.metric.basis[symbol].numpy()
                found.setdefault(symbol, []).append(vectors[atoms.symbols == symbol] @ basis)
        return {symbol: np.concatenate(parts) for symbol, parts in found.items()}

    def _own(self, symbol: str) -> torch.Tensor:
        of_species = np.concatenate([atoms.symbols == symbol for atoms in self.true])
        return torch.from_numpy(self.source_of[of_species])

    def _targets(
        self, symbol: str, queries: Array, matrix: torch.Tensor, k: int, n_scatter: int = 1
    ) -> tuple[Array, torch.Tensor, torch.Tensor]:
        """Targets (n, r) of some atoms outside of their own sources, means of the k nearest environments.

        With the distances (n,) to the nearest one, infinite where there is none, and what the `n_scatter` nearest
        differ from the targets by, (n, n_scatter, r).
        """
        vectors = self.database.vectors(symbol)
        searcher = NearestEnvironments(vectors @ matrix.to(vectors))
        exclude = (self.database.only_source(symbol), self._own(symbol))
        points = torch.from_numpy(queries) @ matrix.double()
        distances, indices = searcher.search(points, min(max(k, n_scatter), len(searcher)), exclude=exclude)
        found = vectors[indices.clamp(min=0)].double()
        targets, apart = soft_targets(distances, indices, found, k)
        return targets.numpy(), distances[:, 0], apart

    def _leave_one_out(self, symbol: str) -> Array:
        """Covariance of the differences between environments and the nearest ones of other sources, (r, r).

        Nearest means nearest in the metric that this covariance makes, so that it is worked out twice.
        """
        matrix = torch.eye(self.goal[symbol].shape[1])
        for _ in range(2):
            targets, distances, _ = self._targets(symbol, self.goal[symbol], matrix, 1)
            known = torch.isfinite(distances).numpy()
            scatter = covariance((self.goal[symbol] - targets)[known])
            matrix = whitening(scatter, self.settings.shrinkage)
        return scatter

    def learn(self, number: int) -> None:
        """Measure the metrics of a stage on where the atoms are now."""
        stage = self.metric.stages[number]
        now = self._coordinates(self.present)
        unscaled: dict[str, torch.Tensor] = {}
        usual: dict[str, Array] = {}
        for symbol in self.symbols:
            rest = covariance(now[symbol] - self.goal[symbol])
            stage.match[symbol] = whitening(self.scatter[symbol] + rest, self.settings.shrinkage)
            targets, distances, apart = self._targets(
                symbol, now[symbol], stage.match[symbol], stage.n_neighbors, self.settings.n_scatter
            )
            known = torch.isfinite(distances)
            unscaled[symbol], stage.trust[symbol], usual[symbol] = measure_pull(
                (self.goal[symbol] - targets)[known.numpy()], distances[known], apart[known], self.settings.shrinkage
            )
        # One is the usual squared distance of an atom that is where it belongs, over all species. What is whitened has
        # a mean from 1 / (1 + shrinkage) on, but for copies, whose differences are zero.
        everywhere = np.concatenate(list(usual.values()))
        scale = max(float(everywhere.mean()), 0.5) if len(everywhere) else 1.0
        for symbol, matrix in unscaled.items():
            stage.pull[symbol] = matrix / scale**0.5
            median = float(np.median(usual[symbol])) if len(usual[symbol]) else scale
            stage.trust[symbol][4] *= scale  # the scatter is that much smaller in the scaled pull
            stage.trust[symbol][2] = _UNUSUAL * max(median / scale, _LEAST_UNUSUAL)

    def relax(self, number: int) -> None:
        """Move the atoms as the stage does."""
        run = run_of_stage(Run(_RELAX, self.database), number, len(self.metric.stages))
        ones = [np.ones(len(atoms)) for atoms in self.present]
        distances: dict[str, list[float]] = {symbol: [] for symbol in self.symbols}
        for job in cut_into_jobs(self.present, ones, range(len(self.present)), _RELAX):
            own = [int(self.sources[k]) for k in job.numbers]
            starts = [self.starts[k] for k in job.numbers]
            outcomes = relax_batch(run, job.structures, job.numbers, job.weights, lambda _: None, number, own, starts)
            for k, outcome in zip(job.numbers, outcomes, strict=True):
                if outcome.matches is None:
                    continue
                self.present[k] = outcome.atoms
                for symbol, distance in zip(outcome.atoms.symbols, outcome.matches.distance, strict=True):
                    distances[symbol].append(float(distance))
        self.distances = {symbol: np.array(values) for symbol, values in distances.items()}

    def reach(self) -> dict[str, float | None]:
        """Quantiles of the distances that the atoms ended at."""
        quantile = float(self.database.settings["reach_quantile"])
        reach: dict[str, float | None] = {}
        for symbol in self.database.n_environments:
            # -1 stands for several sources.
            only_one = len(owners := torch.unique(self.database.only_source(symbol))) < 2 and int(owners[0]) >= 0
            known = len(self.distances[symbol]) > 0 and not only_one
            reach[symbol] = max(float(np.quantile(self.distances[symbol], quantile)), _LEAST_REACH) if known else None
        return reach


def _sample(structures: Sequence[Atoms], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of structures to learn on: some at random, and some of every element."""
    order = random.permutation(len(structures))
    chosen = set(order[:count].tolist())
    having: dict[int, list[int]] = {}
    for k in order.tolist():
        for z in set(structures[k].numbers.tolist()):
            having.setdefault(int(z), []).append(k)
    for numbers in having.values():
        chosen.update(numbers[:_OF_EACH_ELEMENT])
    return np.array(sorted(chosen), dtype=np.int64)
