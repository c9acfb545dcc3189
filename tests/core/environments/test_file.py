"""The database file: equal bytes for equal content, read lazily, and nothing altered goes unnoticed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

from aiida_losiko.core.descriptors import SoapPowerSpectrum
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.environments.file import FORMAT, MappedTensors, Tensors, open_tensors, write_tensors
from aiida_losiko.core.errors import LosikoError

NAMES = ("CH4", "H2O", "CH3OH", "C2H6", "CO2", "H2CO")


@pytest.fixture(scope="module")
def database():
    soap = SoapPowerSpectrum(["H", "C", "O"], r_cut=2.5, n_max=2, l_max=1, sigma=0.5)
    metadata = {"licence": "CC0 — öffentlich", "protocol": "balanced"}
    return EnvironmentDatabase.build([molecule(name) for name in NAMES], soap, [*NAMES[:-1], "é:1"], metadata=metadata)


@pytest.fixture
def path(database, tmp_path):
    database.save(tmp_path / "known.db")
    return tmp_path / "known.db"


def use_everything(path):
    """Do what a person can do with a database; an altered byte has to be found on the way."""
    database = EnvironmentDatabase.load(path)
    database.summary()
    for symbol in list(database.n_environments):
        database.match(database.vectors(symbol), symbol)
        database.origins(symbol, 0)
        database.leave_one_out(symbol)


def test_round_trip(database, path):
    loaded = EnvironmentDatabase.load(path, verify=True)
    assert loaded.sources == database.sources
    assert loaded.summary() == database.summary()
    assert loaded.descriptor.parameters == database.descriptor.parameters
    assert loaded.species == database.species == ("H", "C", "O")
    for symbol in database.n_environments:
        assert torch.equal(loaded.vectors(symbol), database.vectors(symbol))
        np.testing.assert_array_equal(loaded.leave_one_out(symbol), database.leave_one_out(symbol))
        for index in range(database.n_environments[symbol]):
            assert loaded.origins(symbol, index) == database.origins(symbol, index)
    atoms = molecule("CH3OH")
    vectors = database.descriptor.create(atoms)[atoms.numbers == 1]
    for a, b in zip(loaded.match(vectors, "H", 3), database.match(vectors, "H", 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_content_gives_equal_bytes(database, path, tmp_path):
    database.save(tmp_path / "again.db")
    EnvironmentDatabase.load(path).save(tmp_path / "copy.db")
    soap = SoapPowerSpectrum(["O", "C", "H"], r_cut=2.5, n_max=2, l_max=1, sigma=0.5)
    metadata = {"protocol": "balanced", "licence": "CC0 — öffentlich"}
    rebuilt = EnvironmentDatabase.build(map(molecule, NAMES), soap, database.sources, metadata=metadata)
    rebuilt.save(tmp_path / "rebuilt.db")
    for name in ("again.db", "copy.db", "rebuilt.db"):
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def test_a_database_can_be_saved_over_its_own_file(path):
    before = path.read_bytes()
    loaded = EnvironmentDatabase.load(path)
    loaded.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["known.db"]


def test_part_of_a_database_can_be_saved(path, tmp_path):
    part = EnvironmentDatabase.load(path).without(["CH4"])
    part.save(tmp_path / "part.db")
    loaded = EnvironmentDatabase.load(tmp_path / "part.db", verify=True)
    assert loaded.summary() == part.summary()
    assert "CH4" not in loaded.sources


def test_the_package_safetensors_reads_the_file(database, path):
    from safetensors.torch import load_file

    tensors = load_file(path)
    assert torch.equal(tensors["vectors/H"], database.vectors("H"))


def test_every_byte_counts(path, tmp_path):
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    altered = tmp_path / "altered.db"
    table = json.loads(content[8:header_end])
    del table["__metadata__"]
    spans = [entry["data_offsets"] for entry in table.values()]
    assert min(end - start for start, end in spans) > 0
    data = [header_end + place for start, end in spans for place in (start, (start + end) // 2, end - 1)]
    for position in [*range(8), *range(8, header_end, 3), *data]:
        for flip in (0x01, 0x20):
            changed = bytearray(content)
            changed[position] ^= flip
            altered.write_bytes(changed)
            with pytest.raises(LosikoError) as caught:
                use_everything(altered)
            assert "\n" not in str(caught.value)


def test_altered_data_is_found_by_each_use(database, path):
    content = bytearray(path.read_bytes())
    start = content.index(database.vectors("C").numpy().tobytes())
    content[start + 5] ^= 0x10
    path.write_bytes(content)
    loaded = EnvironmentDatabase.load(path)  # opened without reading the vectors
    with pytest.raises(LosikoError, match=r"vectors/C.*altered"):
        loaded.match(database.vectors("C"), "C")
    with pytest.raises(LosikoError, match="vectors/C"):
        loaded.searcher("C")
    with pytest.raises(LosikoError, match="vectors/C"):
        loaded.without(["CH4"])
    with pytest.raises(LosikoError, match="vectors/C"):
        loaded.save(path.with_name("copy.db"))
    assert not path.with_name("copy.db").exists()
    with pytest.raises(LosikoError, match="vectors/C"):
        loaded.verify()
    with pytest.raises(LosikoError, match="vectors/C"):
        EnvironmentDatabase.load(path, verify=True)
    loaded.match(database.vectors("H"), "H")  # another block is sound


def test_altered_origins_are_found(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last tensor of the file are the names of the sources
    path.write_bytes(content)
    loaded = EnvironmentDatabase.load(path)
    with pytest.raises(LosikoError, match="source_bytes"):
        loaded.origins("H", 0)


def test_truncated_files(path):
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for length in (0, 3, 8, 9, header_end // 2, header_end - 1, header_end, header_end + 7, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(LosikoError):
            EnvironmentDatabase.load(path)
    path.write_bytes(content[:-1])
    with pytest.raises(LosikoError, match=r"truncated: it has .* bytes"):
        EnvironmentDatabase.load(path)
    path.write_bytes(content + b"x")
    with pytest.raises(LosikoError, match="too long"):
        EnvironmentDatabase.load(path)


def test_foreign_files(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "text").write_text("3\nwater\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"vectors": np.ones(100)}))
    (tmp_path / "empty").write_bytes(b"")
    np.savez(tmp_path / "arrays.npz", a=np.ones(5))
    save_file({"a": torch.ones(3)}, tmp_path / "plain")
    save_file({"a": torch.ones(3)}, tmp_path / "other", metadata={"format": "pt"})
    for name in ("text", "pickle", "empty", "arrays.npz", "plain", "other"):
        with pytest.raises(LosikoError, match="is not an environment database"):
            EnvironmentDatabase.load(tmp_path / name)
    for name in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(LosikoError, match="cannot read"):
            EnvironmentDatabase.load(name)


def test_unknown_version(path):
    path.write_bytes(path.read_bytes().replace(FORMAT.encode(), b"losiko-environments/9"))
    with pytest.raises(LosikoError, match=r"'losiko-environments/9'.*update"):
        EnvironmentDatabase.load(path)


def test_no_pickle(monkeypatch, database, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Unpickler", "Pickler"):
        monkeypatch.setattr(pickle, name, refuse)
    database.save(tmp_path / "known.db")
    use_everything(tmp_path / "known.db")


def test_a_failed_save_leaves_the_file_alone(database, path, tmp_path):
    before = path.read_bytes()
    bad = EnvironmentDatabase.load(path)
    bad.metadata["function"] = print
    with pytest.raises(LosikoError, match="metadata cannot be written"):
        bad.save(path)
    assert path.read_bytes() == before
    with pytest.raises(LosikoError, match="does not exist"):
        database.save(tmp_path / "no" / "folder.db")


def test_another_descriptor_is_refused(path):
    other = SoapPowerSpectrum(["H", "C", "O"], r_cut=3.0, n_max=2, l_max=1, sigma=0.5)
    with pytest.raises(LosikoError, match="other descriptor settings"):
        EnvironmentDatabase.load(path, descriptor=other)


def large_file(path, n=100_000):
    rng = np.random.default_rng(0)
    vectors = rng.random((n, 30), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"s{i}" for i in range(n // 10)]
    tensors = {
        "vectors/H": torch.from_numpy(vectors),
        "origin_offsets/H": torch.arange(n + 1),
        "origin_source/H": torch.arange(n, dtype=torch.int32) // 10,
        "origin_atom/H": torch.arange(n, dtype=torch.int32) % 10,
        "loo_distance/H": torch.full((n,), torch.nan, dtype=torch.float64),
        "source_bytes": torch.frombuffer(bytearray("".join(names).encode()), dtype=torch.uint8),
        "source_offsets": torch.tensor([0, *np.cumsum([len(name) for name in names])]),
    }
    header = {
        "descriptor": {"name": "soap", "species": ["H", "C"], "r_cut": 3.0, "n_max": 2, "l_max": 2, "sigma": 0.5},
        "settings": {"reach_quantile": 0.95, "seed": 0},
        "metadata": {},
        "min_distances": {},
        "blocks": ["H"],
        "reach": {"H": 0.1},
    }
    write_tensors(path, Tensors(tensors), header)
    return vectors


def test_a_large_database_is_opened_without_being_read(tmp_path):
    vectors = large_file(tmp_path / "large.db")
    loaded = EnvironmentDatabase.load(tmp_path / "large.db")
    tensors = loaded._tensors
    assert isinstance(tensors, MappedTensors)
    assert len(loaded) == 100_000
    loaded.summary()
    assert tensors.checked == ()
    distances, indices = loaded.match(vectors[[5, 70_000]], "H")
    assert indices.ravel().tolist() == [5, 70_000]
    assert float(distances.max()) < 1e-7
    assert tensors.checked == ("vectors/H",)
    assert loaded.origins("H", 70_003) == [("s7000", 3)]
    loaded.verify()
    assert set(tensors.checked) == set(tensors)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps of a process can be looked at on Linux only")
def test_tensors_are_views_of_the_mapped_file(tmp_path):
    large_file(tmp_path / "large.db")
    _, tensors = open_tensors(tmp_path / "large.db")
    address = tensors["vectors/H"].data_ptr()
    with Path("/proc/self/maps").open() as maps:
        spans = [line.split()[0].split("-") for line in maps if "large.db" in line]
    assert any(int(low, 16) <= address < int(high, 16) for low, high in spans)


def test_header_is_json_with_checksums(path):
    content = path.read_bytes()
    table = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = table.pop("__metadata__")
    assert metadata["format"] == FORMAT
    assert set(json.loads(metadata["checksums"])) == set(table)
