"""Settings of a database, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.environments.metric import MetricSettings
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import to_jsonable


@dataclass(frozen=True)
class BuildSettings:
    """How a database is built; the fields are described at `EnvironmentDatabase.build`.

    Raises
    ------
    LosikoError
        For a value that is not allowed, or one of `selection` and `max_environments` without the other.
    """

    selection: str | None = None
    max_environments: int | None = None
    duplicate_tolerance: float = 1e-4
    reach_quantile: float = 0.95
    dtype: str = "float32"
    seed: int = 0
    batch_size: int = 64
    metric: MetricSettings | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        most, tolerance, quantile = self.max_environments, self.duplicate_tolerance, self.reach_quantile
        known = self.selection in (None, "farthest", "random")
        require("selection", self.selection, known, "'farthest', 'random' or None (keep all)")
        counted = most is None or is_whole(most, 1)
        require("max_environments", most, counted, "a whole number from 1 (per species), or None (keep all)")
        if (self.selection is None) != (most is None):
            raise LosikoError(
                f"selection={self.selection!r} with max_environments={most}: give both ('farthest' or 'random', and a "
                "number per species) or none of them"
            )
        distance = is_real(tolerance) and tolerance >= 0
        require("duplicate_tolerance", tolerance, distance, "a distance of 0 or more, for example 1e-4")
        fraction = is_real(quantile) and 0 <= quantile <= 1
        require("reach_quantile", quantile, fraction, "a number from 0 to 1, such as 0.95")
        require("dtype", self.dtype, self.dtype in ("float32", "float64"), "'float32' or 'float64'")
        require("seed", self.seed, is_whole(self.seed), "a whole number, zero or larger")
        require("batch_size", self.batch_size, is_whole(self.batch_size, 1), "a whole number of structures, from 1")
        metric = self.metric
        if metric is not None and not isinstance(metric, MetricSettings):
            require("metric", metric, isinstance(metric, Mapping), "null or a mapping, such as {n_components: 200}")
            object.__setattr__(self, "metric", MetricSettings.from_dict(metric))

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name of what decides on the content of the database, thus without the size of batches."""
        kept: dict[str, Any] = to_jsonable(asdict(self))
        del kept["batch_size"], kept["metric"]
        if isinstance(self.metric, MetricSettings):
            kept["metric"] = self.metric.to_dict()
        return {**kept, "duplicate_tolerance": float(self.duplicate_tolerance)}
