"""Protocols: the values of Table S1, overrides, and names that do not exist."""

from __future__ import annotations

import inspect
import json

import pytest

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.protocols import (
    load_protocol,
    merge,
    parse_overrides,
    parse_yaml,
    protocol_names,
    read_parameters,
)

# r_cut, n_max, l_max, sigma, sigma_0^2, alpha: Table S1 of the paper.
TABLE_S1 = {
    "water": (4.0, 4, 4, 0.25, 0.0, 0.0),
    "qm9": (4.0, 6, 6, 0.5, 0.0, 0.0),
    "licoo2": (4.0, 4, 2, 0.7, 0.0, 0.0),
    "silica-interface": (4.0, 8, 6, 0.25, 0.2, 0.05),
    "carbon": (2.3, 8, 6, 0.25, 0.0, 0.0),
}


def test_names_start_with_the_default():
    assert protocol_names() == [
        "balanced",
        "carbon",
        "crystals",
        "fast",
        "licoo2",
        "precise",
        "qm9",
        "random-search",
        "silica-healing",
        "silica-interface",
        "water",
    ]


@pytest.mark.parametrize("name", TABLE_S1)
def test_values_of_table_s1(name):
    protocol = load_protocol(name)
    r_cut, n_max, l_max, sigma, noise_variance, noise_decay = TABLE_S1[name]
    assert protocol.descriptor == {"r_cut": r_cut, "n_max": n_max, "l_max": l_max, "sigma": sigma, "weighting": None}
    assert (protocol.relax["noise_variance"], protocol.relax["noise_decay"]) == (noise_variance, noise_decay)
    assert protocol.relax["optimizer"] == "lbfgs"
    assert protocol.relax["relax_cell"] is (name == "carbon")
    assert "Table S1" in protocol.reference


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_is_usable(name):
    """What a protocol says is accepted by the descriptor, the database and the optimiser that it is for."""
    from aiida_losiko.core.descriptors import make_descriptor
    from aiida_losiko.core.settings import RelaxSettings

    protocol = load_protocol(name)
    make_descriptor({**protocol.descriptor, "species": ["H", "O"]})
    assert RelaxSettings.from_dict(protocol.relax).to_dict() == protocol.relax
    assert json.loads(json.dumps(protocol.to_dict())) == protocol.to_dict()
    assert protocol.description
    assert "\n" not in protocol.description


def test_the_defaults_name_every_parameter_that_there_is():
    from aiida_losiko.core.environments.database import EnvironmentDatabase
    from aiida_losiko.core.settings import RelaxSettings

    protocol = load_protocol("qm9")
    assert protocol.relax == RelaxSettings().to_dict()
    given_elsewhere = {"structures", "descriptor", "sources", "progress", "metadata"}
    parameters = inspect.signature(EnvironmentDatabase.build).parameters
    defaults = {name: p.default for name, p in parameters.items() if name not in given_elsewhere}
    assert protocol.database == defaults


def test_overrides_change_only_what_they_name():
    base = load_protocol("balanced")
    changed = load_protocol("balanced", {"descriptor": {"r_cut": 3.5, "weighting": {"r0": 2.0}}, "relax": None})
    assert changed.descriptor == {
        **base.descriptor,
        "r_cut": 3.5,
        "weighting": {**base.descriptor["weighting"], "r0": 2.0},
    }
    assert changed.relax == base.relax
    assert load_protocol("balanced") == base, "an override must not leak into the next protocol"


def test_another_weighting_function_replaces_the_parameters_of_the_first():
    poly = {"function": "poly", "r0": 4.0, "c": 1, "m": 2}
    assert load_protocol("balanced", {"descriptor": {"weighting": poly}}).descriptor["weighting"] == poly
    assert load_protocol("balanced", {"descriptor": {"weighting": None}}).descriptor["weighting"] is None


def test_another_descriptor_brings_its_own_parameters():
    overrides = {"descriptor": {"name": "acsf", "r_cut": 6.0, "g2_params": [[1, 2]]}}
    assert load_protocol("balanced", overrides).descriptor == overrides["descriptor"]


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": [1]}}
    merged = merge(base, {"a": {"b": 2}})
    merged["a"]["c"].append(2)
    assert base == {"a": {"b": 1, "c": [1]}}
    assert merged == {"a": {"b": 2, "c": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("relax.fmax=1e-4", 1e-4),
        ("relax.fmax=1E5", 1e5),
        ("relax.max_steps=100", 100),
        ("relax.relax_cell=true", True),
        ("relax.optimizer=Nelder-Mead", "Nelder-Mead"),
        ("database.max_environments=null", None),
        ("descriptor.weighting={function: exp, r0: 1, c: 1, d: 1}", {"function": "exp", "r0": 1, "c": 1, "d": 1}),
    ],
)
def test_values_of_settings_are_yaml(text, value):
    section, key = text.partition("=")[0].split(".")
    parsed = parse_overrides([text])
    assert parsed == {section: {key: value}}
    assert type(parsed[section][key]) is type(value)


def test_settings_nest_and_accumulate():
    items = ["descriptor.r_cut=3.5", "descriptor.weighting.r0=2", "relax.seed=3", "relax.seed=3"]
    assert parse_overrides(items) == {"descriptor": {"r_cut": 3.5, "weighting": {"r0": 2}}, "relax": {"seed": 3}}
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    ("items", "named", "allowed"),
    [
        (["descriptor.rcut=3"], "'descriptor.rcut'", "did you mean 'r_cut'"),
        (["relax.max_step=3"], "'relax.max_step'", "max_steps"),
        (["descriptor.species=[H]"], "'descriptor.species'", "--species"),
        (["relaxation.seed=3"], "'relaxation'", "did you mean 'relax'"),
        (["r_cut=3"], "'r_cut=3'", "section.key=value"),
        (["relax.seed"], "'relax.seed'", "section.key=value"),
        (["relax..seed=1"], "'relax..seed=1'", "section.key=value"),
        (["relax.seed="], "'relax.seed='", "null"),
        (["relax.seed=[1"], "'relax.seed=[1'", "not YAML"),
        (["relax.fmax=.nan"], "'relax.fmax=.nan'", "finite"),
        (["relax.seed=1", "relax.seed=2"], "'relax.seed'", "once"),
        (["descriptor.weighting=3", "descriptor.weighting.r0=2"], "'descriptor.weighting.r0=2'", "another setting"),
    ],
)
def test_bad_settings_are_one_line_with_the_value_and_the_way_out(items, named, allowed):
    with pytest.raises(LosikoError) as info:
        parse_overrides(items)
    assert "\n" not in str(info.value)
    assert named in str(info.value)
    assert allowed in str(info.value)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("balenced", None, ["'balenced'", "did you mean 'balanced'", "silica-interface"]),
        ("defaults", None, ["'defaults'", "water"]),
        ("../water", None, ["'../water'", "qm9"]),
        ("water", {"relaxx": {}}, ["'relaxx'", "did you mean 'relax'"]),
        ("water", {"relax": 3}, ["'relax'", "3", "mapping"]),
        ("water", [1], ["[1]", "mapping"]),
        ("water", {"database": {"sed": 1}}, ["'database.sed'", "did you mean 'seed'"]),
    ],
)
def test_unknown_names(name, overrides, words):
    with pytest.raises(LosikoError) as info:
        load_protocol(name, overrides)
    assert "\n" not in str(info.value)
    assert all(word in str(info.value) for word in words)


def test_parameter_file_in_yaml_and_json(tmp_path):
    content = {"protocol": "water", "relax": {"fmax": 1e-7}}
    (tmp_path / "p.json").write_text(json.dumps(content))
    (tmp_path / "p.yaml").write_text("protocol: water\nrelax:\n  fmax: 1e-07\n")
    assert (
        read_parameters(tmp_path / "p.json")
        == read_parameters(tmp_path / "p.yaml")
        == ("water", {"relax": {"fmax": 1e-7}})
    )
    (tmp_path / "empty").write_text("")
    assert read_parameters(tmp_path / "empty") == (None, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"relax: {seed: 1", ["line 1", "not YAML"]),
        (b"- 1", ["list", "protocol, descriptor, database, relax"]),
        (b"protocol: 3", ["protocol 3", "balanced"]),
        (b"relax: {sed: 1}", ["'relax.sed'", "did you mean 'seed'"]),
        (b"\xff\xfe\x00", ["not text"]),
        (b"relax: !!python/object/apply:os.getcwd []", ["not YAML"]),
    ],
)
def test_bad_parameter_files(tmp_path, content, words):
    path = tmp_path / "parameters.yaml"
    path.write_bytes(content)
    with pytest.raises(LosikoError) as info:
        read_parameters(path)
    assert "\n" not in str(info.value)
    assert "parameters.yaml" in str(info.value)
    assert all(word in str(info.value) for word in words)


def test_yaml_reads_exponents_as_numbers_and_the_rest_as_yaml():
    assert parse_yaml("[1e-4, 1.0e-4, 1, 2.5, 1e, e5, '1e-4']", "x") == [1e-4, 1e-4, 1, 2.5, "1e", "e5", "1e-4"]
