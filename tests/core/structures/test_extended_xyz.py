"""Whatever labels and arrays structures carry, extended XYZ gives them back or says what it left out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase.build import molecule

from aiida_losiko.core.structures import read_any, write_any

VALUES = [
    "", "007", "1e5", "T", "1 2 3", " padded ", "a=b", 'say "so"', "back\\slash", "two\nlines", "tab\tin it", "ünï",
    "_JSON ", "{x}", "[1", "'", None, True, 3, -1.5, [], [1, 2], ["a", 'b"\\'], {"deep": [{"x": None, "y": "1\n2"}]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_info_survives_with_what_stands_beside_it(tmp_path, value):
    atoms = molecule("H2O")
    atoms.info = {"identifier": "water", "value": value, "energy_of": 1.5, "last": "x"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_any(tmp_path / "a.extxyz", [atoms, atoms])
    for back in read_any(tmp_path / "a.extxyz"):
        found = back.info.pop("value")
        found = found.tolist() if isinstance(found, np.ndarray | np.generic) else found
        assert type(found) is type(value) and found == value
        assert back.info == {"identifier": "water", "energy_of": 1.5, "last": "x"}
        assert len(back) == 3


@pytest.mark.parametrize("key", ["two words", "quo'te", "n", "7", "ünï"])
def test_keys_survive(tmp_path, key):
    atoms = molecule("H2O")
    atoms.info = {key: "007", "last": 2}
    write_any(tmp_path / "a.extxyz", atoms)
    assert read_any(tmp_path / "a.extxyz")[0].info == {key: "007", "last": 2}


@pytest.mark.parametrize("key", ["Lattice", "Properties", "two\nlines", ""])
def test_keys_that_would_spoil_the_header_are_left_out_and_named(tmp_path, key):
    atoms = molecule("H2O")
    atoms.info = {key: "x", "last": 2}
    with pytest.warns(UserWarning, match="left out"):
        write_any(tmp_path / "a.extxyz", atoms)
    (back,) = read_any(tmp_path / "a.extxyz")
    assert back.info == {"last": 2} and (back.symbols == atoms.symbols).all()


def test_columns_survive_or_are_named(tmp_path):
    atoms = molecule("H2O")
    kept = {
        "words": np.array(["a", "bc", "T"]),
        "objects": np.array(["a", "bc", "d"], dtype=object),
        "counts": np.array([1, 2, 3], dtype=np.uint16),
        "flags": np.array([True, False, True]),
        "pairs": np.arange(6.0).reshape(3, 2),
    }
    lost = {
        "blanks": np.array(["a b", "", "c"]),
        "complex": np.array([1j, 2, 3]),
        "tensors": np.ones((3, 3, 3)),
        "none": np.ones((3, 0)),
        "two words": np.ones(3),
        "a:b": np.ones(3),
    }
    for name, values in {**kept, **lost}.items():
        atoms.arrays[name] = values
    with pytest.warns(UserWarning, match="left out") as caught:
        write_any(tmp_path / "a.extxyz", [atoms, atoms])
    assert sorted(str(warning.message).split("'")[1] for warning in caught) == sorted(lost)
    assert set(lost) < set(atoms.arrays)
    for back in read_any(tmp_path / "a.extxyz"):
        assert set(back.arrays) == {"numbers", "positions", *kept}
        for name, values in kept.items():
            assert (back.arrays[name] == values).all()


def test_words_of_extended_xyz_fit_in_a_set_file(tmp_path):
    atoms = molecule("H2O")
    atoms.set_array("site", np.array(["8a", "4b", "4b"]))
    write_any(tmp_path / "a.extxyz", atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_any(tmp_path / "a.npz", read_any(tmp_path / "a.extxyz"))
    assert read_any(tmp_path / "a.npz")[0].arrays["site"].tolist() == ["8a", "4b", "4b"]
