#!/usr/bin/env python
"""LOSIKO's structure validated by VASP, from end to end through the daemon: LiCoO2 whose atoms were displaced.

    python workflows/vasp_chain.py                                           # a stand-in in the place of VASP
    python workflows/vasp_chain.py --vasp vasp@cluster --family PBE.54       # for who owns VASP

Without `--vasp` a toy of our own answers in VASP's files, through `mock-vasp` of aiida-vasp and with placeholders for
potentials (tests/vasp_stand_in). **Its energies, gaps and structures mean nothing**: it shows that the chain holds. Any
statement about accuracy needs VASP itself.

What goes into the provenance graph:

* `losiko.query.reference_crystals`: LiCoO2, four atoms, and the Li-Co-O-H crystals that the database is made of.
* `losiko.displace`: noise on every coordinate; `losiko.database`.
* `losiko.relax` with `validate`: LOSIKO's structure, then `losiko.validate` with `vasp.vasp` and `vasp.relax` for
  start, LOSIKO's structure and minimum, densities of states of the three, and one table.

It draws the energies, the densities of states and, with Graphviz (`sudo apt-get install graphviz`), the provenance
graph. The job needs a running daemon and the code: `bash setup_profiles/quickstart.sh` sets up both. See
docs/validation-vasp.md.
"""

from __future__ import annotations

import argparse
import shutil
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
    say,
    wait_for,
)

if TYPE_CHECKING:
    from aiida.orm import InstalledCode, ProcessNode, WorkChainNode

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
HOST = "crystal:LiCoO2"
ELEMENTS = ("Li", "Co", "O", "H")
MAX_SITES = 20
STAND_IN = "vasp-stand-in"
#: Coarse: the stand-in has no use for more.
STAND_IN_SETTINGS = {"k_spacing": 1.0, "dos_points": 501}
STAND_IN_NOTE = "a stand-in for VASP: the numbers mean nothing"
STAGES = ("start", "losiko", "minimum")
NAMESPACE = "validate"  # of the outputs of losiko.relax
DRAWN_WINDOW = (-12.0, 6.0)  # eV around the Fermi level
PICTURES = ("vasp_chain_energies", "vasp_chain_dos", "vasp_chain_provenance")
#: What is drawn of the graph: processes and what people look at.
DRAWN_DATA = ("StructureSetData", "StructureData", "EnvironmentDatabaseData", "PotcarData")


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return launch(run, parse_arguments(arguments), CHECKOUT)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vasp", metavar="CODE", help="label of a code of VASP (default: a stand-in)")
    parser.add_argument("--family", help="of the potentials, with --vasp (default PBE.54)")
    parser.add_argument("--protocol", default="paper", help="of the engine vasp (default paper)")
    parser.add_argument("--processors", type=int, default=1, help="MPI processes of VASP (default 1)")
    parser.add_argument("--displacement", type=float, default=0.15, help="Angstrom per coordinate (default 0.15)")
    parser.add_argument("--seed", type=int, default=0, help="of the displacements (default 0)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    if options.family and not options.vasp:
        parser.error("--family goes with --vasp: the stand-in has its own placeholders")
    if not 0 < options.displacement <= 1:
        parser.error(f"--displacement {options.displacement:g} is not allowed: above 0, to 1 Angstrom")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    if options.processors < 1:
        parser.error(f"--processors {options.processors} is not allowed: 1 or more")
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    code = load_code(options.code)
    vasp, settings = find_vasp(options)
    start, entries = displaced(options.displacement, options.seed)
    say(f"start StructureSetData<{start.pk}>: {start.get_ase(0).get_chemical_formula()}")
    relaxing = relax_and_validate(code, vasp, entries, start, settings, options)
    table = outputs_of(relaxing, NAMESPACE)[NAMESPACE]["table"].get_dict()
    from aiida_losiko.tools.validation_figures import validation_table

    print(f"\n{note(options)}{validation_table(table)}\n")
    for path in draw(options, relaxing, table):
        print(f"picture: {path.resolve()}")
    print(f"next: {prefix}verdi process status {relaxing.pk}")


def note(options: argparse.Namespace) -> str:
    """Return what has to be said above numbers of the stand-in."""
    return "" if options.vasp else f"From {STAND_IN_NOTE}.\n\n"


# -- VASP, or what stands in for it -----------------------------------------------------------------------------------


def find_vasp(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the code, and the settings that differ from the protocol."""
    if options.vasp:
        return load_code(options.vasp), {"potential_family": options.family} if options.family else {}
    say(f"{STAND_IN_NOTE} (--vasp for the real one)")
    sys.path.insert(0, str(CHECKOUT / "tests"))
    try:
        from vasp_stand_in.install import upload_potentials
    except ImportError as error:
        raise JobError(
            f"the stand-in is in tests/ of a checkout ({error}): run the job there, or give --vasp"
        ) from None
    folder = (options.output / STAND_IN).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return stand_in(folder), {"potential_family": upload_potentials(folder), **STAND_IN_SETTINGS}


def stand_in(folder: Path) -> InstalledCode:
    """Return the code of the stand-in on the computer of the losiko program; its registry is in the folder."""
    from aiida import orm
    from aiida.common.exceptions import NotExistent
    from vasp_stand_in.install import make_code, prepend_text

    computer = orm.load_computer("localhost")
    try:
        code = orm.load_code(f"{STAND_IN}@localhost")
    except NotExistent:
        return make_code(computer, folder / "registry", STAND_IN)
    if code.prepend_text != prepend_text(folder / "registry"):
        raise JobError(
            f"the code {STAND_IN}@localhost was made for another --output: take that one, or delete it with "
            f"`verdi code delete {code.pk}`"
        )
    return code


# -- the chain --------------------------------------------------------------------------------------------------------


def displaced(displacement: float, seed: int) -> tuple[StructureSetData, StructureSetData]:
    """Return the crystal with noise on its atoms, and the entries of the database."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.displace import displace
    from aiida_losiko.calculations.functions.query import reference_crystals

    host, _ = call(reference_crystals, query=Dict({"selection": {"ids": [HOST]}}))
    selection = {"elements": list(ELEMENTS), "max_atoms": MAX_SITES}
    entries, _ = call(reference_crystals, query=Dict({"selection": selection}))
    noise = Dict({"standard_deviation": displacement, "seed": seed})
    start, _ = call(displace, structures=host["structures"], parameters=noise)
    return start, entries["structures"]


def relax_and_validate(
    code: Any,
    vasp: Any,
    entries: StructureSetData,
    start: StructureSetData,
    settings: dict[str, Any],
    options: argparse.Namespace,
) -> WorkChainNode:
    """Submit database and relaxation, wait for both, and return the relaxation."""
    from aiida.engine import submit

    from aiida_losiko.workflows.database import DatabaseWorkChain
    from aiida_losiko.workflows.relax import RelaxWorkChain

    resources = {"num_machines": 1, "num_mpiprocs_per_machine": options.processors}
    validate = {
        "engine": "vasp",
        "codes": {"vasp": vasp},
        "protocol": options.protocol,
        "overrides": {"hubbard": "materials_project", **settings},
        "options": {"resources": resources, "withmpi": options.vasp is not None},
        "dos": True,
    }
    building = submit(DatabaseWorkChain.get_builder_from_protocol(code, entries, protocol="crystals"))
    say(f"building the database: DatabaseWorkChain<{building.pk}>")
    wait_for(building, "database")
    database = outputs_of(building, "database").database
    relaxing = submit(RelaxWorkChain.get_builder_from_protocol(code, start, database, validate=validate))
    say(f"relaxing and validating: RelaxWorkChain<{relaxing.pk}>")
    wait_for(relaxing, "relax")
    return relaxing


# -- pictures ---------------------------------------------------------------------------------------------------------


def draw(options: argparse.Namespace, relaxing: WorkChainNode, table: dict[str, Any]) -> list[Path]:
    """Draw energies, densities of states and the graph."""
    from aiida_losiko.data.density_of_states import DensityOfStates
    from aiida_losiko.tools.validation_figures import densities_of_states, energies_and_geometries

    options.output.mkdir(parents=True, exist_ok=True)
    title = "" if options.vasp else STAND_IN_NOTE
    energies, densities, graph = (options.output / f"{name}.png" for name in PICTURES)
    paths = [energies_and_geometries(table, path=energies, title=title)]
    validation = relaxing.outputs[NAMESPACE]
    if "dos" in validation:
        nodes = validation["dos"]["structure_0"]
        read = {stage: DensityOfStates.from_node(nodes[stage]) for stage in STAGES if stage in nodes}
        paths.append(densities_of_states(read, path=densities, window=DRAWN_WINDOW, title=title))
    if shutil.which("dot") is None:
        say("no picture of the graph: it needs Graphviz (sudo apt-get install graphviz)")
        return paths
    draw_provenance(relaxing, graph)
    return [*paths, graph]


def draw_provenance(relaxing: ProcessNode, path: Path) -> None:
    """Draw the processes with the structures, potentials and tables that join them; settings are left out."""
    from aiida.common.links import LinkType
    from aiida.tools.visualization import Graph

    graph = Graph(graph_attr={"rankdir": "TB", "size": "22,22", "dpi": "70", "nodesep": "0.1", "ranksep": "0.4"})
    every = [relaxing, *relaxing.called_descendants]
    for process in every:
        graph.add_node(process)
    kinds = (LinkType.CALL_CALC, LinkType.CALL_WORK, LinkType.CREATE, LinkType.INPUT_CALC)
    for process in every:
        for link in process.base.links.get_outgoing(link_type=kinds[:3]).all():
            if link.link_type is not LinkType.CREATE or drawn(link.node):
                graph.add_node(link.node)
                graph.add_edge(process, link.node, link_pair=(link.link_type, link.link_label))
        for link in process.base.links.get_incoming(link_type=kinds[3]).all():
            if drawn(link.node):
                graph.add_node(link.node)
                graph.add_edge(link.node, process, link_pair=(link.link_type, link.link_label))
    graph.graphviz.render(outfile=str(path), format="png", cleanup=True)


def drawn(node: Any) -> bool:
    """Return whether a data node is in the picture."""
    label = node.base.attributes.get("engine", None) if type(node).__name__ == "Dict" else None
    return type(node).__name__ in DRAWN_DATA or label is not None


if __name__ == "__main__":
    sys.exit(main())
