"""The calculation functions around glass, oxidised silicon, and several interfaces of the same layers."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.orm import Dict
from aiida.plugins import CalculationFactory
from ase.build import bulk

from aiida_losiko.builders import atoms_near_plane
from aiida_losiko.core.metrics import coordination_numbers
from aiida_losiko.core.structures.content import fixed_mask
from aiida_losiko.data import StructureSetData, atoms_to_structure


def run(name, **inputs):
    """Run a function; return its output, exit status and message."""
    inputs = {key: Dict(value) if isinstance(value, dict) else value for key, value in inputs.items()}
    result, node = CalculationFactory(f"losiko.{name}").run_get_node(**inputs)
    return result, node.exit_status, node.exit_message or ""


@pytest.fixture
def silicon(aiida_profile):
    atoms = bulk("Si", a=5.431, cubic=True)
    atoms.info["identifier"] = "crystal:silicon"
    return StructureSetData.from_atoms([atoms], source={"name": "facts"})


@pytest.fixture
def layers(aiida_profile):
    cleave = CalculationFactory("losiko.cleave")
    silicon = atoms_to_structure(bulk("Si", a=5.431, cubic=True))
    germanium = atoms_to_structure(bulk("Ge", a=5.43, crystalstructure="diamond", cubic=True))
    return [cleave(host, Dict({"miller": [0, 0, 1], "thickness": 12.0})) for host in (silicon, germanium)]


def test_oxidized_silicon_of_several_shares(silicon):
    made, status, _ = run("oxidize", crystal=silicon, parameters={"share": [0.25, 0.5], "supercell": [2, 2, 2]})
    assert status == 0
    assert made.creator.process_type == "aiida.calculations:losiko.oxidize"
    assert made.get_identifiers() == [f"crystal:silicon:oxidized-{share}-seed0" for share in ("0.25", "0.5")]
    assert [atoms.get_chemical_formula() for atoms in made] == ["O32Si64", "O64Si64"]
    assert made.source == {"name": "facts"} and made.get_ase(0).info["oxidized"]["share"] == 0.25
    _, status, message = run("oxidize", crystal=silicon, parameters={"share": 2})
    assert status == 201 and "share" in message
    _, status, message = run("oxidize", crystal=silicon, parameters={"seed": 1})
    assert status == 201 and "'share'" in message


def test_glass_of_silicon(silicon):
    glass, status, _ = run("switch_bonds", crystal=silicon, parameters={"supercell": [2, 2, 2], "trials": 1})
    assert status == 0
    assert glass.get_identifiers() == ["crystal:silicon:glass-seed0"]
    assert (coordination_numbers(glass.get_ase(0)) >= 4).all()
    _, status, message = run("switch_bonds", crystal=silicon, parameters={"steps": 1})
    assert status == 201 and "'steps'" in message


def test_interfaces_at_all_gaps_and_shifts(layers):
    wanted = {"gaps": [1.5, 2.0], "shifts": [[0, 0], [0.5, 0]], "max_strain": 0.01, "vacuum": 8, "movable_within": 4.0}
    made, status, _ = run("interfaces", slab_a=layers[0], slab_b=layers[1], parameters=wanted)
    assert status == 0 and len(made) == 4
    assert [name[name.index(":gap") :] for name in made.get_identifiers()] == [
        f":gap-{gap}:shift-{shift}_0" for gap in ("1.5", "2") for shift in ("0", "0.5")
    ]
    first, second, third = (made.get_ase(index) for index in range(3))
    for atoms in (first, second, third):
        assert (fixed_mask(atoms) == ~atoms_near_plane(atoms, 4.0)).all()
    lower, upper = first.numbers == 14, first.numbers == 32
    assert np.array_equal(first.positions[lower], second.positions[lower])
    moved = first.cell.scaled_positions((second.positions - first.positions)[upper]) - [0.5, 0, 0]
    assert np.allclose(moved, np.round(moved))
    assert third.positions[upper, 2].min() - third.positions[lower, 2].max() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gap": 1.5}, "'gap'"),
        ({"gaps": []}, "gaps"),
        ({"gaps": 1.5}, "gaps"),
        ({"shifts": [0.5, 0.5]}, "shifts"),
        ({"shift": [0, 0]}, "'shift'"),
    ],
)
def test_wrong_gaps_and_shifts(layers, changed, message):
    values = {"gaps": [1.5], "max_strain": 0.01, **changed}
    _, status, told = run("interfaces", slab_a=layers[0], slab_b=layers[1], parameters=values)
    assert status == 201 and message in told


def test_gaps_are_needed(layers):
    _, status, told = run("interfaces", slab_a=layers[0], slab_b=layers[1], parameters={"max_strain": 0.01})
    assert status == 201 and "'gaps'" in told
