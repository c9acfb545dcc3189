"""The chain from LOSIKO's structure to a table, with a stand-in for VASP: it says nothing about any accuracy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import CalcJobNode
from ase.build import bulk
from ase.io import read

from aiida_losiko.core.metrics import rmsd
from aiida_losiko.data import atoms_to_structure
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.workflows.validate import ValidateWorkChain

OPTIONS = {"withmpi": False, "max_wallclock_seconds": 600}


def alloy(noise, seed=1):
    """Rounded, for mock-vasp knows a structure by its digits."""
    atoms = bulk("TiAl", "cesiumchloride", a=3.12)
    atoms.rattle(noise, seed=seed)
    atoms.positions = np.round(atoms.positions, 6)
    return atoms_to_structure(atoms)


@pytest.fixture
def validate(vasp_code, vasp_family):
    def run(structure, overrides=None, **kwargs):
        overrides = {"potential_family": vasp_family, "k_spacing": 1.2, "dos_points": 101, **(overrides or {})}
        kwargs |= {"overrides": overrides, "options": OPTIONS}
        return run_get_node(ValidateWorkChain.get_builder_from_protocol("vasp", structure, vasp_code, **kwargs))

    return run


def jobs(node):
    return [called for called in node.called_descendants if isinstance(called, CalcJobNode)]


@pytest.mark.slow
def test_start_losiko_and_minimum_with_densities_of_states(validate, tmp_path):
    losiko = alloy(0.04)
    overrides = {"relax_cell": True, "protocol": "paper"}
    outputs, chain = validate(losiko, overrides, starts=alloy(0.2, seed=2), dos=True)
    assert chain.is_finished_ok, chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    assert row["energy_start"] > row["energy_losiko"] > row["energy_minimum"]
    assert row["converged"] and row["problems"] == ""
    assert all(row[f"gap_{stage}"] == pytest.approx(1.5) for stage in ("start", "losiko", "minimum"))
    minimum = outputs["minima"]["structure_0"].get_ase()
    assert minimum.get_chemical_symbols() == losiko.get_ase().get_chemical_symbols()
    assert 0 < row["rmsd_losiko"] == pytest.approx(rmsd(losiko.get_ase(), minimum))
    assert row["volume_change"] != 0
    densities = outputs["dos"]["structure_0"]
    assert sorted(densities) == ["losiko", "minimum", "start"]
    dos = DensityOfStates.from_node(densities["minimum"])
    assert sorted(dos.projected) == ["Al", "Ti"] and len(dos.energies) == 101
    np.testing.assert_allclose(sum(dos.projected.values()), 0.9 * dos.total, rtol=1e-3, atol=1e-6)
    # Every energy leads back to files that mock-vasp gave, which are in the registry.
    written = [job.outputs.retrieved.get_object_content("vasprun.xml") for job in jobs(chain)]
    assert len(written) >= 4
    registry = tmp_path / "registry"
    kept = list(registry.glob("*/out/vasprun.xml"))
    assert sorted({file.read_text() for file in kept}) == sorted(set(written))
    replay(kept[0].parent.parent, registry, tmp_path / "replay")


def replay(known: Path, registry: Path, folder: Path) -> None:
    """mock-vasp finds what the registry has without the program behind it, and refuses what it has not."""
    folder.mkdir()
    for file in (known / "inp").iterdir():
        (folder / file.name).write_text(file.read_text())
    (folder / "POTCAR").write_text("")
    environment = {**os.environ, "MOCK_VASP_REG_BASE": str(registry)}
    command = [Path(sys.executable).parent / "mock-vasp"]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    assert (folder / "vasprun.xml").read_text() == (known / "out" / "vasprun.xml").read_text()
    assert read(folder / "CONTCAR").get_chemical_formula() == "AlTi"
    (folder / "INCAR").write_text((folder / "INCAR").read_text() + "\nIVDW = 12\n")
    refused = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "no match was found" in refused.stdout


@pytest.mark.parametrize(
    ("failure", "told", "problem"),
    [
        # mock-vasp ends as a program that was killed at once: no files.
        ("crash", "exit status 500: Missing critical output", "losiko: no energy"),
        # Killed by the scheduler: files that stop in the middle.
        ("walltime", "exit status 401", "losiko: VASP wrote no total energy: it did not come to its end"),
        ("garbage", "exit status 500: Missing critical output", "losiko: no energy"),
        ("electrons", "exit status 401", "losiko: not converged"),
    ],
)
def test_failures_are_told_and_what_there_is_is_given(validate, failure, told, problem):
    # aiida-vasp tries again where that may help, which would only take time here.
    tries = 1 if "401" in told else 2
    overrides = {"incar": {"system": failure, "nelm": 20}, "max_iterations": tries}
    outputs, chain = validate(alloy(0.04), overrides, compute=["losiko"])
    assert chain.exit_status == 410
    (work,) = (called for called in chain.called if called.process_label == "VaspWorkChain")
    label = f"losiko_single_point_structure_0: VaspWorkChain<{work.pk}> ended with "
    assert label + told in chain.exit_message and "\n" not in chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    # Electrons that are not converged have an energy, which is given and marked.
    assert (row["energy_losiko"] is not None) == (failure == "electrons")
    assert row["problems"] == problem and not row["converged"]
    # The files of the failed job stay.
    (job,) = jobs(chain)
    assert "vasp_output" in job.outputs.retrieved.list_object_names()


def test_atoms_that_do_not_converge(validate):
    overrides = {"max_steps": 2, "max_iterations": 1, "fmax": 1e-3}
    outputs, chain = validate(alloy(0.1), overrides, compute=["losiko", "minimum"])
    assert chain.exit_status == 410
    assert "minimum_relax_structure_0: VaspRelaxWorkChain<" in chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    # The last step's energy and structure, said to be unconverged.
    assert row["energy_minimum"] < row["energy_losiko"] and row["rmsd_losiko"] > 0
    assert not row["converged"]
