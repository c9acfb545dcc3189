"""Throughput of 64 molecules in one batch against one at a time, on one core.

64 of G2's molecules with H, C, N, O and F, displaced by 0.1 Angstrom per coordinate, against a database of the other
29; settings of the protocols `qm9` (n 6, l 6) and `balanced` (n 6, l 4 and a learnt metric).
Bar: 3 times the throughput, for evaluations of loss and gradient and for whole relaxations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from ase import Atoms

from aiida_losiko.core import EnvironmentDatabase, RelaxSettings, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.sources import load_source
from aiida_losiko.tools.tables import Column, text_table

SPECIES = ("H", "C", "N", "O", "F")


def database_of(molecules: list[Atoms], protocol_name: str) -> EnvironmentDatabase:
    """Build the database that is matched against."""
    protocol = load_protocol(protocol_name)
    descriptor = make_descriptor({"name": "soap", "species": SPECIES, **protocol.descriptor})
    return EnvironmentDatabase.build(molecules, descriptor, **protocol.database)


def row(
    what: str, protocol: str, dtype: str, contestants: dict[str, Callable[[], Any]], rounds: int, seconds: float = 0.5
) -> dict[str, Any]:
    """Time both ways and make a row of the table."""
    timings = common.time_in_rounds(contestants, rounds, seconds)
    batch, single = (1e3 * float(np.median(timings[name])) / 64 for name in ("one batch", "one at a time"))
    return {
        "what": what,
        "protocol": protocol,
        "dtype": dtype,
        "batch": batch,
        "single": single,
        "ratio": single / batch,
    }


def evaluations(starts: list[Atoms], database: EnvironmentDatabase, dtype: str) -> dict[str, Callable[[], Any]]:
    """One loss and gradient of every molecule, in one batch or one after the other."""
    import torch

    from aiida_losiko.core.neighbors import StructureBatch
    from aiida_losiko.core.objective import LocalSimilarityObjective

    precision = getattr(torch, dtype)
    one_batch = LocalSimilarityObjective(StructureBatch.from_atoms(starts, dtype=precision), database)
    singles = [LocalSimilarityObjective(StructureBatch.from_atoms([a], dtype=precision), database) for a in starts]
    # Positions change a little from call to call, as on the way of an optimiser.
    generator = torch.Generator().manual_seed(0)

    def evaluate(objectives: list[LocalSimilarityObjective], places: list[torch.Tensor]) -> None:
        for objective, place in zip(objectives, places, strict=True):
            objective.evaluate(place + 0.01 * torch.randn(place.shape, generator=generator, dtype=precision))

    together = [one_batch.batch.positions.clone()]
    apart = [objective.batch.positions.clone() for objective in singles]
    return {"one batch": lambda: evaluate([one_batch], together), "one at a time": lambda: evaluate(singles, apart)}


def relaxations(
    starts: list[Atoms], database: EnvironmentDatabase, dtype: str, steps: int
) -> dict[str, Callable[[], Any]]:
    """Relax every molecule, in one batch or in a call for each."""
    settings = RelaxSettings.from_dict({"dtype": dtype, "batch_size": 64, "max_steps": steps})
    return {
        "one batch": lambda: relax(starts, database, settings=settings),
        "one at a time": lambda: [relax(start, database, settings=settings) for start in starts],
    }


def main() -> None:
    """Time all of them in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and at most 20 steps per relaxation")
    arguments = parser.parse_args()
    common.one_core()
    molecules = [record.atoms for record in load_source("g2")[1]]  # the small ones first
    rest, true = molecules[:-64], molecules[-64:]
    starts = common.displaced(true, 0.1, seed=0)
    common.header(f"{len(starts)} molecules of {min(map(len, true))} to {max(map(len, true))} atoms, one core")
    rows = []
    for name, dtype in (("qm9", "float32"), ("qm9", "float64"), ("balanced", "float32"), ("balanced", "float64")):
        database = database_of(rest, name)
        rows.append(
            row("loss + gradient", name, dtype, evaluations(starts, database, dtype), 3 + 6 * (not arguments.quick))
        )
        relaxing = relaxations(starts, database, dtype, 20 if arguments.quick else 500)
        rows.append(row("relaxation", name, dtype, relaxing, 1, seconds=0.0))
    columns = [
        Column("what", "work"),
        Column("protocol", "protocol"),
        Column("dtype", "precision"),
        Column("batch", "one batch", "ms/molecule", ".3f"),
        Column("single", "one at a time", "ms/molecule", ".3f"),
        Column("ratio", "throughput", "x", ".2f"),
    ]
    print(text_table(rows, columns), "\n")
    common.finish(
        common.verdict(
            f"{row['what']}, {row['protocol']}, {row['dtype']}: throughput of a batch",
            row["ratio"],
            3,
            at_least=True,
            unit="x",
        )
        for row in rows
    )


if __name__ == "__main__":
    main()
