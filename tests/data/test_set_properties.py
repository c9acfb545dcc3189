"""What a source says about the entries of a set."""

from __future__ import annotations

import pytest
from aiida.common.exceptions import ModificationNotAllowed, ValidationError
from aiida.orm import load_node

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData
from aiida_losiko.sources import load_source

ROWS = [{"energy_above_hull": 0.1, "space_group": 154}, {"theoretical": True, "energy_above_hull": float("nan")}]


@pytest.fixture
def make(make_molecules, aiida_profile):
    return lambda rows, **kwargs: StructureSetData(make_molecules("H2O", "CH4", noise=0.03), properties=rows, **kwargs)


def test_they_are_kept_beside_the_structures(make):
    node = load_node(make(ROWS).store().pk)
    assert node.property_names == ("energy_above_hull", "space_group", "theoretical")
    assert node.get_properties() == [ROWS[0], {"theoretical": True}]
    assert "energy_above_hull" not in node.get_ase(0).info


def test_they_are_content(make, make_set):
    hashes = [make(rows).store().base.caching.get_hash() for rows in (ROWS, ROWS, [{"a": 1}, {}], [{}, {}])]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert hashes[3] == make_set("H2O", "CH4", noise=0.03).store().base.caching.get_hash()


def test_a_subset_keeps_them(make):
    node = make(ROWS, source={"name": "G2"})
    part = node.subset([1])
    assert (part.get_identifiers(), part.get_properties()) == (["g2:CH4"], [{"theoretical": True}])
    assert part.source == {"name": "G2"}
    assert make(None).subset([1, 0]).get_identifiers() == ["g2:CH4", "g2:H2O"]
    with pytest.raises(LosikoError, match="set of 0 structures"):
        node.subset([])
    with pytest.raises(LosikoError, match="structure 2 of a set of 2"):
        make(None).subset([2])


def test_those_of_a_source(aiida_profile):
    selection = {"elements": ["Si", "O"], "first": 3}
    node = StructureSetData.from_source("reference_crystals", selection=selection).store()
    _, records = load_source("reference_crystals", None, selection)
    assert node.get_properties() == [record.properties for record in records]
    assert node.get_properties()[0]["space_group"] == 154


def test_other_structures_have_none(make, make_molecules):
    node = make(ROWS)
    node.set_structures(make_molecules("CH4"))
    assert node.property_names == ()
    assert node.store().get_properties() == [{}]
    with pytest.raises(ModificationNotAllowed):
        node.set_properties([{"a": 1}])


def test_wrong_properties(make):
    with pytest.raises(LosikoError, match="properties of 1 structures for 2"):
        make(ROWS[:1])
    with pytest.raises(LosikoError, match=r"property 'a' has a value of type object"):
        make([{"a": object()}, {}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "no columns of 2 values"),
        (b'{"energy_above_hull":[1]}', "no columns of 2 values"),
        (b"{", "no columns"),
        (b'{"other":[1,2]}', "other names than the attribute"),
    ],
)
def test_an_altered_file(make, content, message):
    node = make([{"energy_above_hull": 0.0}, {}])
    node.base.repository.put_object_from_bytes(content, StructureSetData.PROPERTIES)
    with pytest.raises(ValidationError, match=message):
        node.store()


def test_a_file_too_many(make):
    node = make(None)
    node.base.repository.put_object_from_bytes(b"{}", StructureSetData.PROPERTIES)
    with pytest.raises(ValidationError, match="holds the files"):
        node.store()
