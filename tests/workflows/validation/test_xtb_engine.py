"""The engine `xtb`: its builders, run, and what it reads off them."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, atoms_to_structure
from aiida_losiko.workflows.validation import Request, load_engine

pytest.importorskip("tblite", reason="the extra xtb")


@pytest.fixture
def measure(losiko_code):
    """Run a task and return the node, what is read, and the last structure."""

    def run(structure, task, **parameters):
        engine = load_engine("xtb")
        request = Request(structure, task, {"losiko": losiko_code}, engine.spell_out(parameters))
        _, node = run_get_node(engine.get_builder(request))
        outputs = engine.outputs_of(node)
        return node, engine.read_set(outputs), outputs.get("structure", outputs.get("structures"))

    return run


def test_energy_minimum_and_density_of_states(measure, aiida_profile):
    start = atoms_to_structure(molecule("CH3OH"))
    _, (here,), none = measure(start, "single_point")
    node, (there,), minimum = measure(start, "relax", protocol="tight")
    assert none is None and node.is_finished_ok
    assert node.inputs.parameters["fmax"] == 0.001
    assert here.converged and here.dos is None and 8 < here.gap < 16
    assert here.energy - 1 < there.energy < here.energy - 0.001
    _, (again,), _ = measure(minimum, "dos")
    assert again.energy == pytest.approx(there.energy, abs=1e-3)
    dos = again.dos
    assert dos.zero == "middle of the gap" and sorted(dos.projected) == ["C", "H", "O"]
    np.testing.assert_allclose(sum(dos.projected.values()), dos.total, atol=1e-6)
    # 14 valence electrons below zero, nothing in the gap.
    step = dos.energies[1] - dos.energies[0]
    assert dos.total[dos.energies < 0].sum() * step == pytest.approx(14, abs=0.02)
    assert dos.total[np.abs(dos.energies) < 0.3 * again.gap].max() < 1e-3


def test_a_set_in_one_job(measure, make_molecules, aiida_profile):
    molecules = make_molecules("H2O", "NH3", "CH4", noise=0.05)
    molecules[1].positions[1] = molecules[1].positions[0] + 1e-4
    node, (water, ammonia, methane), minima = measure(StructureSetData(molecules), "relax")
    assert node.exit_status == 420
    assert water.converged and methane.converged and not ammonia.converged
    assert ammonia.energy is None and "atoms 0 (N) and 1 (H) are 0.00017 Angstrom apart" in ammonia.error
    assert minima.get_identifiers() == ["g2:H2O", "g2:NH3", "g2:CH4"]


def test_not_converged_has_an_energy(measure, aiida_profile):
    node, (result,), minimum = measure(atoms_to_structure(molecule("CH3OH")), "relax", max_steps=1)
    assert node.exit_status == 410
    assert not result.converged and result.energy < -200 and minimum is not None


def test_wrong_values_are_told_before(losiko_code):
    engine = load_engine("xtb")
    with pytest.raises(LosikoError, match="fmax=-1"):
        engine.check(["H"], {}, engine.spell_out({"fmax": -1}))
    engine.check(["H"], {}, engine.spell_out())
