"""Molecules from SMILES, and structures of single processes as one set."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.orm import Dict
from ase.build import molecule

from aiida_losiko.calculations.functions.collect import collect
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import coordination_numbers
from aiida_losiko.data import atoms_to_structure


def test_from_smiles_is_a_process(aiida_profile):
    pytest.importorskip("rdkit", reason="the extra benchmarks")
    from aiida_losiko.calculations.functions.from_smiles import from_smiles

    result, node = from_smiles.run_get_node(Dict({"ethanol": "CCO", "hydrogen cyanide": "C#N", "water": "O"}))
    assert node.is_finished_ok
    assert result.get_identifiers() == ["hydrogen cyanide", "water", "ethanol"]
    assert result.get_properties()[2] == {"smiles": "CCO"}
    cyanide, _, ethanol = result.get_atoms()
    assert ethanol.get_chemical_symbols() == ["C", "C", "O", *"HHHHHH"] and not ethanol.pbc.any()
    assert coordination_numbers(ethanol).tolist() == [4, 4, 2, 1, 1, 1, 1, 1, 1]
    assert cyanide.get_angle(1, 0, 2) == pytest.approx(180, abs=2)
    again, _ = from_smiles.run_get_node(Dict({"ethanol": "CCO"}), Dict({"seed": 0}))
    np.testing.assert_allclose(again.get_atoms()[0].positions, ethanol.positions, atol=1e-9)


@pytest.mark.parametrize(
    ("smiles", "parameters", "message"),
    [
        ("C1(", {}, "'C1(' is no SMILES"),
        (" ", {}, "' ' is no SMILES"),
        ("C", {"n_conformers": 0}, "n_conformers=0 is not allowed"),
        ("C", {"conformers": 3}, "unknown key 'conformers'"),
    ],
)
def test_what_is_no_molecule(aiida_profile, smiles, parameters, message):
    pytest.importorskip("rdkit", reason="the extra benchmarks")
    from aiida_losiko.calculations.functions.from_smiles import from_smiles

    _, node = from_smiles.run_get_node(Dict({"a": smiles}), Dict(parameters))
    assert node.exit_status == 201 and message in node.exit_message


def test_without_rdkit(monkeypatch):
    from aiida_losiko.builders.smiles import from_smiles

    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    with pytest.raises(LosikoError, match="pip install rdkit"):
        from_smiles("C")


def test_collect_keeps_order_names_and_source(aiida_profile):
    nodes = {f"m_{i}": atoms_to_structure(molecule(name)) for i, name in enumerate(["CH3OH", "H2O"])}
    parameters = {
        "identifiers": {"m_0": "methanol", "m_1": "water"},
        "source": {"name": "ours", "licence": "CC0-1.0"},
        "properties": {"m_1": {"smiles": "O"}},
    }
    result, node = collect.run_get_node(Dict(parameters), **nodes)
    assert node.is_finished_ok
    assert result.get_identifiers() == ["methanol", "water"] and result.source["name"] == "ours"
    assert result.get_properties() == [{}, {"smiles": "O"}]
    np.testing.assert_allclose(result.get_atoms()[0].positions, molecule("CH3OH").positions)
    for identifiers, message in (({"m_0": "a"}, "'m_1' has no identifier"), ({"m_0": "a", "m_1": "a"}, "'a'")):
        _, node = collect.run_get_node(Dict({"identifiers": identifiers}), **nodes)
        assert node.exit_status == 201 and message in node.exit_message
