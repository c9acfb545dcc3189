#!/usr/bin/env python
"""What runs in the place of VASP where there is none: a toy of our own that reads and writes VASP's files.

It knows a Morse potential between pairs of atoms, with the sum of their covalent radii as its length, and invents bands
and a density of states. Its numbers mean nothing: it exercises the chain from aiida-losiko through aiida-vasp and back.
Nothing of VASP is in it, and the potentials that it is given (`install.py`) are empty.

Run in a folder with INCAR, POSCAR and KPOINTS, as VASP. NSW, IBRION, ISIF, EDIFFG, NELM, ISPIN, LORBIT and NEDOS are
obeyed. The text of SYSTEM asks for one of the `FAILURES`, so that each can be tested.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS
from files import outcar, vasprun
from parsevasp.incar import Incar
from parsevasp.kpoints import Kpoints

#: Ends without files; is killed in the middle; writes nonsense; electrons that do not converge.
FAILURES = ("crash", "walltime", "garbage", "electrons")
DEPTH, STIFFNESS, CUTOFF = 1.0, 1.8, 6.0  # eV, 1/Angstrom, Angstrom
GAP = 1.5  # eV
DEFAULTS = {"nsw": 0, "ibrion": -1, "isif": 2, "ediffg": -0.01, "nelm": 60, "ispin": 1, "lorbit": 0, "nedos": 301}


class Morse(Calculator):
    """Pairs of atoms, smoothly cut off."""

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Sum over pairs; each is in the list twice."""
        super().calculate(atoms, properties, system_changes)
        i, j, d, vectors = neighbor_list("ijdD", self.atoms, CUTOFF)
        lengths = covalent_radii[self.atoms.numbers[i]] + covalent_radii[self.atoms.numbers[j]]
        decay = np.exp(-STIFFNESS * (d - lengths))
        pair, slope = DEPTH * (decay**2 - 2 * decay), -2 * DEPTH * STIFFNESS * (decay**2 - decay)
        fade = (1 - (d / CUTOFF) ** 2) ** 2
        fade_slope = -4 * d / CUTOFF**2 * (1 - (d / CUTOFF) ** 2)
        along = (slope * fade + pair * fade_slope)[:, None] * vectors / d[:, None]
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, along)
        energy = 0.5 * float(np.sum(pair * fade))
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        virial = 0.5 * np.einsum("pa,pb->ab", vectors, along) / self.atoms.get_volume()
        self.results["stress"] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


@dataclass
class Run:
    """What there is to write: the settings, the mesh, and each ionic step with its atoms and results."""

    settings: dict
    mesh: tuple[int, int, int]
    electronic_steps: int
    steps: list[Atoms] = field(default_factory=list)

    @property
    def moves(self) -> bool:
        """Whether atoms move."""
        return self.settings["nsw"] > 0 and self.settings["ibrion"] > 0


def main() -> int:
    """Do as VASP does; returns the exit status."""
    settings = DEFAULTS | {key.lower(): value for key, value in Incar(file_path="INCAR").get_dict().items()}
    failure = next((name for name in FAILURES if name in str(settings.get("system", ""))), "")
    print(" vasp.stand-in: a toy with VASP's files, its numbers mean nothing")
    if failure == "crash":
        return 139
    mesh = tuple(int(each) for each in Kpoints(file_path="KPOINTS").get_dict()["divisions"])
    run = Run(settings, mesh, settings["nelm"] if failure == "electrons" else min(8, settings["nelm"] - 1))
    relax(read("POSCAR", format="vasp"), run)
    texts = {"OUTCAR": outcar(run), "vasprun.xml": vasprun(run, GAP)}
    if failure == "walltime":
        # What is there when the scheduler kills it among the electronic steps of the last ionic one.
        ends = {"OUTCAR": "Iteration", "vasprun.xml": "</scstep>"}
        texts = {name: text[: text.rindex(ends[name])] for name, text in texts.items()}
    elif failure == "garbage":
        texts = {name: f"{text[:200]}\n\x01 *** NaN NaN {text[300:400]}\n" for name, text in texts.items()}
    for name, text in texts.items():
        Path(name).write_text(text, encoding="utf-8")
    write("CONTCAR", run.steps[-1], format="vasp", direct=True)
    return 0


def relax(atoms: Atoms, run: Run) -> None:
    """Move the atoms until forces or changes of the energy are small, or the steps are used up; keep every step."""
    atoms.calc = Morse()
    record(atoms, run)
    if not run.moves:
        return
    limit = run.settings["ediffg"]
    if run.settings["isif"] not in (2, 3):
        raise SystemExit(f"the stand-in knows ISIF=2 and 3, not {run.settings['isif']}")
    moving = FrechetCellFilter(atoms) if run.settings["isif"] == 3 else atoms
    optimizer = BFGS(moving, logfile=None)
    while len(run.steps) < run.settings["nsw"]:
        forces = np.linalg.norm(moving.get_forces(), axis=1).max()
        energies = [step.info["energy"] for step in run.steps[-2:]]
        if limit < 0 and forces < -limit:
            return
        if limit > 0 and len(energies) == 2 and abs(energies[1] - energies[0]) < limit:
            return
        optimizer.step()
        record(atoms, run)


def record(atoms: Atoms, run: Run) -> None:
    """Keep a copy of the atoms with what was computed."""
    step = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    step.info["energy"] = atoms.get_potential_energy()
    step.info["stress"] = atoms.get_stress(voigt=False)
    step.arrays["results_forces"] = atoms.get_forces()
    run.steps.append(step)


if __name__ == "__main__":
    sys.exit(main())
