#!/usr/bin/env python
"""A proton in the place of a lithium atom of LiCoO2, as in Fig. 5(a) of the paper: does it become a hydroxyl?

    python workflows/proton_licoo2.py                               # crystals that the package has written down
    python workflows/proton_licoo2.py --materials-project           # the Materials Project; needs a key
    python workflows/proton_licoo2.py --entries entries.extxyz      # entries of one's own

What goes into the provenance graph:

* `losiko.query.reference_crystals` (or `materials_project`, `archive`): the Li-Co-O-H entries that the database is made
  of. Of the Materials Project those below 0.2 eV/atom above the hull, as in the paper. Large cells are left out: most
  are orderings of lithium and vacancies, of which few are needed (--max-sites 1000 for all).
* `losiko.substitute`: hydrogen in the place of one lithium atom of 108 atoms of LiCoO2, whatever the database is.
* `losiko.displace`: copies of it in which all atoms have normal noise on each coordinate, and `losiko.merge`.
* For each protocol `losiko.database` and `losiko.relax` on the daemon, with all starts in one job.

The protocol `licoo2` has the settings of Table S1 of the paper, `crystals` those that bind the proton; see
docs/proton-licoo2.md. The job needs a running daemon and the code: `bash setup_profiles/quickstart.sh` sets up both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.tools.launching import (
    JobError,
    add_aiida_options,
    call,
    launch,
    load_code,
    outputs_of,
    report_cache,
    say,
    wait_for,
)

if TYPE_CHECKING:
    from aiida.orm import ArrayData, Dict, ProcessNode
    from ase import Atoms

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
ELEMENTS = ("Li", "Co", "O", "H")
HOST = "crystal:LiCoO2"
SUPERCELL = [3, 3, 1]  # of the conventional cell of 12 atoms
HULL_LIMIT = 0.2  # eV/atom, the paper's
MAX_SITES = 20  # atoms in the cell of an entry
BONDED = 1.2  # Angstrom between H and an O that it is bonded to; half-way between two O it has 1.25 or more
BOND_RANGE = (0.93, 1.05)  # Angstrom, what is a hydroxyl
INTACT = 0.5  # Angstrom that any other atom may move


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return launch(run, parse_arguments(arguments), CHECKOUT)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    from aiida_losiko.core.protocols import protocol_names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--entries", type=Path, metavar="FILE", help="structures for the database: extended XYZ, .res")
    source.add_argument("--materials-project", action="store_true", help="ask the Materials Project (key: MP_API_KEY)")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=protocol_names(),
        metavar="NAME",
        help="see losiko protocols; repeatable (default crystals, licoo2)",
    )
    parser.add_argument(
        "--max-sites", type=int, default=MAX_SITES, metavar="N", help=f"of an entry's cell (default {MAX_SITES})"
    )
    parser.add_argument("--starts", type=int, default=10, metavar="N", help="displaced starts (default 10)")
    parser.add_argument("--displacement", type=float, default=0.2, help="Angstrom per coordinate (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the displacements (default 0)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    if options.starts < 0:
        parser.error(f"--starts {options.starts} is negative: 0 for the lithium site alone, or more")
    if options.max_sites < 1:
        parser.error(f"--max-sites {options.max_sites} leaves no entry: 1 or more")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    if not 0 < options.displacement <= 10:
        parser.error(f"--displacement {options.displacement:g} is not allowed: above 0, to 10 Angstrom")
    if options.entries is not None and not options.entries.exists():
        parser.error(f"--entries {options.entries} does not exist: give a file of structures")
    options.protocol = options.protocol or ["crystals", "licoo2"]
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    code, processes = load_code(options.code), []
    entries, node = ask_for_entries(options)
    processes.append(node)
    formulas = formulas_of(entries)
    say(f"entries StructureSetData<{entries.pk}>: {len(entries)} of {', '.join(entries.elements)}")
    starts, made = make_starts(options.starts, options.displacement, options.seed)
    processes += made
    say(f"starts StructureSetData<{starts.pk}>: {len(starts)} of {len(starts.get_ase(0))} atoms")
    for protocol in options.protocol:
        relaxing = relax_with(protocol, code, entries, starts, processes)
        relaxed = outputs_of(relaxing, "structures")
        rows = table_rows(starts, relaxed.structures, relaxed.matches, relaxed.report, formulas)
        print(f"\n{protocol}: {verdict(rows)}\n\n{table(rows)}\n")
        print(f"picture: {draw(options.output, protocol, starts, relaxed.structures, rows).resolve()}")
        print(f"next: {prefix}python -m aiida_losiko.tools.origins {relaxed.structures.pk} --structure 0\n")
    report_cache(processes)


# -- the entries and the starts ---------------------------------------------------------------------------------------


def ask_for_entries(options: argparse.Namespace) -> tuple[StructureSetData, ProcessNode]:
    """Return the set that the database is to be made of."""
    from aiida.orm import Dict, SinglefileData

    from aiida_losiko.calculations.functions import query

    selection: dict[str, Any] = {"selection": {"elements": list(ELEMENTS), "max_atoms": options.max_sites}}
    if options.entries is not None:
        file = SinglefileData(options.entries.resolve())
        results, node = call(query.archive, file=file, query=Dict(selection))
    elif options.materials_project:
        chemsys = "-".join(ELEMENTS)
        question = {"chemsys": chemsys, "energy_above_hull": HULL_LIMIT, "num_sites": options.max_sites}
        results, node = call(query.materials_project, query=Dict(question))
    else:
        results, node = call(query.reference_crystals, query=Dict(selection))
    missing = set(ELEMENTS) - set(results["structures"].elements)
    if missing:
        raise JobError(f"the entries hold no {', '.join(sorted(missing))}: all of {', '.join(ELEMENTS)} are needed")
    return results["structures"], node


def make_starts(count: int, displacement: float, seed: int) -> tuple[StructureSetData, list[ProcessNode]]:
    """Return the proton at the lithium site, first, and displaced copies of that; and what made them."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.displace import displace
    from aiida_losiko.calculations.functions.merge import merge
    from aiida_losiko.calculations.functions.query import reference_crystals
    from aiida_losiko.calculations.functions.substitute import substitute

    answer, asked = call(reference_crystals, query=Dict({"selection": {"ids": [HOST]}, "conventional": True}))
    replace = Dict({"old": "Li", "new": "H", "supercell": SUPERCELL, "orbit": 0})
    site, replaced = call(substitute, host=answer["structures"], parameters=replace)
    if not count:
        return site, [asked, replaced]
    noise = Dict({"standard_deviation": displacement, "seed": seed, "copies": count})
    copies, displaced = call(displace, structures=site, parameters=noise)
    starts, merged = call(merge, a_site=site, b_displaced=copies)
    return starts, [asked, replaced, displaced, merged]


def formulas_of(entries: StructureSetData) -> dict[str, str]:
    """Return the reduced formula of every entry."""
    from pymatgen.core.composition import Composition

    return {
        name: str(Composition(atoms.get_chemical_formula()).reduced_formula)
        for name, atoms in zip(entries.get_identifiers(), entries, strict=True)
    }


def relax_with(
    protocol: str, code: Any, entries: StructureSetData, starts: StructureSetData, processes: list[ProcessNode]
) -> Any:
    """Build the database, relax the starts with it, and return the work chain; what ran is added to `processes`."""
    from aiida.engine import submit

    from aiida_losiko.workflows.database import DatabaseWorkChain
    from aiida_losiko.workflows.relax import RelaxWorkChain

    building = submit(DatabaseWorkChain.get_builder_from_protocol(code, entries, protocol=protocol))
    say(f"{protocol}: building the database: DatabaseWorkChain<{building.pk}>")
    wait_for(building, "database")
    database = outputs_of(building, "database").database
    relaxing = submit(RelaxWorkChain.get_builder_from_protocol(code, starts, database, protocol=protocol))
    say(f"{protocol}: relaxing: RelaxWorkChain<{relaxing.pk}>")
    wait_for(relaxing, "relax")
    processes += [*building.called, *relaxing.called]
    return relaxing


# -- what came out ----------------------------------------------------------------------------------------------------


def table_rows(
    starts: StructureSetData, relaxed: StructureSetData, matches: ArrayData, report: Dict, formulas: dict[str, str]
) -> list[dict[str, Any]]:
    """Return one row per start, from the nodes alone."""
    from aiida_losiko.data.matches import atom_matches

    site = starts.get_ase(0)
    proton, summary, rows = int(site.info["defect"]["index"]), report.get_dict(), []
    for index, (name, atoms) in enumerate(zip(starts.get_identifiers(), relaxed, strict=True)):
        (match,) = atom_matches(matches, index, [proton])
        flags = [flag for flag, names in summary["flags"].items() if name in names]
        rows.append(
            {
                "start": "lithium site" if index == 0 else f"displaced {index - 1}",
                **measure(atoms, site, proton),
                "matched": f"{formulas.get(match['source'], '?')} ({match['source']})" if match["source"] else None,
                "distance": match["distance"],
                "status": ", ".join([str(matches.get_array("status")[index]), *flags]),
                # All are relaxed together: each has its share of the time.
                "seconds": summary["seconds"] / len(starts) if "seconds" in summary else None,
            }
        )
    return rows


def measure(atoms: Atoms, site: Atoms, proton: int) -> dict[str, Any]:
    """Return the lengths that tell a hydroxyl in an intact lattice, in Angstrom."""
    import numpy as np

    from aiida_losiko.core.metrics import displacements

    oxygens = np.flatnonzero(atoms.numbers == 8)
    lengths = np.sort(atoms.get_distances(proton, oxygens, mic=True))
    moved = np.linalg.norm(displacements(atoms, site), axis=1)
    others = np.delete(moved, proton)
    near = int((lengths < BONDED).sum())
    hydroxyl = near == 1 and BOND_RANGE[0] <= lengths[0] <= BOND_RANGE[1] and float(others.max()) <= INTACT
    return {
        "bond": float(lengths[0]),
        "next": float(lengths[1]),
        "bonded": near,
        "proton": float(moved[proton]),
        "others": float(others.max()),
        "hydroxyl": bool(hydroxyl),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Render the rows."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("start", "start"),
        Column("bond", "O-H", "Angstrom", ".3f"),
        Column("next", "next O", "Angstrom", ".2f"),
        Column("bonded", f"O within {BONDED:g}"),
        Column("proton", "H moved", "Angstrom", ".2f"),
        Column("others", "others, most", "Angstrom", ".2f"),
        Column("hydroxyl", "hydroxyl"),
        Column("matched", "H modelled on"),
        Column("distance", "distance", "", ".3f"),
        Column("status", "status"),
        Column("seconds", "time", "s", ".1f"),
    ]
    return text_table(rows, columns)


def verdict(rows: list[dict[str, Any]]) -> str:
    """Return in a line how many are what they should be."""
    good = sum(row["hydroxyl"] for row in rows)
    return (
        f"{good} of {len(rows)} a hydroxyl (one O at {BOND_RANGE[0]:g} to {BOND_RANGE[1]:g} Angstrom) in an intact "
        f"lattice (no other atom moved more than {INTACT:g} Angstrom)"
    )


def draw(
    folder: Path, protocol: str, starts: StructureSetData, relaxed: StructureSetData, rows: list[dict[str, Any]]
) -> Path:
    """Draw the site and, of the last start, what it was and what became of it."""
    from aiida_losiko.tools.defect_figures import surroundings

    site, last = starts.get_ase(0), len(rows) - 1
    proton = int(site.info["defect"]["index"])
    note = "nearest O {bond:.2f} Å".format
    panels = [("lithium site", site, note(**measure(site, site, proton)))]
    if last:
        start = starts.get_ase(last)
        panels.append((rows[last]["start"], start, note(**measure(start, site, proton))))
    panels.append((f"relaxed, {protocol}", relaxed.get_ase(last), note(**rows[last])))
    return surroundings(panels, proton, path=folder / f"proton-{protocol}.png", title="A proton in LiCoO₂")


if __name__ == "__main__":
    sys.exit(main())
