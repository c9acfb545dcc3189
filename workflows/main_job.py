#!/usr/bin/env python
"""The main job: a database of molecules, a dozen displaced ones relaxed with it, a table, pictures, full provenance.

    python workflows/main_job.py                                    # the 93 organic molecules that ASE ships (G2)
    python workflows/main_job.py --qm9 dsgdb9nsd.xyz.tar.bz2        # the paper's selection of QM9

What goes into the provenance graph:

* The source, one `StructureSetData`. Of G2 all 93 molecules. Of QM9 what the job needs: the molecules of the paper's
  database and the held-out ones, since 130,000 molecules that nothing is made of would only fill the disk. The node's
  `source` holds licence, reference and the md5 of the whole file that was read, and each molecule has its identifier,
  so that the same node can be made again from the same file.
* `losiko.select` twice: the held-out molecules, and all the others for the database. A held-out molecule is never in
  the database.
* `losiko.displace`: normal noise on each coordinate of the held-out molecules.
* `losiko.database` and `losiko.relax` on the daemon, and `losiko.compare` before and after.

Run it again and everything is taken from the cache (in a profile where caching is on for losiko, as in the embedded
one). It needs a running daemon and the code; `bash setup_profiles/quickstart.sh` sets up both.
"""

from __future__ import annotations

import argparse
import sys
import warnings
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
    from aiida.orm import WorkChainNode

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return launch(run, parse_arguments(arguments), CHECKOUT)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qm9", type=Path, metavar="PATH", help="archive, folder or collection of QM9 (default: G2)")
    add_aiida_options(parser)
    parser.add_argument("--protocol", default="balanced", help="see losiko protocols (default balanced)")
    parser.add_argument("--seed", type=int, default=0, help="of the displacements and of random choices (default 0)")
    parser.add_argument("--displacement", type=float, default=0.1, help="Angstrom per coordinate (default 0.1)")
    parser.add_argument("--n-held-out", type=int, default=12, metavar="N", help="molecules to relax (default 12)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    options = parser.parse_args(arguments)
    if options.n_held_out < 1:
        parser.error(f"--n-held-out {options.n_held_out} leaves nothing to relax: at least 1")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    if not 0 <= options.displacement <= 10:
        parser.error(f"--displacement {options.displacement:g} is not allowed: 0 to 10 Angstrom")
    return options


# -- the molecules ----------------------------------------------------------------------------------------------------


def g2_source(n_held_out: int, seed: int) -> tuple[StructureSetData, list[str]]:
    """Return the stored set of G2's organic molecules and the identifiers of those to hold out."""
    import numpy as np

    from aiida_losiko.data import StructureSetData
    from aiida_losiko.sources import load_source
    from aiida_losiko.sources.g2 import HELD_OUT

    info, records = load_source("g2")
    names = [record.identifier for record in records]
    held_out = [f"g2:{name}" for name in HELD_OUT]
    if n_held_out != len(held_out):
        if n_held_out > len(names) - 2:
            raise JobError(f"--n-held-out {n_held_out} of {len(names)} molecules: at most {len(names) - 2}")
        chosen = np.random.default_rng(seed).choice(len(names), n_held_out, replace=False)
        held_out = [names[index] for index in sorted(chosen)]
    node = StructureSetData.from_atoms([record.atoms for record in records], source=info.to_dict())
    node.label = "G2 molecules of H, C, N, O, F"
    return node.store_once(), held_out


def qm9_source(path: Path, n_held_out: int, seed: int) -> tuple[StructureSetData, list[str]]:
    """Return the stored set of the paper's QM9 molecules and the held-out ones, and the identifiers of the latter.

    Held out are molecules outside the paper's selection, drawn with the seed. A file that holds too few others gives
    some of the selection itself, which then are not in the database.
    """
    import numpy as np

    from aiida_losiko.data import StructureSetData
    from aiida_losiko.sources import load_source
    from aiida_losiko.sources.qm9 import paper_numbers
    from aiida_losiko.sources.qm9_format import N_MOLECULES

    paper = sorted(paper_numbers())
    generator = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(1, N_MOLECULES + 1), paper)
    # More than are needed, since the uncharacterised ones are not read, and collections do not hold all.
    candidates = [f"gdb_{number}" for number in generator.permutation(others)[: 2 * n_held_out + 50]]
    say(f"reading QM9 from {path}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        selection = {"ids": [f"gdb_{number}" for number in paper] + candidates}
        info, records = load_source("qm9", path, selection, progress=sys.stderr.isatty())
    for message in {str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)}:
        say(f"note: {message}")
    by_name = {record.identifier: record for record in records}
    known = [name for name in (f"gdb_{number}" for number in paper) if name in by_name]
    held_out = [name for name in candidates if name in by_name][:n_held_out]
    if len(held_out) < n_held_out:
        say(f"note: the file holds {len(held_out)} of the molecules drawn; the rest is taken out of the selection")
        spare = [str(name) for name in generator.permutation(known)]
        held_out += spare[: n_held_out - len(held_out)]
    if len(set(known) - set(held_out)) < 2:
        raise JobError(
            f"{path} holds {len(known)} molecules of the paper's selection, too few for a database: give QM9"
        )
    kept = [record.atoms for record in records if record.identifier in {*known, *held_out}]
    description = (
        f"paper's selection ({len(known)} of {len(paper)}) and {len(held_out)} molecules to test on, seed {seed}"
    )
    node = StructureSetData.from_atoms(kept, source={**info.to_dict(), "description": description})
    node.label = "QM9: the paper's selection and held-out molecules"
    return node.store_once(), held_out


# -- the job ----------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    from aiida.engine import submit
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.compare import compare
    from aiida_losiko.calculations.functions.displace import displace
    from aiida_losiko.calculations.functions.select import select
    from aiida_losiko.core.protocols import load_protocol
    from aiida_losiko.workflows.database import DatabaseWorkChain
    from aiida_losiko.workflows.relax import RelaxWorkChain

    code, processes = load_code(options.code), []
    load_protocol(options.protocol)
    if options.qm9 is None:
        source, held_out = g2_source(options.n_held_out, options.seed)
    else:
        source, held_out = qm9_source(options.qm9, options.n_held_out, options.seed)
    say(f"source StructureSetData<{source.pk}>: {len(source)} molecules, {source.n_atoms} atoms ({source.label})")

    true, node = call(select, source=source, selection=Dict({"ids": held_out}))
    processes.append(node)
    say(f"displacing {len(true)} held-out molecules by {options.displacement:g} Angstrom per coordinate")
    noise = Dict({"standard_deviation": options.displacement, "seed": options.seed})
    starts, node = call(displace, structures=true, parameters=noise)
    processes.append(node)

    builder = DatabaseWorkChain.get_builder_from_protocol(
        code, source, protocol=options.protocol, selection={"exclude": held_out}
    )
    building = submit(builder)
    say(f"building the database: DatabaseWorkChain<{building.pk}>")
    wait_for(building, "database")
    built = outputs_of(building, "database")
    say(f"database EnvironmentDatabaseData<{built.database.pk}>: {database_line(built.database, built.structures)}")

    relaxing = submit(RelaxWorkChain.get_builder_from_protocol(code, starts, built.database, protocol=options.protocol))
    say(f"relaxing: RelaxWorkChain<{relaxing.pk}>")
    wait_for(relaxing, "relax")
    relaxed = outputs_of(relaxing, "structures")
    before, node = call(compare, structures=starts, reference=true)
    processes.append(node)
    after, node = call(compare, structures=relaxed.structures, reference=true)
    processes += [node, *building.called, *relaxing.called]

    rows = table_rows(true, before, after, relaxed)
    print(f"\n{table(rows)}\n")
    print("RMSD to the true structure; out of reach: atoms whose environment is unlike all that the database knows;")
    print(
        "fragmented: in more pieces than before, not to be trusted; time: an equal share, as all are relaxed together\n"
    )
    report_pictures(options.output, rows, starts, relaxed.structures, true)
    report_cache(processes)
    report_next(prefix, relaxing, relaxed.structures, rows)


def database_line(database: Any, structures: StructureSetData) -> str:
    """Return what the database holds, in a line."""
    counts = ", ".join(f"{count} {symbol}" for symbol, count in database.n_environments.items() if count)
    return f"{counts} environments of {len(structures)} molecules"


def table_rows(true: StructureSetData, before: Any, after: Any, relaxed: Any) -> list[dict[str, Any]]:
    """Return one row per molecule, from the nodes alone."""
    matches, report = relaxed.matches, relaxed.report.get_dict()
    offsets, reach = matches.get_array("offsets"), matches.get_array("out_of_reach")
    rows = []
    for index, atoms in enumerate(true.get_atoms()):
        name = atoms.info["identifier"]
        beyond = reach[offsets[index] : offsets[index + 1]] == 1
        status = str(matches.get_array("status")[index])
        rows.append(
            {
                "index": index,
                "molecule": name,
                "formula": atoms.get_chemical_formula(),
                "atoms": len(atoms),
                "before": float(before["rmsd"].get_array("rmsd")[index]),
                "after": float(after["rmsd"].get_array("rmsd")[index]),
                "loss": float(matches.get_array("loss")[index]),
                "out": f"{int(beyond.sum())} of {len(atoms)}",
                "steps": int(matches.get_array("steps")[index]),
                # A molecule that fell apart has converged as well: the flag alone tells.
                "status": ", ".join([status, *(flag for flag, names in report["flags"].items() if name in names)]),
                # Molecules are relaxed together: each has its share of the time.
                "seconds": report["seconds"] / len(true) if "seconds" in report else None,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Render the table with a line of means."""
    import numpy as np

    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("molecule", "molecule"),
        Column("formula", "formula"),
        Column("atoms", "atoms"),
        Column("before", "RMSD before", "Angstrom", ".3f"),
        Column("after", "RMSD after", "Angstrom", ".3f"),
        Column("loss", "loss", "", ".2e"),
        Column("out", "out of reach", "environments"),
        Column("steps", "steps"),
        Column("status", "status"),
        Column("seconds", "time", "s", ".2f"),
    ]
    numbers = ("before", "after", "loss", "seconds")
    means = {key: np.mean([row[key] for row in rows if row[key] is not None] or [np.nan]) for key in numbers}
    return text_table([*rows, {"molecule": "mean", **means}], columns)


def report_pictures(
    folder: Path,
    rows: list[dict[str, Any]],
    starts: StructureSetData,
    relaxed: StructureSetData,
    true: StructureSetData,
) -> None:
    """Draw the histogram and the molecule in the middle of the results, neither the best nor the worst."""
    from aiida_losiko.tools.figures import molecule_triptych, rmsd_histogram

    histogram = rmsd_histogram(
        [row["before"] for row in rows], [row["after"] for row in rows], path=folder / "rmsd.png", title=""
    )
    row = sorted(rows, key=lambda row: row["after"])[len(rows) // 2]
    sets = (starts, relaxed, true)
    title = f"{row['molecule']} ({row['formula']})"
    molecule = molecule_triptych(
        *(each.get_ase(row["index"]) for each in sets), path=folder / "molecule.png", title=title
    )
    print(f"pictures: {histogram.resolve()}\n          {molecule.resolve()}")


def report_next(prefix: str, relaxing: WorkChainNode, relaxed: StructureSetData, rows: list[dict[str, Any]]) -> None:
    """Print what to type next."""
    name = rows[0]["molecule"]
    print(f"\nnext, where the atoms of {name} have their places from, and what ran:")
    print(f"  {prefix}python -m aiida_losiko.tools.origins {relaxed.pk} --structure {name}")
    print(f"  {prefix}verdi process status {relaxing.pk}")


if __name__ == "__main__":
    sys.exit(main())
