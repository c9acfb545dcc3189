"""Growth of time and memory is told for each atom, and what a frozen region leaves is counted."""

from __future__ import annotations

import pytest


def test_growth_for_each_atom(script):
    rows = [
        {"n_atoms": 96, "first": 1.0, "next": 0.1, "before": 0.3, "peak": 0.4},
        {"n_atoms": 960, "first": 5.0, "next": 1.3, "before": 0.3, "peak": 1.3},
    ]
    script("silica_scaling").add_growth(rows)
    assert "next_growth" not in rows[0]
    assert rows[1]["first_growth"] == pytest.approx(0.5)
    assert rows[1]["next_growth"] == pytest.approx(1.3)
    assert rows[1]["memory_growth"] == pytest.approx(1.0)
    assert rows[1]["per_atom"] == pytest.approx(1e6 * 1.3 / 960)


def test_a_process_of_its_own_measures(script):
    scaling = script("silica_scaling")
    figures = scaling.in_process("crystals", [2, 2, 2], 3.0, 2)
    assert figures["n_atoms"] == 96 and 0 < figures["n_free"] < figures["n_changing"] <= 96
    assert figures["first"] > 0 and figures["next"] > 0
    assert figures["peak"] >= figures["before"] > 0.05
