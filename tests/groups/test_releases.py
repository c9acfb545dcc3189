"""Named releases of databases."""

from __future__ import annotations

import pytest
from aiida.orm import Dict, Group
from aiida.plugins import GroupFactory

from aiida_losiko.core import EnvironmentDatabase
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData
from aiida_losiko.groups import DatabaseGroup, add_release, find_release, list_releases

NAME = "C-H-O@2026-11-20/0.3eV"


@pytest.fixture
def other(small_database, make_molecules):
    """A database of other content."""
    return EnvironmentDatabaseData(
        EnvironmentDatabase.build(make_molecules("H2O"), small_database.descriptor, metadata={"protocol": "water"})
    )


@pytest.fixture
def node(aiida_profile_clean, small_database):
    return EnvironmentDatabaseData(small_database)


def test_a_release_is_found_by_its_name(node, other):
    group = add_release(node, NAME, "for the tests")
    assert GroupFactory("losiko.database") is DatabaseGroup
    assert (group.label, group.description, group.type_string) == (NAME, "for the tests", "losiko.database")
    assert node.is_stored and group.database.uuid == node.uuid
    add_release(other, "water@1")
    assert find_release(NAME).uuid == node.uuid
    assert find_release("water@1").uuid == other.uuid
    assert isinstance(Group.collection.get(label=NAME), DatabaseGroup)


def test_the_list(node, other):
    assert list_releases() == []
    add_release(other, "water@1")
    add_release(node, NAME, "for the tests")
    first, second = list_releases()
    assert (first["name"], second["name"]) == (NAME, "water@1")
    assert (first["description"], first["uuid"], first["protocol"]) == ("for the tests", node.uuid, "balanced")
    assert first["n_environments"] == node.n_environments and first["n_sources"] == 7
    assert second["species"] == ["H", "C", "O"] and second["n_sources"] == 1


def test_a_name_is_given_once(node, other):
    add_release(node, NAME)
    with pytest.raises(LosikoError, match=r"there is a release .*0.3eV., and releases do not change"):
        add_release(other, NAME)
    with pytest.raises(LosikoError, match="there is a release"):
        add_release(other, NAME, force=True)
    assert find_release(NAME).uuid == node.uuid
    assert not other.is_stored


def test_content_has_one_name_unless_forced(node, small_database):
    add_release(node, NAME)
    again = EnvironmentDatabaseData(small_database)
    for same in (node, again):
        with pytest.raises(LosikoError, match=f"this database has the name '{NAME}'"):
            add_release(same, "other@2")
    assert len(list_releases()) == 1
    add_release(again, "other@2", force=True)
    assert [row["name"] for row in list_releases()] == [NAME, "other@2"]


@pytest.mark.parametrize(
    "name", ["", "Si-O", "Si O@1", "@1", "Si@", "Si@1/", "Si@1//a", "Si@1\n", "/Si@1", 5, "a@" + "1" * 255]
)
def test_what_is_no_name(node, name):
    with pytest.raises(LosikoError, match="is no name of a release"):
        add_release(node, name)
    with pytest.raises(LosikoError, match="is no name of a release"):
        DatabaseGroup(name)
    assert not node.is_stored


def test_what_is_no_database(node):
    with pytest.raises(LosikoError, match="not of a Dict"):
        add_release(Dict({}), NAME)
    group = add_release(node, NAME)
    with pytest.raises(LosikoError, match="not a Dict"):
        group.add_nodes(Dict({}).store())


def test_a_release_does_not_change(node, other):
    group = add_release(node, NAME)
    with pytest.raises(LosikoError, match="has a database, which does not change"):
        group.add_nodes(other.store())
    group.add_nodes(node)
    assert group.count() == 1


def test_a_release_that_is_not_there(node, other):
    with pytest.raises(LosikoError, match=r"no release 'Si-O@1' in this profile; there are: none; make one with"):
        find_release("Si-O@1")
    group = add_release(node, NAME)
    with pytest.raises(LosikoError, match=r"did you mean 'C-H-O@2026-11-20/0.3eV'\?\); there are: C-H-O@2026"):
        find_release("C-H-O@2026-11-20")
    group.clear()
    with pytest.raises(LosikoError, match="has 0 nodes in place of its database"):
        find_release(NAME)


def test_a_name_that_another_process_was_faster_to_take(node, other, monkeypatch):
    from aiida.orm import QueryBuilder

    add_release(node, NAME)
    monkeypatch.setattr(QueryBuilder, "count", lambda self: 0)
    with pytest.raises(LosikoError, match="there is a release"):
        add_release(other, NAME)
    monkeypatch.undo()
    assert len(list_releases()) == 1


def test_a_release_travels_in_an_archive(node, aiida_profile_clean, tmp_path):
    from aiida.tools.archive import create_archive, import_archive

    create_archive([add_release(node, NAME)], filename=tmp_path / "release.aiida")
    uuid = node.uuid
    aiida_profile_clean.reset_storage()
    assert list_releases() == []
    import_archive(tmp_path / "release.aiida", create_group=False)
    found = find_release(NAME)
    assert found.uuid == uuid
    assert len(found.load().sources) == 7
