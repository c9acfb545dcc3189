"""The few directions in which the environments of a species differ, true ones and displaced ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from aiida_losiko.core.neighbors import StructureBatch

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.descriptors import Descriptor
    from aiida_losiko.core.environments.metric import MetricSettings

# Structures and, per species, environments that the directions are sought in; of rare species at least so many.
_STRUCTURES = 400
_ROWS = 1000
_FEW_ROWS = 200
# Directions with less than this part of the largest variance are rounding.
_LEAST = 1e-9


def find_subspaces(
    structures: Sequence[Atoms], descriptor: Descriptor, settings: MetricSettings, seed: int
) -> dict[str, torch.Tensor]:
    """Principal components of the environments of each species.

    Half of them are of structures as they are, half of displaced copies: a direction in which noise moves an
    environment is needed to see the noise, even where no two known environments differ in it.

    Parameters
    ----------
    structures : sequence of Atoms
        Those of the database; a sample of them is looked at.
    descriptor : Descriptor
        How they are described.
    settings : MetricSettings
        Number of components; the copies are displaced by half of `displacement`.
    seed : int
        Of the sample and the noise.

    Returns
    -------
    dict of Tensor, shape (D, r), float32
        Orthonormal columns by species, the largest variance first; r is smaller than `n_components` where few
        environments are known.
    """
    random = np.random.default_rng(seed)
    found: dict[int, list[NDArray[np.float64]]] = {}
    n_rows: dict[int, int] = {}
    for number, chosen in enumerate(random.permutation(len(structures))):
        atoms = structures[chosen]
        enough = _ROWS if number < _STRUCTURES else _FEW_ROWS
        wanted = [z for z in sorted(set(atoms.numbers.tolist())) if n_rows.get(z, 0) < enough]
        if not wanted:
            continue
        rows = {z: _some(np.flatnonzero(atoms.numbers == z), random) for z in wanted}
        for copy in (atoms, displaced(atoms, 0.5 * settings.displacement, random)):
            vectors = normalised(copy, descriptor)
            for z in wanted:
                found.setdefault(z, []).append(vectors[rows[z]])
        for z in wanted:
            n_rows[z] = n_rows.get(z, 0) + len(rows[z])
    return {chemical_symbols[z]: _principal(np.concatenate(found[z]), settings.n_components) for z in sorted(found)}


def displaced(atoms: Atoms, deviation: float, random: np.random.Generator) -> Atoms:
    """Copy a structure with normal noise of a standard deviation in Angstrom on every coordinate."""
    copy: Atoms = atoms.copy()
    copy.set_constraint()
    copy.positions += random.normal(scale=deviation, size=copy.positions.shape)
    return copy


def normalised(atoms: Atoms, descriptor: Descriptor) -> NDArray[np.float64]:
    """Normalised vectors of the atoms of one structure, (n_atoms, D)."""
    with torch.no_grad():
        features: NDArray[np.float64] = descriptor.features(StructureBatch.from_atoms([atoms])).numpy()
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-300)
    return features


def _some(rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a structure that are looked at: not more of a large one than of many small ones."""
    return rows if len(rows) <= _ROWS else random.choice(rows, _ROWS, replace=False)


def _principal(vectors: NDArray[np.float64], n_components: int) -> torch.Tensor:
    centred = vectors - vectors.mean(0)
    # Of the two symmetric eigenproblems that give the directions, that of the environments is the smaller one.
    variance, weights = np.linalg.eigh(centred @ centred.T)
    kept = np.flatnonzero(variance > max(_LEAST * variance[-1], 1e-20))[::-1][:n_components]
    basis = centred.T @ weights[:, kept]
    if not basis.shape[1]:  # all alike: one direction is as good as another
        basis = vectors[:1].T
    return torch.from_numpy((basis / np.linalg.norm(basis, axis=0)).astype(np.float32))
