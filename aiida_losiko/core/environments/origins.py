"""Which atoms each environment comes from, as flat arrays.

The origins of environment i of a species are the entries `offsets[i]:offsets[i + 1]` of `source` (number of the
structure) and `atom` (number of the atom in it), the representative first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

ORIGINS = ("origin_offsets", "origin_source", "origin_atom")
"""Names in a database's file, each followed by the species."""

Offsets = NDArray[np.int64]
Entries = NDArray[np.int32]


def encode_sources(names: Sequence[str]) -> tuple[NDArray[np.uint8], Offsets]:
    """Identifiers as one string of bytes and its offsets, which a large database need not decode to be opened."""
    encoded = [name.encode() for name in names]
    text = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
    return text, running_offsets([len(name) for name in encoded])


def decode_sources(text: NDArray[np.uint8], offsets: Offsets) -> list[str]:
    """Identifiers that `encode_sources` has made one string of."""
    whole = text.tobytes()
    return [whole[a:b].decode() for a, b in itertools.pairwise(offsets.tolist())]


def source_tensors(names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Identifiers as a database keeps them."""
    text, offsets = encode_sources(names)
    return {"source_bytes": torch.from_numpy(text), "source_offsets": torch.from_numpy(offsets)}


def origin_tensors(symbol: str, *origins: NDArray[np.integer]) -> dict[str, torch.Tensor]:
    """Offsets, sources and atoms of a species as a database keeps them."""
    return {f"{name}/{symbol}": torch.from_numpy(array) for name, array in zip(ORIGINS, origins, strict=True)}


def running_offsets(counts: Sequence[int] | NDArray[np.integer]) -> Offsets:
    """Offsets, shape (N + 1,), of rows with so many entries each, shape (N,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def subset_rows(offsets: Offsets, kept: NDArray[np.int64]) -> tuple[Offsets, NDArray[np.int64]]:
    """Take some rows of a compressed list.

    Parameters
    ----------
    offsets : ndarray, shape (N + 1,)
        Row i consists of the entries `offsets[i]:offsets[i + 1]`.
    kept : ndarray, shape (n_kept,)
        Numbers of the rows that are taken.

    Returns
    -------
    offsets : ndarray, shape (n_kept + 1,)
        Offsets of the new list.
    entries : ndarray
        Which of the old entries it consists of.
    """
    counts = np.diff(offsets)[kept]
    new = running_offsets(counts)
    entries = np.arange(new[-1]) + np.repeat(offsets[:-1][kept] - new[:-1], counts)
    return new, entries.astype(np.int64)


def drop_sources(
    offsets: Offsets, source: Entries, atom: Entries, stays: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Offsets, Entries, Entries]:
    """Leave out some structures, and the environments that come from these only.

    Parameters
    ----------
    offsets, source, atom : ndarray
        The origins of a species.
    stays : ndarray of bool, shape (n_sources,)
        Which structures are kept; these are numbered anew.

    Returns
    -------
    kept : ndarray
        Numbers of the environments that are left.
    offsets, source, atom : ndarray
        Their origins.
    """
    renumbered = (np.cumsum(stays) - 1).astype(np.int32)
    left = stays[source]
    counts = np.add.reduceat(left.astype(np.int64), offsets[:-1])
    kept = np.flatnonzero(counts)
    return kept, running_offsets(counts[kept]), renumbered[source[left]], atom[left]


def only_source(offsets: Offsets, source: Entries) -> NDArray[np.int64]:
    """The one structure that each environment comes from, shape (N,); -1 where there are several."""
    lowest = np.minimum.reduceat(source, offsets[:-1]).astype(np.int64)
    lowest[lowest != np.maximum.reduceat(source, offsets[:-1])] = -1
    return lowest
