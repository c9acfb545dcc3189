"""The job `losiko.xtb`: with the real program and tblite, and with programs that fail."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict
from ase.build import bulk, molecule

from aiida_losiko.calculations.xtb import XtbCalculation
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.structures import read_structures
from aiida_losiko.core.xtb import XtbSettings
from aiida_losiko.data import StructureSetData, atoms_to_structure

pytest.importorskip("tblite", reason="the extra xtb")


def run(code, structure, seconds=None, **parameters):
    name = "structures" if isinstance(structure, StructureSetData) else "structure"
    options = {} if seconds is None else {"max_wallclock_seconds": seconds}
    inputs = {"code": code, name: structure, "parameters": parameters, "metadata": {"options": options}}
    return run_get_node(XtbCalculation, **inputs)


@pytest.fixture
def water(aiida_profile):
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms_to_structure(atoms)


@pytest.fixture
def program(aiida_code_installed, tmp_path):
    """A program of a few lines of Python in the place of `losiko`."""

    def make(text: str):
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable}\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        # The fixture gives the code of that label that there is.
        label = f"fake-{tmp_path.name}"
        return aiida_code_installed(label=label, filepath_executable=str(path), default_calc_job_plugin="losiko.xtb")

    return make


def test_a_minimum(losiko_code, water):
    outputs, job = run(losiko_code, water, fmax=0.005)
    assert job.is_finished_ok, job.exit_message
    report = outputs["report"].get_dict()
    assert (report["method"], report["n_status"], report["units"]["energy"]) == ("GFN2-xTB", {"converged": 1}, "eV")
    assert report["settings"] == XtbSettings(fmax=0.005).to_dict()
    assert report["structures"]["energy"] == pytest.approx([-137.9765], abs=1e-3)
    assert 0 < rmsd(outputs["structure"].get_ase(), water.get_ase()) < 0.2
    # The energy of the structure that is given is the energy that is given.
    again, job = run(losiko_code, outputs["structure"], task="single_point")
    assert "structure" not in again
    assert again["report"]["structures"]["energy"] == pytest.approx(report["structures"]["energy"], abs=1e-6)


def test_a_set_with_one_that_fails(losiko_code, make_molecules, aiida_profile):
    molecules = make_molecules("H2O", "NH3", "CH4", noise=0.05)
    molecules[1].positions[1] = molecules[1].positions[0] + 1e-4
    outputs, job = run(losiko_code, StructureSetData(molecules))
    assert job.exit_status == 420
    assert "1 of 3 molecules failed: g2:NH3" in job.exit_message
    assert outputs["structures"].get_identifiers() == ["g2:H2O", "g2:NH3", "g2:CH4"]
    columns = outputs["report"]["structures"]
    assert columns["status"] == ["converged", "error", "converged"]
    assert [energy is None for energy in columns["energy"]] == [False, True, False]
    np.testing.assert_array_equal(outputs["structures"].get_ase(1).positions, molecules[1].positions)


def test_not_converged(losiko_code, water):
    outputs, job = run(losiko_code, water, max_steps=1)
    assert job.exit_status == 410
    assert "1 of 1 molecules did not converge within max_steps=1" in job.exit_message
    assert outputs["report"]["structures"]["energy"][0] < -137


def test_out_of_time(losiko_code, make_molecules, aiida_profile):
    molecules = [atoms for seed in range(40) for atoms in make_molecules("CH3CH2OH")]
    for number, atoms in enumerate(molecules):
        atoms.info["identifier"] = f"ethanol-{number}"
        atoms.rattle(0.1, seed=number)
    outputs, job = run(losiko_code, StructureSetData(molecules), seconds=1, fmax=1e-5)
    assert job.exit_status == 400
    assert "were stopped by the time limit" in job.exit_message
    assert outputs["report"]["n_status"]["max_seconds"] >= 1
    assert len(outputs["structures"]) == 40


def test_a_charge_that_cannot_be(losiko_code, water):
    outputs, job = run(losiko_code, water, charge=20)
    assert job.exit_status == 201
    assert "charge 20 with multiplicity lowest cannot be" in job.exit_message
    assert "report" not in outputs


def test_without_tblite(program, water):
    """The program where tblite is not installed says what to type there."""
    text = "import sys\nsys.modules['tblite.interface'] = None\nfrom aiida_losiko.cli.losiko import main\nmain()"
    _, job = run(program(text), water)
    assert job.exit_status == 201
    assert "pip install 'aiida-losiko[xtb]'" in job.exit_message


CRASH = "import sys\nprint('Traceback (most recent call last):\\n  out of luck', file=sys.stderr)\nsys.exit(1)"
GARBAGE = "from pathlib import Path\nfor name in ('computed.npz', 'report.json'):\n    Path(name).write_text('?')"
#: The real program, but for what it says.
BENT = """
import json
from pathlib import Path
from aiida_losiko.cli.losiko import main
main(standalone_mode=False)
report = json.loads(Path("report.json").read_text())
{change}
Path("report.json").write_text(json.dumps(report))
"""


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("", 301, "left no computed.npz and report.json"),
        (CRASH, 310, "out of luck"),
        (GARBAGE, 302, "The output computed.npz cannot be read"),
        (BENT.format(change="report = 'garbage'"), 302, "not of the format 'losiko-xtb/1'"),
        (BENT.format(change="report['structures'] *= 2"), 302, "it tells of 2 structures"),
        (BENT.format(change="report['structures'][0]['energy'] = 'low'"), 302, "the energy of structure is 'low'"),
        (BENT.format(change="report['structures'][0]['energy'] = float('nan')"), 302, "the energy of structure is nan"),
        (BENT.format(change="report['structures'][0]['energy'] = None"), 302, "is converged and has no energy"),
        (BENT.format(change="del report['structures'][0]['status']"), 302, "KeyError"),
    ],
    ids=["nothing", "crash", "garbage", "format", "count", "text", "nan", "none", "keys"],
)
def test_programs_that_fail(program, water, text, status, message):
    outputs, job = run(program(text), water, task="single_point")
    assert job.exit_status == status, job.exit_message
    assert message in job.exit_message
    assert "report" not in outputs


def test_input_files(prepare_job, losiko_code, water):
    job, folder = prepare_job(
        "losiko.xtb", {"code": losiko_code, "structure": water, "parameters": Dict({"charge": 1})}
    )
    assert job.codes_info[0].cmdline_params[:2] == ["xtb", "structures.npz"]
    assert "--max-seconds" not in job.codes_info[0].cmdline_params
    with folder.open("parameters.json") as handle:
        assert json.load(handle) == XtbSettings(charge=1).to_dict()
    (atoms,) = read_structures(Path(folder.get_abs_path("structures.npz")))
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]


def test_wrong_inputs(losiko_code, water, make_set):
    with pytest.raises(ValueError, match="did you mean 'fmax'"):
        run(losiko_code, water, fmx=1)
    with pytest.raises(ValueError, match="Si2 is periodic"):
        run(losiko_code, atoms_to_structure(bulk("Si")))
    with pytest.raises(ValueError, match="exactly one"):
        run_get_node(XtbCalculation, code=losiko_code, structure=water, structures=make_set("H2O"))
