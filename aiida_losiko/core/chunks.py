"""Atoms of a batch in pieces that are worked on one after the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.attraction import Attraction
from aiida_losiko.core.descriptors.base import Descriptor, species_positions
from aiida_losiko.core.neighbors import NeighborTable, StructureBatch

Attract: TypeAlias = Callable[[int, torch.Tensor | None, torch.Tensor], Attraction]
"""What pulls atoms: from their atomic number, the columns that their features are, and their rows in the batch."""

# Bytes of one of the arrays of a chunk of centres: enough to hide the cost of calls, few enough to stay in the cache.
CHUNK_BYTES = 1 << 21
# Fewer centres than this cost mostly calls: they are worked on with others, though these may hold more elements.
FEW_CENTERS = 32


class Chunk:
    """Atoms of structures that hold the same elements, few enough for the cache.

    What is absent from them need not be computed, which it would have to be with others of more elements among them.

    Parameters
    ----------
    rows : Tensor of int64, shape (n,)
        The atoms in the batch, in any order.
    elements : tuple of int
        Atomic numbers of them and of all their neighbours, ascending.
    batch : StructureBatch
        The batch.
    descriptor : Descriptor
        How the atoms are described.
    attract : callable
        See `Attract`.

    Attributes
    ----------
    rows : Tensor of int64, shape (n,)
        The atoms, by element.
    places : Tensor of int64, shape (n,)
        Their rows in the neighbour table.
    groups : list of (slice, Attraction)
        The atoms of each element, and what pulls them.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        elements: tuple[int, ...],
        batch: StructureBatch,
        descriptor: Descriptor,
        attract: Attract,
    ) -> None:
        # Sorted by element, so that the atoms of one are a slice of every array.
        order = torch.argsort(batch.numbers[rows], stable=True)
        self.rows = self.places = rows = rows[order]
        self.elements = elements
        self.descriptor = descriptor
        columns = descriptor.columns(elements)
        self._columns = None if columns is None else torch.as_tensor(columns, device=rows.device)
        self._numbers = batch.numbers
        numbers = batch.numbers[rows].contiguous()
        self.groups: list[tuple[slice, Attraction]] = []
        for z in elements:
            first, stop = torch.searchsorted(numbers, torch.tensor([z, z + 1], device=rows.device)).tolist()
            atoms = slice(first, stop)
            self.groups.append((atoms, attract(z, self._columns, rows[atoms])))

    def set_neighbors(self, table: NeighborTable) -> None:
        """Take note of the neighbours, after the table changed."""
        self.places = table.rows_of(self.rows)
        # The table is as wide as the longest row of the batch; the rows of a chunk may be shorter.
        self.width = int(table.n_neighbors[self.places].max())
        neighbors = table.index[self.places, : self.width]
        self.species_index = species_positions(self.elements, self._numbers[neighbors])


def cut_into_chunks(
    batch: StructureBatch, atoms: NDArray[np.bool_], descriptor: Descriptor, attract: Attract
) -> list[Chunk]:
    """Cut the atoms of a mask into chunks, by the elements that their structures hold."""
    index = batch.structure_index.cpu().numpy()
    numbers = batch.numbers.cpu().numpy()
    starts = np.searchsorted(index, np.arange(batch.n_structures + 1))
    by_elements: dict[tuple[int, ...], list[NDArray[np.int64]]] = {}
    for start, stop in sorted(pairwise(starts), key=lambda edges: edges[1] - edges[0]):
        elements = descriptor.check_species(set(numbers[start:stop].tolist()))
        chosen = start + np.flatnonzero(atoms[start:stop])
        if len(chosen):
            by_elements.setdefault(elements, []).append(chosen)
    groups = {elements: np.concatenate(parts) for elements, parts in by_elements.items()}
    few = [elements for elements, chosen in groups.items() if len(chosen) < FEW_CENTERS]
    if len(few) > 1:
        union = tuple(sorted(set().union(*few)))
        merged = [*few, union] if union in groups and union not in few else few
        groups[union] = np.concatenate([groups.pop(elements) for elements in merged])
    chunks = []
    for elements, chosen in groups.items():
        columns = descriptor.columns(elements)
        n_features = descriptor.n_features if columns is None else len(columns)
        size = int(np.clip(CHUNK_BYTES // (n_features * batch.positions.element_size()), 16, 512))
        for rows in np.array_split(chosen, max(1, round(len(chosen) / size))):
            on_device = torch.as_tensor(rows, device=batch.positions.device)
            chunks.append(Chunk(on_device, elements, batch, descriptor, attract))
    return chunks
