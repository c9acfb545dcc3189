"""Sets of structures in one node."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.common.exceptions import ModificationNotAllowed, ValidationError
from aiida.orm import load_node
from ase.build import bulk
from ase.constraints import FixAtoms

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures.weights import set_weights
from aiida_losiko.data import StructureSetData
from aiida_losiko.sources import load_source

SOURCE = {"name": "G2", "licence": "LGPL-2.1-or-later", "reference": "10.1063/1.460205"}


def test_what_goes_in_comes_out(make_molecules, aiida_profile):
    silicon = bulk("Si")
    silicon.info["identifier"] = "si"
    silicon.set_constraint(FixAtoms([1]))
    stored = StructureSetData.from_atoms([*make_molecules("H2O", "CH4"), silicon], source=SOURCE).store()
    node = load_node(stored.pk)
    assert (len(node), node.n_structures, node.n_atoms) == (3, 3, 10)
    assert node.elements == ("H", "C", "O", "Si")
    assert node.source == SOURCE
    assert node.get_identifiers() == ["g2:H2O", "g2:CH4", "si"]
    again = node.get_atoms()
    assert [atoms.info["identifier"] for atoms in again] == node.get_identifiers()
    np.testing.assert_array_equal(again[2].positions, silicon.positions)
    assert again[2].pbc.all()
    assert again[2].constraints[0].index.tolist() == [1]
    assert node.base.attributes.get("formulas") == {"CH4": 1, "H2O": 1, "Si2": 1}


def test_no_identifier_is_in_the_database(make_set):
    node = make_set("H2O", "CH4", source=SOURCE)
    assert "g2:" not in str(node.base.attributes.all)


def test_iteration_and_single_structures(make_set):
    node = make_set("H2O", "CH4")
    assert [len(atoms) for atoms in node] == [3, 5]
    assert node.get_ase(-1).get_chemical_formula() == "CH4"
    assert node.index_of("g2:CH4") == 1
    structure = node.get_structure(0)
    assert structure.label == "g2:H2O"
    assert structure.get_formula() == "H2O"
    with pytest.raises(LosikoError, match="structure 2 of a set of 2"):
        node.get_ase(2)
    with pytest.raises(LosikoError, match=r"no structure 'g2:C6H6'.*g2:H2O"):
        node.index_of("g2:C6H6")


def test_structures_handed_out_are_copies(make_set):
    node = make_set("H2O").store()
    node.get_ase(0).positions += 1.0
    node.get_atoms()[0].info["identifier"] = "other"
    assert node.get_ase(0).info["identifier"] == "g2:H2O"
    np.testing.assert_array_equal(node.get_ase(0).positions, make_set("H2O").get_ase(0).positions)


def test_identifiers_have_a_default_and_must_be_unique(make_molecules, aiida_profile):
    molecules = make_molecules("H2O", "CH4")
    assert StructureSetData(molecules, ["a", "b"]).get_identifiers() == ["a", "b"]
    for atoms in molecules:
        atoms.info.clear()
    assert StructureSetData(molecules).get_identifiers() == ["structure-0", "structure-1"]
    with pytest.raises(LosikoError, match="'a' is there more than once"):
        StructureSetData(molecules, ["a", "a"])
    with pytest.raises(LosikoError, match="1 identifiers for 2 structures"):
        StructureSetData(molecules, ["a"])
    with pytest.raises(LosikoError, match="identifier of structure 1 is empty"):
        StructureSetData(molecules, ["a", ""])
    with pytest.raises(LosikoError, match="set of 0 structures"):
        StructureSetData([])


def test_weights_are_those_of_all_structures(make_molecules, aiida_profile):
    molecules = make_molecules("H2O", "CH4")
    set_weights(molecules[0], [1.0, 0.0, 2.0])
    with pytest.raises(LosikoError, match="1 of 2 structures have the array 'losiko_weight', structure 1 has not"):
        StructureSetData(molecules)
    set_weights(molecules[1], [1.0] * 5)
    assert StructureSetData(molecules).store().get_ase(0).arrays["losiko_weight"].tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "x", "author": "y"}, "unknown source key 'author'"),
        ({"url": "/home/me/qm9.tar"}, "local path"),
        ({"url": "file:///home/me/qm9.tar"}, "local path"),
        ("G2", "give a mapping"),
        ({"version": object()}, "not JSON-able"),
        ({"version": float("nan")}, "finite"),
    ],
)
def test_bad_sources(make_molecules, aiida_profile, source, message):
    with pytest.raises(LosikoError, match=message):
        StructureSetData(make_molecules("H2O"), source=source)


def test_a_source_of_the_package(aiida_profile):
    node = StructureSetData.from_source("g2", selection={"elements": ["H", "O"]}).store()
    info, records = load_source("g2", selection={"elements": ["H", "O"]})
    assert node.get_identifiers() == [record.identifier for record in records]
    assert node.source["name"] == info.name
    assert node.source["licence"] == info.licence


def test_equal_content_means_equal_hash(make_set):
    first = make_set("H2O", "CH4", source=SOURCE)
    assert first.find_stored() is None
    first.store()
    second = make_set("H2O", "CH4", source=SOURCE)
    assert second.find_stored().uuid == first.uuid
    assert second.store_once().uuid == first.uuid
    assert second.store().base.caching.get_hash() == first.base.caching.get_hash()
    for other in (make_set("CH4", "H2O", source=SOURCE), make_set("H2O", "CH4"), make_set("H2O", "CH4", noise=1e-3)):
        assert other.find_stored() is None


def test_validation_at_storing(make_set):
    node = make_set("H2O")
    node.base.attributes.set("n_atoms", 4)
    with pytest.raises(ValidationError, match="attributes say"):
        node.store()
    node = make_set("H2O")
    node.base.attributes.set("elements", ["H"])
    with pytest.raises(ValidationError, match="other elements"):
        node.store()
    node = make_set("H2O")
    node.base.repository.put_object_from_bytes(b"no set", StructureSetData.FILENAME)
    with pytest.raises(ValidationError, match="cannot be read"):
        node.store()
    node = make_set("H2O")
    content = node.base.repository.get_object_content(StructureSetData.FILENAME, "rb")
    node.base.repository.put_object_from_bytes(content[:-20], StructureSetData.FILENAME)
    with pytest.raises(ValidationError, match="cannot be read"):
        node.store()
    with pytest.raises(ValidationError, match="use set_structures"):
        StructureSetData().store()
    node = make_set("H2O")
    node.base.attributes.set("source", {"path": "x"})
    with pytest.raises(ValidationError, match="unknown source key"):
        node.store()


def test_a_stored_set_does_not_change(make_set, make_molecules):
    node = make_set("H2O").store()
    with pytest.raises(ModificationNotAllowed):
        node.set_structures(make_molecules("CH4"))
    clone = node.clone()
    clone.set_structures(make_molecules("CH4"))
    assert (clone.get_identifiers(), node.get_identifiers()) == (["g2:CH4"], ["g2:H2O"])


def test_from_file(make_molecules, tmp_path, aiida_profile):
    from aiida_losiko.core.structures import write_any

    write_any(tmp_path / "set.extxyz", make_molecules("H2O", "CH4"))
    assert StructureSetData.from_file(tmp_path / "set.extxyz").get_identifiers() == ["g2:H2O", "g2:CH4"]
    (tmp_path / "empty.xyz").touch()
    with pytest.raises(LosikoError, match="empty"):
        StructureSetData.from_file(tmp_path / "empty.xyz")


def test_pictures_of_the_graph_say_what_it_is(make_set, database_node):
    assert make_set("H2O", "CH4").get_description() == "2 structures of H, C, O"
    assert make_set("H2O", source={"name": "G2"}).get_description() == "1 structure of H, O, G2"
    counts = ", ".join(f"{count} {symbol}" for symbol, count in database_node.n_environments.items())
    assert database_node.get_description() == f"{counts} environments of 7 structures"
