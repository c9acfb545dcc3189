"""The calculation functions around the builders."""

from __future__ import annotations

import re

import numpy as np
import pytest
from aiida.orm import Dict
from aiida.plugins import CalculationFactory
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from aiida_losiko.builders import atoms_near_plane
from aiida_losiko.core.metrics import density
from aiida_losiko.data import StructureSetData, atoms_to_structure


def run(name, **inputs):
    """Run a function; return its output, exit status and message."""
    inputs = {key: Dict(value) if isinstance(value, dict) else value for key, value in inputs.items()}
    result, node = CalculationFactory(f"losiko.{name}").run_get_node(**inputs)
    return result, node.exit_status, node.exit_message or ""


@pytest.fixture
def licoo2(aiida_profile) -> Atoms:
    """R-3m, hexagonal axes (Orman and Wiseman, Acta Cryst. C40, 12, 1984)."""
    sites = [(0, 0, 0.5), (0, 0, 0), (0, 0, 0.2605)]
    atoms = crystal(["Li", "Co", "O"], sites, spacegroup=166, cellpar=[2.816, 2.816, 14.054, 90, 90, 120])
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def test_random_cells(aiida_profile):
    parameters = {"composition": "C", "count": 4, "density": [3.7, 4.2], "formula_units": [1, 8], "seed": 3}
    first, status, _ = run("random_cells", parameters=parameters)
    second, _, _ = run("random_cells", parameters=parameters)
    third, _, _ = run("random_cells", parameters=parameters | {"count": 1, "first": 3})
    assert status == 0
    assert isinstance(first, StructureSetData)
    assert first.creator.process_type == "aiida.calculations:losiko.random_cells"
    assert first.base.repository.hash() == second.base.repository.hash()
    assert all(3.7 <= density(atoms) <= 4.2 for atoms in first)
    assert third.get_identifiers() == first.get_identifiers()[3:]
    assert np.array_equal(third.get_ase(0).positions, first.get_ase(3).positions)
    assert first.get_ase(0).info["random_cell"]["seed"] == 3


def test_one_lithium_by_hydrogen(licoo2):
    result, status, _ = run(
        "substitute", host=atoms_to_structure(licoo2), parameters={"old": "Li", "new": "H", "n_atoms": 100}
    )
    assert status == 0
    assert result.get_identifiers() == ["LiCoO2:H_Li-0"]
    atoms = result.get_ase(0)
    assert 85 <= len(atoms) <= 115
    assert [atom.index for atom in atoms if atom.symbol == "H"] == [atoms.info["defect"]["index"]]


def test_defects_of_a_set_keep_names_and_source(licoo2):
    licoo2.info["identifier"] = "mp-22526"
    silicon = bulk("Si")
    silicon.info["identifier"] = "mp-149"
    hosts = StructureSetData.from_atoms([licoo2, silicon], source={"name": "two crystals"})
    voids, status, _ = run("interstitial", host=hosts, parameters={"new": "H", "supercell": [2, 2, 1], "orbit": 0})
    assert status == 0
    assert voids.get_identifiers() == ["mp-22526:H_i-0", "mp-149:H_i-0"]
    assert [len(atoms) for atoms in voids] == [49, 9]
    assert voids.source == {"name": "two crystals"}
    gone, status, _ = run(
        "vacancy", host=atoms_to_structure(licoo2), parameters={"element": "O", "supercell": [2, 2, 1]}
    )
    assert status == 0
    assert gone.get_identifiers() == ["LiCoO2:v_O-0"]
    assert gone.get_ase(0).symbols.count("O") == 23


def test_an_interface_from_bulk_to_frozen_atoms(aiida_profile):
    glass = {"composition": "SiO2", "density": [2.2, 2.2], "formula_units": 20, "angles": [90, 90], "max_aspect": 1.2}
    amorphous, _, _ = run("random_cells", parameters=glass)
    slab_a, status, _ = run(
        "cleave", structure=atoms_to_structure(bulk("Si")), parameters={"miller": [0, 0, 1], "thickness": 10}
    )
    assert (status, slab_a.get_identifiers()) == (0, ["Si:slab-0_0_1-0"])
    slab_b, status, _ = run("cleave", structure=amorphous, parameters={})
    assert status == 0
    parameters = {"gap": 1.8, "max_strain": 0.1, "max_area": 600, "movable_within": 4}
    result, status, _ = run("interface", slab_a=slab_a, slab_b=slab_b, parameters=parameters)
    assert status == 0
    atoms = result.get_ase(0)
    near = atoms_near_plane(atoms, 4.0)
    assert atoms.constraints[0].index.tolist() == np.flatnonzero(~near).tolist()
    assert 0 < near.sum() < len(atoms)
    assert set(atoms.arrays["layer"]) == {0, 1}
    assert result.get_identifiers() == [
        f"Si:slab-0_0_1-0|{amorphous.get_identifiers()[0]}:layer-0.00-{_height(amorphous)}"
    ]
    # from the interface back to what the crystal was
    assert result.creator.inputs.slab_a.creator.inputs.structure.get_formula() == "Si2"
    free, _, _ = run("interface", slab_a=slab_a, slab_b=slab_b, parameters=parameters | {"movable_within": 100.0})
    assert not free.get_ase(0).constraints


def _height(node: StructureSetData) -> str:
    return f"{node.get_ase(0).cell[2, 2]:.2f}"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("random_cells", {"composition": "C"}, "parameters have no 'density': it is needed"),
        ("random_cells", {"composition": "C", "density": [3, 4], "sed": 1}, "unknown key 'sed' in parameters"),
        ("random_cells", {"composition": "C", "density": [4, 3]}, r"density=\[4, 3\] is not allowed"),
        ("substitute", {"old": "Li"}, "parameters have no 'new'"),
        ("substitute", {"old": "Na", "new": "H"}, "'Na' is not in"),
        ("substitute", {"old": "Li", "new": "H", "host": 1}, "unknown key 'host'"),
        ("vacancy", {"element": "Li", "orbit": 3}, "orbit=3 of 1 orbits of Li"),
        ("interstitial", {"new": "H", "minimal_distance": 5.0}, "leaves no void"),
        ("cleave", {"miller": [0, 0, 1]}, "no 'thickness'"),
        ("cleave", {"thickness": 1000.0}, "at most the height of the cell"),
        ("cleave", {"termination": 1}, "unknown key 'termination'"),
        ("interface", {"gap": 2.0}, "no 'max_strain'"),
        ("interface", {"gap": 2.0, "max_strain": 0.1}, "slab_a Co3Li3O6 is said to be periodic in all directions"),
        (
            "interface",
            {"gap": 2.0, "max_strain": 0.1, "movable_within": -1},
            "movable_within is -1: give a number of at least 0.1 Angstrom",
        ),
    ],
)
def test_wrong_input(licoo2, name, parameters, message):
    structure = atoms_to_structure(licoo2)
    nodes = {"random_cells": (), "cleave": ("structure",), "interface": ("slab_a", "slab_b")}.get(name, ("host",))
    _, status, text = run(name, parameters=parameters, **dict.fromkeys(nodes, structure))
    assert status == 201
    assert re.search(message, text), text
    assert "\n" not in text


def test_a_set_of_several_is_no_slab(licoo2):
    slabs = StructureSetData.from_atoms([licoo2, licoo2], ["a", "b"])
    _, status, text = run("interface", slab_a=slabs, slab_b=slabs, parameters={"gap": 2.0, "max_strain": 0.1})
    assert status == 201
    assert "slab_a is a set of 2 structures" in text
