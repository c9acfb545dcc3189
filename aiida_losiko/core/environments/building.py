"""From structures to merged, thinned blocks of environments: the work behind `EnvironmentDatabase.build`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from tqdm import tqdm

from aiida_losiko.core.environments.origins import running_offsets, subset_rows
from aiida_losiko.core.environments.settings import BuildSettings
from aiida_losiko.core.environments.thinning import DuplicateMerger, thin
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.neighbors import StructureBatch, close_pairs
from aiida_losiko.core.structures import check_structure

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.descriptors import Descriptor

_BATCH_NUMBERS = 1 << 25  # features in one batch at most (256 MB), however many structures that is


class Block(NamedTuple):
    """The environments of one central species: normalised `vectors` (N, D), and their origins (see `origins`)."""

    vectors: NDArray[np.floating]
    offsets: NDArray[np.int64]
    source: NDArray[np.int32]
    atom: NDArray[np.int32]


@dataclass
class _GrowingBlock:
    merger: DuplicateMerger
    joined: list[NDArray[np.int64]] = field(default_factory=list)
    source: list[NDArray[np.int32]] = field(default_factory=list)
    atom: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, vectors: NDArray[np.float64], source: NDArray[np.int32], atom: NDArray[np.int32]) -> None:
        self.joined.append(self.merger.add(vectors))
        self.source.append(source)
        self.atom.append(atom)

    def finish(self, settings: BuildSettings) -> Block:
        joined = np.concatenate(self.joined)
        order = np.argsort(joined, kind="stable")
        offsets = running_offsets(np.bincount(joined, minlength=len(self.merger)))
        vectors = self.merger.representatives
        kept = thin(vectors, settings.selection, settings.max_environments, settings.seed)
        offsets, rows = subset_rows(offsets, kept)
        source, atom = np.concatenate(self.source)[order][rows], np.concatenate(self.atom)[order][rows]
        # The merger's store has room to grow; a copy of what is kept gives that memory back.
        return Block(vectors[kept], offsets, source, atom)


def named_structures(
    structures: Iterable[Atoms], sources: Iterable[str] | None, progress: bool
) -> Iterator[tuple[str, Atoms]]:
    """Pair structures with their identifiers, which have to be distinct.

    Raises
    ------
    LosikoError
        For an identifier that occurs twice, or a number of identifiers other than that of structures.
    """
    given = None if sources is None else iter(sources)
    seen: set[str] = set()
    for number, atoms in enumerate(tqdm(structures, unit="structure", desc="describe", disable=not progress)):
        if given is None:
            name = str(atoms.info.get("identifier", f"structure-{number}"))
        else:
            try:
                name = str(next(given))
            except StopIteration:
                raise LosikoError(f"{number} sources for more structures: give one identifier per structure") from None
        if name in seen:
            raise LosikoError(f"source {name!r} occurs twice: give each structure an identifier of its own (sources=)")
        seen.add(name)
        yield name, atoms
    if given is not None and next(given, None) is not None:
        raise LosikoError(f"{len(seen)} structures, but more sources: give one identifier per structure")


def check_named(name: str, atoms: Atoms, species: tuple[str, ...]) -> None:
    """Refuse a structure that cannot be described; the error begins with its name."""
    try:
        check_structure(atoms, species)
    except LosikoError as exc:
        raise LosikoError(f"source {name!r}: {exc}") from exc


def check_all(structures: Sequence[Atoms], sources: Iterable[str] | None, species: tuple[str, ...]) -> None:
    """Refuse structures of which one cannot be described, before work is spent on the others."""
    for name, atoms in named_structures(structures, sources if sources is None else list(sources), progress=False):
        check_named(name, atoms, species)


class DistanceRecord:
    """The shortest distance of each pair of elements that was seen within a radius.

    Parameters
    ----------
    r_cut : float
        Radius in Angstrom.
    """

    def __init__(self, r_cut: float) -> None:
        """See the class."""
        self._r_cut = r_cut
        self._shortest = np.full((len(chemical_symbols), len(chemical_symbols)), np.inf)

    def add(self, atoms: Atoms) -> None:
        """Look at one more structure, periodic images included."""
        i, j, distance = close_pairs(atoms, self._r_cut)
        np.minimum.at(self._shortest, (atoms.numbers[i], atoms.numbers[j]), distance)

    def as_dict(self) -> dict[str, float]:
        """Return distances in Angstrom by pairs such as "H-C", the lighter element first."""
        pairs = np.argwhere(np.triu(np.isfinite(self._shortest)))
        return {f"{chemical_symbols[a]}-{chemical_symbols[b]}": float(self._shortest[a, b]) for a, b in pairs}


def batches(named: Iterable[tuple[str, Atoms]], batch_size: int, n_features: int) -> Iterator[list[tuple[str, Atoms]]]:
    """Cut a stream of structures into lists of bounded length and memory."""
    batch: list[tuple[str, Atoms]] = []
    n_atoms = 0
    for name, atoms in named:
        if batch and (len(batch) >= batch_size or (n_atoms + len(atoms)) * n_features > _BATCH_NUMBERS):
            yield batch
            batch, n_atoms = [], 0
        batch.append((name, atoms))
        n_atoms += len(atoms)
    if batch:
        yield batch


def normalised_features(batch: list[tuple[str, Atoms]], descriptor: Descriptor) -> NDArray[np.float64]:
    """Describe a batch: normalised vectors of all its atoms, shape (n_atoms, n_features).

    Raises
    ------
    LosikoError
        For an atom whose vector is zero or not finite; it names the source.
    """
    with torch.no_grad():
        features: NDArray[np.float64] = descriptor.features(StructureBatch.from_atoms([a for _, a in batch])).numpy()
    norms = np.linalg.norm(features, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        ends = np.cumsum([len(atoms) for _, atoms in batch])
        number = int(np.searchsorted(ends, bad[0], side="right"))
        name, atoms = batch[number]
        atom = int(bad[0] - (ends[number] - len(atoms)))
        raise LosikoError(
            f"source {name!r}: the vector of atom {atom} ({atoms.symbols[atom]}) has the norm {norms[bad[0]]:g}, which "
            "cannot be normalised: leave the structure out or choose a larger r_cut"
        )
    features /= norms[:, None]
    return features


def build_blocks(
    named: Iterable[tuple[str, Atoms]],
    descriptor: Descriptor,
    settings: BuildSettings,
    basis: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[str, Block], list[str], dict[str, float]]:
    """Describe, merge and thin.

    With a `basis`, (D, r) by central species, vectors are its coordinates.

    Returns
    -------
    blocks : dict
        Environments per central species, sorted by atomic number.
    sources : list of str
        Identifiers in order.
    min_distances : dict
        Shortest distances in Angstrom by pair of elements.
    """
    growing: dict[int, _GrowingBlock] = {}
    sources: list[str] = []
    distances = DistanceRecord(descriptor.r_cut)
    species = tuple(descriptor.species)

    def checked() -> Iterator[tuple[str, Atoms]]:
        for name, atoms in named:
            check_named(name, atoms, species)
            distances.add(atoms)
            yield name, atoms

    for batch in batches(checked(), settings.batch_size, descriptor.n_features):
        features = normalised_features(batch, descriptor)
        numbers = np.concatenate([atoms.numbers for _, atoms in batch])
        source = np.repeat(np.arange(len(batch)) + len(sources), [len(a) for _, a in batch]).astype(np.int32)
        atom = np.concatenate([np.arange(len(a)) for _, a in batch]).astype(np.int32)
        sources.extend(name for name, _ in batch)
        for z in np.unique(numbers):
            rows = numbers == z
            vectors = features[rows]
            if basis is not None:
                vectors = vectors @ basis[chemical_symbols[z]].numpy()
            if int(z) not in growing:
                merger = DuplicateMerger(vectors.shape[1], settings.duplicate_tolerance, settings.dtype)
                growing[int(z)] = _GrowingBlock(merger)
            growing[int(z)].add(vectors, source[rows], atom[rows])
    blocks = {}
    for z in sorted(growing):  # popped, so that only one block is held twice while it is finished
        blocks[chemical_symbols[z]] = growing.pop(z).finish(settings)
    return blocks, sources, distances.as_dict()
