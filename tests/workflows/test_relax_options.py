"""Free or fixed cell, frozen atoms, weights and noise, all through the ports of the work chain."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import Dict, List
from aiida.plugins import CalculationFactory
from ase.build import bulk
from ase.constraints import FixAtoms

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum
from aiida_losiko.core.structures import read_structures
from aiida_losiko.core.structures.weights import WEIGHTS, set_weights
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData, atoms_to_structure
from aiida_losiko.workflows.relax import RelaxWorkChain


@pytest.fixture
def diamond(aiida_profile):
    soap = SoapPowerSpectrum(species=["C"], r_cut=2.3, n_max=4, l_max=3, sigma=0.3)
    atoms = bulk("C")
    atoms.info["identifier"] = "diamond"
    return EnvironmentDatabaseData(EnvironmentDatabase.build([atoms], soap, metadata={"protocol": "carbon"})).store()


@pytest.fixture
def start():
    atoms = bulk("C", cubic=True)
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    atoms.info["identifier"] = "start"
    return atoms


def relax(code, structure, database, inputs=None, **settings):
    overrides = {"relax": {"parameters": {"relax": {"max_steps": 40, "fmax": 1e-3, **settings}}}, "max_iterations": 1}
    builder = RelaxWorkChain.get_builder_from_protocol(code, structure, database, overrides=overrides)
    for name, value in (inputs or {}).items():
        builder[name] = value
    outputs, node = run_get_node(builder)
    assert node.exit_status in (0, 410), node.exit_message
    return outputs


@pytest.mark.parametrize("free", [True, False])
def test_the_cell(losiko_code, start, diamond, free):
    relaxed = relax(losiko_code, StructureSetData([start]), diamond, relax_cell=free)["structures"].get_ase(0)
    ideal, before = bulk("C", cubic=True).get_volume(), start.get_volume()
    assert relaxed.get_volume() == pytest.approx(ideal if free else before, rel=0.03 if free else 1e-12)


def test_frozen_atoms_of_a_set(losiko_code, start, diamond):
    start.set_constraint(FixAtoms([0, 3]))
    relaxed = relax(losiko_code, StructureSetData([start]), diamond, relax_cell=False)["structures"].get_ase(0)
    moved = np.linalg.norm(relaxed.positions - start.positions, axis=1) > 1e-6
    assert moved.tolist() == [False, True, True, False, True, True, True, True]


def test_noise(losiko_code, start, diamond):
    ends = []
    for noise in ((0.0, 0.0, 0), (0.01, 0.5, 0), (0.01, 0.5, 1)):
        settings = dict(zip(("noise_variance", "noise_decay", "seed"), noise, strict=True))
        outputs = relax(losiko_code, StructureSetData([start]), diamond, relax_cell=False, **settings)
        ends.append(outputs["structures"].get_ase(0).positions)
        assert {name: outputs["report"]["settings"][name] for name in settings} == settings
    assert not np.allclose(ends[0], ends[1]) and not np.allclose(ends[1], ends[2])


def test_weights_by_atom(losiko_code, start, diamond):
    """With all weight on one atom the loss is that of this atom alone, whether weights come with a set or by a port."""
    weights = [0.0] * 7 + [2.0]
    weighted = start.copy()
    set_weights(weighted, weights)
    single = atoms_to_structure(start)
    still = {"max_steps": 0, "relax_cell": False}
    by_set = relax(losiko_code, StructureSetData([weighted]), diamond, **still)
    by_port = relax(losiko_code, single, diamond, {"weights": List(weights)}, **still)
    both = relax(losiko_code, single, diamond, {"weights": weights}, weights={"C": 0.5}, **still)
    alike = relax(losiko_code, single, diamond, **still)
    losses = [each["matches"].get_array("loss")[0] for each in (by_set, by_port, both, alike)]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] != pytest.approx(losses[3])
    expected = EnvironmentDatabaseLoss(diamond, start)
    assert losses[0] == pytest.approx(expected([*weights]))
    assert losses[2] == pytest.approx(expected([0.5 * weight for weight in weights]))
    assert by_set["structures"].get_ase(0).arrays[WEIGHTS].tolist() == weights
    in_process = CalculationFactory("losiko.relax_structure")(
        single, diamond, Dict({"relax": still, "weights": weights})
    )
    assert in_process["matches"].get_array("loss")[0] == pytest.approx(losses[0])


class EnvironmentDatabaseLoss:
    """The loss as the library gives it."""

    def __init__(self, database, atoms):
        self.database, self.atoms = database.load(), atoms

    def __call__(self, weights):
        from aiida_losiko.core import relax

        (result,) = relax([self.atoms], self.database, weights=[weights], max_steps=0)
        return result.loss


def test_weights_go_to_the_program(prepare_job, losiko_code, start, diamond, tmp_path):
    inputs = {"code": losiko_code, "structure": atoms_to_structure(start), "database": diamond}
    _, folder = prepare_job("losiko.relax", {**inputs, "weights": List([1.0] * 7 + [3.0])})
    (atoms,) = read_structures(folder.get_abs_path("structures.npz"))
    assert atoms.arrays[WEIGHTS].tolist() == [1.0] * 7 + [3.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "give 8 numbers from 0"), ([-1.0] * 8, "from 0, one for each atom"), (["a"] * 8, "give 8 numbers")],
)
def test_wrong_weights(losiko_code, start, diamond, weights, message):
    with pytest.raises(ValueError, match=message):
        relax(losiko_code, atoms_to_structure(start), diamond, {"weights": List(weights)})
    _, node = CalculationFactory("losiko.relax_structure").run_get_node(
        atoms_to_structure(start), diamond, Dict({"weights": weights})
    )
    assert node.exit_status == 201 and "numbers from 0" in node.exit_message


def test_weights_of_a_set_are_in_the_set(losiko_code, start, diamond):
    with pytest.raises(ValueError, match="give all structures the array 'losiko_weight' instead"):
        relax(losiko_code, StructureSetData([start]), diamond, {"weights": List([1.0] * 8)})
