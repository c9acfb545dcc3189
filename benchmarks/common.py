"""What the benchmarks share: timing in rounds, verdicts against bars, test molecules, and where the data lies."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# One thread for everything that brings its own pool, before any of it is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402
from ase.build import molecule  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent


def one_core() -> None:
    """Keep torch on one core too."""
    import torch

    torch.set_num_threads(1)


def header(title: str) -> None:
    """Print what is run, with which versions and on what class of machine."""
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("aiida-losiko", "torch", "numpy"))
    print(f"{title}\n{versions}, Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})\n")


def verdict(what: str, measured: float, bar: float, *, at_least: bool, unit: str = "") -> bool:
    """Print one PASS or MISS line and return whether it passed."""
    passed = measured >= bar if at_least else measured <= bar
    word = "at least" if at_least else "at most"
    print(f"{'PASS' if passed else 'MISS'}  {what}: {measured:.4g}{unit} ({word} {bar:g}{unit})")
    return passed


def finish(passed: Iterable[bool]) -> None:
    """Exit with status 1 when a bar was missed."""
    sys.exit(0 if all(list(passed)) else 1)


def time_in_rounds(contestants: Mapping[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Time the contestants in turns, so that a busy machine slows all of them alike.

    Processor time of this process is measured: on one thread that is the wall time of an idle
    machine.

    Parameters
    ----------
    contestants
        What to call, by name.
    rounds
        How many turns each gets.
    seconds
        About how long one turn takes (processor time); a call that takes longer is made once per turn.

    Returns
    -------
    dict
        Seconds of processor time per call, one entry per turn.
    """
    calls: dict[str, int] = {}
    for name, function in contestants.items():
        function()  # fills caches
        start = time.process_time()
        function()
        calls[name] = max(1, int(seconds / max(time.process_time() - start, 1e-6)))
    timings: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, function in contestants.items():
            start = time.process_time()
            for _ in range(calls[name]):
                function()
            timings[name].append((time.process_time() - start) / calls[name])
    return timings


def qm9_file(name: str) -> Path:
    """Path of a file of the QM9 test data; exits with a message when it is not there."""
    folder = Path(os.environ.get("LOSIKO_DATA", REPOSITORY.parent / "shared" / "data"))
    path = folder / "qm9" / name
    if not path.is_file():
        print(
            f"SKIP  {path} is not there: set LOSIKO_DATA to a folder with qm9/{name}. It can be made from QM9's "
            "dsgdb9nsd.xyz.tar.bz2, https://doi.org/10.6084/m9.figshare.978904 (CC0)"
        )
        sys.exit(0)
    return path


def read_molecules(path: Path) -> list[Atoms]:
    """Read an extended XYZ file and give each molecule its QM9 identifier, gdb_N."""
    from ase.io import read

    molecules = read(path, ":")
    for atoms in molecules:
        atoms.info = {"identifier": f"gdb_{atoms.info['gdb']}"}
        atoms.pbc = False
    return molecules


def displaced(molecules: Iterable[Atoms], deviation: float, seed: int) -> list[Atoms]:
    """Copies whose coordinates got normal noise of that standard deviation (Angstrom)."""
    generator = np.random.default_rng(seed)
    copies = []
    for atoms in molecules:
        copy = atoms.copy()
        copy.positions += generator.normal(scale=deviation, size=copy.positions.shape)
        copies.append(copy)
    return copies


def molecule_of_18_atoms() -> Atoms:
    """A butane with an amino group, two hydroxyl groups and a fluorine: 18 atoms of H, C, N, O, F.

    Butane is G2's; substituents stand along the C-H bonds that they replace, at usual bond lengths. For timing only.
    """
    atoms = molecule("trans-butane")
    hydrogens = [int(i) for i in np.flatnonzero(atoms.numbers == 1)]
    groups = [("N", 1.47, 2), ("O", 1.43, 1), ("O", 1.43, 1), ("F", 1.39, 0)]
    added, elements = [], []
    for index, (element, length, n_hydrogen) in zip(hydrogens[::3], groups, strict=True):
        carbon = atoms.positions[np.argsort(atoms.get_distances(index, range(len(atoms))))[1]]
        along = (atoms.positions[index] - carbon) / np.linalg.norm(atoms.positions[index] - carbon)
        atoms.positions[index] = carbon + length * along
        atoms.symbols[index] = element
        across = np.cross(along, [0.3, 0.5, 0.8])
        across /= np.linalg.norm(across)
        for sign in (1.0, -1.0)[:n_hydrogen]:
            added.append(atoms.positions[index] + 0.35 * along + 0.92 * sign * across)
            elements.append("H")
    atoms += Atoms(elements, added)
    return atoms


def hydrogen_in_lithium_cobalt_oxide() -> Atoms:
    """LiCoO2 of 108 atoms with one of its 27 Li replaced by H.

    R-3m, a = 2.8161, c = 14.0536 Angstrom, Li 3a, Co 3b, O 6c with z = 0.23968: Akimoto, Gotoh and Oosawa, J. Solid
    State Chem. 141, 298 (1998).
    """
    from ase.spacegroup import crystal

    cell = crystal(
        ["Li", "Co", "O"],
        [(0, 0, 0), (0, 0, 0.5), (0, 0, 0.23968)],
        spacegroup=166,
        cellpar=[2.8161, 2.8161, 14.0536, 90, 90, 120],
    )
    atoms = Atoms(cell) * (3, 3, 1)
    atoms.symbols[int(np.flatnonzero(atoms.symbols == "Li")[0])] = "H"
    return atoms
