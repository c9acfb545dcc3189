"""How well an interface is bonded, before and after it was relaxed: what is counted, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.bonding import bonds, coordination_numbers
from aiida_losiko.core.structures.content import fixed_mask
from aiida_losiko.tools.tables import Column, text_table

if TYPE_CHECKING:
    from ase import Atoms

#: How many neighbours each element should have.
VALENCES = {"Si": 4, "O": 2}
#: No pair is to be closer than this part of the shortest distance that the entries have.
CLOSEST = 0.9
N_BARS = 6

#: Pairs further apart are no neighbours of any kind, Angstrom.
_REACH = 4.0


def free(atoms: Atoms) -> NDArray[np.bool_]:
    """Return which atoms may move, (n_atoms,)."""
    return ~fixed_mask(atoms)


def fully_bonded(atoms: Atoms) -> bool:
    """Tell whether there is Si, all Si are fourfold and all O twofold."""
    wanted = [VALENCES[symbol] for symbol in atoms.symbols]
    return "Si" in atoms.symbols and coordination_numbers(atoms).tolist() == wanted


def shortest_distances(structures: Iterable[Atoms]) -> dict[str, float]:
    """Return the shortest distance of each pair of elements in any of the structures, in Angstrom."""
    shortest: dict[str, float] = {}
    for atoms in structures:
        for pair, length in pair_distances(atoms).items():
            shortest[pair] = min(length, shortest.get(pair, length))
    return shortest


def pair_distances(atoms: Atoms, mask: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Return the shortest distance of each pair of elements, of pairs of which one atom at least is in the mask."""
    from ase.neighborlist import neighbor_list

    first, second, lengths = neighbor_list("ijd", atoms, _REACH)
    symbols = atoms.get_chemical_symbols()
    shortest: dict[str, float] = {}
    for i, j, length in zip(first, second, lengths, strict=True):
        if mask is None or mask[i] or mask[j]:
            pair = "-".join(sorted((symbols[i], symbols[j])))
            shortest[pair] = min(float(length), shortest.get(pair, float(length)))
    return shortest


def measure(atoms: Atoms, closest: dict[str, float] | None = None) -> dict[str, Any]:
    """Count the bonds of the atoms that may move.

    Parameters
    ----------
    atoms
        Of Si and O. Neighbours are those of `aiida_losiko.core.metrics.bonds`, of either element.
    closest
        Shortest distances in the entries, Angstrom.

    Returns
    -------
    dict
        Shares of `fourfold` Si and `twofold` O; `dangling` and `excess` bonds, how many are missing at atoms with too
        few neighbours and how many there are too many at others; `si_o`, bonds of Si and O; `closest`, the shortest
        distance of a pair of elements in parts of that in the entries, of the pair that is worst.
    """
    moves, numbers = free(atoms), coordination_numbers(atoms)
    symbols = np.array(atoms.get_chemical_symbols())
    wanted = np.array([VALENCES[symbol] for symbol in symbols])
    first, second, _ = bonds(atoms)
    near = moves[first] | moves[second]
    found: dict[str, Any] = {
        "fourfold": float((numbers[moves & (symbols == "Si")] == 4).mean()),
        "twofold": float((numbers[moves & (symbols == "O")] == 2).mean()),
        "dangling": int(np.maximum(wanted - numbers, 0)[moves].sum()),
        "excess": int(np.maximum(numbers - wanted, 0)[moves].sum()),
        "si_o": int(((symbols[first] != symbols[second]) & near).sum()),
    }
    if closest is not None:
        found["closest"] = min(d / closest[pair] for pair, d in pair_distances(atoms, moves).items() if pair in closest)
    return found


def compared(before: Atoms, after: Atoms, closest: dict[str, float]) -> dict[str, Any]:
    """Return what is counted after a relaxation, and whether all that is frozen is where it was, to the last bit."""
    held = bool((after.positions == before.positions)[~free(before)].all())
    return {**measure(after, closest), "held": held}


def missing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return which of what is asked is not met."""
    bars = {
        "more fourfold Si": after["fourfold"] > before["fourfold"],
        "more twofold O": after["twofold"] > before["twofold"],
        "fewer dangling bonds": after["dangling"] < before["dangling"],
        "more Si-O bonds": after["si_o"] > before["si_o"],
        f"no pair closer than {CLOSEST:g} of the entries'": after["closest"] >= CLOSEST,
        "all others where they were": after["held"],
    }
    return [name for name, met in bars.items() if not met]


def verdict(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return in a line how much of what is asked is met, and what is not."""
    missed = missing(before, after)
    return f"{N_BARS - len(missed)} of {N_BARS} as asked" + (f"; not: {', '.join(missed)}" if missed else "")


def summary(counts: dict[str, Any]) -> str:
    """Return in a few words how good a network is."""
    return f"{counts['fourfold']:.1%} of Si fourfold, {counts['twofold']:.1%} of O twofold"


def table(rows: list[dict[str, Any]]) -> str:
    """Render what is counted of one interface, as cut and relaxed."""
    columns = [
        Column("structure", "interface"),
        Column("fourfold", "fourfold Si", "", ".3f"),
        Column("twofold", "twofold O", "", ".3f"),
        Column("dangling", "dangling bonds"),
        Column("excess", "bonds too many"),
        Column("si_o", "Si-O bonds"),
        Column("closest", "closest / entries", "", ".2f"),
        Column("held", "others held"),
        Column("status", "status"),
        Column("seconds", "time", "s", ".1f"),
    ]
    return text_table(rows, columns)


def table_of_starts(starts: Iterable[tuple[str, float, dict[str, Any], dict[str, Any]]]) -> str:
    """Render what became of several starts: name, loss, and what was counted before and after of each."""
    rows = []
    for name, loss, before, after in starts:
        row: dict[str, Any] = {"start": name, "loss": loss, "closest": after["closest"]}
        row |= {key: f"{before[key]:.3f} to {after[key]:.3f}" for key in ("fourfold", "twofold")}
        row |= {key: f"{before[key]} to {after[key]}" for key in ("dangling", "si_o")}
        rows.append({**row, "met": N_BARS - len(missing(before, after))})
    columns = [
        Column("start", "start"),
        Column("loss", "loss", "", ".3f"),
        Column("fourfold", "fourfold Si"),
        Column("twofold", "twofold O"),
        Column("dangling", "dangling bonds"),
        Column("si_o", "Si-O bonds"),
        Column("closest", "closest / entries", "", ".2f"),
        Column("met", f"of {N_BARS} as asked"),
    ]
    return text_table(rows, columns)
