"""What every engine shares: names, protocols, codes, outputs, molecules and crystals."""

from __future__ import annotations

import sys
from importlib import metadata

import numpy as np
import pytest
from aiida import orm
from aiida.common import LinkType
from ase.build import bulk, molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.workflows.validation import engine_names, load_engine
from aiida_losiko.workflows.validation.base import TASKS
from aiida_losiko.workflows.validation.registry import ENTRY_POINT_GROUP

ENGINE = """
from aiida_losiko.workflows.validation import Measurement, ValidationEngine

class Solid(ValidationEngine):
    name = "solid"
    description = "for tests"
    takes_crystals = True
    codes = ("pw",)
    dos_codes = ("dos",)
    module, extra = "a_package_that_is_nowhere", "qe"
    outputs = {"structure": ("relax.structure", "structure"), "misc": "misc"}

    def get_builder(self, request):
        raise NotImplementedError

    def read(self, outputs):
        return Measurement(outputs["misc"]["energy"])
"""

PROTOCOLS = """
default_protocol: fast
open: [namelist]
default_inputs: {cutoff: 30.0, spacing: {k: 0.2}, namelist: {SYSTEM: {degauss: 1e-2}}, hubbard: null}
protocols:
  fast: {description: quick}
  fine: {description: slow, cutoff: 60.0, spacing: {k: 0.1}}
"""


@pytest.fixture
def solid(tmp_path, monkeypatch):
    """An engine in the package of somebody else, with its protocol file and its entry point."""
    package = tmp_path / "somebodys_plugin"
    (package / "protocols").mkdir(parents=True)
    (package / "engine.py").write_text(ENGINE)
    (package / "protocols" / "solid.yaml").write_text(PROTOCOLS)
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("solid", "somebodys_plugin.engine:Solid", ENTRY_POINT_GROUP)
    points = metadata.EntryPoints([*metadata.entry_points(group=ENTRY_POINT_GROUP), point])
    monkeypatch.setattr("aiida_losiko.workflows.validation.registry.entry_points", points.select)
    yield load_engine("solid")
    for name in ("somebodys_plugin", "somebodys_plugin.engine"):
        sys.modules.pop(name, None)


def test_engines_of_others_are_found(solid):
    assert {"solid", "xtb"} <= set(engine_names())
    assert solid.description == "for tests"


@pytest.mark.parametrize("name", engine_names())
def test_every_engine_says_what_it_is(name):
    """Also of those whose optional package is not installed."""
    engine = load_engine(name)
    assert engine.name == name
    assert engine.description and engine.codes and engine.outputs
    assert engine.takes_molecules or engine.takes_crystals
    assert set(engine.tasks) <= set(TASKS)
    assert engine.default_protocol() in engine.protocols()
    for protocol, description in engine.protocols().items():
        complete = engine.spell_out({"protocol": protocol})
        assert description and complete["protocol"] == protocol
        assert engine.spell_out(complete) == complete
    with pytest.raises(LosikoError, match=f"unknown protocol 'best' of the engine {name}"):
        engine.spell_out({"protocol": "best"})
    with pytest.raises(LosikoError, match="has no key 'no_such_key'; it has: "):
        engine.spell_out({"no_such_key": 1})


def test_unknown_engine():
    with pytest.raises(LosikoError, match=r"unknown validation engine 'xbt' .did you mean 'xtb'.*there are: .*xtb"):
        load_engine("xbt")


@pytest.mark.parametrize(
    ("value", "message"),
    [("json:JSONDecoder", "is no subclass of ValidationEngine"), ("no_such_module:Engine", "cannot be imported")],
)
def test_entry_points_that_are_no_engine(monkeypatch, value, message):
    points = metadata.EntryPoints([metadata.EntryPoint("odd", value, ENTRY_POINT_GROUP)])
    monkeypatch.setattr("aiida_losiko.workflows.validation.registry.entry_points", points.select)
    with pytest.raises(LosikoError, match=message):
        load_engine("odd")


def test_protocols_are_differences(solid):
    assert solid.spell_out()["cutoff"] == 30.0
    fine = solid.spell_out({"protocol": "fine", "namelist": {"SYSTEM": {"nspin": 2}}})
    assert (fine["cutoff"], fine["spacing"]) == (60.0, {"k": 0.1})
    assert fine["namelist"] == {"SYSTEM": {"degauss": 0.01, "nspin": 2}}
    assert solid.spell_out({"hubbard": {"Fe": 4.0}})["hubbard"] == {"Fe": 4.0}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cutof": 1}, "the protocol of solid has no key 'cutof' \\(did you mean 'cutoff'\\?\\)"),
        ({"spacing": {"q": 1}}, "spacing in the protocol of solid has no key 'q'"),
        ({"spacing": 1}, "is 1: give a mapping"),
        ({"cutoff": {"k": 1}}, "give a value"),
    ],
)
def test_wrong_keys(solid, parameters, message):
    with pytest.raises(LosikoError, match=message):
        solid.spell_out(parameters)


def test_what_is_missing_is_named(solid):
    with pytest.raises(
        LosikoError, match=r"needs the module a_package_that_is_nowhere: pip install 'aiida-losiko\[qe\]'"
    ):
        solid.require()
    with pytest.raises(LosikoError, match="needs the code 'pw'"):
        solid.check_codes({})
    solid.check_codes({"pw": None})
    with pytest.raises(LosikoError, match="needs the code 'dos'"):
        solid.check_codes({"pw": None}, dos=True)
    with pytest.raises(LosikoError, match="has no code 'vasp': it has pw, dos"):
        solid.check_codes({"vasp": None})
    with pytest.raises(LosikoError, match="does not do 'phonons': it does single_point, relax, dos"):
        solid.check_task("phonons")


def test_molecules_and_crystals(solid):
    with pytest.raises(LosikoError, match=r"water \(H2O\) is a molecule without a cell, and solid needs one"):
        solid.check_structure(molecule("H2O"), "water")
    boxed = molecule("H2O", vacuum=6.0, pbc=True)
    solid.check_structure(boxed)
    with pytest.raises(LosikoError, match="Si2\\) is periodic, and xtb is for molecules"):
        load_engine("xtb").check_structure(bulk("Si"))


def test_outputs_of_a_process(solid, aiida_profile):
    node = orm.WorkChainNode().store()
    for name, output in {
        "relax__structure": orm.StructureData(ase=bulk("Si")),
        "misc": orm.Dict({"energy": -1.0}),
    }.items():
        output.store().base.links.add_incoming(node, LinkType.RETURN, name)
    found = solid.outputs_of(node)
    assert sorted(found) == ["misc", "structure"]
    assert solid.read(found).energy == -1.0
    assert solid.outputs_of(orm.WorkChainNode().store()) == {}


def test_density_of_states_there_and_back(aiida_profile):
    energies = np.linspace(-1, 1, 5)
    dos = DensityOfStates(energies, np.ones(5), {"Li": np.arange(5.0), "O": np.zeros(5)})
    again = DensityOfStates.from_node(dos.to_node().store())
    assert again.zero == "Fermi level"
    np.testing.assert_array_equal(again.energies, energies)
    assert {name: values.tolist() for name, values in again.projected.items()} == {
        "Li": [0.0, 1.0, 2.0, 3.0, 4.0],
        "O": [0.0] * 5,
    }
    assert DensityOfStates.from_node(DensityOfStates(energies, np.ones(5)).to_node()).projected == {}
    with pytest.raises(LosikoError, match="is no density of states"):
        DensityOfStates.from_node(orm.ArrayData({"energies": energies}))


@pytest.mark.parametrize(
    ("energies", "total", "projected", "message"),
    [
        ([0.0, 1.0], [1.0], {}, "'total' has the shape"),
        ([0.0, 1.0], [1.0, 2.0], {"O": [1.0]}, "'O' has the shape"),
        ([0.0, 1.0], [1.0, np.nan], {}, "not finite"),
        ([0.0, 0.0], [1.0, 1.0], {}, "ascending"),
        ([0.0], [1.0], {}, "two or more"),
    ],
)
def test_broken_densities_of_states(energies, total, projected, message):
    with pytest.raises(LosikoError, match=message):
        DensityOfStates(np.array(energies), np.array(total), {k: np.array(v) for k, v in projected.items()})
