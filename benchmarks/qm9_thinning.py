"""What is lost when the database of QM9 molecules is thinned: by merging near duplicates, and to a number per element.

The molecules, starts and databases of `qm9_accuracy.py`, protocol `balanced`. Environments that come closer than
`duplicate_tolerance` are merged, or the farthest ones from each other, or random ones, are kept of each element. The
metric is learnt from the same structures each time, but relaxed against what is left. Results are kept in the folder
of `qm9_accuracy.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common
import qm9_collection as qm9
from qm9_losiko import Contestant, database, run
from qm9_measures import measure
from qm9_study import STARTS, Study

from aiida_losiko.tools.tables import Column, text_table

MERGED = (0.003, 0.01, 0.02)
KEPT = (10_000, 5_000, 2_500, 1_000)
COLUMNS = [
    Column("what", "thinned by"),
    Column("environments", "environments", "", ",d"),
    *(Column(f"rmsd_{kind}", f"RMSD ({kind})", "Å, mean", ".4f") for kind in "ae"),
    Column("bonds", "bonds (a)", "Å, MAE", ".4f"),
    Column("seconds", "time (a)", "ms/molecule", ".0f"),
]


def contestants(merged: list[float], kept: list[int]) -> list[Contestant]:
    """Return `balanced` with databases that are thinned in different ways, the whole one first."""
    ways: list[tuple[str, dict[str, Any]]] = [("nothing (exact duplicates)", {})]
    ways += [(f"merging closer than {tolerance:g}", {"duplicate_tolerance": tolerance}) for tolerance in merged]
    for number in kept:
        for selection in ("farthest", "random"):
            ways.append((f"{selection}, {number:,}", {"selection": selection, "max_environments": number}))
    return [
        Contestant(f"thinned: {name}" if change else "LOSIKO balanced", "balanced", {"database": change})
        for name, change in ways
    ]


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--molecules", type=int, default=200, help="number of held-out molecules")
    add("--database", type=int, default=3000, choices=qm9.SIZES, help="its molecules (378: the paper's)")
    add("--merge", type=float, nargs="*", default=list(MERGED), help="tolerances below which environments are merged")
    add("--keep", type=int, nargs="*", default=list(KEPT), help="environments of each element that are kept")
    add("--output", type=Path, default=common.REPOSITORY / "results" / "qm9_accuracy", help="folder of all results")
    arguments = parser.parse_args()
    common.one_core()
    study = Study.of(arguments.output, 0, arguments.molecules)
    true = {atoms.info["identifier"]: atoms for atoms in study.true}
    common.header(f"Thinning a database of {arguments.database:,} molecules; {len(true)} held-out ones")
    rows = []
    for method in contestants(arguments.merge, arguments.keep):
        what = method.name.removeprefix("thinned: ").replace("LOSIKO balanced", "nothing (exact duplicates)")
        known = database(study, method.settings, arguments.database)
        row: dict[str, Any] = {"what": what, "environments": len(known)}
        for kind in "ae":
            found = measure(
                kind, arguments.database, what, "losiko", run(study, method, kind, arguments.database), true
            )
            values = found.as_dict()
            row[f"rmsd_{kind}"] = values["mean"]
            if kind == "a":
                row |= {"bonds": values["bond"], "seconds": 1e3 * values["seconds"]}
        rows.append(row)
    print("\n" + text_table(rows, COLUMNS), "\n")
    print("starts: " + ", ".join(f"({kind}) {STARTS[kind]}" for kind in "ae"))


if __name__ == "__main__":
    main()
