"""Filters by the properties of entries, and several sets as one."""

from __future__ import annotations

import pytest
from aiida.orm import Dict
from aiida.plugins import CalculationFactory

from aiida_losiko.data import StructureSetData

NAMES = ("H2O", "CH4", "CH3OH", "NH3")
ROWS = [
    {"energy_above_hull": 0.0, "space_group": 227, "theoretical": False, "energy_above_lowest": 0.6},
    {"energy_above_hull": 0.2, "space_group": 194, "theoretical": True, "energy_above_lowest": 0.5},
    {"energy_above_hull": 0.35, "space_group": 1, "theoretical": False},
    {"space_group": 1},
]


@pytest.fixture
def entries(aiida_profile, make_molecules):
    return StructureSetData(make_molecules(*NAMES), properties=ROWS, source={"name": "invented"}).store()


def run(name, **inputs):
    outputs, node = CalculationFactory(f"losiko.{name}").run_get_node(**inputs)
    return outputs, node.exit_status, node.exit_message or ""


def kept(outputs) -> list[str]:
    return [name.removeprefix("g2:") for name in outputs["structures"].get_identifiers()]


@pytest.mark.parametrize(
    ("threshold", "keep_unknown", "expected"),
    [
        (0.2, None, ["H2O", "CH4"]),  # an entry on the threshold passes
        (0.1999, None, ["H2O"]),
        (0, None, ["H2O"]),
        (0.2, True, ["H2O", "CH4", "NH3"]),
        (9.0, False, ["H2O", "CH4", "CH3OH"]),
    ],
)
def test_by_hull(entries, threshold, keep_unknown, expected):
    inputs = {} if keep_unknown is None else {"keep_unknown": keep_unknown}
    outputs, status, message = run("filter_by_hull", structures=entries, energy_above_hull=threshold, **inputs)
    assert status == 0, message
    assert kept(outputs) == expected
    structures, report = outputs["structures"], outputs["report"].get_dict()
    assert structures.get_properties() == [row for row, name in zip(ROWS, NAMES, strict=True) if name in expected]
    assert structures.source == {"name": "invented"}
    assert structures.creator.inputs.energy_above_hull.value == threshold
    account = report["filters"]["energy_above_hull"]
    assert (report["n_structures"], report["n_kept"]) == (4, len(expected))
    assert (account["n_kept"], account["n_rejected"]) == (len(expected), 4 - len(expected))
    assert (account["n_unknown"], account["unknown"]) == (1, ["g2:NH3"])


def test_by_energy_above_lowest(entries):
    outputs, status, _ = run("filter_by_energy_above_lowest", structures=entries, energy_above_lowest=0.5)
    assert (status, kept(outputs)) == (0, ["CH4"])


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ({"theoretical": False}, ["H2O", "CH3OH"]),
        ({"space_group": [194, 227]}, ["H2O", "CH4"]),
        ({"space_group": 1}, ["CH3OH", "NH3"]),
        ({"energy_above_hull": {"min": 0.1, "max": 0.3}}, ["CH4"]),
        ({"energy_above_hull": {"min": 0.1}, "theoretical": False}, ["CH3OH"]),
    ],
)
def test_by_properties(entries, thresholds, expected):
    outputs, status, message = run("filter_by_properties", structures=entries, thresholds=Dict(thresholds))
    assert status == 0, message
    assert kept(outputs) == expected
    assert list(outputs["report"]["filters"]) == sorted(thresholds)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"energy_above_hull": {"max": -0.1}}, "energy_above_hull <= -0.1 leaves nothing of 4 (1 without it): theirs"),
        ({"energy_above_hull": {"max": -0.1}}, "from 0 to 0.35; allow more"),
        # The one that empties is named, not the first.
        ({"energy_above_hull": {"max": 0.1}, "theoretical": True}, "theoretical = True leaves nothing of 1 (of 4)"),
        ({"energy_above_hul": 0.1}, "did you mean 'energy_above_hull'?); known are energy_above_hull, energy_above_"),
        ({"space_group": True}, "space_group = True leaves nothing"),
        ({}, "there is no threshold"),
        ({"energy_above_hull": {"most": 1}}, "give min, max or both"),
        ({"energy_above_hull": {"max": "x"}}, "as finite numbers"),
        ({"energy_above_hull": {"min": 1, "max": 0}}, "nothing lies between them"),
        ({"energy_above_hull": []}, "give a value, a list of values"),
    ],
)
def test_wrong_thresholds_and_nothing_left(entries, thresholds, message):
    outputs, status, text = run("filter_by_properties", structures=entries, thresholds=Dict(thresholds))
    assert (status, outputs or {}) == (201, {})
    assert message in text
    assert "\n" not in text


def test_a_set_without_properties(make_set):
    _, status, text = run("filter_by_hull", structures=make_set("H2O"), energy_above_hull=0.1)
    assert status == 201
    assert "no entry of 1 has the property 'energy_above_hull'; known are none" in text


def test_select_keeps_properties(entries):
    chosen = CalculationFactory("losiko.select")(entries, Dict({"ids": ["g2:CH3OH", "g2:H2O"]}))
    assert chosen.get_properties() == [ROWS[0], ROWS[2]]


def test_merge(entries, make_molecules):
    other = StructureSetData(make_molecules("C2H6"), source={"name": "G2", "licence": "MIT"})
    merged, status, message = run("merge", b=entries, a=other)
    assert status == 0, message
    assert merged.get_identifiers() == [f"g2:{name}" for name in ("C2H6", *NAMES)]
    assert merged.get_properties() == [{}, *ROWS]
    assert merged.source == {"name": "G2 + invented", "licence": "MIT"}


def test_identifiers_that_clash(entries, make_set):
    outputs, status, text = run("merge", a=entries, b=make_set("C2H6", "CH4", "H2O"), c=make_set("C2H6"))
    assert (status, outputs) in ((201, {}), (201, None))
    assert "'g2:CH4', 'g2:H2O' in a and b; 'g2:C2H6' in b and c" in text
    assert "losiko.select (exclude)" in text
