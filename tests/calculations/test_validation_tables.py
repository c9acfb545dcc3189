"""Ranking, and the table of a validation, without any program."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.orm import ArrayData, Dict, List
from aiida.plugins import CalculationFactory
from ase.build import bulk, molecule

from aiida_losiko.data import StructureSetData, atoms_to_structure

rank = CalculationFactory("losiko.rank")
tabulate = CalculationFactory("losiko.tabulate_validation")


def matches(names, losses, status="converged"):
    return ArrayData(
        {"identifiers": np.array(names), "loss": np.array(losses), "status": np.array([status] * len(names))}
    )


def measurement(*energies, gap=None, converged=True, error="", engine="xtb"):
    count = len(energies)
    columns = {
        "energy": list(energies),
        "gap": [gap] * count,
        "converged": [converged] * count,
        "error": [error] * count,
    }
    return Dict({"engine": engine, "unit": "eV", **columns})


@pytest.fixture
def three(aiida_profile):
    return StructureSetData([molecule("H2O"), molecule("CH4"), molecule("NH3")], ["a", "b", "c"])


def test_by_loss_per_atom(three):
    # Per atom: 1.0, 0.5, 1.0; equal ones keep their order.
    outputs = rank(three, Dict({}), matches(["a", "b", "c"], [3.0, 2.5, 4.0]))
    assert outputs["structures"].get_identifiers() == ["b", "a", "c"]
    assert outputs["ranking"]["rows"]["loss_per_atom"] == [0.5, 1.0, 1.0]
    few = rank(three, Dict({"max_structures": 1}), matches(["a", "b", "c"], [3.0, np.nan, 4.0]))
    assert few["structures"].get_identifiers() == ["a"]
    assert few["ranking"]["n_ranked"] == 2
    plain = rank(three, Dict({"max_structures": 2}))
    assert plain["structures"].get_identifiers() == ["a", "b"]
    assert plain["ranking"]["rows"]["loss"] == [None] * 3


def test_duplicates_may_stay(aiida_profile):
    twice = StructureSetData([molecule("H2O"), molecule("H2O")], ["a", "b"])
    assert len(rank(twice, Dict({}))["structures"]) == 1
    assert len(rank(twice, Dict({"duplicate_tolerance": None}))["structures"]) == 2


@pytest.mark.parametrize(
    ("parameters", "losses", "message"),
    [
        ({"n": 1}, None, "unknown key 'n'"),
        ({"max_structures": 0}, None, "max_structures is 0"),
        ({"duplicate_tolerance": -1}, None, "duplicate_tolerance is -1"),
        ({}, [np.nan] * 3, "none of the 3 structures has a loss"),
        ({}, [1.0], "the matches are not those of the 3 structures"),
    ],
)
def test_wrong_rankings(three, parameters, losses, message):
    given = {} if losses is None else {"matches": matches(["a", "b", "c"][: len(losses)], losses)}
    _, node = rank.run_get_node(structures=three, parameters=Dict(parameters), **given)
    assert node.exit_status == 201 and message in node.exit_message


def test_a_crystal(aiida_profile):
    start, losiko = bulk("NaCl", "rocksalt", a=6.2), bulk("NaCl", "rocksalt", a=5.9)
    start.positions[1] += 0.3
    minimum = bulk("NaCl", "rocksalt", a=5.7)[[1, 0]]  # sorted by element, as some programs do
    group = {
        stage: {"structure": atoms_to_structure(atoms), "measurement": measurement(energy, gap=gap, engine="pw")}
        for stage, atoms, energy, gap in (
            ("start", start, -10.0, 5.0),
            ("losiko", losiko, -13.5, 5.5),
            ("minimum", minimum, -14.0, None),
        )
    }
    group["minimum"]["dos"] = measurement(None, gap=6.0, engine="pw")
    table = tabulate(structure_0=group).get_dict()
    assert (table["engine"], table["n_rows"]) == ("pw", 1)
    row = {name: column[0] for name, column in table["rows"].items()}
    assert (row["identifier"], row["formula"], row["n_atoms"]) == ("structure", "ClNa", 2)
    assert row["energy_per_atom_minimum"] == -7.0
    assert row["recovered"] == pytest.approx(3.5 / 4.0)
    assert [row[f"gap_{stage}"] for stage in ("start", "losiko", "minimum")] == [5.0, 5.5, 6.0]
    assert row["volume_change"] == pytest.approx(100 * ((5.7 / 5.9) ** 3 - 1))
    assert row["rmsd_losiko"] < 1e-9 and row["rmsd_start"] > 0.1
    assert row["coordination_changed"] == 0
    assert row["converged"] and row["problems"] == ""


def test_coordination(aiida_profile):
    losiko, minimum = molecule("H2O"), molecule("H2O")
    minimum.positions[1] += (0, 3.0, 0)
    group = {"losiko": losiko, "minimum": minimum}
    group = {k: {"structure": atoms_to_structure(v), "measurement": measurement(-1.0)} for k, v in group.items()}
    row = {name: column[0] for name, column in tabulate(only=group)["rows"].items()}
    # The oxygen and one hydrogen atom have lost a neighbour.
    assert row["coordination_changed"] == 2
    assert row["energy_start"] is None and row["recovered"] is None and row["volume_change"] is None


def test_what_is_not_known(three):
    group = {
        "losiko": {"structure": three, "measurement": measurement(-1.0, -2.0, -3.0)},
        "minimum": {
            "structure": three,
            "measurement": Dict(
                {
                    "engine": "xtb",
                    "energy": [-1.5, None, -3.5],
                    "gap": [1.0, None, None],
                    "converged": [True, False, False],
                    "error": ["", "lost", ""],
                }
            ),
        },
    }
    rows = tabulate(all=group)["rows"]
    assert rows["identifier"] == ["a", "b", "c"]
    assert rows["problems"] == ["", "minimum: lost", "minimum: not converged"]
    assert rows["rmsd_losiko"] == [pytest.approx(0, abs=1e-9), None, pytest.approx(0, abs=1e-9)]
    # Without anything measured there are still the structures.
    assert tabulate(all={"losiko": {"structure": three}})["rows"]["energy_losiko"] == [None] * 3


def test_what_was_asked_for_and_is_not_there_is_a_problem(three):
    """As where an engine crashed and left nothing to read."""
    group = {"losiko": {"structure": three, "measurement": measurement(-1.0, -2.0, -3.0)}}
    asked = List(["start", "losiko", "minimum"])
    rows = tabulate(compute=asked, all=group)["rows"]
    assert rows["converged"] == [False] * 3
    assert rows["problems"] == ["minimum: no energy"] * 3
    rows = tabulate(compute=List(["losiko"]), all=group)["rows"]
    assert rows["converged"] == [True] * 3 and rows["problems"] == [""] * 3


def test_labels_are_in_the_order_of_their_numbers(aiida_profile):
    groups = {
        f"structure_{i}": {
            "losiko": {"structure": atoms_to_structure(molecule("H2O")), "measurement": measurement(float(-i))}
        }
        for i in range(11)
    }
    assert tabulate(**groups)["rows"]["energy_losiko"] == [-float(i) for i in range(11)]


def test_nodes_that_do_not_belong_together(three):
    water, ammonia = (atoms_to_structure(molecule(name)) for name in ("H2O", "NH3"))
    minimum = {"structure": ammonia, "measurement": measurement(-1.0)}
    for change, message in (
        ({"end": {"structure": ammonia}}, "has end, losiko: give losiko and some of start, losiko, minimum"),
        ({"start": {"structure": three}}, "has 1 structures of LOSIKO and 3 of start"),
        ({"minimum": minimum}, "H3N is no minimum of H2O"),
    ):
        _, node = tabulate.run_get_node(x={"losiko": {"structure": water}, **change})
        assert node.exit_status == 201 and message in node.exit_message
