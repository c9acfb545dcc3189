"""Structures between AiiDA and ASE."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.orm import StructureData
from ase.build import bulk, molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import atoms_to_structure, node_to_atoms, structure_to_atoms


@pytest.mark.parametrize("atoms", [molecule("CH3OH"), bulk("NaCl", "rocksalt", a=5.6)], ids=["molecule", "crystal"])
def test_round_trip(aiida_profile, atoms):
    node = atoms_to_structure(atoms).store()
    again = structure_to_atoms(node, fixed_atoms=[1], identifier="x")
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-14)
    np.testing.assert_allclose(again.cell.array, atoms.cell.array, atol=1e-14)
    assert (again.pbc == atoms.pbc).all()
    assert again.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert again.constraints[0].index.tolist() == [1]
    assert again.info["identifier"] == "x"


def test_kinds_are_kept(aiida_profile):
    node = StructureData(cell=np.eye(3) * 4)
    node.append_atom(symbols="Fe", position=(0, 0, 0), name="Fe1")
    node.append_atom(symbols="Fe", position=(2, 2, 2), name="Fe2")
    atoms = node.get_ase()
    atoms.positions += 0.1
    moved = atoms_to_structure(atoms, like=node).store()
    assert [site.kind_name for site in moved.sites] == ["Fe1", "Fe2"]
    np.testing.assert_allclose([site.position for site in moved.sites], atoms.positions)


def test_other_atoms_than_the_original(aiida_profile):
    node = atoms_to_structure(molecule("H2O"))
    with pytest.raises(LosikoError, match="same elements in the same order"):
        atoms_to_structure(molecule("CO"), like=node)


def test_partial_occupancies_are_refused(aiida_profile):
    node = StructureData(cell=np.eye(3) * 4)
    node.append_atom(symbols=("Ba", "Ca"), weights=(0.9, 0.1), position=(0, 0, 0), name="mixed")
    with pytest.raises(LosikoError, match=r"'mixed'.*partially occupied"):
        structure_to_atoms(node)


@pytest.mark.parametrize("index", [3, -1, True, 1.0, "H"])
def test_fixed_atoms_must_be_atoms(aiida_profile, index):
    with pytest.raises(LosikoError, match="from 0 to 2"):
        structure_to_atoms(atoms_to_structure(molecule("H2O")), [index])


def test_either_type_to_a_list(make_set):
    both = make_set("H2O", "CH4")
    assert [atoms.info["identifier"] for atoms in node_to_atoms(both)] == ["g2:H2O", "g2:CH4"]
    assert [atoms.info["identifier"] for atoms in node_to_atoms(both.get_structure(1))] == ["structure"]
