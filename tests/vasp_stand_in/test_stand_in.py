"""The stand-in for VASP writes what programs for VASP read, and its forces belong to its energies."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from .install import write_potentials

PROGRAM = Path(__file__).with_name("program.py")
KPOINTS = "mesh\n0\nGamma\n2 2 3\n0 0 0\n"


def run(folder: Path, atoms, **tags) -> subprocess.CompletedProcess:
    """Run the program as VASP is run."""
    write(folder / "POSCAR", atoms, format="vasp")
    (folder / "KPOINTS").write_text(KPOINTS)
    (folder / "INCAR").write_text("".join(f"{name.upper()} = {value}\n" for name, value in tags.items()))
    return subprocess.run([sys.executable, PROGRAM], cwd=folder, capture_output=True, text=True, check=False)


def alloy(noise: float):
    atoms = bulk("TiAl", "cesiumchloride", a=3.12) * (2, 1, 1)
    atoms.rattle(noise, seed=2)
    return atoms


def test_a_relaxation_in_the_format_of_vasp(tmp_path):
    """ASE and pymatgen read the same numbers, which are those of the potential; the start has the largest energy."""
    done = run(tmp_path, alloy(0.1), nsw=60, ibrion=2, isif=3, ediffg=-0.02, ispin=2, lorbit=11, nedos=101)
    assert done.returncode == 0, done.stderr
    assert "its numbers mean nothing" in done.stdout
    steps = read(tmp_path / "vasprun.xml", ":")
    energies = [step.get_potential_energy() for step in steps]
    assert len(steps) > 3 and energies[0] == max(energies) and energies[-1] < energies[0] - 0.05
    assert np.abs(steps[-1].get_forces()).max() < 0.02
    np.testing.assert_allclose(read(tmp_path / "CONTCAR").positions, steps[-1].positions, atol=1e-6)
    from pymatgen.io.vasp.outputs import Vasprun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = Vasprun(tmp_path / "vasprun.xml", parse_potcar_file=False)
    assert result.converged and float(result.final_energy) == pytest.approx(energies[-1], abs=1e-6)
    assert result.eigenvalue_band_properties[0] == pytest.approx(1.5, abs=0.01)
    assert sorted(element.symbol for element in result.complete_dos.get_element_dos()) == ["Al", "Ti"]


def test_forces_and_stress_belong_to_the_energy(tmp_path):
    moved, step = alloy(0.1), 1e-3
    run(tmp_path, moved)
    here = read(tmp_path / "vasprun.xml")
    energies = {}
    for sign in (-1, 1):
        for name in ("position", "strain"):
            other = moved.copy()
            if name == "position":
                other.positions[1, 2] += sign * step
            else:
                other.set_cell(other.cell.array * [1 + sign * step, 1, 1], scale_atoms=True)
            run(tmp_path, other)
            energies[name, sign] = read(tmp_path / "vasprun.xml").get_potential_energy()
    slope = {name: (energies[name, 1] - energies[name, -1]) / (2 * step) for name in ("position", "strain")}
    assert here.get_forces()[1, 2] == pytest.approx(-slope["position"], abs=1e-4)
    assert here.get_stress()[0] == pytest.approx(slope["strain"] / here.get_volume(), abs=1e-5)


def test_failures(tmp_path):
    assert run(tmp_path, alloy(0.1), system="crash").returncode == 139
    assert not (tmp_path / "OUTCAR").exists()
    run(tmp_path, alloy(0.1), system="walltime", nsw=5, ibrion=2)
    assert "timing" not in (tmp_path / "OUTCAR").read_text()
    assert "</modeling>" not in (tmp_path / "vasprun.xml").read_text()
    run(tmp_path, alloy(0.1), system="electrons", nelm=20)
    assert "(  20)" in (tmp_path / "OUTCAR").read_text()


def test_placeholders_are_no_potentials_of_vasp(tmp_path):
    files = sorted(write_potentials(tmp_path).glob("*/POTCAR"))
    assert len(files) > 5
    for file in files:
        text = file.read_text()
        assert "this is no potential" in text and "invented" in text and len(text.splitlines()) < 20
