from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures import write_any
from aiida_losiko.sources import load_source
from aiida_losiko.sources.qm9 import read_qm9
from aiida_losiko.sources.qm9_format import PROPERTY_UNITS, parse_molecule, read_uncharacterized

from .qm9_files import METHANE, UNCHARACTERIZED, file_name, molecule_text, write_archive, write_folder

NUMBERS = (1, 2, 3, 4, 5, 12, 501, 1001)


def ids(records) -> list[str]:
    return [record.identifier for record in records]


def write_packed(path, numbers, uncharacterized=None):
    atoms = [parse_molecule(molecule_text(n), "x").atoms for n in numbers]
    arrays = {
        "index": np.array(numbers, dtype=np.int32),
        "n_atoms": np.array([len(a) for a in atoms], dtype=np.uint8),
        "numbers": np.concatenate([a.numbers for a in atoms]).astype(np.uint8),
        "positions_1e5A": np.rint(np.concatenate([a.positions for a in atoms]).T * 1e5).astype(np.int32),
    }
    if uncharacterized is not None:
        arrays["uncharacterized"] = np.array(uncharacterized, dtype=np.int32)
    np.savez(path, **arrays)
    return path


def write_container(tmp_path, kind):
    if kind == "archive":
        path = write_archive(tmp_path / "dsgdb9nsd.xyz.tar.bz2", NUMBERS)
    elif kind == "folder":
        path = write_folder(tmp_path / "molecules", NUMBERS)
    elif kind == "packed":
        return write_packed(tmp_path / "qm9.npz", NUMBERS, uncharacterized=[4, 12, 21725])
    else:
        structures = [parse_molecule(molecule_text(n), "x").atoms for n in NUMBERS]
        path = tmp_path / {"extxyz": "qm9.extxyz", "set": "qm9.npz"}[kind]
        write_any(path, structures)
    (tmp_path / "uncharacterized.txt").write_text(UNCHARACTERIZED)
    return path


def test_methane_is_read_to_the_digit():
    record = parse_molecule(METHANE, "methane", 1)
    assert record.identifier == record.atoms.info["identifier"] == "gdb_1"
    assert str(record.atoms.symbols) == "CH4" and not record.atoms.pbc.any()
    np.testing.assert_array_equal(record.atoms.positions[4], [0.625, -0.625, -0.625])
    expected = [157.5, 157.25, 157.125, 0.0, 13.5, -0.3875, 0.125, 0.5125, 35.5, 0.04475, -40.25, -40.125, -40.0625]
    expected += [-40.5, 6.5]
    assert [record.properties[key] for key in PROPERTY_UNITS] == expected
    assert " ".join(PROPERTY_UNITS) == "A B C mu alpha homo lumo gap r2 zpve U0 U H G Cv"
    assert record.properties["smiles"] == "C" and record.properties["inchi_relaxed"] == "InChI=1S/CH4/h1H4"


@pytest.mark.parametrize("kind", ["archive", "folder", "extxyz", "set", "packed"])
def test_every_container_gives_the_same_molecules(tmp_path, kind):
    path = write_container(tmp_path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info, records = load_source("qm9", path)
        everything = list(read_qm9(path, include_uncharacterized=True))
    assert ids(records) == ["gdb_1", "gdb_2", "gdb_3", "gdb_5", "gdb_501", "gdb_1001"]
    assert ids(everything) == [f"gdb_{n}" for n in NUMBERS]
    for record in records:
        reference = parse_molecule(molecule_text(int(record.identifier[4:])), "x")
        assert str(record.atoms.symbols) == str(reference.atoms.symbols)
        np.testing.assert_allclose(record.atoms.positions, reference.atoms.positions, atol=1.1e-5)
        assert record.atoms.info == {"identifier": record.identifier}
        if kind in ("archive", "folder"):
            assert record.properties == reference.properties
    assert info.checksum.startswith("md5:") is (kind != "folder")
    assert info.licence == "CC0-1.0" and info.reference == "10.1038/sdata.2014.22"


@pytest.mark.parametrize("kind", ["archive", "folder", "extxyz", "packed"])
@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"first": 3}, [1, 2, 3]),
        ({"stride": 500}, [1, 501, 1001]),
        ({"offset": 2, "first": 4}, [3, 5]),
        ({"ids": [5, "gdb_2", 77]}, [2, 5]),
        ({"ids": [1, 2, 3], "exclude": ["gdb_2"]}, [1, 3]),
        ({"elements": ["C", "H"]}, [1]),
        ({"min_atoms": 6}, [3]),
        ({"max_atoms": 3, "exclude": "paper"}, []),
        ("paper", [1, 2, 3, 5, 501, 1001]),
        ("paper-b", [1, 2, 3, 5]),
    ],
)
def test_selections(tmp_path, kind, selection, expected):
    path = write_container(tmp_path, kind)
    assert ids(read_qm9(path, selection)) == [f"gdb_{n}" for n in expected]


def test_random_is_a_function_of_the_seed(tmp_path):
    path = write_container(tmp_path, "packed")
    first, again, other = (ids(read_qm9(path, {"random": 3, "seed": seed})) for seed in (1, 1, 2))
    assert first == again and first != other and len(set(first)) == 3
    assert not {"gdb_4", "gdb_12"} & set(first + other)
    with pytest.raises(LosikoError, match="random 7 of 6"):
        list(read_qm9(path, {"random": 7}))


def test_selected_molecules_are_read_alone(tmp_path):
    """What is not selected is not parsed, and an archive is left when nothing more can come."""
    path = write_archive(tmp_path / "a.tar.bz2", (1, 2, 3, 900), {2: "rubbish", 900: "rubbish"})
    assert ids(read_qm9(path, {"ids": [1, 3]}, include_uncharacterized=True)) == ["gdb_1", "gdb_3"]
    data = path.read_bytes()
    big = write_archive(tmp_path / "b.tar.bz2", range(1, 3000))
    truncated = big.read_bytes()[: -len(data)]
    big.write_bytes(truncated)
    assert len(list(read_qm9(big, {"first": 10}, include_uncharacterized=True))) == 10
    with pytest.raises(LosikoError, match=r"b\.tar\.bz2: not a readable archive after \d+ molecules"):
        list(read_qm9(big, include_uncharacterized=True))


def test_uncharacterized_list_is_found_given_or_missed(tmp_path):
    folder = write_folder(tmp_path / "molecules", NUMBERS)
    with pytest.warns(UserWarning, match=r"no uncharacterized\.txt beside molecules"):
        assert len(list(read_qm9(folder))) == len(NUMBERS)
    listing = tmp_path / "my_list.txt"
    listing.write_text("1\n2\n")
    assert ids(read_qm9(folder, uncharacterized=listing))[0] == "gdb_3"
    (folder / "uncharacterized.txt").write_text(UNCHARACTERIZED)
    assert "gdb_4" not in ids(read_qm9(folder))


def test_uncharacterized_header_and_footer_are_passed_over(tmp_path):
    path = tmp_path / "uncharacterized.txt"
    path.write_text(UNCHARACTERIZED)
    assert read_uncharacterized(path) == {4, 12, 21725}
    path.write_text("nothing here\n134 kilo molecules\n")
    with pytest.raises(LosikoError, match="no gdb numbers"):
        read_uncharacterized(path)
    with pytest.raises(LosikoError, match="cannot be read"):
        read_uncharacterized(tmp_path / "missing.txt")


def changed(line: int, text: str) -> str:
    lines = METHANE.splitlines()
    lines[line - 1] = text
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "pattern"),
    [
        ("", 1, "no number of atoms"),
        (changed(1, "five"), 1, "'five'"),
        (changed(1, "0"), 1, "'0'"),
        (changed(1, "6"), 10, "6 atoms need 11"),
        ("\n".join(METHANE.splitlines()[:6]), 6, "truncated"),
        (changed(2, "gdb 1\t157.5"), 2, "15 properties"),
        (changed(2, METHANE.splitlines()[1].replace("gdb", "xyz")), 2, "not 'gdb'"),
        (changed(2, METHANE.splitlines()[1].replace("gdb 1", "gdb 7")), 2, "gdb 7, the file name says 1"),
        (changed(2, METHANE.splitlines()[1].replace("13.5", "1x.5")), 2, "'1x.5' is no finite number"),
        (changed(4, "H 0 0 0"), 4, "is no atom"),
        (changed(4, "Si 0 0 0 0"), 4, "one of H C N O F"),
        (changed(5, "H 0 nan 0 0"), 5, "'nan' is no finite number"),
        (changed(5, "H 0 0 0 1*^x"), 5, r"'1\*\^x'"),
        (changed(8, "1000. abc"), 8, "'abc'"),
        (changed(9, "C"), 9, "two smiles"),
        (changed(10, "C C"), 10, "two inchi"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text, line, pattern):
    with pytest.raises(LosikoError, match=pattern) as excinfo:
        parse_molecule(text, "dsgdb9nsd_000001.xyz", 1)
    assert str(excinfo.value).startswith(f"dsgdb9nsd_000001.xyz, line {line}: ")
    assert "\n" not in str(excinfo.value)
    path = write_archive(tmp_path / "a.tar.bz2", [1], {1: text})
    with pytest.raises(LosikoError, match=rf"a\.tar\.bz2:{file_name(1)}, line {line}: "):
        list(read_qm9(path, include_uncharacterized=True))


def test_unusable_paths(tmp_path):
    def refuse(path, pattern):
        with pytest.raises(LosikoError, match=pattern) as excinfo:
            list(read_qm9(path, include_uncharacterized=True))
        assert "\n" not in str(excinfo.value)

    refuse(tmp_path / "missing.tar.bz2", "no such file.*download_qm9")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "holds no files dsgdb9nsd")
    (tmp_path / "a.tar.bz2").write_bytes(b"rubbish")
    refuse(tmp_path / "a.tar.bz2", "not a readable archive")
    write_archive(tmp_path / "b.tar.bz2", [])
    refuse(tmp_path / "b.tar.bz2", "holds no files|not a readable archive")
    (tmp_path / "a.npz").write_bytes(b"rubbish")
    refuse(tmp_path / "a.npz", "not a readable npz")
    np.savez(tmp_path / "b.npz", index=np.arange(3))
    refuse(tmp_path / "b.npz", "has no n_atoms, numbers, positions_1e5A")
    packed = dict(np.load(write_packed(tmp_path / "c.npz", [1, 2])))
    np.savez(tmp_path / "c.npz", **{**packed, "positions_1e5A": packed["positions_1e5A"][:, 1:]})
    refuse(tmp_path / "c.npz", r"positions_1e5A is not \(3, ")
    write_any(tmp_path / "a.extxyz", [Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]])])
    refuse(tmp_path / "a.extxyz", "structure 0 has no gdb number")


def test_gdb_number_in_the_comment_line(tmp_path):
    path = tmp_path / "a.extxyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3 gdb=461 mu=1.5\nO 0 0 0\n")
    (record,) = read_qm9(path, include_uncharacterized=True)
    assert record.identifier == "gdb_461" and record.properties == {"mu": 1.5}


def test_load_source_refuses_in_one_line(tmp_path):
    for arguments, pattern in (
        (("qm8",), "unknown source 'qm8' .did you mean 'qm9'.*; allowed are .*g2, .*qm9"),
        (("qm9",), "needs the path of dsgdb9nsd.xyz.tar.bz2"),
        (("g2", tmp_path), "takes no path"),
    ):
        with pytest.raises(LosikoError, match=pattern):
            load_source(*arguments)
    with pytest.raises(LosikoError, match="unknown option speed of source qm9"):
        load_source("qm9", tmp_path, speed=3)
    with pytest.raises(LosikoError, match="leaves nothing of source g2"):
        load_source("g2", selection={"elements": ["Si"]})
