"""The search among 300 random carbon cells: structures per second in batches, one at a time, and on DScribe.

Random cells of 3.7 to 4.2 g/cm3 and up to 8 atoms, cell and all, with a database of diamond and the settings of the
protocol `random-search` (`workflows/carbon.py`, docs/carbon.md).

* The search itself, hops and all, in batches of 64 and with a batch for each cell. The results of both are compared.
* One descent of each cell, without hops and repulsion: in batches, one at a time, and by SciPy's L-BFGS-B on DScribe's
  SOAP and its numerical derivatives, on a sample of 10 cells and in as many evaluations as ours took. DScribe has no
  derivatives in the strain: these are central differences of its vectors. Loss and gradient of both are compared.

Processor time of one thread. There is no bar; the ratios are printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import common
import numpy as np
from ase import Atoms
from dscribe_lbfgs import relax_cell_with_dscribe

from aiida_losiko.builders import random_cells
from aiida_losiko.core import EnvironmentDatabase, Relaxation, RelaxSettings, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.sources import load_source
from aiida_losiko.tools.tables import Column, text_table

PROTOCOL = "random-search"
DENSITY = (3.7, 4.2)  # g/cm3
SAMPLE = 10
COLUMNS = [
    Column("what", "work"),
    Column("who", "how"),
    Column("n", "cells"),
    Column("evaluations", "evaluations", "mean", ".0f"),
    Column("each", "per evaluation", "ms", ".2f"),
    Column("seconds", "per cell", "s", ".3f"),
    Column("rate", "cells", "1/s", ".2f"),
    Column("ratio", "time over batches", "x", ".1f"),
    Column("loss", "loss at the end", "median", ".2e"),
]


def row(what: str, who: str, seconds: float, evaluations: Sequence[int], losses: Sequence[float]) -> dict[str, Any]:
    """A row of the table, of `seconds` for all cells."""
    n = len(losses)
    return {
        "what": what,
        "who": who,
        "n": n,
        "evaluations": float(np.mean(evaluations)),
        "each": 1e3 * seconds / sum(evaluations),
        "seconds": seconds / n,
        "rate": n / seconds,
        "loss": float(np.median(losses)),
    }


def timed(
    what: str, who: str, cells: list[Atoms], known: EnvironmentDatabase, settings: RelaxSettings
) -> tuple[dict[str, Any], list[Relaxation]]:
    """Relax the cells; returns a row and the results."""
    begin = time.process_time()
    results = relax(cells, known, settings=settings, progress=True)
    seconds = time.process_time() - begin
    made = row(what, who, seconds, [r.evaluations for r in results], [r.loss for r in results])
    return made, results


def agreement(some: list[Relaxation], others: list[Relaxation]) -> str:
    """In how many cells both ways end at the same loss, or neither finds a match."""
    near = sum(abs(a.loss - b.loss) < 1e-3 for a, b in zip(some, others, strict=True))
    return f"the same loss (to 1e-3) in batches and one at a time: {near} of {len(some)} cells"


def main() -> None:
    """Time all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=300, help="how many (default 300)")
    parser.add_argument("--max-atoms", type=int, default=8, help="atoms in a cell, at most (default 8)")
    parser.add_argument("--quick", action="store_true", help="64 cells, 3 hops, and 3 cells for DScribe")
    arguments = parser.parse_args()
    common.one_core()
    n_cells, n_sample = (64, 3) if arguments.quick else (arguments.cells, min(SAMPLE, arguments.cells))
    cells = random_cells("C", n_cells, density=DENSITY, formula_units=(1, arguments.max_atoms))
    protocol = load_protocol(PROTOCOL)
    (record,) = load_source("reference_crystals", None, {"ids": ["crystal:diamond"]})[1]
    known = EnvironmentDatabase.build([record.atoms], make_descriptor({**protocol.descriptor, "species": ["C"]}))
    settings = RelaxSettings.from_dict(protocol.relax)
    if arguments.quick:
        settings = replace(settings, n_hops=3)
    common.header(f"{n_cells} random carbon cells of up to {arguments.max_atoms} atoms, diamond database, one core")
    relax(cells[:8], known, settings=settings, max_steps=2)

    search, found = timed("search", f"batches of {settings.batch_size}", cells, known, settings)
    singly, alone = timed("search", "one at a time", cells, known, replace(settings, batch_size=1))
    told = agreement(found, alone)
    bare = replace(settings, n_hops=0, repulsion=0.0)
    descent, ours = timed("descent", f"batches of {settings.batch_size}", cells, known, bare)
    descent_singly, _ = timed("descent", "one at a time", cells, known, replace(bare, batch_size=1))
    sample = np.linspace(0, n_cells - 1, n_sample).astype(int)
    parameters = {key: value for key, value in protocol.descriptor.items() if value is not None}
    theirs = [relax_cell_with_dscribe(cells[k], known, parameters, ours[k]) for k in sample]
    losses, counts, seconds = zip(*theirs, strict=True)
    dscribe = row("descent", "L-BFGS-B on DScribe", sum(seconds), counts, losses)
    same = [ours[k] for k in sample]
    counts = [r.evaluations for r in same]
    # Their share of the time of all, by evaluations.
    share = descent["seconds"] * n_cells * sum(counts) / sum(r.evaluations for r in ours)
    mine = row("descent", "batches, the same cells", share, counts, [r.loss for r in same])
    for reference, other in ((search, singly), (descent, descent_singly), (mine, dscribe)):
        reference["ratio"], other["ratio"] = 1.0, other["seconds"] / reference["seconds"]
    print("\n" + text_table([search, singly, descent, descent_singly, mine, dscribe], COLUMNS), "\n")
    print(told)
    print(
        f"batches over one at a time: {singly['ratio']:.2f} times the cells per second; descents "
        f"{descent_singly['ratio']:.2f} times"
    )
    print(f"batches over L-BFGS-B on DScribe: {dscribe['ratio']:.1f} times the cells per second")


if __name__ == "__main__":
    main()
