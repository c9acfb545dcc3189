"""Builders from protocols."""

from __future__ import annotations

import pytest
from aiida.orm import Dict

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.protocols import load_protocol, protocol_names
from aiida_losiko.data import EnvironmentDatabaseData
from aiida_losiko.workflows.database import DatabaseWorkChain
from aiida_losiko.workflows.relax import RelaxWorkChain

WORK_CHAINS = (DatabaseWorkChain, RelaxWorkChain)


def plain(builder) -> dict:
    """Return the inputs of a builder with values for nodes; code and structures by their type."""

    def convert(value):
        if isinstance(value, Dict):
            return value.get_dict()
        if hasattr(value, "items"):
            return {key: convert(item) for key, item in value.items()}
        if hasattr(value, "value"):
            return value.value
        return type(value).__name__ if hasattr(value, "pk") else value

    return convert(builder._inputs(prune=True))


@pytest.fixture
def builders(losiko_code, make_set, database_node):
    """Make either builder with some arguments."""

    def make(name: str, *args, **kwargs):
        if name == "database":
            return DatabaseWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), *args, **kwargs)
        return RelaxWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), database_node, *args, **kwargs)

    return make


@pytest.mark.parametrize("work_chain", WORK_CHAINS)
def test_names_are_those_of_the_core(work_chain):
    assert sorted(work_chain.get_available_protocols()) == sorted(protocol_names())
    assert work_chain.get_default_protocol() == protocol_names()[0]
    assert all(work_chain.get_available_protocols().values())


@pytest.mark.parametrize("name", ["database", "relax"])
def test_default_builder(builders, data_regression, name):
    inputs = plain(builders(name))
    # The numbers of the method are the core's: compared with it here, not written down a second time.
    parameters = inputs["describe" if name == "database" else "relax"].pop("parameters")
    core = load_protocol("balanced")
    sections = ("descriptor", "database") if name == "database" else ("relax",)
    assert parameters == {"protocol": "balanced", **{section: getattr(core, section) for section in sections}}
    data_regression.check(inputs)


@pytest.mark.parametrize("protocol", protocol_names())
def test_every_protocol_makes_valid_builders(builders, protocol):
    assert builders("database", protocol).describe.parameters["descriptor"] == load_protocol(protocol).descriptor
    assert builders("relax", protocol).relax.parameters["relax"] == load_protocol(protocol).relax


def test_overrides_and_options(builders):
    overrides = {"describe": {"parameters": {"descriptor": {"r_cut": 3.25}, "species": ["H", "O"]}}}
    options = {"max_wallclock_seconds": 60, "queue_name": "short"}
    inputs = plain(builders("database", "qm9", overrides, options, selection={"first": 1}))
    assert inputs["describe"]["parameters"]["descriptor"] == {**load_protocol("qm9").descriptor, "r_cut": 3.25}
    assert inputs["describe"]["parameters"]["species"] == ["H", "O"]
    assert inputs["describe"]["metadata"]["options"]["queue_name"] == "short"
    assert inputs["describe"]["metadata"]["options"]["max_wallclock_seconds"] == 60
    assert inputs["describe"]["metadata"]["options"]["resources"]["num_machines"] == 1
    assert inputs["selection"] == {"first": 1}
    overrides = {"relax": {"parameters": {"relax": {"max_steps": 3}, "exclude": ["a"]}}, "max_iterations": 2}
    inputs = plain(builders("relax", overrides=overrides))
    assert inputs["relax"]["parameters"]["relax"]["max_steps"] == 3
    assert inputs["relax"]["parameters"]["exclude"] == ["a"]
    assert inputs["max_iterations"] == 2


@pytest.mark.parametrize(
    ("name", "protocol", "overrides", "message"),
    [
        ("database", "best", None, "unknown protocol 'best'"),
        ("relax", "best", None, "unknown protocol 'best'"),
        ("database", None, {"relax": {}}, "unknown override 'relax'"),
        ("relax", None, {"relax": {"parametres": {}}}, "unknown override 'relax.parametres'"),
        ("relax", None, {"relax": 1}, "give a mapping"),
        ("relax", None, {"relax": {"parameters": {"relax": {"maxsteps": 1}}}}, "maxsteps"),
    ],
)
def test_wrong_protocols_and_overrides(builders, name, protocol, overrides, message):
    with pytest.raises(LosikoError, match=message):
        builders(name, protocol, overrides)


def test_wrong_selection(losiko_code, make_set):
    with pytest.raises(ValueError, match="unknown selection key firrst"):
        DatabaseWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), selection={"firrst": 1})


def test_the_protocol_of_the_database_is_the_default(losiko_code, make_set, small_database, aiida_profile):
    small_database.metadata["protocol"] = "qm9"
    try:
        node = EnvironmentDatabaseData(small_database).store()
    finally:
        small_database.metadata["protocol"] = "balanced"
    builder = RelaxWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O").get_structure(0), node)
    assert builder.relax.parameters["protocol"] == "qm9"
    assert builder.structure.get_formula() == "H2O"
    with pytest.raises(LosikoError, match="structures is a list"):
        RelaxWorkChain.get_builder_from_protocol(losiko_code, [], node)


def test_a_code_by_its_label(losiko_code, make_set):
    builder = DatabaseWorkChain.get_builder_from_protocol(losiko_code.full_label, make_set("H2O"))
    assert builder.describe.code.uuid == losiko_code.uuid
