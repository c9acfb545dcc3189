"""The command `losiko xtb`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import read, write
from click.testing import CliRunner

from aiida_losiko.cli.losiko import main

pytest.importorskip("tblite", reason="the extra xtb")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["xtb", *words])


def displaced(*names):
    made = [molecule(name) for name in names]
    for atoms, name in zip(made, names, strict=True):
        atoms.info["name"] = name
        atoms.rattle(0.05, seed=1)
    return made


def test_minima_of_several(run):
    write("m.extxyz", displaced("H2O", "NH3"))
    result = run("m.extxyz", "-o", "out.extxyz", "--report", "r.json")
    assert result.exit_code == 0, result.output
    assert "H2O" in result.output and "converged" in result.output
    report = json.loads(Path("r.json").read_text())
    assert report["format"] == "losiko-xtb/1" and report["method"] == "GFN2-xTB" and report["tblite"]
    assert [row["label"] for row in report["structures"]] == ["H2O", "NH3"]
    minima = read("out.extxyz", ":")
    assert [atoms.info["xtb_energy"] for atoms in minima] == [row["energy"] for row in report["structures"]]
    # A single point at the minimum is its energy.
    assert run("out.extxyz", "-o", "same.extxyz", "--single-point", "--quiet").output == ""
    same = read("same.extxyz", ":")
    assert [a.info["xtb_energy"] for a in same] == pytest.approx([a.info["xtb_energy"] for a in minima], abs=1e-5)


def test_settings_of_a_file_and_of_options(run):
    write("m.extxyz", displaced("H2O"))
    Path("p.yaml").write_text("{charge: 1, max_steps: 3, fmax: 0.2}")
    words = ["--parameters", "p.yaml", "--max-steps", "0", "--report", "r.json"]
    assert run("m.extxyz", "-o", "o.npz", *words).exit_code == 0
    settings = json.loads(Path("r.json").read_text())["settings"]
    assert (settings["charge"], settings["max_steps"], settings["fmax"]) == (1, 0, 0.2)


def test_a_crystal_among_molecules(run):
    write("m.extxyz", [*displaced("H2O"), bulk("Si")])
    result = run("m.extxyz", "-o", "out.extxyz")
    assert result.exit_code == 3
    assert "Si2 is periodic: GFN2-xTB is offered for molecules only" in result.output
    assert [atoms.info["xtb_status"] for atoms in read("out.extxyz", ":")] == ["converged", "error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.extxyz", "-o", "o.extxyz", "--charge", "20"], "charge 20 with multiplicity lowest cannot be"),
        (["m.extxyz", "-o", "o.extxyz", "--fmax", "-1"], "fmax=-1.0 is not allowed"),
        (["m.extxyz", "-o", "o.extxyz", "--parameters", "list.yaml"], "holds list: give a mapping"),
        (["m.extxyz", "-o", "o.extxyz", "--max-seconds", "0"], "give a positive number of seconds"),
        (["m.extxyz", "-o", "m.extxyz"], "an input of this command"),
    ],
)
def test_errors_leave_nothing(run, words, message, tmp_path):
    write("m.extxyz", displaced("H2O"))
    Path("list.yaml").write_text("[1]")
    result = run(*words)
    assert result.exit_code == 1
    assert message in result.output and len(result.output.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.yaml", "m.extxyz"]
