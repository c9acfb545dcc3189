"""The same starts with several databases, with the real program."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import ArrayData, CalcFunctionNode, Dict, WorkChainNode
from aiida.plugins import CalculationFactory
from ase.build import bulk

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import density
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData
from aiida_losiko.groups import add_release
from aiida_losiko.tools.provenance import trace
from aiida_losiko.workflows.biased_search import BiasedSearchWorkChain

SETTINGS = {"relax": {"parameters": {"relax": {"relax_cell": True, "max_steps": 60, "fmax": 1e-3}}}}


def crystals(symbol: str) -> list:
    """Diamond or silicon, the zincblende structure of either."""
    atoms = bulk(symbol)
    atoms.info["identifier"] = symbol
    return [atoms]


@pytest.fixture
def databases(aiida_profile):
    """One that knows diamond, and one that knows stretched diamond."""
    soap = SoapPowerSpectrum(species=["C"], r_cut=2.3, n_max=4, l_max=3, sigma=0.3)
    stretched = crystals("C")[0]
    stretched.set_cell(stretched.cell * 1.1, scale_atoms=True)
    metadata = {"protocol": "carbon"}
    return {
        "diamond": EnvironmentDatabaseData(EnvironmentDatabase.build(crystals("C"), soap, metadata=metadata)).store(),
        "stretched": EnvironmentDatabaseData(EnvironmentDatabase.build([stretched], soap, metadata=metadata)).store(),
    }


@pytest.fixture
def starts(aiida_profile):
    made = []
    for number, scale in enumerate((1.02, 1.05)):
        atoms = crystals("C")[0]
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.rattle(0.02, seed=number)
        atoms.info["identifier"] = f"start-{number}"
        made.append(atoms)
    return StructureSetData(made)


def search(code, structures, databases, **kwargs):
    kwargs.setdefault("overrides", SETTINGS)
    builder = BiasedSearchWorkChain.get_builder_from_protocol(code, structures, databases, **kwargs)
    return run_get_node(builder)


def test_each_database_draws_the_starts_to_what_it_knows(losiko_code, starts, databases):
    outputs, chain = search(losiko_code, starts, databases)
    assert chain.is_finished_ok, chain.exit_message
    assert sorted(outputs["relaxed"]) == ["diamond", "stretched"]
    children = [node for node in chain.called if isinstance(node, WorkChainNode)]
    assert {node.inputs.database.uuid for node in children} == {node.uuid for node in databases.values()}
    table = outputs["table"].get_dict()
    assert table["n_rows"] == 4
    rows = table["rows"]
    assert rows["database"] == ["diamond", "diamond", "stretched", "stretched"]
    assert rows["identifier"] == ["start-0", "start-1"] * 2
    ideal = density(crystals("C")[0])
    np.testing.assert_allclose(rows["density"], [ideal, ideal, ideal / 1.1**3, ideal / 1.1**3], rtol=0.02)
    assert all(loss < start for loss, start in zip(rows["loss"], rows["initial_loss"], strict=True))
    assert rows["energy_per_atom"] == [None] * 4
    assert table["databases"]["diamond"]["density"]["mean"] == pytest.approx(np.mean(rows["density"][:2]))
    for label in databases:
        relaxed = outputs["relaxed"][label]["structures"]
        assert trace(relaxed, 0, structure="start-0")[0]["source"] == "C"
    (tabulated,) = [node for node in chain.called if isinstance(node, CalcFunctionNode)]
    assert outputs["table"].creator.uuid == tabulated.uuid


def test_one_that_fails_does_not_lose_the_others(losiko_code, starts, databases):
    soap = SoapPowerSpectrum(species=["Si"], r_cut=3.0, n_max=3, l_max=2, sigma=0.3)
    silicon = EnvironmentDatabaseData(EnvironmentDatabase.build(crystals("Si"), soap, metadata={"protocol": "carbon"}))
    pair = {"diamond": databases["diamond"], "silicon": silicon.store()}
    outputs, chain = search(losiko_code, starts, pair)
    assert chain.exit_status == 420
    assert "silicon: exit status 201" in chain.exit_message and "diamond" not in chain.exit_message
    assert list(outputs["relaxed"]) == ["diamond"]
    assert outputs["table"]["n_rows"] == 2
    # Of a single structure the validator says so before there is a child.
    single = starts.get_structure(0)
    outputs, chain = search(losiko_code, single, pair)
    assert chain.exit_status == 420
    assert "silicon: " in chain.exit_message and "has no environment of C" in chain.exit_message
    assert outputs["relaxed"]["diamond"]["structure"].get_formula() == "C2"
    assert outputs["table"]["rows"]["identifier"] == ["structure"]
    outputs, chain = search(losiko_code, starts, {"silicon": pair["silicon"]})
    assert chain.exit_status == 310
    assert "relaxed" not in outputs and "table" not in outputs


def test_what_is_not_converged_is_given_and_told(losiko_code, starts, databases):
    overrides = {"relax": {"parameters": {"relax": {"max_steps": 1}}}, "max_iterations": 1}
    outputs, chain = search(losiko_code, starts, {"diamond": databases["diamond"]}, overrides=overrides)
    assert chain.exit_status == 420
    assert "diamond: exit status 410" in chain.exit_message
    assert outputs["table"]["rows"]["status"] == ["max_steps", "max_steps"]
    assert outputs["table"]["databases"]["diamond"]["n_converged"] == 0


def test_builders(losiko_code, starts, databases, database_node, aiida_profile):
    add_release(databases["diamond"], "diamond@1", force=True)
    make = BiasedSearchWorkChain.get_builder_from_protocol
    builder = make(
        losiko_code, starts, {"a": "diamond@1", "b": databases["stretched"]}, overrides={"max_iterations": 2}
    )
    assert builder.databases["a"].uuid == databases["diamond"].uuid
    assert builder.relax.relax.parameters["protocol"] == "carbon"
    assert builder.relax.max_iterations.value == 2
    with pytest.raises(LosikoError, match=r"different protocols .a: carbon, b: balanced.: name the one"):
        make(losiko_code, starts, {"a": databases["diamond"], "b": database_node})
    builder = make(losiko_code, starts, {"a": databases["diamond"], "b": database_node}, "fast")
    assert builder.relax.relax.parameters["protocol"] == "fast"
    with pytest.raises(LosikoError, match="there is no database"):
        make(losiko_code, starts, {})
    for label in ("1st", "a__b", "_a", "a-b"):
        with pytest.raises(ValueError, match="cannot be one of a link"):
            make(losiko_code, starts, {label: databases["diamond"]})
    with pytest.raises(LosikoError, match="no release 'x@1'"):
        make(losiko_code, starts, {"a": "x@1"})


def test_the_table_takes_energies(starts, databases):
    tabulate = CalculationFactory("losiko.tabulate_search")
    relaxed = CalculationFactory("losiko.relax_structure")(
        starts.get_structure(0), databases["diamond"], Dict({"relax": {"max_steps": 2}})
    )
    one = {"structure": relaxed["structure"], "matches": relaxed["matches"]}
    energies = ArrayData({"energy_per_atom": np.array([-7.5])})
    table = tabulate(diamond={**one, "energies": energies}, other=one).get_dict()
    assert table["rows"]["energy_per_atom"] == [-7.5, None]
    assert table["databases"]["diamond"]["energy_per_atom"] == {"mean": -7.5, "smallest": -7.5, "largest": -7.5}
    assert table["databases"]["other"]["energy_per_atom"]["mean"] is None
    for wrong, message in (
        ({"matches": one["matches"]}, "give structures"),
        ({"structures": starts, "matches": one["matches"]}, "2 structures and matches of 1"),
        ({**one, "energies": ArrayData({"energy_per_atom": np.zeros(3)})}, "give one for each of 1"),
    ):
        _, node = tabulate.run_get_node(diamond=wrong)
        assert node.exit_status == 201 and message in node.exit_message
