"""Throughput of 64 molecules in one batch against one at a time, on one core.

64 of G2's molecules with H, C, N, O and F, displaced by 0.1 Angstrom per coordinate, default protocol, a database of
the other 29. Bar: 3 times the throughput, for evaluations of loss and gradient and for whole relaxations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2

from aiida_losiko.core import EnvironmentDatabase, RelaxSettings, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.tools.tables import Column, text_table

SPECIES = ("H", "C", "N", "O", "F")


def organic_molecules() -> list[Atoms]:
    """G2's molecules of H, C, N, O and F, the small ones first."""
    molecules = [molecule(name) for name in g2.names]
    return sorted((a for a in molecules if set(a.symbols) <= set(SPECIES)), key=len)


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
    settings = RelaxSettings.from_dict({**load_protocol().relax, "dtype": dtype, "batch_size": 64, "max_steps": steps})
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
    molecules = organic_molecules()
    rest, true = molecules[:-64], molecules[-64:]
    starts = common.displaced(true, 0.1, seed=0)
    common.header(f"{len(starts)} molecules of {min(map(len, true))} to {max(map(len, true))} atoms, one core")
    protocol = load_protocol()
    descriptor = make_descriptor({"name": "soap", "species": SPECIES, **protocol.descriptor})
    database = EnvironmentDatabase.build(
        rest, descriptor, sources=[f"rest-{index}" for index in range(len(rest))], **protocol.database
    )
    rows, ratios = [], {}
    for dtype in ("float32", "float64"):
        work = {
            "loss + gradient": (evaluations(starts, database, dtype), 3 if arguments.quick else 9, 0.5),
            "relaxation": (
                relaxations(starts, database, dtype, 20 if arguments.quick else 500),
                1 + (not arguments.quick),
                0.0,
            ),
        }
        for what, (contestants, rounds, seconds) in work.items():
            medians = {
                name: float(np.median(values))
                for name, values in common.time_in_rounds(contestants, rounds, seconds).items()
            }
            ratios[what, dtype] = medians["one at a time"] / medians["one batch"]
            rows.append(
                {
                    "what": what,
                    "dtype": dtype,
                    "batch": 1e3 * medians["one batch"] / len(starts),
                    "single": 1e3 * medians["one at a time"] / len(starts),
                    "ratio": ratios[what, dtype],
                }
            )
    columns = [
        Column("what", "work"),
        Column("dtype", "precision"),
        Column("batch", "one batch", "ms/molecule", ".3f"),
        Column("single", "one at a time", "ms/molecule", ".3f"),
        Column("ratio", "throughput", "x", ".2f"),
    ]
    print(text_table(rows, columns), "\n")
    common.finish(
        common.verdict(f"{what}, {dtype}: throughput of a batch", ratio, 3, at_least=True, unit="x")
        for (what, dtype), ratio in ratios.items()
    )


if __name__ == "__main__":
    main()
