"""The loss of a stage of a learnt metric, worked out atom by atom with NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from aiida_losiko.core import EnvironmentDatabase
from aiida_losiko.core.environments.metric import TEMPERATURE
from aiida_losiko.core.environments.subspace import normalised


@dataclass
class Goal:
    """What pulls one atom: D = y^T E^-1 y with y = (p - t) A of the normalised vector p, and s log(1 + D / s)."""

    matrix: np.ndarray  # A, (n_features, r)
    target: np.ndarray  # t A, (r,)
    usual: float  # a (d / e^m)^g
    expected: np.ndarray  # E, (r, r), where C is one
    limit: float  # s

    def unusual(self, vector: np.ndarray) -> float:
        """D of a normalised vector."""
        y = vector @ self.matrix - self.target
        return float(y @ np.linalg.solve(self.expected, y))

    def loss(self, vector: np.ndarray) -> float:
        return self.limit * float(np.log1p(self.unusual(vector) / self.limit))

    def distance(self, vector: np.ndarray) -> float:
        """What is reported: in units of what is usual for this atom."""
        return float(np.sqrt(self.usual * self.unusual(vector)))

    def curvature(self, vector: np.ndarray) -> np.ndarray:
        """Gauss-Newton part of the second derivatives in p, (n_features, n_features)."""
        inner = np.linalg.inv(self.expected) * 2 / (1 + self.unusual(vector) / self.limit)
        return self.matrix @ inner @ self.matrix.T


def goals_of(atoms: Atoms, database: EnvironmentDatabase, stage: int, hidden: str | None = None) -> list[Goal]:
    """Targets of the atoms where they are, found by looking at every environment.

    Environments that the source `hidden` alone has are not looked at.
    """
    part, settings, goals = database.metric.stages[stage], database.metric.settings, []
    for symbol, vector in zip(atoms.symbols, normalised(atoms, database.descriptor), strict=True):
        basis, match, pull = (m[symbol].double().numpy() for m in (database.metric.basis, part.match, part.pull))
        g, m, s, a, b = part.trust[symbol].tolist()
        known = database.vectors(symbol).double().numpy()
        looked_at = [k for k in range(len(known)) if {source for source, _ in database.origins(symbol, k)} != {hidden}]
        known = known[looked_at]
        distances = np.linalg.norm((vector @ basis - known) @ match, axis=1)
        order = np.argsort(distances)
        nearest = order[: part.n_neighbors]
        weights = np.exp(-(distances[nearest] ** 2 - distances[order[0]] ** 2) / (2 * TEMPERATURE))
        target = weights @ known[nearest] / weights.sum()
        apart = (known[order[: max(part.n_neighbors, settings.n_scatter)]] - target) @ pull
        scatter = apart.T @ apart / len(apart)
        usual = a * np.clip((distances[order[0]] / np.exp(m / 2)) ** (2 * g), 1 / 30, 30)
        expected = usual * np.eye(len(scatter)) + b * scatter
        goals.append(Goal(basis @ pull, target @ pull, usual, expected, s))
    return goals
