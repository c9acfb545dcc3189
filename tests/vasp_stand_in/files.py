"""The stand-in's vasprun.xml and OUTCAR: those parts of VASP's formats that are read by programs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms
    from program import Run

KILOBAR = 1602.1766208  # of one eV/Angstrom^3
ORBITALS = ("s", "py", "pz", "px", "dxy", "dyz", "dz2", "dxz", "x2-y2")
MAX_K_POINTS = 8
WIDTH = 0.3  # eV, of the invented bumps


def vasprun(run: Run, gap: float) -> str:
    """Return the text of vasprun.xml."""
    last = run.steps[-1]
    points = k_points(run.mesh)
    levels = bands(len(last), points, gap)
    settings = {
        "electronic": {"NELM": run.settings["nelm"], "NBANDS": levels.shape[1], "ISPIN": run.settings["ispin"]},
        "ionic": {"NSW": run.settings["nsw"], "IBRION": run.settings["ibrion"], "ISIF": run.settings["isif"]},
        "dos": {"LORBIT": run.settings["lorbit"], "NEDOS": run.settings["nedos"]},
    }
    separators = [f'<separator name="{name}">{_integers(values)}</separator>' for name, values in settings.items()]
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>\n<modeling>',
        '<generator><i name="program" type="string">stand-in</i><i name="version" type="string">6.0.0</i>'
        '<i name="subversion" type="string">its numbers mean nothing</i></generator>',
        f'<incar><i type="string" name="SYSTEM">{escape(str(run.settings.get("system", "")))}</i></incar>',
        '<kpoints><generation param="Gamma">'
        f'<v type="int" name="divisions">{_row(run.mesh, "d")}</v></generation>'
        + _varray("kpointlist", points)
        + _varray("weights", np.full((len(points), 1), 1 / len(points)))
        + "</kpoints>",
        f"<parameters>{''.join(separators)}</parameters>",
        _atoms(last),
        _structure(run.steps[0], "initialpos"),
    ]
    electronic = "".join(f"<scstep>{_energy(last.info['energy'])}</scstep>" for _ in range(run.electronic_steps))
    for step in run.steps:
        results = _varray("forces", step.arrays["results_forces"]) + _varray("stress", -step.info["stress"] * KILOBAR)
        ends = _eigenvalues(levels, gap, run) + _dos(last, levels, gap, run) if step is last else ""
        parts.append(
            f"<calculation>{electronic}{_structure(step)}{results}{_energy(step.info['energy'])}{ends}</calculation>"
        )
    return "\n".join([*parts, _structure(last, "finalpos"), "</modeling>\n"])


def outcar(run: Run) -> str:
    """Return the text of OUTCAR."""
    n_bands = 2 * len(run.steps[0]) + 2
    lines = [
        " vasp.stand-in: a toy with VASP's files, its numbers mean nothing",
        f"   k-points           NKPTS = {min(MAX_K_POINTS, int(np.prod(run.mesh))):6d}   number of bands    NBANDS="
        f" {n_bands:6d}",
        f"   number of dos      NEDOS = {run.settings['nedos']:6d}   number of ions     NIONS = {len(run.steps[0]):6d}",
        f"   NELM   = {run.settings['nelm']:6d};   NELMIN=  2; NELMDL= -5     # of ELM steps",
        f"   NSW    = {run.settings['nsw']:6d}    number of steps for IOM",
        f"   IBRION = {run.settings['ibrion']:6d}    ionic relax: 0-MD 1-quasi-New 2-CG",
    ]
    for number, step in enumerate(run.steps, start=1):
        for electronic in range(1, run.electronic_steps + 1):
            lines.append(f"{'-' * 40} Iteration {number:6d}({electronic:4d})  {'-' * 40}")
        energy = step.info["energy"]
        lines += [" POSITION                                       TOTAL-FORCE (eV/Angst)", " " + "-" * 83]
        pairs = np.hstack([step.positions, step.arrays["results_forces"]])
        lines += ["".join(f"{value:13.5f}" for value in pair) for pair in pairs]
        lines += [
            " " + "-" * 83,
            f"  free  energy   TOTEN  = {energy:18.8f} eV",
            f"  energy  without entropy={energy:18.8f}  energy(sigma->0) ={energy:18.8f}",
        ]
    lines += [
        " General timing and accounting informations for this job:",
        " ========================================================",
        "                  Total CPU time used (sec):        1.000",
        "                            User time (sec):        1.000",
        "                         Elapsed time (sec):        1.000",
        "                   Maximum memory used (kb):        1000.",
        "",
    ]
    return "\n".join(lines)


def k_points(mesh: tuple[int, int, int]) -> np.ndarray:
    """Return the first few points of a mesh."""
    full = product(*(np.arange(each) / each for each in mesh))
    return np.array([point for point, _ in zip(full, range(MAX_K_POINTS), strict=False)])


def bands(n_atoms: int, points: np.ndarray, gap: float) -> np.ndarray:
    """Return invented levels (k, band): two filled ones for each atom below zero, two empty ones above the gap."""
    filled = np.linspace(-10.0, -0.5, 2 * n_atoms)
    centres = np.concatenate([filled, [gap + 0.5, gap + 2.0]])
    return np.sort(centres + 0.5 * np.cos(2 * np.pi * points.sum(axis=1))[:, None] * np.sign(centres), axis=1)


def _dos(atoms: Atoms, levels: np.ndarray, gap: float, run: Run) -> str:
    """Bumps for each atom: s far below, p below and d above the Fermi level; nine in ten parts are projected."""
    energies = np.linspace(levels.min() - 1, levels.max() + 1, run.settings["nedos"])
    n_spins = run.settings["ispin"]
    centres = {"s": -8.0, "p": -2.0, "d": gap + 1.5}
    of_atoms = []
    for number in atoms.numbers:
        places = np.array([centres["d" if name == "x2-y2" else name[0]] - 0.01 * number for name in ORBITALS])
        bumps = np.exp(-((energies[:, None] - places) ** 2) / (2 * WIDTH**2)) / (WIDTH * np.sqrt(2 * np.pi))
        of_atoms.append(bumps / n_spins)
    total = sum(of_atoms).sum(axis=1) / 0.9
    integrated = np.cumsum(total) * (energies[1] - energies[0])
    rows = _set(_rows([energies, total, integrated]), "spin {}", n_spins)
    text = f'<dos><i name="efermi">{gap / 2:.8f}</i><total><array><set>{rows}</set></array></total>'
    if run.settings["lorbit"] >= 10:
        ions = [_set(_rows([energies, *each.T]), "spin {}", n_spins) for each in of_atoms]
        sets = "".join(f'<set comment="ion {place}">{rows}</set>' for place, rows in enumerate(ions, start=1))
        fields = "".join(f"<field>{name}</field>" for name in ("energy", *ORBITALS))
        text += f"<partial><array>{fields}<set>{sets}</set></array></partial>"
    return text + "</dos>"


def _eigenvalues(levels: np.ndarray, gap: float, run: Run) -> str:
    sets = [
        f'<set comment="kpoint {place}">{_rows([own, (own < gap / 2).astype(float)])}</set>'
        for place, own in enumerate(levels, start=1)
    ]
    text = _set("".join(sets), "spin {}", run.settings["ispin"])
    return f"<eigenvalues><array><set>{text}</set></array></eigenvalues>"


def _set(text: str, comment: str, times: int) -> str:
    return "".join(f'<set comment="{comment.format(place + 1)}">{text}</set>' for place in range(times))


def _structure(atoms: Atoms, name: str = "") -> str:
    crystal = _varray("basis", atoms.cell.array) + f'<i name="volume">{atoms.get_volume():.8f}</i>'
    crystal += _varray("rec_basis", atoms.cell.reciprocal().array)
    inner = f"<crystal>{crystal}</crystal>" + _varray("positions", atoms.get_scaled_positions(wrap=False))
    return f'<structure name="{name}">{inner}</structure>' if name else f"<structure>{inner}</structure>"


def _atoms(atoms: Atoms) -> str:
    symbols = atoms.get_chemical_symbols()
    kinds = [place for place, symbol in enumerate(symbols) if place == 0 or symbols[place - 1] != symbol]
    counts = np.diff([*kinds, len(symbols)])
    of_kind = np.repeat(np.arange(1, len(kinds) + 1), counts)
    rows = "".join(f"<rc><c>{symbol:2s}</c><c>{kind}</c></rc>" for symbol, kind in zip(symbols, of_kind, strict=True))
    types = "".join(
        f"<rc><c>{count}</c><c>{symbols[place]:2s}</c><c>1.0</c><c>4.0</c><c>placeholder {symbols[place]}</c></rc>"
        for place, count in zip(kinds, counts, strict=True)
    )
    return (
        f"<atominfo><atoms>{len(symbols)}</atoms><types>{len(kinds)}</types>"
        f'<array name="atoms"><field type="string">element</field><field type="int">atomtype</field><set>{rows}</set>'
        f'</array><array name="atomtypes"><set>{types}</set></array></atominfo>'
    )


def _energy(value: float) -> str:
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    return "<energy>" + "".join(f'<i name="{name}">{value:.8f}</i>' for name in names) + "</energy>"


def _integers(values: dict[str, Any]) -> str:
    return "".join(f'<i type="int" name="{name}">{value:d}</i>' for name, value in values.items())


def _varray(name: str, values: np.ndarray) -> str:
    return f'<varray name="{name}">' + "".join(f"<v>{_row(row)}</v>\n" for row in values) + "</varray>\n"


def _rows(columns: list[np.ndarray]) -> str:
    return "".join(f"<r>{_row(row)}</r>\n" for row in np.column_stack(columns))


def _row(values: Iterable[float], form: str = ".10f") -> str:
    return " ".join(f"{value:{form}}" for value in values)
