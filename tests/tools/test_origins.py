"""The command that prints where the places of atoms come from."""

from __future__ import annotations

import pytest
from aiida.manage import get_manager
from aiida.orm import Dict
from aiida.plugins import CalculationFactory

from aiida_losiko.tools.origins import main


@pytest.fixture
def relaxed(database_node, make_set):
    """A water molecule relaxed with a database that holds it."""
    relax = CalculationFactory("losiko.relax_structure")
    return relax(make_set("H2O").get_structure(0), database_node, Dict({"relax": {"max_steps": 1}}))["structure"]


def test_prints_a_row_per_atom(relaxed, capsys):
    profile = get_manager().get_profile().name
    assert main([str(relaxed.pk), "--atom", "0", "--atom", "2", "--profile", profile]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[2:4]] == [["0", "O", "g2:H2O", "0"], ["2", "H", "g2:H2O", "1"]]
    assert lines[4].startswith(f"way back: output {relaxed.pk} <- relaxation {relaxed.creator.pk} <- ")
    assert lines[5] == "source: not in the graph"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{pk}", "--atom", "3"], "atom 3 of a structure of 3 atoms"),
        (["{pk}", "--structure", "g2:H2O"], "single structure"),
        (["0"], "0"),
        (["no-such-node"], "no-such-node"),
    ],
)
def test_errors_are_one_line(relaxed, capsys, arguments, message):
    assert main([argument.format(pk=relaxed.pk) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
