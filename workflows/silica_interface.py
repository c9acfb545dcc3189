#!/usr/bin/env python
"""Crystalline silicon on amorphous silica, as in Fig. 5(g) of the paper: do the cut bonds heal?

    python workflows/silica_interface.py                               # crystals that the package has written down
    python workflows/silica_interface.py --materials-project           # the Materials Project; needs a key
    python workflows/silica_interface.py --entries entries.extxyz      # entries of one's own
    python workflows/silica_interface.py --silica glass.extxyz         # amorphous silica of one's own

What goes into the provenance graph:

* `losiko.query.reference_crystals` (or `materials_project`, `archive`): the Si-O entries that the database is made of.
  Of the Materials Project those below 0.3 eV/atom above the hull, as in the paper.
* `losiko.select` and `losiko.oxidize`: of the entries those without a dangling bond, and silicon with oxygen in some of
  its bonds, which is like what there is at the interface and like no entry.
* Without `--silica`, `losiko.switch_bonds`: amorphous silica with all its bonds, out of cristobalite.
* `losiko.cleave` of both and `losiko.interfaces`: starts at several gaps and shifts, all atoms farther than 5 Angstrom
  from the plane frozen.
* `losiko.database` and `losiko.relax` on the daemon with the protocol `silica-healing`, for all starts at once;
  `losiko.rank`: the one of the lowest loss; that one relaxed further with `crystals`.
* For comparison `losiko.database` and `losiko.relax` of the same start with the entries alone, by other protocols.

The protocol `silica-interface` has the settings of Table S1 of the paper; see docs/silica-interface.md. The job needs a
running daemon and the code: `bash setup_profiles/quickstart.sh` sets up both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.tools.interface_report import (
    VALENCES,
    compared,
    free,
    fully_bonded,
    measure,
    missing,
    shortest_distances,
    summary,
    table,
    table_of_starts,
    verdict,
)
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
    from aiida.orm import ProcessNode
    from ase import Atoms

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
ELEMENTS = ("Si", "O")
HULL_LIMIT = 0.3  # eV/atom, the paper's
# Three by three by two conventional cells of beta-cristobalite, in the vectors of the primitive one: 216 atoms. Four by
# four surface cells of silicon (001) are 1.6 % longer.
GLASS = {"supercell": [[-3, -3, -3], [0, 0, 3], [-2, 2, 0]]}
SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9]  # of the bonds of silicon that get an oxygen
OXIDIZED = {"share": SHARES, "n_atoms": [64, 64]}
HEALING, FINISHING = "silica-healing", "crystals"
GAPS = [1.5, 1.8, 2.1]  # Angstrom
# Half surface cells of silicon in the common cell of four by four.
SHIFTS = [[0.0, 0.0], [0.125, 0.0], [0.0, 0.125], [0.125, 0.125]]
SILICON_LAYER = {"miller": [0, 0, 1], "thickness": 12.0}
MOVABLE_WITHIN = 5.0  # Angstrom, the paper's
INTERFACE = {"max_strain": 0.06, "max_area": 300.0, "vacuum": 10.0, "movable_within": MOVABLE_WITHIN}


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
    parser.add_argument("--silica", type=Path, metavar="FILE", help="a periodic cell of silica (the first of the file)")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=[*protocol_names(), "none"],
        metavar="NAME",
        help="relax the best start with it and the entries alone too, for comparison; repeatable, none for no such "
        "comparison (default crystals, silica-interface)",
    )
    parser.add_argument(
        "--gap",
        type=float,
        action="append",
        help=f"between the layers, Angstrom; repeatable (default {', '.join(map(str, GAPS))})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of glass, oxides and noise (default 0)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    options.gap = options.gap or GAPS
    for gap in options.gap:
        if not 0.5 <= gap <= 4:
            parser.error(f"--gap {gap:g} is not allowed: 0.5 to 4 Angstrom")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    for name in ("entries", "silica"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} {path} does not exist: give a file of structures")
    options.protocol = [name for name in options.protocol or ["crystals", "silica-interface"] if name != "none"]
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    code, processes = load_code(options.code), []
    entries, node = ask_for_entries(options)
    processes.append(node)
    say(f"entries StructureSetData<{entries.pk}>: {len(entries)} of {', '.join(entries.elements)}")
    known = with_oxidized(entries, options.seed, processes)
    say(f"for healing StructureSetData<{known.pk}>: {len(known)}, {len(SHARES)} of them oxidised silicon")
    silica = read_silica(options.silica, processes) if options.silica else make_silica(options.seed, processes)
    counts = measure(silica.get_ase(0))
    say(f"silica StructureSetData<{silica.pk}>: {len(silica.get_ase(0))} atoms, {summary(counts)}")
    starts, closest = make_starts(silica, options.gap, processes), shortest_distances(entries)
    say(f"starts StructureSetData<{starts.pk}>: {len(starts)} of {len(starts.get_ase(0))} atoms")
    seed = {"seed": options.seed}
    healing = relax_with(HEALING, code, known, starts, processes, "starts", seed)
    start, healed, ranking = best_of(starts, healing, processes)
    show_starts(starts, healing, ranking, closest)
    before = start.get_ase(0)
    rows, panels = [{"structure": "as cut", **measure(before, closest)}], [("as cut", before)]
    finishing = relax_with(FINISHING, code, known, healed, processes, "best of them", seed)
    runs = [(HEALING, healing, healed), (f"then {FINISHING}", finishing, finishing.outputs.structures)]
    for protocol in options.protocol:
        alone = relax_with(protocol, code, entries, start, processes, "the same start, entries alone", seed)
        runs.append((f"{protocol}, entries alone", alone, alone.outputs.structures))
    for label, relaxing, structures in runs:
        after, report = structures.get_ase(0), relaxing.outputs.report.get_dict()
        status, seconds = ", ".join(sorted(report["status"])), report.get("seconds")
        rows.append({"structure": label, **compared(before, after, closest), "status": status, "seconds": seconds})
        panels.append((label, after))
        print(f"next: {prefix}python -m aiida_losiko.tools.origins {structures.pk} --structure 0")
    print(f"\nThe start of the lowest loss after {HEALING}, {int(free(before).sum())} atoms of which move:\n")
    print(f"{table(rows)}\n")
    for row in rows[1:]:
        print(f"{row['structure']}: {verdict(rows[0], row)}")
    print(f"picture: {draw(options.output, panels).resolve()}")
    report_cache(processes)


# -- the entries and the start ----------------------------------------------------------------------------------------


def ask_for_entries(options: argparse.Namespace) -> tuple[StructureSetData, ProcessNode]:
    """Return the set that the database is to be made of."""
    from aiida.orm import Dict, SinglefileData

    from aiida_losiko.calculations.functions import query

    selection = {"selection": {"elements": list(ELEMENTS)}}
    if options.entries is not None:
        file = SinglefileData(options.entries.resolve())
        results, node = call(query.archive, file=file, query=Dict(selection))
    elif options.materials_project:
        question = {"chemsys": "-".join(ELEMENTS), "energy_above_hull": HULL_LIMIT}
        results, node = call(query.materials_project, query=Dict(question))
    else:
        results, node = call(query.reference_crystals, query=Dict(selection))
    missing = set(ELEMENTS) - set(results["structures"].elements)
    if missing:
        raise JobError(f"the entries hold no {', '.join(sorted(missing))}: all of {', '.join(ELEMENTS)} are needed")
    return results["structures"], node


def read_silica(path: Path, processes: list[ProcessNode]) -> StructureSetData:
    """Return the first structure of a file."""
    from aiida.orm import Dict, SinglefileData

    from aiida_losiko.calculations.functions.query import archive

    question = Dict({"selection": {"elements": list(ELEMENTS), "first": 1}})
    results, node = call(archive, file=SinglefileData(path.resolve()), query=question)
    processes.append(node)
    silica: StructureSetData = results["structures"]
    if set(silica.elements) != set(ELEMENTS):
        raise JobError(f"the first structure of {path} has {', '.join(silica.elements)}: silica has Si and O")
    return silica


def with_oxidized(entries: StructureSetData, seed: int, processes: list[ProcessNode]) -> StructureSetData:
    """Return the entries without a dangling bond, and oxidised silicon, as one set."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.merge import merge
    from aiida_losiko.calculations.functions.oxidize import oxidize
    from aiida_losiko.calculations.functions.select import select

    ids = [name for name, atoms in zip(entries.get_identifiers(), entries, strict=True) if fully_bonded(atoms)]
    if not ids:
        raise JobError(f"none of {len(entries)} entries has all its bonds: give some of fourfold Si and twofold O")
    bonded, chosen = call(select, source=entries, selection=Dict({"ids": ids}))
    oxides, made = call(oxidize, crystal=silicon_crystal(processes), parameters=Dict({**OXIDIZED, "seed": seed}))
    merged, joined = call(merge, entries=bonded, oxides=oxides)
    processes += [chosen, made, joined]
    known: StructureSetData = merged
    return known


def silicon_crystal(processes: list[ProcessNode]) -> StructureSetData:
    """Return silicon."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.query import reference_crystals

    answer, asked = call(reference_crystals, query=Dict({"selection": {"ids": ["crystal:silicon"]}}))
    processes.append(asked)
    silicon: StructureSetData = answer["structures"]
    return silicon


def make_silica(seed: int, processes: list[ProcessNode]) -> StructureSetData:
    """Return amorphous silica with all its bonds, which takes a minute or two."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.query import reference_crystals
    from aiida_losiko.calculations.functions.switch_bonds import switch_bonds

    known, asked = call(reference_crystals, query=Dict({"selection": {"ids": ["crystal:cristobalite-beta"]}}))
    glass, made = call(switch_bonds, crystal=known["structures"], parameters=Dict({**GLASS, "seed": seed}))
    processes += [asked, made]
    silica: StructureSetData = glass
    return silica


def make_starts(silica: StructureSetData, gaps: list[float], processes: list[ProcessNode]) -> StructureSetData:
    """Return silicon below and silica above in a common cell, all atoms frozen that are far from the plane."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.cleave import cleave
    from aiida_losiko.calculations.functions.interfaces import interfaces

    silicon, cleaved = call(cleave, structure=silicon_crystal(processes), parameters=Dict(SILICON_LAYER))
    layer, cut = call(cleave, structure=silica, parameters=Dict({}))
    wanted = Dict({**INTERFACE, "gaps": gaps, "shifts": SHIFTS})
    made, joined = call(interfaces, slab_a=silicon, slab_b=layer, parameters=wanted)
    processes += [cleaved, cut, joined]
    starts: StructureSetData = made
    return starts


def best_of(
    starts: StructureSetData, relaxing: Any, processes: list[ProcessNode]
) -> tuple[StructureSetData, StructureSetData, list[str]]:
    """Return the start of the lowest loss, what became of it, and all identifiers in the order of their loss."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.rank import rank

    wanted = Dict({"max_structures": 1, "duplicate_tolerance": None})
    outputs = relaxing.outputs
    ranked, node = call(rank, structures=outputs.structures, parameters=wanted, matches=outputs.matches, starts=starts)
    processes.append(node)
    return ranked["starts"], ranked["structures"], ranked["ranking"]["rows"]["identifier"]


def relax_with(
    protocol: str,
    code: Any,
    entries: StructureSetData,
    start: StructureSetData,
    processes: list[ProcessNode],
    what: str,
    settings: dict[str, Any],
) -> Any:
    """Build the database, relax with it, and return the work chain; what ran is added to `processes`."""
    from aiida.engine import submit

    from aiida_losiko.workflows.database import DatabaseWorkChain
    from aiida_losiko.workflows.relax import RelaxWorkChain

    building: Any = submit(DatabaseWorkChain.get_builder_from_protocol(code, entries, protocol=protocol))
    wait_for(building, f"{what}, {protocol}: database")
    database = outputs_of(building, "database").database
    # One job: what comes back from noise without having converged is told as such.
    changed = {"relax": {"parameters": {"relax": settings}}, "max_iterations": 1}
    relaxing: Any = submit(
        RelaxWorkChain.get_builder_from_protocol(code, start, database, protocol=protocol, overrides=changed)
    )
    wait_for(relaxing, f"{what}, {protocol}: relax")
    outputs_of(relaxing, "structures")
    processes += [*building.called, *relaxing.called]
    return relaxing


# -- what came out ----------------------------------------------------------------------------------------------------


def show_starts(starts: StructureSetData, relaxing: Any, ranking: list[str], closest: dict[str, float]) -> None:
    """Print what became of every start, the lowest loss first."""
    structures, matches = relaxing.outputs.structures, relaxing.outputs.matches
    losses = dict(zip(map(str, matches.get_array("identifiers")), matches.get_array("loss"), strict=True))
    found = []
    for name in ranking:
        before, after = starts.get_ase(starts.index_of(name)), structures.get_ase(structures.index_of(name))
        counts = measure(before, closest), compared(before, after, closest)
        found.append((name[name.index(":gap-") + 1 :], float(losses[name]), *counts))
    met = sum(not missing(before, after) for _, _, before, after in found)
    print(f"\n{table_of_starts(found)}\n\n{met} of {len(found)} starts are all as asked.")


def draw(folder: Path, panels: list[tuple[str, Atoms]]) -> Path:
    """Draw the interface before and after, from the side."""
    from aiida_losiko.tools.interface_figures import side_views

    height = float(panels[0][1].info["interface"]["planes"][0])
    noted = []
    for label, atoms in panels:
        counts = measure(atoms)
        noted.append((label, atoms, f"{counts['dangling']} dangling bonds"))
    path = folder / "silica-interface.png"
    return side_views(noted, height, valences=VALENCES, path=path, title="Silicon and amorphous silica")


if __name__ == "__main__":
    sys.exit(main())
