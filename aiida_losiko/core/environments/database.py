"""The database of known atomic environments: build, match, trace back, save and load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from aiida_losiko.core.environments.calibration import leave_one_source_out
from aiida_losiko.core.environments.file import FORMAT, MappedTensors, Tensors, open_tensors, write_tensors
from aiida_losiko.core.environments.matching import NearestEnvironments
from aiida_losiko.core.environments.metric import LearntMetric, MetricSettings
from aiida_losiko.core.environments.origins import (
    ORIGINS,
    decode_sources,
    drop_sources,
    only_source,
    origin_tensors,
    source_tensors,
)
from aiida_losiko.core.environments.settings import BuildSettings
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.core.files import to_jsonable

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.descriptors import Descriptor


class EnvironmentDatabase:
    """Known environments, each with the atoms that it comes from.

    Made by `build` or `load`. Per central species there is one block of normalised vectors; environments that are
    closer than the duplicate tolerance are one entry, which knows every (source, atom) that was merged into it.

    Attributes
    ----------
    metadata : dict
        What the maker wanted to be kept: licence, source, protocol.
    settings : dict
        The settings of `build`.
    n_environments : dict
        Number of environments per central species, by symbol.
    min_distances : dict
        Shortest distance in Angstrom of each pair of elements ("H-C", lighter first) within `r_cut`.
    """

    def __init__(
        self,
        tensors: Tensors,
        header: Mapping[str, Any],
        *,
        descriptor: Descriptor | None = None,
        sources: list[str] | None = None,
    ) -> None:
        """Wrap tensors and header as in the file; use `build` or `load`."""
        self._tensors = tensors
        self._descriptor = descriptor
        self._parameters: dict[str, Any] = dict(header["descriptor"])
        self._sources = sources
        self._searchers: dict[tuple[str, str, int], NearestEnvironments] = {}
        self._metric: LearntMetric | None = None
        self._metric_settings: dict[str, Any] | None = header.get("metric")
        self._reach: dict[str, float | None] | None = header.get("reach")
        self.settings: dict[str, Any] = dict(header["settings"])
        self.metadata: dict[str, Any] = dict(header["metadata"])
        self.min_distances: dict[str, float] = dict(header["min_distances"])
        self.n_environments = {symbol: self._tensors.shape(f"vectors/{symbol}")[0] for symbol in header["blocks"]}

    @classmethod
    def build(
        cls,
        structures: Iterable[Atoms],
        descriptor: Descriptor,
        sources: Iterable[str] | None = None,
        *,
        selection: str | None = None,
        max_environments: int | None = None,
        duplicate_tolerance: float = 1e-4,
        reach_quantile: float = 0.95,
        dtype: str = "float32",
        seed: int = 0,
        batch_size: int = 64,
        metric: MetricSettings | Mapping[str, Any] | None = None,
        progress: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> EnvironmentDatabase:
        """Describe every atom of some structures.

        Parameters
        ----------
        structures : iterable of ase.Atoms
            The known structures, also a generator.
        descriptor : Descriptor
            How environments are described.
        sources : iterable of str, optional
            One distinct identifier per structure; default ``info["identifier"]``, else ``structure-<number>``.
        selection : {None, "farthest", "random"}
            How a species with more than `max_environments` is thinned: by farthest-point sampling or at random. The
            origins of environments that are dropped are not kept.
        max_environments : int, optional
            Largest number of environments per species, after merging.
        duplicate_tolerance : float
            L2 distance of normalised vectors up to which environments are merged, greedily in order.
        reach_quantile : float
            Quantile of the leave-one-source-out distances that becomes `reach`.
        dtype : {"float32", "float64"}
            How vectors are stored. A float32 vector is off by about 3e-8.
        seed : int
            Seed of the random thinning and of the sample for the calibration.
        batch_size : int
            Structures that are described at once.
        metric : MetricSettings or mapping, optional
            How a metric is learnt from the structures, see `core.environments.metric`; by default environments are
            compared by the plain distance of Eq. 7. Of fewer than 20 structures nothing is learnt.
        progress : bool
            Show a progress bar.
        metadata : mapping, optional
            JSON-able values to keep with the database.

        Raises
        ------
        LosikoError
            For a bad structure (the error names its source), no structures, identifiers that are not distinct, or
            settings that are not allowed.
        """
        from aiida_losiko.core.environments.assembling import assemble

        settings = BuildSettings(
            selection, max_environments, duplicate_tolerance, reach_quantile, dtype, seed, batch_size, metric
        )
        return assemble(structures, descriptor, sources, settings, progress, metadata)

    # What it holds

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the environments."""
        if self._descriptor is None:
            from aiida_losiko.core.descriptors import make_descriptor

            self._descriptor = make_descriptor(self._parameters)
        return self._descriptor

    @property
    def species(self) -> tuple[str, ...]:
        """The elements that the descriptor knows; those with environments are the keys of `n_environments`."""
        return tuple(self._parameters["species"])

    @property
    def sources(self) -> list[str]:
        """Identifiers of the structures."""
        if self._sources is None:
            text, offsets = (self._tensors[name].numpy() for name in ("source_bytes", "source_offsets"))
            self._sources = decode_sources(text, offsets)
        return self._sources

    def __len__(self) -> int:
        """Return the number of environments of all species."""
        return sum(self.n_environments.values())

    def __repr__(self) -> str:
        """Tell the number of environments per species."""
        counts = ", ".join(f"{symbol}: {count}" for symbol, count in self.n_environments.items())
        return f"<EnvironmentDatabase {counts}>"

    @property
    def file(self) -> Path | None:
        """The file that holds this database; None where it is in memory, or the file is gone or another one by now."""
        if not isinstance(self._tensors, MappedTensors):
            return None
        try:
            header, tensors = open_tensors(self._tensors.path)
        except LosikoError:
            return None
        same = header["min_distances"] == self.min_distances and header.get("reach") == self._reach
        return self._tensors.path if same and tensors.is_of(self._tensors) else None

    @cached_property
    def shortest_pairs(self) -> torch.Tensor:
        """The shortest distance in Angstrom for each pair of atomic numbers, a symmetric matrix in float64.

        Pairs that do not occur within `r_cut` have the sum of their covalent radii.
        """
        radii = torch.as_tensor(covalent_radii, dtype=torch.float64)
        result = radii[:, None] + radii
        for pair, shortest in self.min_distances.items():
            a, b = (atomic_numbers[symbol] for symbol in pair.split("-"))
            result[a, b] = result[b, a] = shortest
        return result

    @property
    def metric(self) -> LearntMetric | None:
        """What was learnt about differences of environments; None where these are compared by the plain distance."""
        if self._metric is None and self._metric_settings is not None:
            self._metric = LearntMetric.of(self._metric_settings, self._tensors)
        return self._metric

    def vectors(self, symbol: str) -> torch.Tensor:
        """Return the normalised vectors of a species, shape (N, D); not to be written to.

        With a learnt metric these are the coordinates in the subspace of the species, shape (N, r).
        """
        return self._tensors[f"vectors/{self._known(symbol)}"]

    def counts(self, symbol: str) -> NDArray[np.int64]:
        """Return how many atoms each environment of a species stands for, shape (N,)."""
        return np.diff(self._origins_of(symbol)[0])

    def origins(self, symbol: str, index: int) -> list[tuple[str, int]]:
        """Tell which atoms an environment comes from.

        Returns
        -------
        list of (str, int)
            Identifier of the structure and number of the atom; the first is the one whose vector is stored.

        Raises
        ------
        LosikoError
            For a species or an index that the database does not have.
        """
        n = self.n_environments[self._known(symbol)]
        if not 0 <= index < n:
            raise LosikoError(f"environment {index} of {symbol}: the database has the numbers 0 to {n - 1}")
        offsets, source, atom = self._origins_of(symbol)
        part = slice(int(offsets[index]), int(offsets[index + 1]))
        return [(self.sources[s], int(a)) for s, a in zip(source[part], atom[part], strict=True)]

    def summary(self) -> dict[str, Any]:
        """Return what the database is, as JSON-able values; vectors and origins are not read."""
        from aiida_losiko import __version__

        return {
            "format": FORMAT,
            "version": __version__,
            "descriptor": to_jsonable(self._parameters),
            "settings": dict(self.settings),
            "n_sources": self._tensors.shape("source_offsets")[0] - 1,
            "n_environments": dict(self.n_environments),
            "n_atoms": {s: self._tensors.shape(f"origin_source/{s}")[0] for s in self.n_environments},
            "metric": self._metric_settings,
            "reach": dict(self.reach),
            "min_distances": dict(self.min_distances),
            "metadata": dict(self.metadata),
        }

    def only_source(self, symbol: str) -> torch.Tensor:
        """Number of the one structure that each environment of a species comes from, (N,); -1 where it is several."""
        offsets, source, _ = self._origins_of(symbol)
        return torch.from_numpy(only_source(offsets, source))

    def pairs_of_source(self, symbol: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Environment and structure of every atom of a species, as numbers, (n_atoms,) each."""
        offsets, source, _ = self._origins_of(symbol)
        environment = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        return torch.from_numpy(environment), torch.from_numpy(source.astype(np.int64))

    def _known(self, symbol: str) -> str:
        if symbol not in self.n_environments:
            raise LosikoError(
                f"species {symbol} has no environments in the database, which holds "
                f"{', '.join(self.n_environments)}: build it from structures with {symbol}"
            )
        return symbol

    def _origins_of(self, symbol: str) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        self._known(symbol)
        offsets, source, atom = (self._tensors[f"{name}/{symbol}"].numpy() for name in ORIGINS)
        return offsets, source, atom

    # Matching

    def searcher(self, symbol: str, device: torch.device | str = "cpu", stage: int = -1) -> NearestEnvironments:
        """Return the exact search among the environments of a species on a device; it is made once and kept.

        With a learnt metric it is the search of a stage, in its `match` metric; the last one by default.
        """
        metric = self.metric
        stage = 0 if metric is None else stage % len(metric.stages)
        key = (self._known(symbol), str(torch.device(device)), stage)
        if key not in self._searchers:
            vectors = self.vectors(symbol).to(device)
            if metric is not None:
                vectors = vectors @ metric.stages[stage].match[symbol].to(vectors)
            self._searchers[key] = NearestEnvironments(vectors)
        return self._searchers[key]

    @overload
    def match(self, vectors: torch.Tensor, symbol: str, k: int = 1) -> tuple[torch.Tensor, torch.Tensor]: ...

    @overload
    def match(
        self, vectors: NDArray[np.floating], symbol: str, k: int = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...

    def match(self, vectors: torch.Tensor | NDArray[np.floating], symbol: str, k: int = 1) -> tuple[Any, Any]:
        """Find the k nearest environments with the same central species, exactly.

        Parameters
        ----------
        vectors : Tensor or ndarray, shape (M, D)
            Vectors of atoms, raw or normalised; for a tensor the search runs where the tensor is.
        symbol : str
            Central species.
        k : int
            Number of environments per vector.

        Returns
        -------
        distances : Tensor or ndarray (as the input), shape (M, k), float64
            L2 norms of the differences of normalised vectors (the root of Eq. 7), ascending; with a learnt metric those
            of the `match` metric of its last stage.
        indices : Tensor or ndarray, shape (M, k), int64
            Numbers of the environments; equal distances in order of number.

        Raises
        ------
        LosikoError
            For a species that the database does not hold, vectors that are zero, not finite or of the wrong length, or
            k outside 1..N.
        """
        given = torch.from_numpy(np.asarray(vectors)) if isinstance(vectors, np.ndarray) else vectors
        searcher = self.searcher(symbol, given.device)
        given = given.detach().double()
        norms = torch.linalg.vector_norm(given, dim=-1, keepdim=True)
        if bool((norms == 0).any()):
            raise LosikoError("a vector of zeros cannot be matched: the atom has an empty environment, check r_cut")
        queries = given / norms
        if self.metric is not None:
            basis = self.metric.basis[symbol].to(queries)
            queries = queries @ basis @ self.metric.stages[-1].match[symbol].to(queries)
        distances, indices = searcher.search(queries, k)
        if isinstance(vectors, np.ndarray):
            return distances.numpy(), indices.numpy()
        return distances, indices

    # Calibration

    @property
    def reach(self) -> dict[str, float | None]:
        """How far the database can tell, per species.

        A distance to the nearest environment above this value is larger than what the database's own environments have
        when the structures that they come from are left out (`reach_quantile` of them); it is not below the duplicate
        tolerance. None where fewer than two sources hold the species. After `without` it is worked out anew when it is
        asked for.

        With a learnt metric, whose unit is the usual distance of an atom that is where it belongs, it is the same
        quantile of what the atoms of the structures that it was learnt on ended at, each with its source left out; like
        the metric it stays after `without`.
        """
        if self._reach is None:
            self._reach = {symbol: self._calibrate(symbol) for symbol in self.n_environments}
        return self._reach

    def leave_one_out(self, symbol: str) -> NDArray[np.float64]:
        """Distance of each environment to the nearest one that another source has, too; shape (N,).

        With a learnt metric in the `match` metric of its last stage. An environment that several sources share has the
        distance 0. NaN marks environments that were not looked at (of
        large blocks a sample is) and species of a single source.
        """
        self._known(symbol)
        if f"loo_distance/{symbol}" not in self._tensors:
            self._calibrate(symbol)
        return self._tensors[f"loo_distance/{symbol}"].numpy()

    def _calibrate(self, symbol: str) -> float | None:
        alone = self.only_source(symbol).numpy()
        result = leave_one_source_out(self.searcher(symbol), alone, self.settings["seed"])
        self._tensors = Tensors({**self._tensors, f"loo_distance/{symbol}": torch.from_numpy(result)})
        known = result[~np.isnan(result)]
        if not len(known):
            return None
        # Copies of one structure have distances of zero, but what would be merged with them is known as well.
        quantile = float(np.quantile(known, self.settings["reach_quantile"]))
        tolerance = float(self.settings["duplicate_tolerance"])
        return max(quantile, tolerance)

    # Other databases and files

    def without(self, sources: Iterable[str]) -> EnvironmentDatabase:
        """Return the database that is left when some structures are taken out.

        Environments that came from these structures only are gone; merged ones keep their vector and other origins.
        `min_distances` and a learnt metric stay those of all structures.

        Raises
        ------
        LosikoError
            For an identifier that the database does not have, or when nothing would be left.
        """
        gone = [sources] if isinstance(sources, str) else list(sources)
        number = {name: i for i, name in enumerate(self.sources)}
        for name in gone:
            if name not in number:
                hint = did_you_mean(name, number) or f"; it has for example {self.sources[0]!r}"
                raise LosikoError(f"source {name!r} is not among the {len(number)} of the database{hint}")
        stays = np.ones(len(number), dtype=bool)
        stays[[number[name] for name in gone]] = False
        names = [name for name, kept in zip(self.sources, stays, strict=True) if kept]
        tensors = source_tensors(names)
        blocks = []
        for symbol in self.n_environments:
            kept, offsets, source, atom = drop_sources(*self._origins_of(symbol), stays)
            if not len(kept):
                continue
            blocks.append(symbol)
            vectors = self.vectors(symbol)
            tensors[f"vectors/{symbol}"] = vectors if len(kept) == len(vectors) else vectors[torch.from_numpy(kept)]
            tensors.update(origin_tensors(symbol, offsets, source, atom))
        if not blocks:
            raise LosikoError(f"without these {len(gone)} sources the database would be empty: leave some of them in")
        header = {**self._header(), "blocks": blocks}
        if self.metric is not None:
            # What was learnt is about the kind of structures, not about single ones: it stays.
            tensors.update(self.metric.tensors())
            header["reach"] = {symbol: self.reach[symbol] for symbol in blocks}
        return EnvironmentDatabase(Tensors(tensors), header, descriptor=self._descriptor, sources=names)

    def with_stages(self, stages: Mapping[str, torch.Tensor], reach: Mapping[str, float | None]) -> EnvironmentDatabase:
        """Return the database with what `core.relaxation.training.learn_stages` gave for it."""
        tensors = Tensors({**self._tensors, **stages})
        header = {**self._header(), "reach": dict(reach)}
        return EnvironmentDatabase(tensors, header, descriptor=self._descriptor, sources=self._sources)

    def _header(self) -> dict[str, Any]:
        learnt = {} if self._metric_settings is None else {"metric": self._metric_settings}
        return {
            **learnt,
            "descriptor": self._parameters,
            "settings": self.settings,
            "metadata": self.metadata,
            "min_distances": self.min_distances,
            "blocks": list(self.n_environments),
        }

    def save(self, path: str | Path) -> None:
        """Write the database as one file (format losiko-environments/1); equal databases give equal bytes.

        Raises
        ------
        LosikoError
            The file cannot be written, `metadata` has no JSON form, or the file that this database was loaded from was
            altered.
        """
        from aiida_losiko import __version__

        reach = self.reach  # may add tensors
        write_tensors(path, self._tensors, {**self._header(), "reach": reach, "package_version": __version__})

    @classmethod
    def load(
        cls, path: str | Path, verify: bool = False, *, descriptor: Descriptor | None = None
    ) -> EnvironmentDatabase:
        """Open a database file, memory-mapped.

        Header and size are checked at once, the checksum of each tensor when it is first used.

        Parameters
        ----------
        path : str or Path
            A file that `save` wrote.
        verify : bool
            Check all of the file at once.
        descriptor : Descriptor, optional
            The descriptor, where `make_descriptor` does not know it; it has to have the parameters of the database.

        Raises
        ------
        LosikoError
            The file is missing, of another kind or version, truncated or altered, or the descriptor is another one.
        """
        header, tensors = open_tensors(path)
        if descriptor is not None and to_jsonable(descriptor.parameters) != header["descriptor"]:
            raise LosikoError(
                f"{path} is a database of other descriptor settings: it has {header['descriptor']}, given are "
                f"{descriptor.parameters}"
            )
        database = cls(tensors, header, descriptor=descriptor)
        if verify:
            database.verify()
        return database

    def verify(self) -> None:
        """Check all of the file that the database was loaded from; nothing happens for one that was built.

        Raises
        ------
        LosikoError
            Something in the file was altered.
        """
        if isinstance(self._tensors, MappedTensors):
            for name in self._tensors:
                self._tensors[name]
