"""A proton in LiCoO2: the time until the O-H bond stands, LOSIKO against CHGNet, on one core.

108 atoms, hydrogen in the place of one lithium atom, in a fixed cell. Starts: that site itself, the proton alone
displaced, and all atoms displaced, by normal noise of 0.2 Angstrom on each coordinate; site and displaced starts are
those of workflows/proton_licoo2.py. LOSIKO: protocol `crystals`, database of the Li-Co-O-H crystals of up to 20 atoms
that the package has written down. CHGNet: the pretrained model as its ASE calculator gives it (with stress and magnetic
moments), ASE's FIRE, which is CHGNet's own default, to 0.05 eV/Angstrom.

The bond stands from the first step on after which hydrogen has one O at 0.93 to 1.05 Angstrom until the end. Times are
processor time of one thread, without what is done once (building the database, loading the model), each after an
evaluation that fills caches. Energies are CHGNet's, of both ends and of the start.

Bars: the bond from every start; at least 20 times less time to it than CHGNet, where that finds it; and an energy of at
most 0.05 eV/atom above the lowest that CHGNet reached from any of the starts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import common
import numpy as np
from ase import Atoms

from aiida_losiko.tools.tables import Column, text_table

ELEMENTS = ["Li", "Co", "O", "H"]
PROTOCOL = "crystals"
MAX_SITES = 20
DISPLACEMENT = 0.2  # Angstrom
BOND_RANGE = (0.93, 1.05)  # Angstrom
BONDED = 1.2
FORCE_LIMIT = 0.05  # eV/Angstrom
FEWER_SECONDS = 20.0
ENERGY_LIMIT = 0.05  # eV/atom


@dataclass
class Path:
    """What a relaxation went through: seconds since its begin, evaluations so far and positions, step by step."""

    seconds: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    total: float = 0.0


def starts(count: int) -> dict[str, Atoms]:
    """The site, the proton alone displaced, and copies with all atoms displaced."""
    from aiida_losiko.builders import substitute
    from aiida_losiko.sources.reference_crystals import build_crystal

    host = build_crystal("LiCoO2", conventional=True)
    host.info["identifier"] = "crystal:LiCoO2"
    (site,) = substitute(host, "Li", "H", supercell=[3, 3, 1], orbit=0)
    proton = site.copy()
    proton.positions[proton_of(site)] += np.random.default_rng(0).normal(scale=DISPLACEMENT, size=3)
    made = {"lithium site": site, "proton displaced": proton}
    for copy in range(count):
        atoms = site.copy()
        atoms.positions += np.random.default_rng([0, 0, copy]).normal(scale=DISPLACEMENT, size=(len(atoms), 3))
        made[f"displaced {copy}"] = atoms
    return made


def proton_of(atoms: Atoms) -> int:
    """The index of the hydrogen."""
    return int(np.flatnonzero(atoms.numbers == 1)[0])


def lengths_to_oxygen(atoms: Atoms, positions: np.ndarray) -> np.ndarray:
    """Distances of the hydrogen to all O, ascending, in Angstrom."""
    moved = atoms.copy()
    moved.positions = positions
    oxygens = np.flatnonzero(moved.numbers == 8)
    return np.sort(moved.get_distances(proton_of(moved), oxygens, mic=True))


def bonded(lengths: np.ndarray) -> bool:
    """Whether hydrogen has one O, at the length of a hydroxyl."""
    return bool(BOND_RANGE[0] <= lengths[0] <= BOND_RANGE[1] and lengths[1] > BONDED)


def standing_from(atoms: Atoms, path: Path, end: np.ndarray) -> int | None:
    """The first step from which on the bond stands until the end; None where it does not."""
    states = [bonded(lengths_to_oxygen(atoms, positions)) for positions in [*path.positions, end]]
    if not states[-1] or not states[-2]:
        return None
    broken = [step for step, state in enumerate(states) if not state]
    return broken[-1] + 1 if broken else 0


class Losiko:
    """Relaxations with the embedded crystals."""

    name = "LOSIKO"

    def __init__(self) -> None:
        from aiida_losiko.core import EnvironmentDatabase, RelaxSettings, make_descriptor
        from aiida_losiko.core.protocols import load_protocol
        from aiida_losiko.sources.reference_crystals import read_reference_crystals

        protocol = load_protocol(PROTOCOL)
        records = list(read_reference_crystals({"elements": ELEMENTS, "max_atoms": MAX_SITES}))
        descriptor = make_descriptor({"name": "soap", "species": ELEMENTS, **protocol.descriptor})
        self.database = EnvironmentDatabase.build(
            [record.atoms for record in records], descriptor, [r.identifier for r in records], **protocol.database
        )
        self.settings = RelaxSettings(**protocol.relax)
        self.about = f"{len(records)} crystals"

    def evaluate(self, atoms: Atoms) -> Any:
        """One loss and gradient, with the gradient in the strain, as a step of a relaxation has it."""
        from aiida_losiko.core.neighbors import StructureBatch
        from aiida_losiko.core.objective import LocalSimilarityObjective

        if not hasattr(self, "_objective"):
            self._objective = LocalSimilarityObjective(StructureBatch.from_atoms([atoms]), self.database, repulsion=1.0)
        return self._objective.evaluate(StructureBatch.from_atoms([atoms]).positions)

    def relax(self, atoms: Atoms) -> tuple[Path, np.ndarray, str]:
        """Relax, and note where it went."""
        from aiida_losiko.core import relax

        path, begin = Path(), time.process_time()

        def note(report: Any) -> None:
            path.seconds.append(time.process_time() - begin)
            path.evaluations.append(report.evaluation)
            path.positions.append(report.positions[0])

        (result,) = relax(atoms, self.database, settings=self.settings, callback=note)
        path.total = time.process_time() - begin
        return path, result.atoms.positions, f"{result.status}, {result.matches.source[proton_of(atoms)]}"


class Chgnet:
    """Relaxations with the pretrained CHGNet."""

    name = "CHGNet"

    def __init__(self, max_steps: int) -> None:
        from importlib.metadata import version

        from chgnet.model.dynamics import CHGNetCalculator

        warnings.filterwarnings("ignore", module="chgnet")
        with contextlib.redirect_stdout(io.StringIO()):
            self.calculator = CHGNetCalculator(use_device="cpu")
        self.max_steps = max_steps
        self.about = f"version {version('chgnet')}, model {self.calculator.version}"

    def evaluate(self, atoms: Atoms) -> Any:
        """Energy, forces, stress and magnetic moments, as the calculator gives them at a step."""
        copy = atoms.copy()
        copy.calc = self.calculator
        return copy.get_forces()

    def forces_alone(self, atoms: Atoms) -> Any:
        """Energy and forces and nothing else, which the calculator does not offer to ASE."""
        self.calculator.calculate(atoms, task="ef")

    def energy(self, atoms: Atoms, positions: np.ndarray) -> float:
        """Energy in eV/atom."""
        copy = atoms.copy()
        copy.positions = positions
        copy.calc = self.calculator
        return float(copy.get_potential_energy()) / len(copy)

    def relax(self, atoms: Atoms) -> tuple[Path, np.ndarray, str]:
        """Relax, and note where it went."""
        from ase.optimize import FIRE

        copy, path = atoms.copy(), Path()
        copy.calc = self.calculator
        self.calculator.reset()
        begin = time.process_time()
        optimizer = FIRE(copy, logfile=None)

        def note() -> None:
            path.seconds.append(time.process_time() - begin)
            path.evaluations.append(len(path.evaluations) + 1)
            path.positions.append(copy.positions.copy())

        optimizer.attach(note)
        converged = optimizer.run(fmax=FORCE_LIMIT, steps=self.max_steps)
        path.total = time.process_time() - begin
        return path, copy.positions, "converged" if converged else "max_steps"


def account(atoms: Atoms, start: str, who: Losiko | Chgnet, judge: Chgnet) -> dict[str, Any]:
    """Relax a start and say what came of it, and when."""
    from aiida_losiko.core.metrics import displacements

    path, end, status = who.relax(atoms)
    lengths = lengths_to_oxygen(atoms, end)
    step = standing_from(atoms, path, end)
    relaxed = atoms.copy()
    relaxed.positions = end
    moved = np.delete(np.linalg.norm(displacements(relaxed, atoms), axis=1), proton_of(atoms))
    return {
        "start": start,
        "who": who.name,
        "evaluations": path.evaluations[-1],
        "total": path.total,
        "bond_evaluations": None if step is None else path.evaluations[step],
        "bond_seconds": None if step is None else path.seconds[step],
        "bond": lengths[0],
        "next": lengths[1],
        "others": moved.max(),
        "energy": judge.energy(atoms, end),
        "status": status,
    }


def as_it_is(atoms: Atoms, start: str, judge: Chgnet) -> dict[str, Any]:
    """Say what a start is like."""
    lengths = lengths_to_oxygen(atoms, atoms.positions)
    energy = judge.energy(atoms, atoms.positions)
    return {"start": start, "who": "the start", "bond": lengths[0], "next": lengths[1], "energy": energy}


def time_evaluations(losiko: Losiko, chgnet: Chgnet, atoms: Atoms, rounds: int = 3) -> None:
    """Print the time of single evaluations, in turns; positions change from call to call."""
    shaken = common.displaced([atoms] * 8, 0.01, seed=1)
    contestants = {
        "LOSIKO": lambda: losiko.evaluate(shaken[0]),
        "CHGNet": lambda: chgnet.evaluate(shaken[0]),
        "CHGNet, forces alone": lambda: chgnet.forces_alone(shaken[0]),
    }

    def next_one(function: Any) -> Any:
        def call() -> Any:
            shaken.append(shaken.pop(0))
            return function()

        return call

    timings = common.time_in_rounds({name: next_one(f) for name, f in contestants.items()}, rounds, seconds=0.5)
    mine = float(np.median(timings["LOSIKO"]))
    rows = [{"who": who, "s": np.median(values), "ratio": np.median(values) / mine} for who, values in timings.items()]
    columns = [
        Column("who", "one evaluation"),
        Column("s", "median", "s", ".3f"),
        Column("ratio", "over ours", "", ".0f"),
    ]
    print(f"{text_table(rows, columns)}\n", flush=True)


def verdicts(rows: list[dict[str, Any]]) -> list[bool]:
    """Hold the rows against the bars."""
    ours = [row for row in rows if row["who"] == "LOSIKO"]
    theirs = [row for row in rows if row["who"] == "CHGNet"]
    found = sum(row["bond_seconds"] is not None for row in ours)
    passed = [common.verdict("LOSIKO: starts from which the bond stands", found, len(ours), at_least=True)]
    for mine, other in zip(ours, theirs, strict=True):
        if other["bond_seconds"] is None:
            print(f"----  {mine['start']}: CHGNet found no bond, its time is not compared")
            continue
        ratio = 0.0 if mine["bond_seconds"] is None else other["bond_seconds"] / mine["bond_seconds"]
        line = f"{mine['start']}: time to the bond, CHGNet over LOSIKO"
        passed.append(common.verdict(line, ratio, FEWER_SECONDS, at_least=True, unit=" times"))
    for mine in ours:
        line = f"{mine['start']}: LOSIKO's end above CHGNet's lowest"
        passed.append(common.verdict(line, mine["above"], ENERGY_LIMIT, at_least=False, unit=" eV/atom"))
    return passed


def main() -> None:
    """Relax all starts both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="with all atoms displaced (default 3)")
    parser.add_argument("--max-steps", type=int, default=200, metavar="N", help="of CHGNet's FIRE (default 200)")
    arguments = parser.parse_args()
    common.one_core()
    common.header("A proton in LiCoO2, 108 atoms, one core")
    once = time.process_time()
    losiko = Losiko()
    once_losiko, once = time.process_time() - once, time.process_time()
    try:
        chgnet = Chgnet(arguments.max_steps)
    except ImportError as error:
        raise SystemExit(f"CHGNet is not installed ({error}): pip install 'aiida-losiko[benchmarks]'") from None
    print(f"LOSIKO: {losiko.about}, built in {once_losiko:.1f} s")
    print(f"CHGNet: {chgnet.about}, loaded in {time.process_time() - once:.1f} s\n")
    structures = starts(arguments.starts)
    time_evaluations(losiko, chgnet, structures["displaced 0"] if arguments.starts else structures["lithium site"])
    rows = []
    for start, atoms in structures.items():
        rows.append(as_it_is(atoms, start, chgnet))
        for who in (losiko, chgnet):
            rows.append(account(atoms, start, who, chgnet))
            print(f"{start}, {who.name}: {rows[-1]['total']:.1f} s", flush=True)
    lowest = min(row["energy"] for row in rows if row["who"] == "CHGNet")
    for row in rows:
        row["above"] = row["energy"] - lowest
    columns = [
        Column("start", "start"),
        Column("who", ""),
        Column("bond_evaluations", "evaluations to bond", "", "d"),
        Column("bond_seconds", "time to bond", "s", ".2f"),
        Column("evaluations", "evaluations", "", "d"),
        Column("total", "time", "s", ".2f"),
        Column("bond", "O-H", "Angstrom", ".3f"),
        Column("next", "next O", "Angstrom", ".2f"),
        Column("others", "others moved", "Angstrom", ".2f"),
        Column("energy", "CHGNet's energy", "eV/atom", ".4f"),
        Column("above", "above lowest", "eV/atom", ".4f"),
        Column("status", "status"),
    ]
    print(f"\n{text_table(rows, columns)}\n")
    common.finish(verdicts(rows))


if __name__ == "__main__":
    main()
