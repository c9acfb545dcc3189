"""Matches and reports of relaxations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aiida_losiko.core import relax
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.matches import atom_matches, matches_to_node, summarise

FAILED = {"status": "error", "converged": False, "error": "two atoms at the same place"}


@pytest.fixture
def relaxed(small_database, make_molecules):
    return relax(make_molecules("CH3OH", "H2O", noise=0.05), small_database, max_steps=3)


def test_arrays_say_what_the_relaxations_say(relaxed, aiida_profile):
    rows = [relaxed[0].to_dict(), FAILED, relaxed[1].to_dict()]
    node = matches_to_node(rows, [6, 4, 3], ["a", "b", "c"]).store()
    assert node.get_array("offsets").tolist() == [0, 6, 10, 13]
    assert node.get_array("status").tolist() == [relaxed[0].status, "error", relaxed[1].status]
    assert np.isnan(node.get_array("loss")).tolist() == [False, True, False]
    assert np.isnan(node.get_array("distance")).tolist() == [False] * 6 + [True] * 4 + [False] * 3
    assert node.get_array("out_of_reach").dtype == np.int8
    found = atom_matches(node, 2, [2, 0])
    matches = relaxed[1].matches
    assert [row["atom"] for row in found] == [2, 0]
    for row in found:
        atom = row["atom"]
        assert row["source"] == matches.source[atom]
        assert row["source_atom"] == matches.atom_index[atom]
        assert row["distance"] == pytest.approx(matches.distance[atom])
        assert row["out_of_reach"] is matches.out_of_reach[atom]
    assert {row["source"] for row in atom_matches(node, 1)} == {None}


def test_arrays_that_do_not_fit(relaxed, aiida_profile):
    with pytest.raises(LosikoError, match="one for each"):
        matches_to_node([FAILED], [3, 4], ["a", "b"])
    with pytest.raises(LosikoError, match="6 matches for 5 atoms"):
        matches_to_node([relaxed[0].to_dict()], [5], ["a"])
    node = matches_to_node([relaxed[0].to_dict()], [6], ["a"])
    with pytest.raises(LosikoError, match="structure 1 of 1"):
        atom_matches(node, 1)
    with pytest.raises(LosikoError, match="atom 6 of a structure of 6 atoms"):
        atom_matches(node, 0, [6])


def test_the_summary_is_small_json(relaxed):
    flagged = {**relaxed[1].to_dict(), "flags": ["collapsed"]}
    report = summarise([relaxed[0].to_dict(), FAILED, flagged], ["a", "b", "c"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["errors"] == {"b": FAILED["error"]}
    assert report["flags"] == {"collapsed": ["c"]}
    assert sum(report["status"].values()) == 3
    assert report["structures"]["loss"][1] is None
    assert report["mean_loss"] == pytest.approx(np.mean([relaxed[0].loss, relaxed[1].loss]))
    many = summarise([FAILED] * 1001, [str(i) for i in range(1001)])
    assert "structures" not in many
    assert len(many["errors"]) == 1000
    assert many["mean_loss"] is None
