"""How close LOSIKO comes to the DFT geometry of QM9 molecules, how long it takes, and whether it knows when it fails.

Held-out molecules, none of them in a database nor a duplicate of one that is, from five kinds of start: the truth with
noise of 0.1 (a) or 0.2 Angstrom (b) on each coordinate, the GFN2-xTB (c) or MMFF94 minimum (d) next to the truth, and
the truth itself (e). Databases are nested. Peers on the same molecules: the start as it is, MMFF94, GFN1-xTB and
GFN2-xTB run to their own minima, and the paper's settings on the paper's database. What was computed is kept in the
output folder: an interrupted run goes on, peers are computed once, and LOSIKO anew when its settings or code changed.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import common
import qm9_collection as qm9
from kept import write_json
from peers import PEERS, XTB_FMAX
from qm9_figures import draw_all
from qm9_losiko import contestants, run
from qm9_measures import COLUMNS, RIGHT, WRONG, Row, measure
from qm9_study import PEER_OF_START, STARTS, Study
from qm9_verdicts import verdicts

from aiida_losiko.core.protocols import protocol_names
from aiida_losiko.tools.tables import text_table


def main() -> None:
    """Run what is asked for and print tables and verdicts."""
    arguments = parse()
    common.one_core()
    study = Study.of(arguments.output, arguments.seed, arguments.molecules, arguments.databases)
    arguments.output.mkdir(parents=True, exist_ok=True)
    describe(study)
    rows = run_all(study, arguments)
    for size in arguments.databases:
        for kind in arguments.starts:
            print_table(rows, kind, size, len(study.choice.databases[size]))
    write_rows(arguments.output, rows)
    for path in draw_all(arguments.output, rows, arguments.protocols[0] if arguments.protocols else ""):
        print("picture:", path)
    print()
    common.finish(verdicts(rows, arguments.protocols))


def parse() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--molecules", type=int, default=500, help="number of held-out molecules")
    add("--databases", type=_numbers, default=list(qm9.SIZES), help="sizes, such as 378,3000,30000 (378: the paper's)")
    add("--starts", type=_names, default=list(STARTS), help="letters, such as a,c,e")
    add("--protocols", type=_names, default=["balanced"], help="the first is judged; such as balanced,fast,precise")
    add("--peers", type=_names, default=[*PEERS, "paper"], help=f"of {','.join(PEERS)},paper; none: none of them")
    add("--lbfgs", type=int, default=100, help="molecules of each start that the paper's settings are converged on")
    add("--nelder-mead", type=int, default=5, help="molecules of each start that the paper's optimiser is run on")
    add("--iterations", type=int, default=2000, help="of Nelder-Mead; each takes one or two evaluations")
    add("--seed", type=int, default=0, help="of the held-out molecules and the noise")
    add("--output", type=Path, default=common.REPOSITORY / "results" / "qm9_accuracy", help="folder of all results")
    add("--quick", action="store_true", help="12 molecules, the paper's database, one molecule for Nelder-Mead")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.molecules, arguments.databases, arguments.nelder_mead = 12, [qm9.PAPER], 1
    if arguments.peers == ["none"]:
        arguments.peers = []
    for option, allowed in (("starts", STARTS), ("protocols", protocol_names()), ("peers", [*PEERS, "paper"])):
        for name in getattr(arguments, option):
            if name not in allowed:
                parser.error(f"--{option}: {name!r} is none of {', '.join(allowed)}")
    return arguments


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    return sorted({int(name) for name in _names(text)})


def describe(study: Study) -> None:
    """Say what is compared."""
    common.header(f"{len(study.true)} held-out QM9 molecules (seed {study.seed})")
    databases = ", ".join(f"{size}: {len(names)} molecules" for size, names in study.choice.databases.items())
    left_out = ", ".join(f"gdb_{a} (of gdb_{b})" for a, b in study.choice.duplicates) or "none"
    print(f"databases: {databases}\nduplicates of the largest database left out of the draw: {left_out}")
    print(f"xTB minima: largest force {XTB_FMAX} eV/Angstrom; MMFF94 is told the bonds of the true geometry")
    print("time: processor time of one thread; LOSIKO in batches, the others one molecule at a time")
    print(f"flagged: percent of all, of those with an RMSD above {WRONG} and of those below {RIGHT} Angstrom")
    print(
        "n: molecules, fewer where a contestant could not do some or takes too long; unfinished: it did not converge\n"
    )


def run_all(study: Study, arguments: argparse.Namespace) -> list[Row]:
    """Compute or read every row."""
    true = {atoms.info["identifier"]: atoms for atoms in study.true}
    rows = []
    methods = contestants(arguments.protocols, arguments.lbfgs, arguments.nelder_mead, arguments.iterations)
    for kind in arguments.starts:
        starts = study.starts(kind)
        if len(starts) < len(true):
            print(f"  start ({kind}): {len(true) - len(starts)} molecules without one are left out")
        rows.append(measure(kind, None, "the start", "start", starts, true))
        for peer in PEERS:
            # A peer's own minimum is where it would stay.
            if peer in arguments.peers and PEER_OF_START.get(kind) != peer:
                rows.append(measure(kind, None, peer, "peer", study.peer(peer, kind), true))
    for size in arguments.databases:
        for method in methods:
            role = "paper" if method.protocol == "qm9" else "losiko"
            if size not in (method.sizes or [size]) or (role == "paper" and "paper" not in arguments.peers):
                continue
            for kind in arguments.starts:
                structures = run(study, method, kind, size)
                rows.append(measure(kind, size, method.name, role, structures, true))
    print()
    return rows


def print_table(rows: list[Row], kind: str, size: int, n_molecules: int) -> None:
    """Print LOSIKO with one database from one kind of start, and the peers."""
    chosen = [row for row in rows if row.start == kind and (row.database in (None, size) or row.role == "paper")]
    chosen.sort(key=lambda row: ("start", "peer", "paper", "losiko").index(row.role))
    print(f"start ({kind}), {STARTS[kind]}; database of {n_molecules} molecules")
    named = [row.as_dict() | {"who": f"{row.who} ({row.database})" if row.database else row.who} for row in chosen]
    print(text_table(named, COLUMNS), "\n")


def write_rows(folder: Path, rows: list[Row]) -> None:
    """Write all rows, and RMSD and flag of each molecule, for other programs."""
    table = [row.as_dict() for row in rows]
    write_json(folder / "rows.json", table)
    keys = ["start", "database", "who", "role", *(column.key for column in COLUMNS if column.key != "who")]
    temporary = folder / ".rows.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, keys, restval="")
        writer.writeheader()
        writer.writerows(table)
    temporary.replace(folder / "rows.csv")
    lines = [json.dumps(line) for row in rows for line in _molecules(row)]
    temporary = folder / ".molecules.jsonl.tmp"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(folder / "molecules.jsonl")
    print(f"tables: {folder / 'rows.json'}, rows.csv and, molecule by molecule, molecules.jsonl")


def _molecules(row: Row) -> list[dict[str, object]]:
    flags = [None] * len(row.rmsd) if row.flagged is None else row.flagged.tolist()
    whose = {"start": row.start, "database": row.database, "who": row.who}
    return [
        whose | {"molecule": name, "rmsd": round(error, 5), "flagged": flag}
        for name, error, flag in zip(row.identifiers, row.rmsd.tolist(), flags, strict=True)
    ]


if __name__ == "__main__":
    main()
