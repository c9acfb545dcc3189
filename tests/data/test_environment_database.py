"""Environment databases as nodes."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from aiida.common.exceptions import ValidationError
from aiida.orm import QueryBuilder, load_node

from aiida_losiko.core import EnvironmentDatabase
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData


def test_attributes_are_those_of_the_database(database_node, small_database):
    node = load_node(database_node.pk)
    assert node.species == ("H", "C", "O")
    assert node.n_environments == small_database.n_environments
    assert node.n_sources == 7
    assert node.descriptor["r_cut"] == 3.0
    assert node.protocol == "balanced"
    assert node.summary["reach"].keys() == {"H", "C", "O"}
    assert "g2:" not in str(node.base.attributes.all)
    query = QueryBuilder().append(EnvironmentDatabaseData, filters={"attributes.descriptor.n_max": 3})
    assert node.pk in [found.pk for (found,) in query.all()]


def test_a_stored_database_is_opened_in_place(database_node, small_database):
    node = load_node(database_node.pk)
    opened = node.load()
    assert opened is node.load()
    assert node._plain_file().stat().st_size == node.base.repository.get_object_size(node.FILENAME)
    np.testing.assert_array_equal(opened.vectors("C").numpy(), small_database.vectors("C").numpy())
    assert opened.origins("C", 0) == small_database.origins("C", 0)


def test_a_packed_repository_goes_by_a_copy_that_is_removed(database_node, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    node = load_node(database_node.pk)
    monkeypatch.setattr(EnvironmentDatabaseData, "_plain_file", lambda self: None)
    opened = node.load()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(opened.vectors("H")) == node.n_environments["H"]
    del opened
    node._database = None
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_real_packing_keeps_the_database_readable(aiida_profile_clean, small_database):
    node = EnvironmentDatabaseData(small_database).store()
    node.backend.get_repository().maintain(live=False)
    fresh = load_node(node.pk)
    assert fresh.load().verify() is None
    assert fresh.load().n_environments == small_database.n_environments


def test_from_file_and_back(small_database, tmp_path, aiida_profile):
    small_database.save(tmp_path / "db")
    node = EnvironmentDatabaseData.from_file(tmp_path / "db").store()
    assert node.export_file(tmp_path / "copy").read_bytes() == (tmp_path / "db").read_bytes()
    same = EnvironmentDatabaseData(small_database)
    assert same.find_stored().base.caching.get_hash() == node.base.caching.get_hash()
    assert EnvironmentDatabase.load(tmp_path / "copy", verify=True).sources == small_database.sources


def test_bad_files(small_database, tmp_path, aiida_profile):
    path = tmp_path / "db"
    small_database.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LosikoError, match="truncated"):
        EnvironmentDatabaseData.from_file(path)
    with pytest.raises(LosikoError):
        EnvironmentDatabaseData.from_file(tmp_path / "none")


def test_validation_at_storing(small_database, aiida_profile):
    node = EnvironmentDatabaseData(small_database)
    node.base.attributes.set("n_sources", 8)
    with pytest.raises(ValidationError, match="n_sources 7, but the attribute says 8"):
        node.store()
    node = EnvironmentDatabaseData(small_database)
    content = node.base.repository.get_object_content(node.FILENAME, "rb")
    node.base.repository.put_object_from_bytes(content[:-1], node.FILENAME)
    with pytest.raises(ValidationError, match="truncated"):
        node.store()
    with pytest.raises(ValidationError, match="use set_database"):
        EnvironmentDatabaseData().store()


def test_an_unstored_node_opens_as_well(small_database, aiida_profile):
    node = EnvironmentDatabaseData(small_database)
    assert node._plain_file() is None
    assert Path(node.FILENAME).suffix == ".safetensors"
    assert node.load().n_environments == small_database.n_environments
