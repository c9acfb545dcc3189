"""Time and peak memory of one loss and its gradient for silica of 100 to 100,000 atoms, and what a frozen region costs.

Cristobalite, repeated, every coordinate displaced by normal noise of 0.1 Angstrom; the database is made of the 18 Si-O
crystals that the package has written down. Protocols: `silica-interface` (the paper's settings) and `crystals`.

Each size has a process of its own, thus a peak of its own; what the process held before, with torch and the database,
is taken off. "First" is an evaluation with nothing kept from one before: the neighbours and all matches are looked for.
"Next" is one in which every movable atom has gone 0.01 Angstrom further on each coordinate. Times are processor time of
one thread, of "next" the median of at least three. The first evaluation of the largest size is done once more with two
threads; its time is that of the clock.

Frozen: all but the atoms within 10 Angstrom of one place. "Can change" counts the atoms whose environments have one of
these within the cutoff of the descriptor.

Bars: from one size to the next, time and memory for each atom grow by at most a fifth; 100,000 atoms in 16 GiB on two
cores; with the same atoms free, the next evaluation of 100,000 atoms takes at most a fifth longer than that of 10,000,
and for each environment that can change at most a fifth longer than with all atoms free.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import common
import numpy as np
from ase import Atoms

from aiida_losiko.tools.tables import Column, text_table

PROTOCOLS = ("silica-interface", "crystals")
# Of the conventional cell of 12 atoms.
SUPERCELLS = ((2, 2, 2), (4, 4, 5), (9, 9, 10), (20, 20, 21))
MOVABLE_WITHIN = 10.0  # Angstrom
LARGEST_GROWTH = 1.2
LARGEST_MEMORY = 16.0  # GiB
SECONDS = 5.0  # of evaluations that the median is taken of, where these are short


def silica(repeat: Iterable[int]) -> Atoms:
    """Displaced cristobalite."""
    from aiida_losiko.sources.reference_crystals import build_crystal

    atoms = build_crystal("cristobalite-alpha", conventional=True).repeat(tuple(repeat))
    return common.displaced([atoms], 0.1, seed=0)[0]


def measure(protocol_name: str, repeat: list[int], movable_within: float | None, least: int) -> dict[str, Any]:
    """Time evaluations in this process and return the figures; run in a process of its own for its peak of memory."""
    import torch

    from aiida_losiko.core import EnvironmentDatabase, make_descriptor
    from aiida_losiko.core.neighbors import StructureBatch, close_pairs
    from aiida_losiko.core.objective import LocalSimilarityObjective
    from aiida_losiko.core.protocols import load_protocol
    from aiida_losiko.sources.reference_crystals import read_reference_crystals

    n_threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(n_threads)
    clock = time.process_time if n_threads == 1 else time.perf_counter
    protocol = load_protocol(protocol_name)
    descriptor = make_descriptor({"name": "soap", "species": ["Si", "O"], **protocol.descriptor})
    records = list(read_reference_crystals({"elements": ["Si", "O"]}))
    database = EnvironmentDatabase.build([record.atoms for record in records], descriptor, **protocol.database)
    # What is set up once, whatever the size, belongs to none.
    small = StructureBatch.from_atoms([silica((1, 1, 1))])
    LocalSimilarityObjective(small, database, repulsion=1.0).evaluate(small.positions)

    atoms = silica(repeat)
    batch = StructureBatch.from_atoms([atoms])
    figures: dict[str, Any] = {"n_atoms": len(atoms)}
    free = torch.ones(len(atoms), dtype=torch.bool)
    if movable_within is not None:
        free = torch.linalg.vector_norm(batch.positions - batch.positions.mean(0), dim=1) < movable_within
        i, j, _ = close_pairs(atoms, descriptor.cutoff)
        near = np.union1d(i[free.numpy()[j]], np.flatnonzero(free.numpy()))
        figures |= {"n_free": int(free.sum()), "n_changing": len(near)}
    figures["before"] = _peak()
    start = clock()
    objective = LocalSimilarityObjective(batch, database, free=free, repulsion=1.0)
    objective.evaluate(batch.positions)
    figures["first"] = clock() - start
    generator, times = torch.Generator().manual_seed(1), []
    positions = batch.positions
    while len(times) < least or (least and sum(times) < SECONDS):
        step = 0.01 * torch.randn(positions.shape, generator=generator, dtype=positions.dtype)
        positions = positions + step * free[:, None]
        start = clock()
        objective.evaluate(positions)
        times.append(clock() - start)
    if times:
        # With frozen atoms the first of them sets up what is left to be done.
        figures["next"] = float(np.median(times[1:] if movable_within is not None else times))
    return figures | {"peak": _peak()}


def _peak() -> float:
    """The most memory that this process has held, in GiB."""
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1024**3


def in_process(*arguments: Any, n_threads: int = 1) -> dict[str, Any]:
    """Call `measure` in a process of its own."""
    environment = os.environ | {
        name: str(n_threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    # On a busy machine threads that wait for each other at full speed take the cores from whom they wait for.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = [sys.executable, __file__, "--measure", json.dumps(arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {figures}", file=sys.stderr, flush=True)
    return figures


def add_growth(rows: list[dict[str, Any]]) -> None:
    """Add what time and memory for each atom grew by from one size to the next; one is linear."""
    for row in rows:
        row["memory"] = row["peak"] - row["before"]
        row["per_atom"] = 1e6 * row["next"] / row["n_atoms"]
    for before, row in pairwise(rows):
        for name in ("first", "next", "memory"):
            row[f"{name}_growth"] = row[name] / before[name] / (row["n_atoms"] / before["n_atoms"])


def grow(protocol: str, supercells: Iterable[tuple[int, ...]]) -> tuple[list[dict[str, Any]], list[bool]]:
    """Measure one size after the other."""
    rows = [in_process(protocol, cell, None, 3) for cell in supercells]
    add_growth(rows)
    columns = [
        Column("n_atoms", "atoms", "", ",d"),
        Column("first", "first", "s", ".2f"),
        Column("first_growth", "per atom", "times", ".2f"),
        Column("next", "next", "s", ".3f"),
        Column("next_growth", "per atom", "times", ".2f"),
        Column("per_atom", "for each atom", "us", ".0f"),
        Column("before", "held before", "GiB", ".2f"),
        Column("memory", "peak above that", "GiB", ".3f"),
        Column("memory_growth", "per atom", "times", ".2f"),
    ]
    print(f"{protocol}, all atoms free\n{text_table(rows, columns)}", flush=True)
    passed = []
    for name, what in (("first", "time of a first"), ("next", "time of a next"), ("memory", "memory of an")):
        worst = max(row[f"{name}_growth"] for row in rows[1:])
        line = f"{protocol}: {what} evaluation for each atom, largest growth from one size to the next"
        passed.append(common.verdict(line, worst, LARGEST_GROWTH, at_least=False, unit=" times"))
    print(flush=True)
    return rows, passed


def freeze(protocol: str, free: list[dict[str, Any]], supercells: list[tuple[int, ...]]) -> list[bool]:
    """Measure what is left of the cost when most atoms are frozen."""
    rows = [in_process(protocol, cell, MOVABLE_WITHIN, 5) for cell in supercells]
    for row, whole in zip(rows, free, strict=True):
        row["of_all"] = 100 * row["next"] / whole["next"]
        row["each"] = 1e6 * row["next"] / row["n_changing"]
        row["each_free"] = whole["per_atom"]
    columns = [
        Column("n_atoms", "atoms", "", ",d"),
        Column("n_free", "move", "", "d"),
        Column("n_changing", "can change", "", "d"),
        Column("first", "first", "s", ".2f"),
        Column("next", "next", "s", ".3f"),
        Column("of_all", "of all free", "%", ".2f"),
        Column("each", "for each that can change", "us", ".0f"),
        Column("each_free", "for each atom, all free", "us", ".0f"),
    ]
    print(f"{protocol}, most atoms frozen\n{text_table(rows, columns)}")
    passed = []
    if len(rows) > 1:
        line = f"{protocol}: next evaluation, most frozen, {rows[-1]['n_atoms']:,} atoms over {rows[0]['n_atoms']:,}"
        ratio = rows[-1]["next"] / rows[0]["next"]
        passed.append(common.verdict(line, ratio, LARGEST_GROWTH, at_least=False, unit=" times"))
    line = f"{protocol}: cost of an environment that can change over one where all can"
    ratio = max(row["each"] / row["each_free"] for row in rows)
    passed.append(common.verdict(line, ratio, LARGEST_GROWTH, at_least=False, unit=" times"))
    print(flush=True)
    return passed


def on_two_cores(protocol: str, supercell: tuple[int, ...]) -> list[bool]:
    """Measure the largest size on two cores."""
    row = in_process(protocol, supercell, None, 0, n_threads=2)
    print(f"{protocol}, {row['n_atoms']:,} atoms, two threads: first {row['first']:.1f} s (by the clock)")
    line = f"{protocol}: {row['n_atoms']:,} atoms on two cores, all memory of the process"
    passed = common.verdict(line, row["peak"], LARGEST_MEMORY, at_least=False, unit=" GiB")
    print(flush=True)
    return [passed]


def main() -> None:
    """Run all of it, or what a process of its own is for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 atoms")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help=f"default {','.join(PROTOCOLS)}")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*json.loads(arguments.measure))))
        return
    supercells = list(SUPERCELLS[:3] if arguments.quick else SUPERCELLS)
    common.header("One loss and its gradient for silica, from 100 atoms on")
    passed = []
    for protocol in arguments.protocols.split(","):
        rows, verdicts = grow(protocol, supercells)
        passed += verdicts
        # In smaller cells everything is near.
        passed += freeze(protocol, rows[2:], supercells[2:])
        passed += on_two_cores(protocol, supercells[-1])
    common.finish(passed)


if __name__ == "__main__":
    main()
