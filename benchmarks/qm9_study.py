"""The held-out molecules of one seed, their five kinds of start, and the peers' results, computed where not yet kept.

Starts are (a) the truth with noise of 0.1 Angstrom on each coordinate, (b) of 0.2, (c) the GFN2-xTB minimum and (d)
the MMFF94 minimum next to the truth, (e) the truth itself. By this module alone,

    study = Study.of(Path("FOLDER"), seed=0, n_molecules=500)
    starts = study.starts("c")

gives the starts of 500 molecules, and after an interruption goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qm9_collection as qm9
from ase import Atoms
from kept import Kept
from peers import PEERS, version_of

#: What each kind of start is, for the tables.
STARTS = {
    "a": "truth + 0.1 Å noise",
    "b": "truth + 0.2 Å noise",
    "c": "GFN2-xTB minimum",
    "d": "MMFF94 minimum",
    "e": "the truth itself",
}
#: The starts that are what a peer makes of the truth.
PEER_OF_START = {"c": "GFN2-xTB", "d": "MMFF94"}
#: Molecules of a peer that are written at a time.
PEER_CHUNK = 50


@dataclass(frozen=True)
class Study:
    """Molecules to judge on, the databases to judge with, and the folder that keeps what was computed.

    Attributes
    ----------
    output
        The folder.
    seed
        Of the held-out molecules and the noise.
    collection, choice
        See `qm9_collection`.
    true
        The held-out molecules with ``info["identifier"]``.
    """

    output: Path
    seed: int
    collection: qm9.Collection
    choice: qm9.Choice
    true: list[Atoms]

    @classmethod
    def of(cls, output: Path, seed: int = 0, n_molecules: int = 500, sizes: Sequence[int] = qm9.SIZES) -> Study:
        """Choose the molecules; see `qm9_collection.choose`."""
        collection = qm9.Collection.load()
        choice = qm9.choose(seed, n_molecules, sizes, collection)
        return cls(output, seed, collection, choice, collection.molecules(choice.heldout))

    def starts(self, kind: str) -> list[Atoms]:
        """Return the starts of one kind; molecules that the peer could not do are left out (c and d)."""
        if kind in qm9.NOISE:
            return qm9.displaced_starts(self.true, kind, self.seed)
        found = [atoms.copy() for atoms in self.peer(PEER_OF_START[kind], "e") if not atoms.info["error"]]
        for atoms in found:
            atoms.info = {"identifier": atoms.info["identifier"]}
        return found

    def start_key(self, kind: str) -> dict[str, Any]:
        """What the starts of a kind follow from."""
        if kind in qm9.NOISE:
            # The truth has no seed: results from it hold for every choice that has the molecule.
            return {"noise": qm9.NOISE[kind], "kind": kind, "seed": self.seed if qm9.NOISE[kind] else None}
        return {"peer": PEER_OF_START[kind], "version": version_of(PEER_OF_START[kind])}

    def peer(self, name: str, kind: str) -> list[Atoms]:
        """Return what a peer makes of the starts of one kind; ``info`` has seconds, converged and error."""
        key = {"peer": name, "version": version_of(name), "start": self.start_key(kind)}
        kept = Kept(self.output, f"{name}-{kind}", key)
        true = {atoms.info["identifier"]: atoms for atoms in self.true}

        def minimise(starts: list[Atoms]) -> list[Atoms]:
            return [_minimised(name, start, true[start.info["identifier"]]) for start in starts]

        return complete(kept, self.starts(kind), minimise, PEER_CHUNK, f"{name} from ({kind})")


def _minimised(name: str, start: Atoms, true: Atoms) -> Atoms:
    outcome = PEERS[name](start, true)
    atoms = start.copy() if outcome.atoms is None else outcome.atoms
    atoms.info = {
        "identifier": start.info["identifier"],
        "seconds": outcome.seconds,
        "converged": outcome.converged,
        "error": outcome.error,
    }
    return atoms


def complete(
    kept: Kept,
    starts: list[Atoms],
    work: Callable[[list[Atoms]], list[Atoms]],
    chunk: int,
    name: str,
    warm_up: bool = True,
) -> list[Atoms]:
    """Do what is not kept yet, in chunks, and return all results in the order of the starts.

    Parameters
    ----------
    kept
        Where results are kept.
    starts
        Structures with ``info["identifier"]``.
    work
        Called with up to `chunk` starts; gives one structure, with its identifier, for each.
    chunk
        How many are done before they are written.
    name
        For the lines that tell the progress.
    warm_up
        Do the first one twice, so that imports and caches are not timed.
    """
    known = kept.load()
    todo = [atoms for atoms in starts if atoms.info["identifier"] not in known]
    if todo and warm_up:
        work([todo[0]])
    for begin in range(0, len(todo), chunk):
        done = work(todo[begin : begin + chunk])
        kept.add(done)
        known.update({atoms.info["identifier"]: atoms for atoms in done})
        print(f"  {name}: {begin + len(done)} of {len(todo)}", flush=True)
    return [known[atoms.info["identifier"]] for atoms in starts]
