"""From structures to a database: describe, merge, thin, and learn a metric where one is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from aiida_losiko.core.environments.building import build_blocks, check_all, named_structures
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.environments.file import Tensors
from aiida_losiko.core.environments.metric import FEWEST_STRUCTURES, MetricSettings
from aiida_losiko.core.environments.origins import origin_tensors, source_tensors
from aiida_losiko.core.environments.settings import BuildSettings
from aiida_losiko.core.environments.subspace import find_subspaces
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import to_jsonable

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.descriptors import Descriptor


def assemble(
    structures: Iterable[Atoms],
    descriptor: Descriptor,
    sources: Iterable[str] | None,
    settings: BuildSettings,
    progress: bool,
    metadata: Mapping[str, Any] | None,
) -> EnvironmentDatabase:
    """Do what `EnvironmentDatabase.build` says; the settings are its."""
    try:
        kept = to_jsonable(dict(metadata or {}))
    except TypeError as exc:
        raise LosikoError(f"metadata cannot be kept: it holds {exc}; use JSON values only") from exc
    if settings.metric is None:
        return _described(structures, descriptor, sources, settings, progress, kept, basis=None)
    # What is learnt from is looked at more than once.
    known, names = list(structures), sources if sources is None else list(sources)
    if len(known) < FEWEST_STRUCTURES:
        return _described(known, descriptor, names, settings, progress, kept, basis=None)
    assert isinstance(settings.metric, MetricSettings)
    check_all(known, names, descriptor.species)
    basis = find_subspaces(known, descriptor, settings.metric, settings.seed)
    return _learnt(_described(known, descriptor, names, settings, progress, kept, basis), known, progress)


def _described(
    structures: Iterable[Atoms],
    descriptor: Descriptor,
    sources: Iterable[str] | None,
    settings: BuildSettings,
    progress: bool,
    metadata: dict[str, Any],
    basis: Mapping[str, torch.Tensor] | None,
) -> EnvironmentDatabase:
    """The database of vectors; with a basis (D, r) by species, of coordinates in it, for a metric to be learnt."""
    named = named_structures(structures, sources, progress)
    blocks, names, distances = build_blocks(named, descriptor, settings, basis)
    if not names:
        raise LosikoError("no structures were given: a database needs at least one")
    tensors = source_tensors(names)
    for symbol, block in blocks.items():
        tensors[f"vectors/{symbol}"] = torch.from_numpy(block.vectors)
        tensors.update(origin_tensors(symbol, block.offsets, block.source, block.atom))
    header: dict[str, Any] = {
        "descriptor": to_jsonable(descriptor.parameters),
        "settings": settings.to_dict(),
        "metadata": metadata,
        "min_distances": distances,
        "blocks": list(blocks),
    }
    if basis is not None:
        assert isinstance(settings.metric, MetricSettings)
        tensors.update({f"basis/{symbol}": matrix for symbol, matrix in basis.items()})
        header["metric"], header["reach"] = settings.metric.to_dict(), dict.fromkeys(blocks)
    return EnvironmentDatabase(Tensors(tensors), header, descriptor=descriptor, sources=names)


def _learnt(database: EnvironmentDatabase, structures: Sequence[Atoms], progress: bool) -> EnvironmentDatabase:
    """The database with the stages of its metric."""
    # Stages are measured by relaxing, and relaxing needs databases.
    from aiida_losiko.core.relaxation.training import learn_stages

    stages, reach = learn_stages(database, structures, progress)
    return database.with_stages(stages, reach)
