from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io.res import Res

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources import load_source
from aiida_losiko.sources.archive_entries import NAMED_ONE_BY_ONE
from aiida_losiko.sources.res_format import parse_res, parse_title, split_res

DATA = Path(os.environ.get("LOSIKO_DATA", Path(__file__).parents[3] / "shared" / "data"))

DIAMOND = """TITL C-100-1-1 10.01 11.2500 -310.5000 0.00 0.00 2 (Fd-3m) n - 7
REM in /search
CELL 1.54180 2.5147 2.5147 2.5147 60.0 60.0 60.0
LATT -1
SFAC C
C 1 0.0000000000000 0.0000000000000 0.0000000000000 1.0
C 1 0.2500000000000 0.2500000000000 0.2500000000000 1.0
END
"""
GRAPHENE = DIAMOND.replace("C-100-1-1", "C-100-2-5").replace("-310.5000", "-309.7000").replace("n - 7", "n - 1")
HIGH = DIAMOND.replace("C-100-1-1", "C-100-3-9").replace("-310.5000", "-309.1000").replace("n - 7", "n - 1")
WATER = """TITL H2O-5-1 0.02 64.0 -470.25 0.5 0.75 (P-1) n - 2
CELL 1.0 4.0 4.0 4.0 90 90 90
LATT -1
SFAC H O
H 1 0.25 0.0 0.0 1.0
H 1 0.0 0.25 -1.0E-17 1.0 0.5
O 2 0.0 0.0 0.0 1.0
END
"""
SEARCH = {"C-100-1-1.res": DIAMOND, "C-100-2-5.res": GRAPHENE, "C-100-3-9.res": HIGH, "run/H2O-5-1.res": WATER}
SEARCH_IDS = ["airss:C-100-1-1", "airss:C-100-2-5", "airss:C-100-3-9", "airss:H2O-5-1"]


def ids(records) -> list[str]:
    return [record.identifier for record in records]


def write_search(folder: Path, kind: str, files: dict[str, str] = SEARCH) -> Path:
    if kind == "folder":
        for name, text in files.items():
            target = folder / "search" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        (folder / "search" / "notes.txt").write_text("not a structure")
        return folder / "search"
    if kind == "one":
        path = folder / "all.res"
        path.write_text("".join(files.values()))
        return path
    path = folder / f"search.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path
    with tarfile.open(path, "w:" + kind.partition(".")[2]) as archive:
        for name, text in {**files, "README": "not a structure"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def extended_xyz(*frames: tuple[str, Atoms]) -> str:
    lines = []
    for comment, atoms in frames:
        lattice = " ".join(f"{x:.6f}" for x in atoms.cell.array.ravel())
        lines += [str(len(atoms)), f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T" {comment}']
        lines += [f"{s} {x:.6f} {y:.6f} {z:.6f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)]
    return "\n".join(lines) + "\n"


def carbon(a: float = 3.567) -> Atoms:
    cell = a / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Atoms("C2", scaled_positions=[[0, 0, 0], [0.25, 0.25, 0.25]], cell=cell, pbc=True)


@pytest.mark.parametrize("kind", ["folder", "one", "tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_every_container_gives_the_same_structures(tmp_path, kind):
    path = write_search(tmp_path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info, records = load_source("archive", path)
    assert ids(records) == SEARCH_IDS and info.name == path.name
    assert bool(info.checksum) == path.is_file()
    assert list(tmp_path.iterdir()) == [path]  # nothing was unpacked
    diamond, _, high, water = records
    assert diamond.properties == {
        "formula": "C",
        "n_sites": 2,
        "n_copies": 7,
        "space_group_symbol": "Fd-3m",
        "pressure": 10.01,
        "volume": 11.25,
        "spin": 0.0,
        "absolute_spin": 0.0,
        "energy_per_atom": -155.25,
        "energy_above_lowest": 0.0,
    }
    assert high.properties["energy_above_lowest"] == pytest.approx(0.7)
    assert water.properties["energy_above_lowest"] == 0.0 and water.properties["formula"] == "H2O"
    assert diamond.atoms.info == {"identifier": "airss:C-100-1-1"} and diamond.atoms.calc is None
    assert diamond.atoms.get_distance(0, 1, mic=True) == pytest.approx(1.540, abs=1e-3)
    assert json.loads(json.dumps(water.properties)) == water.properties


def test_well_formed_files_are_read_as_ase_reads_them():
    for text in (DIAMOND, WATER.replace("-1.0E-17", "0.0")):
        title, atoms = parse_res(text)
        reference = Res.from_string(text)
        assert (title.name, title.enthalpy) == (reference.name, reference.energy)
        assert str(atoms.symbols) == str(reference.atoms.symbols)
        np.testing.assert_allclose(atoms.cell.array, reference.atoms.cell.array, atol=1e-12)
        np.testing.assert_allclose(atoms.positions, reference.atoms.positions, atol=1e-12)


def test_what_ase_gets_wrong_is_read():
    # the reasons for a reader of our own: drop it once these are right in ASE
    assert len(Res.from_string(WATER).atoms) == 2 and len(parse_res(WATER)[1]) == 3
    half = DIAMOND.replace("0.2500000000000 1.0\nEND", "0.2500000000000 0.5\nEND")
    assert len(Res.from_string(half).atoms) == 2
    with pytest.raises(LosikoError, match=r"atom C is partly occupied \(0.5\)"):
        parse_res(half)
    labelled = DIAMOND.replace("\nC 1 0.0", "\nC1 1 0.0")
    assert str(parse_res(labelled)[1].symbols) == "C2"


def test_titles():
    title = parse_title("TITL Si-1 -0.05 40.5 -339.9 0.0 0.0 8 (P21/c) n - 12")
    assert title.name == "Si-1" and title.enthalpy == -339.9
    assert title.properties["n_atoms"] == 8 and title.properties["n_copies"] == 12
    assert title.properties["space_group_symbol"] == "P21/c"
    assert parse_title("TITL only-a-name").enthalpy is None
    assert parse_title("TITL old 0.0 40.5 -339.9 0 0 (P1)").properties.get("n_copies") is None
    assert parse_title("TITL").name == ""
    with pytest.raises(LosikoError, match=r"enthalpy of the title: '\*{8}' is no number"):
        parse_title("TITL x 0.0 40.5 ******** 0 0 (P1) n - 1")
    assert len(split_res(DIAMOND + GRAPHENE)) == 2


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ("END\n", "", "has no END"),
        ("CELL 1.54180 2.5147", "CELL 2.5147", "CELL has 6 numbers"),
        ("CELL 1.54180 2.5147", "CELL 1.54180 -2.5147", "is no cell"),
        ("LATT -1", "LATT 2", "LATT 2 asks for symmetry"),
        ("LATT -1", "SYMM -X,-Y,-Z", "SYMM asks for symmetry"),
        ("SFAC C", "SFAC Qq", "SFAC has 'Qq'"),
        ("SFAC C\n", "", "is no atom"),
        ("C 1 0.0", "C 2 0.0", "of kind 2; SFAC has 1"),
        ("C 1 0.2500000000000 0.25", "C 1 0.2500000000000 nan 0.25", "'nan' is no number"),
        ("C 1 0.2500000000000 0.2500000000000 0.2500000000000 1.0\n", "", "has 1 atoms, its title says 2"),
    ],
)
def test_broken_members_are_named_and_the_rest_is_kept(tmp_path, old, new, pattern):
    assert old in DIAMOND
    files = {"broken.res": DIAMOND.replace(old, new, 1), "good.res": GRAPHENE}
    with pytest.warns(UserWarning, match=f"broken.res is left out: .*{pattern}") as record:
        _, records = load_source("archive", write_search(tmp_path, "tar.gz", files))
    assert ids(records) == ["airss:C-100-2-5"]
    assert len([w for w in record if "left out" in str(w.message)]) == 1
    assert all("\n" not in str(w.message) for w in record)


def test_coincident_atoms_and_empty_files_are_named(tmp_path):
    files = {
        "twice.res": DIAMOND.replace("0.2500000000000", "0.0000000000000"),
        "empty.res": "",
        "good.res": GRAPHENE,
    }
    with pytest.warns(UserWarning) as record:
        _, records = load_source("archive", write_search(tmp_path, "folder", files))
    messages = sorted(str(w.message) for w in record)
    assert messages[0] == "empty.res is left out: the file is empty"
    assert messages[1].startswith("twice.res is left out: atoms 0 (C) and 1 (C) are 0 Angstrom apart")
    assert len(messages) == 2 and len(records) == 1


def test_many_broken_members_are_counted(tmp_path):
    files = {f"bad-{i:03}.res": "TITL bad\nEND\n" for i in range(NAMED_ONE_BY_ONE + 30)} | {"good.res": GRAPHENE}
    with pytest.warns(UserWarning) as record:
        _, records = load_source("archive", write_search(tmp_path, "zip", files))
    assert len(records) == 1 and len(record) == NAMED_ONE_BY_ONE + 1
    assert str(record[-1].message).startswith("30 more members are left out: bad-020.res, ")


def test_energy_filter_is_per_composition(tmp_path):
    path = write_search(tmp_path, "tar.xz")
    for limit, expected in ((0.0, [0, 3]), (0.4, [0, 1, 3]), (0.5, [0, 1, 3]), (0.71, [0, 1, 2, 3])):
        _, records = load_source("archive", path, max_energy_above_lowest=limit)
        assert ids(records) == [SEARCH_IDS[i] for i in expected]
    # the lowest is that of the archive, not of what is selected
    _, (record,) = load_source("archive", path, {"ids": [2]}, max_energy_above_lowest=0.5)
    assert record.properties["energy_above_lowest"] == pytest.approx(0.4)
    _, records = load_source("archive", path, {"elements": ["H", "O"]}, max_energy_above_lowest=0)
    assert ids(records) == ["airss:H2O-5-1"]
    _, records = load_source("archive", path, {"random": 2, "seed": 1}, max_energy_above_lowest=0.5)
    assert len(records) == 2 and set(ids(records)) <= {SEARCH_IDS[i] for i in (0, 1, 3)}


def test_an_empty_result_says_which_filter_emptied_it(tmp_path):
    path = write_search(tmp_path, "tar")
    bare = write_search(
        tmp_path, "one", {"x": DIAMOND.replace(" 10.01 11.2500 -310.5000 0.00 0.00 2 (Fd-3m) n - 7", "")}
    )
    bad = tmp_path / "bad.res"
    bad.write_text("TITL bad\nEND\n")
    for source, selection, options, pattern in (
        (path, {"elements": ["Si"]}, {}, "the selection leaves none of 4 structures"),
        (
            path,
            {"ids": ["airss:C-100-3-9"]},
            {"max_energy_above_lowest": 0.5},
            "0.5 eV/atom leaves none of 1 .*is 0.7 above",
        ),
        (bare, None, {"max_energy_above_lowest": 0.5}, "none of 1 selected structures has an energy"),
        (bad, None, {}, "every one of its 1 structures is left out"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(LosikoError, match=pattern) as excinfo:
                load_source("archive", source, selection, **options)
        assert "\n" not in str(excinfo.value)


def test_copies_stay_and_names_that_come_again_are_numbered(tmp_path):
    files = {"a/x.res": DIAMOND, "b/x.res": DIAMOND, "c/x.res": DIAMOND}
    _, records = load_source("archive", write_search(tmp_path, "folder", files))
    assert ids(records) == ["airss:C-100-1-1", "airss:C-100-1-1#2", "airss:C-100-1-1#3"]
    assert [r.properties["n_copies"] for r in records] == [7, 7, 7]


def test_pressures_that_differ_are_told(tmp_path):
    files = {"low.res": DIAMOND, "high.res": GRAPHENE.replace("10.01", "50.0")}
    with pytest.warns(UserWarning, match="C: pressures from 10.01 to 50 GPa in one archive"):
        load_source("archive", write_search(tmp_path, "zip", files))


def test_extended_xyz_with_many_frames(tmp_path):
    path = tmp_path / "search.extxyz"
    path.write_text(
        extended_xyz(
            ("name=first energy=-310.5 times_found=4 density=3.5", carbon()),
            ("material_id=C-1-2 energy_per_atom=-154.85", carbon(3.6)),
            ("source=unnamed enthalpy=-309.1", carbon(3.7)),
            ("label=no-energy", carbon(3.8)),
        )
    )
    _, records = load_source("archive", path)
    assert ids(records) == ["archive:first", "archive:C-1-2", "archive:search-3", "archive:no-energy"]
    energies = [r.properties.get("energy_per_atom") for r in records]
    assert energies == [-155.25, -154.85, -154.55, None]
    assert records[0].properties["n_copies"] == 4 and records[0].properties["density"] == 3.5
    assert records[0].atoms.pbc.all() and records[0].atoms.info == {"identifier": "archive:first"}
    np.testing.assert_allclose(records[1].atoms.positions, carbon(3.6).positions, atol=1e-6)
    with pytest.warns(UserWarning, match="archive:no-energy is left out: it has no energy to compare"):
        _, kept = load_source("archive", path, max_energy_above_lowest=0.5)
    assert ids(kept) == ["archive:first", "archive:C-1-2"]
    packed = tmp_path / "again.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    _, again = load_source("archive", packed)
    assert ids(again)[2] == "archive:again-3" and len(again) == 4


def test_damaged_frames_are_named(tmp_path):
    path = tmp_path / "search.extxyz"
    good = extended_xyz(("name=good", carbon()))
    path.write_text(good + good.replace("C 0.000000", "C zero").replace("good", "bad") + good + "5\ncut off\nC 0 0 0\n")
    with pytest.warns(UserWarning) as record:
        _, records = load_source("archive", path)
    assert ids(records) == ["archive:good", "archive:good#2"]
    messages = [str(w.message) for w in record]
    assert messages[0].startswith("search.extxyz, frame 2 is left out: not readable (")
    assert messages[1:] == ["search.extxyz, frame 4 is left out: has 1 of 5 atoms; the file is cut off"]
    path.write_text(good + "what is this\n" + good)
    with pytest.warns(UserWarning, match="frame 2 is left out: line 5 is 'what is this', no number of atoms"):
        assert len(load_source("archive", path)[1]) == 1


def test_partly_occupied_frames_are_named(tmp_path):
    path = tmp_path / "search.extxyz"
    partial = 'name=half occupancy="_JSON {\\"0\\": {\\"C\\": 0.5}}"'
    path.write_text(extended_xyz((partial, carbon()), ("name=whole", carbon())))
    with pytest.warns(UserWarning, match="frame 1 is left out: site 0 is partly occupied or mixed \\(C 0.5\\)"):
        _, records = load_source("archive", path)
    assert ids(records) == ["archive:whole"]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_a_container_that_is_cut_off_is_an_error(tmp_path, kind):
    whole = write_search(tmp_path, kind).read_bytes()
    path = tmp_path / f"search.{kind}"
    # 1024, 2048: where a header begins in the plain tar
    for length in (1024, 2048, len(whole) // 2, len(whole) * 9 // 10):
        if length < len(whole) and any(whole[length:]):
            path.write_bytes(whole[:length])
            with pytest.raises(LosikoError, match="not a readable archive") as excinfo:
                load_source("archive", path)
            assert "\n" not in str(excinfo.value)


def test_damaged_containers(tmp_path):
    with zipfile.ZipFile(tmp_path / "mixed.zip", "w") as archive:
        archive.writestr("good.res", DIAMOND)
        archive.writestr("bad.res.gz", b"this is not gzip")
    with pytest.warns(UserWarning, match="bad.res.gz is left out: not readable"):
        _, records = load_source("archive", tmp_path / "mixed.zip")
    assert ids(records) == ["airss:C-100-1-1"]
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "nothing").mkdir()
    for name, pattern in (
        ("notes.txt", "not a readable archive"),
        ("nothing", "holds no .extxyz or .xyz or .res file"),
        ("missing.tar", "there is no such file"),
    ):
        with pytest.raises(LosikoError, match=pattern) as excinfo:
            load_source("archive", tmp_path / name)
        assert "\n" not in str(excinfo.value)


def test_the_user_says_what_the_archive_does_not_know(tmp_path):
    info, records = load_source(
        "archive",
        write_search(tmp_path, "zip"),
        collection="carbon at 10 GPa",
        version="2020.0026",
        licence="CC-BY-4.0",
        reference="10.1000/example",
        url="https://example.org",
    )
    assert (
        info.to_dict().items()
        >= {"name": "carbon at 10 GPa", "licence": "CC-BY-4.0", "url": "https://example.org"}.items()
    )
    assert {r.properties["reference"] for r in records} == {"10.1000/example"}
    assert load_source("archive", write_search(tmp_path, "zip"))[0].licence == ""


@pytest.mark.parametrize("limit", [-0.1, float("nan"), "0.5", True])
def test_bad_limits(tmp_path, limit):
    with pytest.raises(LosikoError, match=r"max_energy_above_lowest is .*; allowed are numbers from 0"):
        load_source("archive", write_search(tmp_path, "zip"), max_energy_above_lowest=limit)
    with pytest.raises(LosikoError, match="needs the path"):
        load_source("archive")


@pytest.mark.skipif(
    not (DATA / "carbon" / "carbon24_lowest300.extxyz").is_file(),
    reason="LOSIKO_DATA has no carbon/carbon24_lowest300.extxyz; the search itself: https://doi.org/10.24435/materialscloud:2020.0026/v1",
)
def test_a_real_search():
    path = DATA / "carbon" / "carbon24_lowest300.extxyz"
    _, records = load_source("archive", path, {"elements": ["C"]}, max_energy_above_lowest=0.5)
    assert len({r.identifier for r in records}) == len(records) == 300
    for record in records:
        above = record.properties["energy_above_lowest"]
        assert above == pytest.approx(record.properties["energy_above_min"], abs=1e-6) and 0 <= above <= 0.5
    _, few = load_source("archive", path, max_energy_above_lowest=0.05)
    assert 0 < len(few) < 300
