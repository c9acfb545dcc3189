"""`validate` in `losiko.relax`: relax, choose the best, compute them."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node
from aiida.orm import WorkChainNode
from ase.build import bulk, molecule

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData, atoms_to_structure
from aiida_losiko.workflows.relax import RelaxWorkChain
from aiida_losiko.workflows.validation.xtb import XtbEngine

pytest.importorskip("tblite", reason="the extra xtb")


def relax(code, structures, database, validate, **settings):
    overrides = {"relax": {"parameters": {"relax": settings}}, "max_iterations": 1}
    build = RelaxWorkChain.get_builder_from_protocol
    return run_get_node(build(code, structures, database, overrides=overrides, validate=validate))


def validation_of(chain):
    (node,) = (called for called in chain.called if isinstance(called, WorkChainNode))
    return node


def test_the_best_of_a_set(losiko_code, make_molecules, database_node):
    molecules = make_molecules("CH4", "CH3OH", "H2O", noise=0.05)
    again = molecules[2].copy()
    again.info["identifier"] = "water-again"
    start = StructureSetData([*molecules, again])
    request = {"engine": "xtb", "max_structures": 2, "overrides": {"fmax": 0.02}}
    outputs, chain = relax(losiko_code, start, database_node, request)
    assert chain.is_finished_ok, chain.exit_message
    assert len(outputs["structures"]) == 4
    table, ranking = outputs["validate"]["table"].get_dict(), outputs["validate"]["ranking"].get_dict()
    assert (ranking["n_ranked"], ranking["n_chosen"], table["n_rows"]) == (4, 2, 2)
    losses = ranking["rows"]["loss_per_atom"]
    assert losses == sorted(losses)
    rows = table["rows"]
    assert rows["identifier"] == outputs["validate"]["structures"].get_identifiers()
    assert all(e > m for e, m in zip(rows["energy_start"], rows["energy_minimum"], strict=True))
    assert all(e >= m for e, m in zip(rows["energy_losiko"], rows["energy_minimum"], strict=True))
    # The work chain is called by this one, with what came out of it.
    node = validation_of(chain)
    assert node.inputs.structures.uuid == outputs["structures"].uuid
    assert node.inputs.starts.uuid == start.uuid
    assert node.inputs.parameters["fmax"] == 0.02


@pytest.mark.parametrize("failing", [False, True], ids=["unconverged", "and failing"])
def test_one_structure_that_is_not_converged(losiko_code, database_node, failing):
    """An unconverged relaxation is validated all the same, and says so at the end."""
    atoms = molecule("CH3OH")
    atoms.rattle(0.1, seed=1)
    request = {"engine": "xtb", "overrides": {"max_steps": 1 if failing else 500}}
    outputs, chain = relax(losiko_code, atoms_to_structure(atoms), database_node, request, max_steps=2)
    assert chain.exit_status == (430 if failing else 410)
    assert "Not converged after 1 jobs" in chain.exit_message
    if failing:
        node = validation_of(chain)
        assert f"ValidateWorkChain<{node.pk}> ended with exit status 410: The engine xtb" in chain.exit_message
        assert "XtbCalculation<" in chain.exit_message
    assert {"structure", "report", "matches"} <= set(outputs)
    assert outputs["validate"]["table"]["rows"]["energy_losiko"][0] < -200
    assert outputs["validate"]["minima"]["structure_0"].get_formula() == "CH4O"


def test_what_the_engine_cannot_read_leaves_the_relaxation(losiko_code, make_set, database_node, monkeypatch):
    def broken(self, outputs):
        raise KeyError("energy")

    monkeypatch.setattr(XtbEngine, "read_set", broken)
    monkeypatch.setattr(XtbEngine, "takes_sets", False)
    request = {"engine": "xtb", "compute": ["losiko"]}
    outputs, chain = relax(losiko_code, make_set("H2O", "CH4"), database_node, request)
    assert chain.exit_status == 430
    assert "The outputs cannot be read: KeyError 'energy'" in chain.exit_message
    assert outputs["structures"].get_identifiers() == ["g2:H2O", "g2:CH4"]
    assert outputs["validate"]["table"]["n_rows"] == 2


def test_one_process_for_each_structure(losiko_code, make_set, database_node, monkeypatch):
    """Engines that know nothing of sets get single structures."""
    monkeypatch.setattr(XtbEngine, "takes_sets", False)
    request = {"engine": "xtb", "max_structures": 2, "compute": ["start", "minimum"]}
    outputs, chain = relax(losiko_code, make_set("H2O", "CH4", noise=0.03), database_node, request)
    assert chain.is_finished_ok, chain.exit_message
    minima = outputs["validate"]["minima"]
    rows = outputs["validate"]["table"]["rows"]
    assert sorted(minima) == ["structure_0", "structure_1"]
    assert [minima[f"structure_{i}"].get_ase().get_chemical_formula() for i in (0, 1)] == rows["formula"]
    assert rows["energy_losiko"] == [None, None] and None not in rows["energy_start"]
    names = {link.link_label for link in validation_of(chain).base.links.get_outgoing().all()}
    assert {"extract_start_0", "start_single_point_structure_1", "minimum_relax_structure_0"} <= names


def test_a_failed_relaxation_is_not_validated(losiko_code, make_set, database_node):
    build = RelaxWorkChain.get_builder_from_protocol
    overrides = {"relax": {"parameters": {"exclude": ["g2:C9"]}}}
    builder = build(losiko_code, make_set("H2O"), database_node, overrides=overrides, validate={"engine": "xtb"})
    outputs, chain = run_get_node(builder)
    assert chain.exit_status == 201 and "validate" not in outputs
    assert not [called for called in chain.called if isinstance(called, WorkChainNode)]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "validate names no engine"),
        ({"engine": "vsap"}, "unknown validation engine 'vsap'"),
        ({"engine": "xtb", "protocl": "rough"}, "unknown key 'protocl' of validate (did you mean 'protocol'?)"),
        ({"engine": "xtb", "overrides": {"fmx": 1}}, "has no key 'fmx'"),
        ({"engine": "xtb", "overrides": [1]}, "overrides of xtb are [1]: give a mapping"),
        ({"engine": "xtb", "codes": "losiko@nowhere"}, "the code losiko of xtb is 'losiko@nowhere'"),
    ],
)
def test_wrong_requests(losiko_code, make_set, database_node, request_, message):
    with pytest.raises(LosikoError) as error:
        RelaxWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), database_node, validate=request_)
    assert message in str(error.value)


def test_a_crystal_for_xtb(losiko_code, aiida_profile):
    soap = SoapPowerSpectrum(species=["C"], r_cut=2.3, n_max=3, l_max=2, sigma=0.3)
    atoms = bulk("C")
    atoms.info["identifier"] = "diamond"
    database = EnvironmentDatabaseData(EnvironmentDatabase.build([atoms], soap, metadata={"protocol": "carbon"}))
    structure = atoms_to_structure(atoms)
    build = RelaxWorkChain.get_builder_from_protocol
    with pytest.raises(LosikoError, match=r"the structure \(C2\) is periodic, and xtb is for molecules"):
        build(losiko_code, structure, database, validate={"engine": "xtb"})
    # Also of a builder that was filled by hand.
    builder = build(losiko_code, structure, database)
    builder.validate.engine = "xtb"
    builder.validate.codes = {"losiko": losiko_code}
    with pytest.raises(ValueError, match="is periodic, and xtb is for molecules"):
        run_get_node(builder)
