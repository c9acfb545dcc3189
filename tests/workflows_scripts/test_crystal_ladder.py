"""The launch script of the crystal ladder as far as it goes without a daemon and without pw.x."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "crystal_ladder.py"


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("crystal_ladder", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "gold"], "invalid choice: 'gold'"),
        (["--displacement", "0"], "above 0, to 1 Angstrom"),
        (["--seed", "-3"], "whole number from 0"),
        (["--processors", "0"], "1 or more"),
    ],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("case", "formula"), [("proton", "HCo2LiO4"), ("silicon", "Si8")])
def test_starts(job, aiida_profile, case, formula):
    start, entries = job.make_start(job.CASES[case], 0.1, 3)
    assert [atoms.get_chemical_formula() for atoms in start] == [formula]
    assert set(job.CASES[case].elements) == set(entries.elements)


@pytest.mark.parametrize("case", ["proton", "silicon"])
def test_settings_are_those_of_the_engine(job, case):
    from aiida_losiko.workflows.validation import load_engine

    engine = load_engine("quantumespresso")
    assert engine.spell_out({"protocol": "debian", **job.CASES[case].settings})["pseudo_family"] == "debian-mixed"


def test_verdict(job):
    rows = {"energy_start": [-10.0], "energy_losiko": [-14.5], "energy_minimum": [-15.0], "recovered": [0.9]}
    told = "start 5.00 eV and LOSIKO 0.50 eV above the minimum of DFT: 90.0 % recovered, the 90 % that were asked for"
    assert job.verdict({"rows": rows}) == told
    assert "not the 90 %" in job.verdict({"rows": {**rows, "recovered": [0.89]}})
    assert "not all energies" in job.verdict({"rows": {**rows, "recovered": [None]}})
