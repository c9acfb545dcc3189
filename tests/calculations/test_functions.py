"""The calculation functions."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.manage.caching import enable_caching
from aiida.orm import Dict, StructureData
from aiida.plugins import CalculationFactory
from ase.build import molecule
from ase.constraints import FixAtoms

from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.data import StructureSetData, atoms_to_structure

NAMES = ("H2O", "CH4", "CH3OH", "NH3", "C2H6")


def run(name, **inputs):
    """Run a function; return its outputs, exit status and message."""
    result, node = CalculationFactory(f"losiko.{name}").run_get_node(**inputs)
    return result, node.exit_status, node.exit_message or ""


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, NAMES),
        ({"ids": ["g2:CH3OH", "g2:H2O"]}, ("H2O", "CH3OH")),
        ({"exclude": ["g2:CH4", 1]}, ("CH3OH", "NH3", "C2H6")),
        ({"first": 3, "stride": 2}, ("H2O", "CH3OH")),
        ({"elements": ["H", "C"]}, ("CH4", "C2H6")),
        ({"min_atoms": 4, "max_atoms": 6}, ("CH4", "CH3OH", "NH3")),
    ],
)
def test_select(make_set, selection, expected):
    source = make_set(*NAMES, source={"name": "G2"})
    result, status, _ = run("select", source=source, selection=Dict(selection))
    assert status == 0
    assert result.get_identifiers() == [f"g2:{name}" for name in expected]
    assert result.source == {"name": "G2"}
    assert result.creator.process_type == "aiida.calculations:losiko.select"


def test_select_at_random_depends_on_the_seed_only(make_set):
    source = make_set(*NAMES)
    draws = [run("select", source=source, selection=Dict({"random": 3, "seed": seed}))[0] for seed in (1, 1, 2, 3, 4)]
    assert draws[0].get_identifiers() == draws[1].get_identifiers()
    assert len({tuple(draw.get_identifiers()) for draw in draws}) > 1


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"identifier": ["a"]}, "unknown selection key identifier"),
        ({"exclude": ["g2:CH5"]}, "exclude holds 'g2:CH5', which is not in the set"),
        ({"ids": [6]}, "ids holds 6"),
        ({"elements": ["Xe"]}, "passes the selection"),
        ({"first": 0}, "whole numbers from 1"),
    ],
)
def test_wrong_selections(make_set, selection, message):
    _, status, text = run("select", source=make_set(*NAMES), selection=Dict(selection))
    assert status == 201
    assert message in text


def test_displace_a_set(make_set, make_molecules):
    start = make_set(*NAMES, source={"name": "G2"})
    parameters = Dict({"standard_deviation": 0.1, "seed": 3})
    first, status, _ = run("displace", structures=start, parameters=parameters)
    second, _, _ = run("displace", structures=start, parameters=parameters)
    other, _, _ = run("displace", structures=start, parameters=Dict({"standard_deviation": 0.1, "seed": 4}))
    assert status == 0
    assert first.get_identifiers() == start.get_identifiers()
    assert first.source == start.source
    moves = np.concatenate([(a.positions - b.positions).ravel() for a, b in zip(first, start, strict=True)])
    assert 0.07 < moves.std() < 0.13
    assert first.base.repository.hash() == second.base.repository.hash()
    assert first.base.repository.hash() != other.base.repository.hash()
    # The places have numbers of their own: the hydrogen atoms of no two molecules move alike.
    assert len(np.unique(moves.round(12))) == moves.size


def test_displace_leaves_fixed_atoms_and_takes_one_structure(aiida_profile):
    atoms = molecule("CH4")
    atoms.set_constraint(FixAtoms([0]))
    parameters = Dict({"standard_deviation": 0.2})
    moved, _, _ = run("displace", structures=StructureSetData.from_atoms([atoms]), parameters=parameters)
    assert (np.linalg.norm(moved.get_ase(0).positions - atoms.positions, axis=1) > 0).tolist() == [False] + [True] * 4
    single, status, _ = run("displace", structures=atoms_to_structure(molecule("CH4")), parameters=parameters)
    assert status == 0
    assert isinstance(single, StructureData)
    assert rmsd(single.get_ase(), molecule("CH4")) > 0.01


def test_displaced_copies(make_set):
    start = make_set("CH4", "H2O", source={"name": "G2"})
    sets = {}
    for copies in (2, 3):
        parameters = Dict({"standard_deviation": 0.1, "seed": 3, "copies": copies})
        sets[copies], status, _ = run("displace", structures=start, parameters=parameters)
        assert status == 0
    assert sets[2].get_identifiers() == [f"g2:{name}-displaced-{copy}" for name in ("CH4", "H2O") for copy in (0, 1)]
    assert sets[2].source == start.source
    moves = [sets[3].get_ase(copy).positions - start.get_ase(0).positions for copy in range(3)]
    assert len(np.unique(np.round(moves, 12))) == 3 * 5 * 3
    np.testing.assert_array_equal(sets[2].get_ase(2).positions, sets[3].get_ase(3).positions)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "standard_deviation is None"),
        ({"standard_deviation": -0.1}, "at least 0 Angstrom"),
        ({"standard_deviation": "x"}, "standard_deviation is 'x'"),
        ({"standard_deviation": 0.1, "sigma": 1}, "unknown key 'sigma'"),
        ({"standard_deviation": 0.1, "seed": 1.5}, "whole number"),
        ({"standard_deviation": 0.1, "copies": 0}, "copies is 0: give a number of at least 1"),
        ({"standard_deviation": 0.1, "copies": 1.5}, "copies is 1.5: give a whole number"),
    ],
)
def test_wrong_displacements(make_set, parameters, message):
    _, status, text = run("displace", structures=make_set("H2O"), parameters=Dict(parameters))
    assert status == 201
    assert message in text


def test_compare_by_identifier(make_set, make_molecules):
    moved = make_set("CH4", "H2O", noise=0.1)
    result, status, _ = run("compare", structures=moved, reference=make_set(*NAMES))
    expected = [rmsd(a, b) for a, b in zip(moved, make_molecules("CH4", "H2O"), strict=True)]
    assert status == 0
    np.testing.assert_allclose(result["rmsd"].get_array("rmsd"), expected)
    assert result["rmsd"].get_array("identifiers").tolist() == ["g2:CH4", "g2:H2O"]
    assert result["report"]["largest"] == pytest.approx(max(expected))
    assert result["report"]["unit"] == "Angstrom"


def test_compare_single_structures(make_set):
    turned = molecule("CH3OH")
    turned.rotate(40, "x")
    result, _, _ = run(
        "compare", structures=atoms_to_structure(turned), reference=atoms_to_structure(molecule("CH3OH"))
    )
    assert result["report"]["mean"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("names", "reference", "message"),
    [(("CH4",), ("H2O",), "'g2:CH4' has no reference"), (("CH4",), None, "g2:CH4: CH4 cannot be compared")],
)
def test_wrong_references(make_set, names, reference, message):
    other = make_set(*reference) if reference else atoms_to_structure(molecule("H2O"))
    _, status, text = run("compare", structures=make_set(*names), reference=other)
    assert status == 201
    assert message in text


def test_relax_structure(database_node):
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    start = atoms_to_structure(atoms)
    parameters = Dict({"relax": {"max_steps": 60}, "fixed_atoms": [0]})
    result, status, message = run("relax_structure", structure=start, database=database_node, parameters=parameters)
    assert status == 0, message
    report = result["report"].get_dict()
    assert report["protocol"] == "balanced"
    assert report["settings"]["max_steps"] == 60
    assert report["structures"]["loss"][0] < report["structures"]["initial_loss"][0]
    np.testing.assert_allclose(result["structure"].get_ase().positions[0], atoms.positions[0], atol=1e-12)
    assert len(result["matches"].get_array("distance")) == 6


def test_relax_structure_without_a_source(database_node):
    start = atoms_to_structure(molecule("CH3OH"))
    parameters = Dict({"relax": {"max_steps": 0}, "exclude": ["g2:CH3OH"]})
    result, status, message = run("relax_structure", structure=start, database=database_node, parameters=parameters)
    assert status == 0, message
    assert "g2:CH3OH" not in result["matches"].get_array("sources").tolist()


@pytest.mark.parametrize(
    ("formula", "parameters", "message"),
    [
        ("CH3OH", {"relaxx": {}}, "unknown key 'relaxx'"),
        ("CH3OH", {"exclude": ["g2:C9"]}, "exclude holds 'g2:C9'"),
        ("CH3OH", {"fixed_atoms": [6]}, "fixed atom 6"),
        ("NH3", {}, "N"),
    ],
)
def test_relax_structure_with_wrong_input(database_node, formula, parameters, message):
    start = atoms_to_structure(molecule(formula))
    _, status, text = run("relax_structure", structure=start, database=database_node, parameters=Dict(parameters))
    assert status == 201
    assert message in text


def test_extract(make_molecules, aiida_profile):
    molecules = make_molecules("H2O", "CH4")
    molecules[1].set_constraint(FixAtoms([3, 0]))
    structures = StructureSetData(molecules)
    by_name, status, _ = run("extract", structures=structures, structure="g2:CH4")
    assert status == 0
    assert by_name["structure"].label == "g2:CH4"
    np.testing.assert_allclose(by_name["structure"].get_ase().positions, molecules[1].positions)
    assert by_name["fixed_atoms"].get_list() == [0, 3]
    assert by_name["structure"].creator.inputs.structures.uuid == structures.uuid
    by_index, status, _ = run("extract", structures=structures, structure=0)
    assert (status, list(by_index)) == (0, ["structure"])
    assert by_index["structure"].get_formula() == "H2O"


@pytest.mark.parametrize(("which", "message"), [("CH4", "no structure 'CH4' in the set"), (2, "structure 2 of a set")])
def test_extract_what_is_not_there(make_set, which, message):
    _, status, text = run("extract", structures=make_set("H2O", "CH4"), structure=which)
    assert status == 201
    assert message in text


def job_report(**changes):
    """Return what `losiko.relax` reports of two structures."""
    lists = {"identifier": ["a", "b"], "initial_loss": [0.5, None], "steps": [3, 0], "evaluations": [4, 0]}
    report = {"n_structures": 2, "status": {"max_seconds": 2}, "seconds": 1.5, "steps": 3, "evaluations": 4}
    return report | {"flags": {"fragmented": ["a"], "collapsed": ["a"]}, "structures": lists} | changes


def test_join_reports():
    last = job_report(status={"converged": 2}, flags={"lost_atoms": ["b"], "fragmented": ["b"]})
    last["structures"] = last["structures"] | {"initial_loss": [0.1, 0.2], "steps": [1, 2]}
    joined, status, _ = run("join_reports", job_2=Dict(last), job_1=Dict(job_report()))
    assert status == 0
    assert joined["status"] == {"converged": 2}
    assert (joined["n_jobs"], joined["seconds"], joined["steps"], joined["evaluations"]) == (2, 3.0, 6, 8)
    # A collapse is judged anew by each job, falling apart only against the start of the job.
    assert joined["flags"] == {"lost_atoms": ["b"], "fragmented": ["a", "b"]}
    assert joined["structures"] == {
        "identifier": ["a", "b"],
        "initial_loss": [0.5, 0.2],
        "steps": [4, 2],
        "evaluations": [8, 0],
    }


def test_reports_that_do_not_belong_together():
    other = job_report(n_structures=3)
    assert run("join_reports", job_1=Dict(job_report()), job_2=Dict(other))[1] == 201
    other = job_report(structures=job_report()["structures"] | {"identifier": ["a", "c"]})
    assert "identifiers" in run("join_reports", job_1=Dict(job_report()), job_2=Dict(other))[2]


def test_only_what_the_inputs_determine_is_taken_from_the_cache(make_set, database_node):
    start = make_set("H2O", noise=0.02).get_structure(0).store()
    complete = load_protocol("balanced").relax | {"max_steps": 2}

    def twice(function, **inputs):
        with enable_caching():
            nodes = [CalculationFactory(f"losiko.{function}").run_get_node(**inputs)[1] for _ in range(2)]
        return nodes[1].base.caching.is_created_from_cache

    relax = {"structure": start, "database": database_node}
    assert twice("relax_structure", **relax, parameters=Dict({"relax": complete}))
    assert not twice("relax_structure", **relax, parameters=Dict({"relax": {"max_steps": 2}}))
    source = make_set("H2O", "CH4").store()
    assert twice("select", source=source, selection=Dict({"first": 1}))
    assert not twice("select", source=source, selection=Dict({"first": 0}))
