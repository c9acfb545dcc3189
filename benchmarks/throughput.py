"""Molecules per second of `relax` on a set: one core, all cores, a GPU; and how far DScribe's derivatives are behind.

Held-out QM9 molecules displaced by 0.1 Angstrom per coordinate (those of qm9_accuracy.py) against the paper's database,
protocol `balanced`. With several processes, and on a GPU, results come in the order of the input and are those of one
process: this is checked.

The second part relaxes a few of the molecules with SciPy's L-BFGS-B on DScribe's SOAP and its derivatives: the same
loss (Eq. 8, nearest environments anew at each evaluation), as many evaluations as ours took, one thread, in the same
run. DScribe gives the derivatives with the quicker of its two methods (numerical ones alone where neighbours are
damped), once in the vectors of the database, which know five elements, and once in those of the elements that the
molecule has: DScribe leaves picking these columns to the caller, ours does it itself.

Bars: 50 ms of processor time per molecule on one core with the paper's database, 200 ms with 30,000 molecules
(`--large`), and 50 times less than DScribe takes in the vectors of the database, for the damped loss.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np
import qm9_collection as qm9
from dscribe_lbfgs import relax_with_dscribe
from qm9_losiko import database as kept_database
from qm9_study import Study

from aiida_losiko.core import EnvironmentDatabase, Relaxation, RelaxSettings, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.core.relaxation.workers import usable_cores
from aiida_losiko.tools.tables import Column, text_table

LARGE = max(qm9.SIZES)
#: Milliseconds per molecule on one core, by the size of the database.
BARS = {qm9.PAPER: 50.0, LARGE: 200.0}
#: Copies of each molecule, displaced differently, that make a full batch for the comparison with DScribe.
COPIES = 16
DAMPED = {"function": "pow", "c": 1.0, "d": 1.0, "m": 6.0, "r0": 1.6}
#: Eq. 8 alone, with descriptors that both have, and settings of the relaxation. They do not follow the protocols, which
#: may do more than one descriptor can: `balanced` is what that was in version 0.1.
LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the paper": (
        {"r_cut": 4.0, "n_max": 6, "l_max": 6, "sigma": 0.5},
        {"max_steps": 100, "repulsion": 0.0},
    ),
    "balanced": (
        {"r_cut": 4.0, "n_max": 8, "l_max": 6, "sigma": 0.2, "weighting": DAMPED},
        {"dtype": "float32", "relative_loss_tolerance": 0.01, "repulsion": 0.0},
    ),
}

#: The bar is for the loss of `balanced`, with DScribe as it stands; the other rows are there to be compared.
BAR = ("balanced", "DScribe, all elements")

COLUMNS = [
    Column("who", "where"),
    Column("database", "database", "molecules"),
    Column("rate", "molecules", "1/s", ".2f"),
    Column("ratio", "over one core", "x", ".2f"),
    Column("wall", "wall time", "s", ".1f"),
    Column("processor", "processor time", "ms/molecule", ".1f"),
]
DSCRIBE_COLUMNS = [
    Column("what", "loss"),
    Column("who", "who"),
    Column("method", "derivatives"),
    Column("evaluations", "evaluations", "mean", ".1f"),
    Column("each", "per evaluation", "ms", ".2f"),
    Column("seconds", "per molecule", "ms", ".1f"),
    Column("loss", "loss at the end", "median", ".3e"),
    Column("ratio", "over ours", "x", ".1f"),
]


class Clock:
    """Wall time, and processor time with that of the processes that were started and have ended."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, processor = time.perf_counter(), _processor()
        yield
        self.wall, self.processor = time.perf_counter() - wall, _processor() - processor


def _processor() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


# Throughput


def throughput(study: Study, protocol_name: str, size: int, processes: Sequence[int]) -> list[dict[str, Any]]:
    """Relax all molecules in each of the ways and make the rows of the table."""
    import torch

    protocol = load_protocol(protocol_name)
    settings = RelaxSettings.from_dict(protocol.relax)
    known, starts = kept_database(study, protocol, size), study.starts("a")
    # Memory is mapped and the search prepared, as they are in a long run.
    relax(starts[: settings.batch_size], known, settings=settings, max_steps=1)
    ways: dict[str, Callable[[], list[Relaxation]]] = {}
    for n in processes:
        name = "one core" if n == 1 else f"{n} processes"
        ways[name] = lambda n=n: relax(starts, known, settings=settings, processes=n, progress=True)
    if torch.cuda.is_available():
        on_gpu = RelaxSettings.from_dict({**protocol.relax, "device": "cuda", "batch_size": 512})
        relax(starts[: on_gpu.batch_size], known, settings=on_gpu, max_steps=1)
        ways[torch.cuda.get_device_name()] = lambda: relax(starts, known, settings=on_gpu, progress=True)
    rows: list[dict[str, Any]] = []
    results: dict[str, list[Relaxation]] = {}
    for name, call in ways.items():
        clock = Clock()
        with clock.running():
            results[name] = call()
        rows.append(
            {
                "who": name,
                "database": size,
                "rate": len(starts) / clock.wall,
                "wall": clock.wall,
                "processor": 1e3 * clock.processor / len(starts),
                "load": os.getloadavg()[0],
            }
        )
        rows[-1]["ratio"] = rows[-1]["rate"] / rows[0]["rate"]
        if name.endswith("processes"):
            check_same(results[name], results["one core"])
    summary(results["one core"])
    return rows


def check_same(results: list[Relaxation], reference: list[Relaxation]) -> None:
    """Exit unless all results are equal to the last bit."""
    for a, b in zip(results, reference, strict=True):
        if a.loss != b.loss or a.status != b.status or not np.array_equal(a.atoms.positions, b.atoms.positions):
            raise SystemExit("several processes gave another result than one: this is a bug")


def summary(results: list[Relaxation]) -> None:
    """Print what the molecules were and how it went."""
    atoms = np.mean([len(result.atoms) for result in results])
    evaluations = np.mean([result.evaluations for result in results])
    converged = np.mean([result.converged for result in results])
    print(
        f"{len(results)} molecules of {atoms:.1f} atoms, {evaluations:.1f} evaluations each, {converged:.0%} converged"
    )


# DScribe


def against_dscribe(study: Study, n_molecules: int) -> list[dict[str, Any]]:
    """Rows that compare ours with L-BFGS on DScribe's derivatives, for each of the losses."""
    known_molecules = study.collection.molecules(study.choice.databases[qm9.PAPER])
    true = study.true[:n_molecules]
    # Each molecule in several displacements fills a batch; DScribe is given the first of them.
    starts = [copy for seed in range(COPIES) for copy in qm9.displaced_starts(true, "a", seed)]
    rows = []
    for what, (parameters, relax_settings) in LOSSES.items():
        descriptor = make_descriptor({"name": "soap", "species": qm9.SPECIES, **parameters})
        known = EnvironmentDatabase.build(known_molecules, descriptor)
        settings = RelaxSettings.from_dict(relax_settings)
        relax(starts[: len(true)], known, settings=settings, max_steps=1)
        clock = Clock()
        with clock.running():
            results = relax(starts, known, settings=settings)
        ours = results[: len(true)]
        mine = clock.processor / len(starts)
        evaluations = float(np.mean([result.evaluations for result in results]))
        rows.append(_row(what, "aiida-losiko", evaluations, mine, [result.loss for result in ours], mine))
        for all_elements in (True, False):
            found = [
                relax_with_dscribe(s, known, parameters, r, all_elements) for s, r in zip(starts, ours, strict=False)
            ]
            losses, counts, seconds, methods = zip(*found, strict=True)
            who = f"DScribe, {'all elements' if all_elements else 'those of the molecule'}"
            rows.append(_row(what, who, float(np.mean(counts)), float(np.mean(seconds)), list(losses), mine))
            rows[-1]["method"] = " or ".join(sorted(set(methods)))
    return rows


def _row(
    what: str, who: str, evaluations: float, seconds: float, losses: list[float], reference: float
) -> dict[str, Any]:
    return {
        "what": what,
        "who": who,
        "evaluations": evaluations,
        "each": 1e3 * seconds / evaluations,
        "seconds": 1e3 * seconds,
        "loss": float(np.median(losses)),
        "ratio": seconds / reference,
    }


def main() -> None:
    """Measure both and print tables and verdicts."""
    arguments = parse()
    common.one_core()
    cores = usable_cores()
    sizes = (qm9.PAPER, LARGE) if arguments.large else (qm9.PAPER,)
    n_molecules = 128 if arguments.quick else arguments.molecules
    study = Study.of(arguments.output, 0, n_molecules, sizes)
    common.header(f"Throughput on {n_molecules:,} held-out QM9 molecules, 0.1 Angstrom noise, {cores} usable cores")
    processes = sorted({1, cores, *(arguments.processes or ())})
    rows = []
    for size in sizes:
        rows += throughput(study, arguments.protocol, size, processes)
    print("\n" + text_table(rows, COLUMNS), "\n")
    print(f"load of the machine at the end of each: {', '.join(format(row['load'], '.1f') for row in rows)}\n")
    passed = [
        common.verdict(
            f"{arguments.protocol}, database of {row['database']:,}: processor time per molecule",
            row["processor"],
            BARS[row["database"]],
            at_least=False,
            unit=" ms",
        )
        for row in rows
        if row["who"] == "one core"
    ]
    if arguments.dscribe:
        rows = against_dscribe(study, arguments.dscribe)
        print("\n" + text_table(rows, DSCRIBE_COLUMNS), "\n")
        passed += [
            common.verdict(
                f"loss of {row['what']}: faster than {row['who']}, by", row["ratio"], 50, at_least=True, unit="x"
            )
            for row in rows
            if (row["what"], row["who"]) == BAR
        ]
    common.finish(passed)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=1000, help="how many to relax at once")
    parser.add_argument("--protocol", default="balanced")
    parser.add_argument("--processes", type=int, action="append", help="further numbers of processes; may be repeated")
    parser.add_argument("--large", action="store_true", help=f"also the database of {LARGE:,} molecules")
    parser.add_argument("--dscribe", type=int, default=4, metavar="N", help="molecules to compare on; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="128 molecules")
    parser.add_argument(
        "--output",
        type=Path,
        default=common.REPOSITORY / "results" / "qm9_accuracy",
        help="folder that keeps the databases, that of qm9_accuracy.py",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
