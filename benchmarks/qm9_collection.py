"""Which QM9 molecules a benchmark may learn from, which it is judged on, and where their relaxations start.

Everything follows from seeds: the databases are nested (each smaller one is contained in the larger ones), the held-out
molecules are drawn from what is left over by the largest, and each start's noise hangs on the molecule's number alone,
so that fewer molecules are the first of more. Molecules are known by their number N in QM9 (`gdb_N`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

SPECIES = ["H", "C", "N", "O", "F"]
#: The paper's database (gdb 1 to 100 and every 500th); 358 of its molecules are in the collection.
PAPER = 378
SIZES = (PAPER, 3000, 30000)
#: The databases are the same whatever the seed of the held-out molecules.
DATABASE_SEED = 20251
#: Angstrom. Two molecules are duplicates when no sorted pair distance differs by more. In the collection such
#: differences are below 0.022 (nearly all below 0.006: one minimum, reached twice) or above 0.13 (other molecules).
DUPLICATE_TOLERANCE = 0.05
#: Standard deviation in Angstrom of the noise on each coordinate, for the starts that are displaced truths.
NOISE = {"a": 0.1, "b": 0.2, "e": 0.0}


@dataclass(frozen=True)
class Collection:
    """Molecules in flat arrays.

    Attributes
    ----------
    index
        (n,) numbers N of gdb_N, distinct.
    offsets
        (n + 1,) where each molecule's atoms begin.
    numbers, positions
        (n_atoms,) atomic numbers and (n_atoms, 3) coordinates in Angstrom of all atoms.
    """

    index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]

    @classmethod
    def load(cls, path: Path | None = None) -> Collection:
        """Read ``qm9_b3lyp.npz``; exits with a message when it is not there."""
        with np.load(path or common.qm9_file("qm9_b3lyp.npz"), allow_pickle=False) as file:
            n_atoms, coordinates = file["n_atoms"], file["positions_1e5A"]
            offsets = np.concatenate([[0], np.cumsum(n_atoms, dtype=np.int64)])
            return cls(file["index"].astype(np.int64), offsets, file["numbers"].astype(np.int64), coordinates.T * 1e-5)

    @classmethod
    def of(cls, molecules: dict[int, Atoms]) -> Collection:
        """Make one of molecules by their numbers."""
        return cls(
            np.array(list(molecules), dtype=np.int64),
            np.concatenate([[0], np.cumsum([len(atoms) for atoms in molecules.values()])]).astype(np.int64),
            np.concatenate([atoms.numbers for atoms in molecules.values()]).astype(np.int64),
            np.concatenate([atoms.positions for atoms in molecules.values()]),
        )

    def rows(self, numbers: Iterable[int]) -> list[int]:
        """Where molecules stand in the arrays."""
        where = {int(number): row for row, number in enumerate(self.index)}
        return [where[number] for number in numbers]

    def molecules(self, numbers: Iterable[int]) -> list[Atoms]:
        """Return molecules with ``info["identifier"]`` gdb_N, in the order of their numbers given."""
        found = []
        for row in self.rows(numbers):
            part = slice(self.offsets[row], self.offsets[row + 1])
            atoms = Atoms(self.numbers[part], self.positions[part])
            atoms.info["identifier"] = f"gdb_{self.index[row]}"
            found.append(atoms)
        return found


@dataclass(frozen=True)
class Choice:
    """Numbers N of the molecules gdb_N.

    Attributes
    ----------
    databases
        By size as asked for; the paper's "378" holds those of them that are in the collection.
    heldout
        The molecules to judge on: in none of the databases, nor the same geometry as a molecule that is.
    duplicates
        Pairs of a molecule that was drawn and left out, and the one of the largest database that it repeats.
    """

    databases: dict[int, list[int]]
    heldout: list[int]
    duplicates: list[tuple[int, int]]


def choose(
    seed: int = 0,
    n_heldout: int = 500,
    sizes: Sequence[int] = SIZES,
    collection: Collection | None = None,
    n_reserved: int = max(SIZES),
) -> Choice:
    """Choose databases and held-out molecules.

    Parameters
    ----------
    seed
        Of the draw of the held-out molecules.
    n_heldout
        How many of them; the first of a larger number are those of a smaller one.
    sizes
        Numbers of molecules in the databases.
    collection
        What to choose from, default QM9.
    n_reserved
        Held-out molecules avoid a database of this size even where none of the sizes is as large, so that they are
        the same whichever databases are asked for.
    """
    collection = collection or Collection.load()
    order = database_order(collection)
    n_paper = int(is_of_paper(collection.index).sum())
    databases = {size: order[: n_paper if size == PAPER else size] for size in sorted(sizes)}
    n_known = min(max(n_reserved, *map(len, databases.values())), len(order))
    left = np.array(sorted(order[n_known:]), dtype=np.int64)
    candidates = np.random.default_rng([seed, 1]).permutation(left).tolist()
    heldout, duplicates = without_duplicates(collection, candidates, order[:n_known], n_heldout)
    if len(heldout) < n_heldout:
        raise SystemExit(f"only {len(heldout)} molecules are left to be held out, {n_heldout} were asked for")
    return Choice(databases, heldout, duplicates)


def is_of_paper(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether molecules belong to the paper's database: gdb 1 to 100 and 1, 501, 1001, ..."""
    return (numbers <= 100) | (numbers % 500 == 1)


def database_order(collection: Collection) -> list[int]:
    """Return all molecules in the order in which databases take them: the paper's, then the others by chance."""
    generator = np.random.default_rng(DATABASE_SEED)
    of_paper = is_of_paper(collection.index)
    parts = [np.sort(collection.index[mask]) for mask in (of_paper, ~of_paper)]
    return [int(number) for part in parts for number in generator.permutation(part)]


def without_duplicates(
    collection: Collection, candidates: Sequence[int], known: Sequence[int], n_wanted: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Take candidates in turn, but none with the geometry of a known molecule, until there are enough.

    Two molecules are the same when they have the same elements and the same distances for each pair of elements, to
    `DUPLICATE_TOLERANCE`. Mirror images are the same in this sense, and to any power spectrum.
    """
    prints: dict[tuple[int, ...], list[NDArray[np.float64]]] = defaultdict(list)
    names: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, row in zip(known, collection.rows(known), strict=True):
        formula, distances = fingerprint(collection, row)
        prints[formula].append(distances)
        names[formula].append(number)
    tables = {formula: np.array(rows) for formula, rows in prints.items()}
    kept: list[int] = []
    duplicates: list[tuple[int, int]] = []
    for number, row in zip(candidates, collection.rows(candidates), strict=True):
        if len(kept) == n_wanted:
            break
        formula, distances = fingerprint(collection, row)
        same = np.zeros(0, dtype=np.int64)
        if formula in tables:
            same = np.flatnonzero(np.abs(tables[formula] - distances).max(axis=1, initial=0.0) < DUPLICATE_TOLERANCE)
        if len(same):
            duplicates.append((int(number), names[formula][int(same[0])]))
        else:
            kept.append(int(number))
    return kept, duplicates


def fingerprint(collection: Collection, row: int) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Return the sorted atomic numbers of a molecule and its distances, sorted for each pair of elements (Angstrom)."""
    part = slice(collection.offsets[row], collection.offsets[row + 1])
    numbers, positions = collection.numbers[part], collection.positions[part]
    i, j = np.triu_indices(len(numbers), 1)
    distances = np.linalg.norm(positions[i] - positions[j], axis=1)
    elements = 1000 * np.minimum(numbers[i], numbers[j]) + np.maximum(numbers[i], numbers[j])
    return tuple(sorted(numbers.tolist())), distances[np.lexsort((distances, elements))]


def displaced_starts(molecules: Iterable[Atoms], kind: str, seed: int = 0) -> list[Atoms]:
    """Copies with normal noise on each coordinate: starts a (0.1 Angstrom), b (0.2) and e (none, the truth)."""
    copies = []
    for atoms in molecules:
        copy = atoms.copy()
        number = int(atoms.info["identifier"].removeprefix("gdb_"))
        generator = np.random.default_rng([seed, number, ord(kind)])
        copy.positions += generator.normal(scale=NOISE[kind], size=copy.positions.shape)
        copies.append(copy)
    return copies
