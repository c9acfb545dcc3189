#!/usr/bin/env python
"""Crystalline silicon on amorphous silica, as in Fig. 5(g) of the paper: do the cut bonds heal?

    python workflows/silica_interface.py                               # crystals that the package has written down
    python workflows/silica_interface.py --materials-project           # the Materials Project; needs a key
    python workflows/silica_interface.py --entries entries.extxyz      # entries of one's own
    python workflows/silica_interface.py --silica glass.extxyz         # amorphous silica of one's own

What goes into the provenance graph:

* `losiko.query.reference_crystals` (or `materials_project`, `archive`): the Si-O entries that the database is made of.
  Of the Materials Project those below 0.3 eV/atom above the hull, as in the paper.
* Without `--silica`, amorphous silica of LOSIKO's own making: `losiko.random_cells` at 2.2 g/cm3, relaxed by
  `losiko.relax` with a broad kernel and slowly decaying noise against silica of fourfold silicon, then with `crystals`.
* `losiko.cleave` of both and `losiko.interface`, which freezes all atoms farther than 5 Angstrom from the plane.
* For each protocol `losiko.database` and `losiko.relax` on the daemon.

The protocol `silica-interface` has the settings of Table S1 of the paper; see docs/silica-interface.md. The job needs a
running daemon and the code: `bash setup_profiles/quickstart.sh` sets up both.
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
    from aiida.orm import ProcessNode
    from ase import Atoms

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
ELEMENTS = ("Si", "O")
VALENCES = {"Si": 4, "O": 2}
HULL_LIMIT = 0.3  # eV/atom, the paper's
FOURFOLD = [
    f"crystal:{name}"
    for name in (
        *("quartz-alpha", "quartz-beta", "cristobalite-alpha", "cristobalite-beta"),
        *("tridymite", "keatite", "moganite", "coesite"),
    )
]
RANDOM_SILICA = {
    "composition": "SiO2",
    "density": [2.2, 2.2],
    # A cube of 13.86 Angstrom, which fits 13 surface cells of silicon (001) to 0.3 %.
    "formula_units": 59,
    "minimal_distances": {"Si-O": 1.5, "O-O": 2.1, "Si-Si": 2.6},
    "max_aspect": 1.0,
    "angles": [90, 90],
}
NETWORK = {"descriptor": {"r_cut": 2.5, "sigma": 0.5, "weighting": None}}
SLOW_NOISE = {"noise_variance": 0.2, "noise_decay": 0.015, "max_steps": 1000, "fmax": 1e-3}
SILICON_LAYER = {"miller": [0, 0, 1], "thickness": 12.0}
MOVABLE_WITHIN = 5.0  # Angstrom, the paper's
INTERFACE = {"max_strain": 0.06, "max_area": 300.0, "vacuum": 10.0, "movable_within": MOVABLE_WITHIN}
CLOSEST = 0.9  # of the shortest distance that the entries have


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
        choices=protocol_names(),
        metavar="NAME",
        help="see losiko protocols; repeatable (default crystals, silica-interface)",
    )
    parser.add_argument("--gap", type=float, default=1.8, help="between the layers, Angstrom (default 1.8)")
    parser.add_argument("--seed", type=int, default=0, help="of the random silica and of the noise (default 0)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    if not 0.5 <= options.gap <= 4:
        parser.error(f"--gap {options.gap:g} is not allowed: 0.5 to 4 Angstrom")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    for name in ("entries", "silica"):
        path = getattr(options, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} {path} does not exist: give a file of structures")
    options.protocol = options.protocol or ["crystals", "silica-interface"]
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    code, processes = load_code(options.code), []
    entries, node = ask_for_entries(options)
    processes.append(node)
    say(f"entries StructureSetData<{entries.pk}>: {len(entries)} of {', '.join(entries.elements)}")
    silica = read_silica(options.silica, processes) if options.silica else make_silica(code, options.seed, processes)
    counts = measure(silica.get_ase(0))
    say(f"silica StructureSetData<{silica.pk}>: {len(silica.get_ase(0))} atoms, {summary(counts)}")
    start = make_interface(silica, options.gap, processes)
    before, closest = start.get_ase(0), shortest_distances(entries)
    say(f"interface StructureSetData<{start.pk}>: {len(before)} atoms, of which {int(free(before).sum())} move")
    rows, panels = [{"structure": "as cut", **measure(before, closest)}], [("as cut", before)]
    for protocol in options.protocol:
        seed = {"seed": options.seed}
        relaxing = relax_with(protocol, code, entries, start, processes, "interface", settings=seed)
        after = relaxing.outputs.structures.get_ase(0)
        report = relaxing.outputs.report.get_dict()
        rows.append(
            {
                "structure": protocol,
                **measure(after, closest),
                "held": bool((after.positions == before.positions)[~free(before)].all()),
                "status": ", ".join(sorted(report["status"])),
                "seconds": report.get("seconds"),
            }
        )
        panels.append((protocol, after))
        print(f"next: {prefix}python -m aiida_losiko.tools.origins {relaxing.outputs.structures.pk} --structure 0")
    print(f"\n{table(rows)}\n")
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


def make_silica(code: Any, seed: int, processes: list[ProcessNode]) -> StructureSetData:
    """Return a random cell of SiO2, relaxed with a broad kernel and much noise, then with a narrow one."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.query import reference_crystals
    from aiida_losiko.calculations.functions.random_cells import random_cells

    known, asked = call(reference_crystals, query=Dict({"selection": {"ids": FOURFOLD}}))
    cell, made = call(random_cells, parameters=Dict({**RANDOM_SILICA, "seed": seed}))
    processes += [asked, made]
    noise = {**SLOW_NOISE, "seed": seed}
    network = relax_with("crystals", code, known["structures"], cell, processes, "silica, broad", NETWORK, noise)
    rough, quiet = network.outputs.structures, {"noise_variance": 0.0}
    fine = relax_with("crystals", code, known["structures"], rough, processes, "silica", settings=quiet)
    silica: StructureSetData = fine.outputs.structures
    return silica


def make_interface(silica: StructureSetData, gap: float, processes: list[ProcessNode]) -> StructureSetData:
    """Return silicon below and silica above in a common cell, all atoms frozen that are far from the plane."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.cleave import cleave
    from aiida_losiko.calculations.functions.interface import interface
    from aiida_losiko.calculations.functions.query import reference_crystals

    answer, asked = call(reference_crystals, query=Dict({"selection": {"ids": ["crystal:silicon"]}}))
    silicon, cleaved = call(cleave, structure=answer["structures"], parameters=Dict(SILICON_LAYER))
    layer, cut = call(cleave, structure=silica, parameters=Dict({}))
    start, joined = call(interface, slab_a=silicon, slab_b=layer, parameters=Dict({**INTERFACE, "gap": gap}))
    processes += [asked, cleaved, cut, joined]
    made: StructureSetData = start
    return made


def relax_with(
    protocol: str,
    code: Any,
    entries: StructureSetData,
    start: StructureSetData,
    processes: list[ProcessNode],
    what: str,
    describe: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Any:
    """Build the database, relax with it, and return the work chain; what ran is added to `processes`."""
    from aiida.engine import submit

    from aiida_losiko.workflows.database import DatabaseWorkChain
    from aiida_losiko.workflows.relax import RelaxWorkChain

    changed: dict[str, Any] | None = {"describe": {"parameters": describe}} if describe else None
    building: Any = submit(
        DatabaseWorkChain.get_builder_from_protocol(code, entries, protocol=protocol, overrides=changed)
    )
    wait_for(building, f"{what}, {protocol}: database")
    database = outputs_of(building, "database").database
    # One job: what comes back from noise without having converged is told as such.
    changed = {"relax": {"parameters": {"relax": settings or {}}}, "max_iterations": 1}
    relaxing: Any = submit(
        RelaxWorkChain.get_builder_from_protocol(code, start, database, protocol=protocol, overrides=changed)
    )
    wait_for(relaxing, f"{what}, {protocol}: relax")
    outputs_of(relaxing, "structures")
    processes += [*building.called, *relaxing.called]
    return relaxing


# -- what came out ----------------------------------------------------------------------------------------------------


def free(atoms: Atoms) -> Any:
    """Return which atoms may move, (n_atoms,)."""
    from aiida_losiko.core.structures.content import fixed_mask

    return ~fixed_mask(atoms)


def shortest_distances(structures: Any) -> dict[str, float]:
    """Return the shortest distance of each pair of elements in any of the structures, in Angstrom."""
    shortest: dict[str, float] = {}
    for atoms in structures:
        for pair, length in pair_distances(atoms).items():
            shortest[pair] = min(length, shortest.get(pair, length))
    return shortest


def pair_distances(atoms: Atoms, mask: Any = None) -> dict[str, float]:
    """Return the shortest distance of each pair of elements, of pairs of which one atom at least is in the mask."""
    from ase.neighborlist import neighbor_list

    first, second, lengths = neighbor_list("ijd", atoms, 4.0)
    symbols = atoms.get_chemical_symbols()
    shortest: dict[str, float] = {}
    for i, j, length in zip(first, second, lengths, strict=True):
        if mask is None or mask[i] or mask[j]:
            pair = "-".join(sorted((symbols[i], symbols[j])))
            shortest[pair] = min(float(length), shortest.get(pair, float(length)))
    return shortest


def measure(atoms: Atoms, closest: dict[str, float] | None = None) -> dict[str, Any]:
    """Return the coordination of the atoms that may move: Si by Si and O, O likewise."""
    import numpy as np

    from aiida_losiko.core.metrics import bonds, coordination_numbers

    moves, numbers = free(atoms), coordination_numbers(atoms)
    symbols = np.array(atoms.get_chemical_symbols())
    wanted = np.array([VALENCES[symbol] for symbol in symbols])
    first, second, _ = bonds(atoms)
    near = moves[first] | moves[second]
    found: dict[str, Any] = {
        "fourfold": float((numbers[moves & (symbols == "Si")] == 4).mean()),
        "twofold": float((numbers[moves & (symbols == "O")] == 2).mean()),
        "dangling": int(np.maximum(wanted - numbers, 0)[moves].sum()),
        "excess": int(np.maximum(numbers - wanted, 0)[moves].sum()),
        "si_o": int(((symbols[first] != symbols[second]) & near).sum()),
    }
    if closest is not None:
        # In parts of what the entries have: the pair of elements that is worst.
        found["closest"] = min(d / closest[pair] for pair, d in pair_distances(atoms, moves).items() if pair in closest)
    return found


def summary(counts: dict[str, Any]) -> str:
    """Return in a few words how good a network is."""
    return f"{counts['fourfold']:.1%} of Si fourfold, {counts['twofold']:.1%} of O twofold"


def table(rows: list[dict[str, Any]]) -> str:
    """Render the rows."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("structure", "interface"),
        Column("fourfold", "fourfold Si", "", ".3f"),
        Column("twofold", "twofold O", "", ".3f"),
        Column("dangling", "dangling bonds"),
        Column("excess", "bonds too many"),
        Column("si_o", "Si-O bonds"),
        Column("closest", "closest / entries", "", ".2f"),
        Column("held", "others held"),
        Column("status", "status"),
        Column("seconds", "time", "s", ".1f"),
    ]
    return text_table(rows, columns)


def verdict(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return in a line which of the bars are met, and which are not."""
    bars = {
        "more fourfold Si": after["fourfold"] > before["fourfold"],
        "more twofold O": after["twofold"] > before["twofold"],
        "fewer dangling bonds": after["dangling"] < before["dangling"],
        "more Si-O bonds": after["si_o"] > before["si_o"],
        f"no pair closer than {CLOSEST:g} of the entries'": after["closest"] >= CLOSEST,
        "all others where they were": after["held"],
    }
    missed = [name for name, met in bars.items() if not met]
    return f"{len(bars) - len(missed)} of {len(bars)} as asked" + (f"; not: {', '.join(missed)}" if missed else "")


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
