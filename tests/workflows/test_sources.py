"""From queries to a database, and back from an atom to the entry of its source."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node
from aiida.orm import CalcFunctionNode, Dict
from aiida.plugins import CalculationFactory

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData
from aiida_losiko.groups import add_release
from aiida_losiko.tools.origins import origins_text
from aiida_losiko.tools.provenance import source_structure, trace
from aiida_losiko.workflows.database import DatabaseWorkChain
from aiida_losiko.workflows.relax import RelaxWorkChain

SMALL = {"describe": {"parameters": {"descriptor": {"n_max": 3, "l_max": 2, "r_cut": 3.0}}}}


def call(name, **inputs):
    inputs = {key: Dict(value) if isinstance(value, dict) else value for key, value in inputs.items()}
    outputs, node = CalculationFactory(f"losiko.{name}").run_get_node(**inputs)
    assert node.is_finished_ok, node.exit_message
    return outputs


def build(code, sources, **kwargs):
    kwargs.setdefault("overrides", SMALL)
    return run_get_node(DatabaseWorkChain.get_builder_from_protocol(code, sources, "carbon", **kwargs))


@pytest.fixture
def crystals(aiida_profile):
    query = {"selection": {"ids": ["crystal:silicon", "crystal:diamond", "crystal:graphite"]}}
    return call("query.reference_crystals", query=query)["structures"]


def test_from_two_sources_to_an_atom_and_back(losiko_code, materials_project, crystals):
    """Materials Project and embedded crystals in one database; each atom is traced to its own source's entry."""
    query = {"endpoint": materials_project.address, "chemsys": "Si-O", "pause": 0.01}
    answer = call("query.materials_project", query=query)
    stable = call("filter_by_hull", structures=answer["structures"], energy_above_hull=0.1)["structures"]
    sources = {"mp": stable, "embedded": crystals}
    built, chain = build(losiko_code, sources, selection={"exclude": ["crystal:silicon"]})
    assert chain.is_finished_ok, chain.exit_message
    names = ["crystal:diamond", "crystal:graphite", *stable.get_identifiers()]
    assert sorted(built["structures"].get_identifiers()) == sorted(names)
    assert built["database"].load().sources == built["structures"].get_identifiers()
    assert {row["formula"] for row in built["structures"].get_properties()} >= {"C", "Si"}
    called = [node.process_label for node in chain.called if isinstance(node, CalcFunctionNode)]
    assert sorted(called) == ["merge", "select"]

    add_release(built["database"], "C-Si-O@test")
    start = StructureSetData(
        [stable.get_ase(stable.index_of("mp-149")), crystals.get_ase(crystals.index_of("crystal:diamond"))]
    )
    overrides = {"relax": {"parameters": {"relax": {"max_steps": 5}}}, "database_release": "C-Si-O@test"}
    builder = RelaxWorkChain.get_builder_from_protocol(losiko_code, start, overrides=overrides)
    assert builder.database.uuid == built["database"].uuid
    assert builder.relax.parameters["protocol"] == "carbon"
    relaxed, chain = run_get_node(builder)
    assert chain.is_finished_ok, chain.exit_message

    row = trace(relaxed["structures"], 0, structure="mp-149")[0]
    assert (row["source"], row["source_symbol"]) == ("mp-149", "Si")
    assert row["source_info"]["name"] == "Materials Project"
    assert row["source_properties"]["energy_above_hull"] == pytest.approx(0.0)
    assert row["source_properties"]["space_group"] == 227
    path = {step["role"]: step["uuid"] for step in row["path"]}
    roles = [step["role"] for step in row["path"]]
    assert roles[-6:] == ["described", "selection", "merge", "filter", "origin", "query"]
    assert path["origin"] == answer["structures"].uuid
    assert path["query"] == answer["answer"].creator.uuid
    assert source_structure(row) == answer["structures"].get_ase(answer["structures"].index_of("mp-149"))
    other = trace(relaxed["structures"], 0, structure="crystal:diamond")[0]
    assert other["source"] == "crystal:diamond"
    assert other["source_info"]["name"] == "reference crystals of aiida-losiko"
    assert other["source_properties"]["space_group_symbol"] == "Fd-3m"
    assert [step["role"] for step in other["path"]][-4:] == ["selection", "merge", "origin", "query"]
    assert {step["role"]: step["uuid"] for step in other["path"]}["origin"] == crystals.uuid
    # Both ways and both sources are told.
    text = origins_text([row, other])
    assert "source: Materials Project" in text and "source: reference crystals" in text
    assert text.count("way back: ") == 2


def test_identifiers_that_clash_are_an_error(losiko_code, crystals):
    outputs, chain = build(losiko_code, [crystals, crystals])
    assert (chain.exit_status, outputs) == (203, {})
    assert "'crystal:silicon', 'crystal:diamond', 'crystal:graphite' in set_1 and set_2" in chain.exit_message


def test_no_sources(losiko_code):
    with pytest.raises(ValueError, match="there is no set of structures"):
        build(losiko_code, {})


def test_which_database_a_relaxation_takes(losiko_code, make_set, database_node):
    make = RelaxWorkChain.get_builder_from_protocol
    start = make_set("H2O")
    with pytest.raises(LosikoError, match="no database, and the protocol 'fast' names no release"):
        make(losiko_code, start, protocol="fast")
    with pytest.raises(LosikoError, match="no release 'C-H-O@9'"):
        make(losiko_code, start, overrides={"database_release": "C-H-O@9"})
    with pytest.raises(LosikoError, match="a database is given, and the overrides name the release"):
        make(losiko_code, start, database_node, overrides={"database_release": "C-H-O@1"})
    add_release(database_node, "C-H-O@1", force=True)
    for builder in (
        make(losiko_code, start, "C-H-O@1"),
        make(losiko_code, start, overrides={"database_release": "C-H-O@1"}),
    ):
        assert builder.database.uuid == database_node.uuid


def test_a_protocol_that_names_a_release(losiko_code, make_set, database_node, monkeypatch):
    add_release(database_node, "C-H-O@2", force=True)
    load = RelaxWorkChain._load

    def with_release():
        content = load()
        content["protocols"]["fast"]["database_release"] = "C-H-O@2"
        return content

    monkeypatch.setattr(RelaxWorkChain, "_load", with_release)
    builder = RelaxWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), protocol="fast")
    assert builder.database.uuid == database_node.uuid
    # What is given by hand counts.
    other = database_node.clone().store()
    builder = RelaxWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), other, protocol="fast")
    assert builder.database.uuid == other.uuid
