#!/usr/bin/env python
"""Energies of a displaced crystal, of what LOSIKO makes of it, and of the minimum of Quantum ESPRESSO behind that.

    python workflows/crystal_ladder.py                          # a proton in LiCoO2, as in Fig. 5 of the paper, 8 atoms
    python workflows/crystal_ladder.py --case silicon           # 8 atoms of silicon, in minutes

The paper's ladder is for 108 atoms: 11.04 eV above the minimum of DFT before LOSIKO and 0.62 eV after it. Here cells
are small, and the pseudopotentials are those of the Debian package quantum-espresso-data, of mixed kinds and with low
cutoffs. The energies are differences within one cell with one set of settings; they are not the paper's, nor converged.

What goes into the provenance graph:

* `losiko.query.reference_crystals`: the crystal, and those of its elements that the database is made of.
* `losiko.substitute` for the proton, `losiko.displace`: noise on every coordinate; `losiko.database`.
* `losiko.relax` with `validate`: LOSIKO's structure, then `pw.base`, `pw.relax` and `pdos` of aiida-quantumespresso.

It prints one table, and draws the energies and the densities of states of the three, projected by element. The job
needs a running daemon and the codes: `bash setup_profiles/quickstart.sh --no-run` and `bash
setup_profiles/quantumespresso.sh` set up both. See docs/validation-quantumespresso.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.tools.launching import add_aiida_options, call, launch, load_code, outputs_of, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiida.orm import WorkChainNode

    from aiida_losiko.data import StructureSetData

CHECKOUT = Path(__file__).resolve().parent.parent
MAX_SITES = 20  # of the cell of an entry of the database
STAGES = ("start", "losiko", "minimum")
NAMESPACE = "validate"  # of the outputs of losiko.relax
DRAWN_WINDOW = (-12.0, 6.0)  # eV around the Fermi level
WANTED = 0.9  # of the energy between start and minimum


@dataclass(frozen=True)
class Case:
    """A crystal, what is done to it, and how it is computed."""

    title: str
    host: str
    elements: tuple[str, ...]
    supercell: tuple[int, int, int]
    conventional: bool
    proton: bool
    settings: Mapping[str, Any]


CASES = {
    "proton": Case(
        "A proton in LiCoO₂",
        "crystal:LiCoO2",
        ("Li", "Co", "O", "H"),
        (2, 1, 1),
        False,
        True,
        {"ecutwfc": 40.0, "ecutrho": 320.0, "k_spacing": 0.8, "dos_k_spacing": 0.6, "dos_range": [-25.0, 8.0]},
    ),
    "silicon": Case(
        "Displaced silicon",
        "crystal:silicon",
        ("Si",),
        (1, 1, 1),
        True,
        False,
        {"k_spacing": 0.6, "dos_k_spacing": 0.4, "dos_range": [-14.0, 8.0]},
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the job; returns the exit status."""
    return launch(run, parse_arguments(arguments), CHECKOUT)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="proton", help="which crystal (default proton)")
    parser.add_argument("--computer", default="localhost-mpi", help="of the codes pw, dos and projwfc")
    parser.add_argument("--protocol", default="debian", help="of the engine quantumespresso (default debian)")
    parser.add_argument("--no-dos", action="store_true", help="no densities of states: a third of the time")
    parser.add_argument("--processors", type=int, default=1, help="MPI processes of pw.x (default 1)")
    parser.add_argument("--displacement", type=float, default=0.2, help="Angstrom per coordinate (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the displacements (default 0)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the pictures (default results)")
    add_aiida_options(parser)
    options = parser.parse_args(arguments)
    if not 0 < options.displacement <= 1:
        parser.error(f"--displacement {options.displacement:g} is not allowed: above 0, to 1 Angstrom")
    if options.seed < 0:
        parser.error(f"--seed {options.seed} is negative: give a whole number from 0")
    if options.processors < 1:
        parser.error(f"--processors {options.processors} is not allowed: 1 or more")
    return options


def run(options: argparse.Namespace, prefix: str) -> None:
    """Do everything and print the account of it."""
    case, code = CASES[options.case], load_code(options.code)
    names = ("pw",) if options.no_dos else ("pw", "dos", "projwfc")
    codes = {name: load_code(f"{name}@{options.computer}") for name in names}
    start, entries = make_start(case, options.displacement, options.seed)
    say(f"start StructureSetData<{start.pk}>: {start.get_ase(0).get_chemical_formula()}")
    relaxing = relax_and_validate(code, codes, case, entries, start, options)
    table = outputs_of(relaxing, NAMESPACE)[NAMESPACE]["table"].get_dict()
    from aiida_losiko.tools.validation_figures import validation_table

    print(f"\n{verdict(table)}\n\n{validation_table(table)}\n")
    for path in draw(options, case, relaxing, table):
        print(f"picture: {path.resolve()}")
    print(f"next: {prefix}verdi process status {relaxing.pk}")


def make_start(case: Case, displacement: float, seed: int) -> tuple[StructureSetData, StructureSetData]:
    """Return the crystal with noise on its atoms, and the entries of the database."""
    from aiida.orm import Dict

    from aiida_losiko.calculations.functions.displace import displace
    from aiida_losiko.calculations.functions.query import reference_crystals
    from aiida_losiko.calculations.functions.substitute import substitute

    question = {"selection": {"ids": [case.host]}, "conventional": case.conventional}
    host = call(reference_crystals, query=Dict(question))[0]["structures"]
    if case.proton:
        replace = {"old": "Li", "new": "H", "supercell": list(case.supercell), "orbit": 0}
        host, _ = call(substitute, host=host, parameters=Dict(replace))
    selection = {"elements": list(case.elements), "max_atoms": MAX_SITES}
    entries = call(reference_crystals, query=Dict({"selection": selection}))[0]["structures"]
    start, _ = call(displace, structures=host, parameters=Dict({"standard_deviation": displacement, "seed": seed}))
    return start, entries


def relax_and_validate(
    code: Any,
    codes: Mapping[str, Any],
    case: Case,
    entries: StructureSetData,
    start: StructureSetData,
    options: argparse.Namespace,
) -> WorkChainNode:
    """Submit database and relaxation, wait for both, and return the relaxation."""
    from aiida.engine import submit

    from aiida_losiko.workflows.database import DatabaseWorkChain
    from aiida_losiko.workflows.relax import RelaxWorkChain

    validate = {
        "engine": "quantumespresso",
        "codes": dict(codes),
        "protocol": options.protocol,
        "overrides": dict(case.settings),
        "options": {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": options.processors}},
        "dos": not options.no_dos,
    }
    building = submit(DatabaseWorkChain.get_builder_from_protocol(code, entries, protocol="crystals"))
    say(f"building the database: DatabaseWorkChain<{building.pk}>")
    wait_for(building, "database")
    database = outputs_of(building, "database").database
    builder = RelaxWorkChain.get_builder_from_protocol(code, start, database, protocol="crystals", validate=validate)
    relaxing = submit(builder)
    say(f"relaxing and validating: RelaxWorkChain<{relaxing.pk}>")
    wait_for(relaxing, "relax")
    return relaxing


def verdict(table: Mapping[str, Any]) -> str:
    """Return in a line what LOSIKO won of the energy between start and minimum, and whether that is enough."""
    (recovered,) = table["rows"]["recovered"]
    if recovered is None:
        return "not all energies are known: see the table"
    start, losiko = (table["rows"][f"energy_{stage}"][0] - table["rows"]["energy_minimum"][0] for stage in STAGES[:2])
    enough = "" if recovered >= WANTED else "not "
    return (
        f"start {start:.2f} eV and LOSIKO {losiko:.2f} eV above the minimum of DFT: {100 * recovered:.1f} % recovered, "
        f"{enough}the {100 * WANTED:g} % that were asked for"
    )


def draw(options: argparse.Namespace, case: Case, relaxing: WorkChainNode, table: dict[str, Any]) -> list[Path]:
    """Draw energies and densities of states."""
    from aiida_losiko.data.density_of_states import DensityOfStates
    from aiida_losiko.tools.validation_figures import densities_of_states, energies_and_geometries

    options.output.mkdir(parents=True, exist_ok=True)
    name = f"ladder-{options.case}"
    paths = [energies_and_geometries(table, path=options.output / f"{name}-energies.png", title=case.title)]
    validation = relaxing.outputs[NAMESPACE]
    if "dos" in validation:
        nodes = validation["dos"]["structure_0"]
        read = {stage: DensityOfStates.from_node(nodes[stage]) for stage in STAGES if stage in nodes}
        path = options.output / f"{name}-dos.png"
        paths.append(densities_of_states(read, path=path, window=DRAWN_WINDOW, title=case.title))
    return paths


if __name__ == "__main__":
    sys.exit(main())
