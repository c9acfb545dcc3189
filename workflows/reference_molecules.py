#!/usr/bin/env python
"""Reference molecules of our own: B3LYP/6-31G(2df,p) minima, the level of QM9, with everything that led to them.

    python workflows/reference_molecules.py                     # all; run it again to go on where it stopped
    python workflows/reference_molecules.py --minutes 60        # begins no molecule after an hour
    python workflows/reference_molecules.py --list              # how far it is

What goes into the provenance graph:

* `losiko.from_smiles`: the molecules below, embedded by RDKit.
* `losiko.validate` with the engine `xtb`: GFN2-xTB minima of all in one job.
* `losiko.validate` with the engine `pyscf`, protocol `b3lyp`, for each molecule that has no minimum yet.
* `losiko.collect`: the minima as one set, from which databases are built.

When all are there, the set is exported with its whole provenance. Molecules that fail are tried again the next time.
The job needs a running daemon, the codes `losiko` and `pyscf` (docs/validation-pyscf.md), the extras `xtb` and `pyscf`,
and RDKit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools.launching import JobError, add_aiida_options, call, launch, load_code, say, wait_for

if TYPE_CHECKING:
    from aiida.orm import StructureData, WorkChainNode

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
PROTOCOL = "b3lyp"
LABEL = "reference molecules"
SOURCE = {
    "name": "aiida-losiko reference molecules",
    "licence": "CC0-1.0",
    "description": "B3LYP/6-31G(2df,p) minima by PySCF, started from GFN2-xTB minima of molecules from SMILES",
}

#: The smallest molecules of H, C, N, O and F with up to four heavy atoms that a chemist would name.
MOLECULES = {
    # one and two heavy atoms
    "methane": "C", "ammonia": "N", "water": "O",
    "ethyne": "C#C", "hydrogen cyanide": "C#N", "formaldehyde": "C=O", "ethene": "C=C", "methanimine": "C=N",
    "ethane": "CC", "methanol": "CO", "methylamine": "CN", "fluoromethane": "CF",
    # three
    "propyne": "CC#C", "acetonitrile": "CC#N", "acetaldehyde": "CC=O", "formamide": "NC=O", "formic acid": "OC=O",
    "propene": "CC=C", "allene": "C=C=C", "ketene": "C=C=O", "isocyanic acid": "N=C=O", "cyanamide": "NC#N",
    "formaldoxime": "C=NO", "formamidine": "NC=N", "fluoroethene": "C=CF", "difluoromethane": "FCF",
    "propane": "CCC", "ethanol": "CCO", "dimethyl ether": "COC", "ethylamine": "CCN", "dimethylamine": "CNC",
    "fluoroethane": "CCF", "cyclopropane": "C1CC1", "oxirane": "C1CO1", "aziridine": "C1CN1", "cyclopropene": "C1C=C1",
    # four
    "butadiyne": "C#CC#C", "cyanoacetylene": "C#CC#N", "propynal": "C#CC=O", "glyoxal": "O=CC=O",
    "acrylonitrile": "C=CC#N", "acrolein": "C=CC=O", "butenyne": "C=CC#C", "butadiene": "C=CC=C",
    "glycolonitrile": "OCC#N", "aminoacetonitrile": "NCC#N", "propargyl alcohol": "C#CCO", "glycolaldehyde": "OCC=O",
    "methyl formate": "COC=O", "acetic acid": "CC(=O)O", "trifluoromethane": "FC(F)F", "urea": "NC(=O)N",
    "acetamide": "CC(=O)N", "acetone": "CC(=O)C", "propanal": "CCC=O", "propanenitrile": "CCC#N", "1-butyne": "CCC#C",
    "2-butyne": "CC#CC", "oxetane": "C1COC1", "propylene oxide": "CC1CO1", "allyl alcohol": "C=CCO",
    "isobutene": "CC(=C)C",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return launch(run, parse_arguments(arguments), CHECKOUT)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=len(MOLECULES), metavar="N", help="the first N (default all)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="calculations at the same time (default 1)")
    parser.add_argument("--minutes", type=float, metavar="T", help="begin no molecule later than this")
    parser.add_argument("--list", action="store_true", help="only say which molecules are done")
    parser.add_argument("--pyscf", default="pyscf@localhost", help="label of the code (default pyscf@localhost)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/reference_molecules.aiida"),
        help="the archive (default results/reference_molecules.aiida)",
    )
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.count <= len(MOLECULES):
        parser.error(f"--count {options.count} is not allowed: 1 to {len(MOLECULES)}")
    if options.at_once < 1:
        parser.error(f"--at-once {options.at_once} is not allowed: 1 or more")
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do what is left to do and print the account of it."""
    names = list(MOLECULES)[: options.count]
    if not options.list:
        compute(names, options)
    minima = {name: node.outputs.minima["structure_0"] for name in names if (node := finished(name)) is not None}
    print(f"\n{account(names)}\n")
    missing = [name for name in names if name not in minima]
    if missing:
        say(f"{len(minima)} of {len(names)} are done, and no archive is written; {len(missing)} are left: run it again")
    elif not options.list:
        export(gather(minima), options.output)
        print(f"next: {prefix}verdi archive info {options.output}\n")


# -- what is there already ---------------------------------------------------------------------------------------------


def label_of(name: str) -> str:
    """Return the label of the work chain that makes a molecule; it is found by it the next time."""
    return f"{LABEL}: {name}"


def latest(label: str, ended_well: bool) -> WorkChainNode | None:
    """Return the newest work chain of a label that ended well, or that still runs."""
    from aiida.orm import QueryBuilder, WorkChainNode

    query = QueryBuilder().append(WorkChainNode, filters={"label": label}).order_by({WorkChainNode: {"ctime": "desc"}})
    for node in query.all(flat=True):
        if node.is_finished_ok if ended_well else not node.is_terminated:
            return node
    return None


def finished(name: str) -> WorkChainNode | None:
    """Return the work chain that has the minimum of a molecule."""
    return latest(label_of(name), ended_well=True)


# -- the work ----------------------------------------------------------------------------------------------------------


def compute(names: list[str], options: argparse.Namespace) -> None:
    """Compute the minima that are not there."""
    from aiida.orm import Str

    from aiida_losiko.calculations.functions.extract import extract

    begin = time.monotonic()
    left = [name for name in names if finished(name) is None]
    say(f"{len(names) - len(left)} of {len(names)} molecules are there")
    if not left:
        return
    starts = xtb_minima(names, load_code(options.code))
    code, running = load_code(options.pyscf), deque[Any]()
    for name in left:
        if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
            break
        node = latest(label_of(name), ended_well=False)
        if node is None:
            results, _ = call(extract, starts, Str(name))
            node = relax("pyscf", results["structure"], code, label_of(name), protocol=PROTOCOL)
        running.append((name, node))
        if len(running) >= options.at_once:
            await_first(running)
    while running:
        await_first(running)


def xtb_minima(names: list[str], code: Any) -> StructureSetData:
    """Return the GFN2-xTB minima of all molecules, from the last time where they are there."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.from_smiles import from_smiles

    label = f"{LABEL}: GFN2-xTB"
    node = latest(label, ended_well=True)
    if node is None or not set(names) <= set(node.outputs.minima["all"].get_identifiers()):
        starts, _ = call(from_smiles, Dict(MOLECULES))
        node = relax("xtb", starts, code, label, max_structures=len(MOLECULES), duplicate_tolerance=0.0)
        wait_for(node, "GFN2-xTB")
    if "all" not in node.outputs.minima:
        raise JobError(f"{node.process_label}<{node.pk}> failed: {node.exit_message}")
    return node.outputs.minima["all"]


def relax(engine: str, structures: Any, code: Any, label: str, **more: Any) -> WorkChainNode:
    """Submit the relaxation by an engine."""
    from aiida.engine import submit
    from aiida.plugins import WorkflowFactory

    chain: Any = WorkflowFactory("losiko.validate")
    builder = chain.get_builder_from_protocol(engine, structures, code, compute=["minimum"], **more)
    builder.metadata.label = label
    return submit(builder)


def await_first(running: deque[Any]) -> None:
    """Wait for the molecule that was submitted first; one that fails does not stop the others."""
    name, node = running.popleft()
    wait_for(node, name)
    if not node.is_finished_ok:
        say(f"note: {name} failed with exit status {node.exit_status}: {node.exit_message}")


# -- the result --------------------------------------------------------------------------------------------------------


def account(names: list[str]) -> str:
    """Return a table of the molecules that are done: atoms, steps and time of PySCF."""
    from aiida_losiko.tools.tables import Column, text_table

    rows = [row_of(name, node) for name in names if (node := finished(name)) is not None]
    if not rows:
        return "no molecule is done"
    columns = [
        Column("name", "molecule"),
        Column("smiles", "SMILES"),
        Column("atoms", "atoms", format="d"),
        Column("steps", "steps", format="d"),
        Column("seconds", "time", "s", ".0f"),
    ]
    minutes = sum(row["seconds"] for row in rows) / 60
    return f"{text_table(rows, columns)}\n\n{len(rows)} molecules in {minutes:.1f} minutes of PySCF"


def row_of(name: str, node: WorkChainNode) -> dict[str, Any]:
    """Return what the table says of a molecule."""
    jobs = [each for each in node.called_descendants if each.process_type == "aiida.calculations:pyscf.base"]
    job = max(jobs, key=lambda each: each.pk)  # the last one, where it had to begin anew
    return {
        "name": name,
        "smiles": MOLECULES[name],
        "atoms": len(job.inputs.structure.sites),
        "steps": job.outputs.trajectory.numsteps - 1,
        "seconds": job.outputs.parameters["timings"]["total"],
    }


def gather(minima: dict[str, StructureData]) -> StructureSetData:
    """Return the minima as one set, with a label by which it is found."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.collect import collect

    labels = {f"molecule_{number:03d}": name for number, name in enumerate(minima)}
    properties = {label: {"smiles": MOLECULES[name]} for label, name in labels.items()}
    inputs = Dict({"identifiers": labels, "source": SOURCE, "properties": properties})
    result, _ = call(collect, inputs, **{label: minima[name] for label, name in labels.items()})
    result.label = LABEL
    return result


def export(molecules: StructureSetData, path: Path) -> None:
    """Write the set and everything that it came from into an archive."""
    from aiida.tools.archive import create_archive

    path.parent.mkdir(parents=True, exist_ok=True)
    create_archive(
        [molecules],
        filename=path,
        overwrite=True,
        include_logs=False,
        call_calc_backward=True,
        call_work_backward=True,
        return_backward=True,
        compression=9,
    )
    size = path.stat().st_size / 1e6
    say(
        f"{len(molecules)} molecules, StructureSetData<{molecules.uuid}>, with their provenance: {path} ({size:.1f} MB)"
    )
    if size > 5:
        raise LosikoError(f"{path} has {size:.1f} MB, more than the 5 MB that the repository takes")


if __name__ == "__main__":
    sys.exit(main())
