from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest
from ase import Atoms
from ase.collections import g2

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures import check_structure
from aiida_losiko.sources import SOURCES, SourceInfo, SourceRecord, load_source, source_names
from aiida_losiko.sources.g2 import ELEMENTS, HELD_OUT, g2_names, read_g2
from aiida_losiko.sources.qm9 import NAMED, paper_b_numbers, paper_numbers, read_qm9
from aiida_losiko.sources.selection import KEYS, parse_selection

DATA = Path(os.environ.get("LOSIKO_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "qm9" / "qm9_subsets.json").is_file(),
    reason="LOSIKO_DATA has no qm9/qm9_subsets.json; QM9 itself: https://doi.org/10.6084/m9.figshare.c.978904.v5",
)


def numbers_of(selection, limit=2000) -> list[int]:
    chosen = parse_selection(selection, NAMED, "gdb_")
    return [n for n in range(1, limit + 1) if chosen.wants(n, f"gdb_{n}")]


@pytest.mark.parametrize(("offset", "first", "stride"), [(0, 10, 1), (0, 100, 7), (3, 50, 10), (100, 1900, 500)])
def test_offset_first_stride_are_a_python_slice(offset, first, stride):
    expected = list(range(1, 2001))[offset : offset + first : stride]
    assert numbers_of({"offset": offset, "first": first, "stride": stride}) == expected


def test_paper_selections():
    assert len(paper_numbers()) == 367 and len(paper_b_numbers()) == 368
    assert {1, 100, 501, 133501} <= paper_numbers() and not {101, 601} & paper_numbers()
    assert {1, 100, 101, 601, 133601} <= paper_b_numbers() and 501 not in paper_b_numbers()
    assert numbers_of("paper", 700) == [*range(1, 101), 501]
    assert numbers_of({"named": "paper-b", "exclude": "paper"}, 700) == [101, 601]


def test_keys_combine():
    assert numbers_of({"named": "paper", "offset": 90, "exclude": [95, "gdb_99"]}, 100) == [
        n for n in range(91, 101) if n not in (95, 99)
    ]
    assert numbers_of({"ids": [3, 600], "first": 500}) == [3]
    assert numbers_of({"ids": []}) == []
    chosen = parse_selection({"ids": [7, "gdb_3"], "first": 500}, NAMED, "gdb_")
    assert chosen.last_number() == 7
    assert parse_selection({"stride": 5}, NAMED).last_number() is None


def test_description_is_json():
    description = {"first": 10, "elements": ["C", "H"], "exclude": ["gdb_3"], "random": 2, "seed": 4}
    again = json.loads(json.dumps(description))
    assert parse_selection(description, NAMED, "gdb_") == parse_selection(again, NAMED, "gdb_")


@pytest.mark.parametrize(
    ("selection", "pattern"),
    [
        ({"frist": 3}, "unknown selection key frist; allowed are " + ", ".join(KEYS)),
        ({"first": 0}, "first is 0; allowed are whole numbers from 1"),
        ({"first": "3"}, "first is '3'"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"offset": -1}, "offset is -1"),
        ({"random": True, "seed": 0}, "random is True"),
        ({"seed": 3}, "nothing is drawn"),
        ({"ids": 3}, "give a list"),
        ({"ids": "gdb_3"}, "give a list"),
        ({"ids": [1.5]}, "holds 1.5"),
        ({"elements": "CH"}, "give a list of symbols"),
        ({"elements": ["C", "Q"]}, "holds Q"),
        ({"elements": []}, "holds nothing"),
        ("papper", "unknown named selection 'papper'; allowed are paper, paper-b"),
        ({"exclude": "papper"}, "unknown named selection"),
        (3, "is no mapping"),
    ],
)
def test_bad_selections_are_refused_in_one_line(selection, pattern):
    with pytest.raises(LosikoError, match=pattern) as excinfo:
        parse_selection(selection, NAMED, "gdb_")
    assert "\n" not in str(excinfo.value)


def test_g2_has_the_93_organic_molecules():
    info, records = load_source("g2")
    assert len(records) == 93 == len(g2_names())
    assert source_names() == tuple(SOURCES) and {"g2", "qm9"} <= set(SOURCES)
    for record in records:
        name = record.identifier.removeprefix("g2:")
        check_structure(record.atoms, species=ELEMENTS)
        assert (record.atoms.positions == g2[name].positions).all()
        assert set(record.atoms.arrays) == {"numbers", "positions"}
        assert record.atoms.info == {"identifier": record.identifier}
    sizes = [len(record.atoms) for record in records]
    assert sizes == sorted(sizes) and sizes[0] == 2
    assert info.licence == "LGPL-2.1-or-later" and info.version.startswith("ase 3.")
    assert info.to_dict()["reference"] == "10.1063/1.473182" and "checksum" not in info.to_dict()


def test_g2_held_out_dozen():
    held_out = list(read_g2("held-out"))
    rest = list(read_g2({"exclude": "held-out"}))
    assert {record.identifier for record in held_out} == {f"g2:{name}" for name in HELD_OUT}
    assert len(held_out) == 12 and len(rest) == 81
    for record in held_out:
        assert "C" in record.atoms.symbols and len(record.atoms) >= 6
        electrons = int(record.atoms.numbers.sum())
        assert electrons % 2 == 0
    assert {s for record in held_out for s in record.atoms.symbols} == set(ELEMENTS)
    assert [r.identifier for r in read_g2({"ids": ["g2:CH4", "g2:H2O"]})] == ["g2:H2O", "g2:CH4"]
    assert len(list(read_g2({"elements": ["C", "H"], "random": 5}))) == 5


@needs_data
def test_paper_selection_is_that_of_the_collected_data():
    subsets = json.loads((DATA / "qm9" / "qm9_subsets.json").read_text())
    for name, key in (("paper", "A_first100_plus_every500th"), ("paper-b", "B_first100_then_stride500_over_rest")):
        assert len(NAMED[name]()) == subsets[key]["requested"]
        records = read_qm9(DATA / "qm9" / "qm9_b3lyp.npz", name)
        assert [int(record.identifier[4:]) for record in records] == sorted(subsets[key]["present"])


@needs_data
def test_collected_extended_xyz_agrees_with_the_packed_file():
    path = DATA / "qm9" / "qm9_db_A_first100_plus_every500th.extxyz"
    collected = {r.identifier: r for r in read_qm9(path, {"first": 100}, include_uncharacterized=True)}
    packed = list(read_qm9(DATA / "qm9" / "qm9_b3lyp.npz", {"first": 100}))
    assert len(packed) > 90 and [r.identifier for r in packed] == list(collected)
    for record in packed:
        assert abs(record.atoms.positions - collected[record.identifier].atoms.positions).max() < 2e-5


def test_a_source_is_added_in_one_line(monkeypatch):
    def load_pair(path, selection, *, spacing=1.0):
        info = SourceInfo(name="pairs", version="1", licence="CC0-1.0", reference="", url="")
        return info, [SourceRecord("pair:H2", Atoms("H2", [[0, 0, 0], [0, 0, spacing]]))]

    monkeypatch.setitem(sys.modules, "pairs", types.SimpleNamespace(load_pair=load_pair))
    monkeypatch.setitem(SOURCES, "pairs", "pairs:load_pair")
    info, (record,) = load_source("pairs", spacing=0.7)
    assert (info.name, record.atoms.info["identifier"]) == ("pairs", "pair:H2")
    assert record.atoms.get_distance(0, 1) == 0.7
    with pytest.raises(LosikoError, match="unknown option width of source pairs; allowed are spacing"):
        load_source("pairs", width=3)
