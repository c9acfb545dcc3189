"""Water by PySCF itself, through `losiko.validate`."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_losiko.data import atoms_to_structure
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.workflows.validate import ValidateWorkChain

pytest.importorskip("aiida_pyscf", reason="the extra pyscf")


def test_water(aiida_profile, aiida_code_installed):
    """Bond and angle of the minimum are those that B3LYP/6-31G(d) is known for."""
    code = aiida_code_installed(
        label="pyscf",
        filepath_executable=sys.executable,
        default_calc_job_plugin="pyscf.base",
        prepend_text="export OMP_NUM_THREADS=1",
    )
    start = molecule("H2O")
    start.positions[1] += [0.0, 0.06, 0.03]
    builder = ValidateWorkChain.get_builder_from_protocol(
        "pyscf",
        atoms_to_structure(start),
        code,
        protocol="b3lyp-6-31gd",
        overrides={"grid_level": 1},
        compute=["losiko", "minimum"],
        dos=True,
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    minimum = outputs["minima"]["structure_0"].get_ase()
    assert minimum.get_chemical_symbols() == ["O", "H", "H"]
    for hydrogen in (1, 2):
        assert minimum.get_distance(0, hydrogen) == pytest.approx(0.9687, abs=0.001)
    assert minimum.get_angle(1, 0, 2) == pytest.approx(103.6, abs=0.3)
    rows = outputs["table"]["rows"]
    assert rows["converged"] == [True] and rows["energy_minimum"][0] < rows["energy_losiko"][0] - 0.01
    assert 9 < rows["gap_minimum"][0] < 10
    density = DensityOfStates.from_node(outputs["dos"]["structure_0"]["minimum"])
    step = np.diff(density.energies)[0]
    assert density.total[density.energies < 0].sum() * step == pytest.approx(10, abs=0.02)
