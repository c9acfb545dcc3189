"""The toy of Fig. 3, on a small grid."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "water_toy.py"


@pytest.fixture(scope="module")
def toy():
    specification = importlib.util.spec_from_file_location("water_toy", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def database(toy):
    return toy.water_database()


def test_molecule_is_that_of_the_literature(toy):
    atoms = toy.water()
    assert atoms.get_angle(1, 0, 2) == pytest.approx(104.52)
    assert atoms.get_distance(0, 1) == pytest.approx(0.9572) == atoms.get_distance(0, 2)


def test_loss_surface_is_zero_at_the_molecule_and_its_mirror_image(toy, database):
    molecule = toy.water()
    molecule.positions -= molecule.positions[[1, 2]].mean(axis=0)
    height = molecule.positions[0, 1]
    axis = np.array([-height, 0.0, height])
    values = toy.surface(database, molecule, 0, axis)
    assert values.shape == (3, 3)
    assert values[[0, 2], 1] == pytest.approx([0, 0], abs=1e-12)
    assert (values[:, [0, 2]] > 0.1).all() and values[1, 1] > 0.1


def test_place_of_another_atom_has_no_loss(toy, database):
    molecule = toy.water()
    x, y = molecule.positions[1, :2]
    values = toy.surface(database, molecule, 0, np.array([x, y]))
    assert np.isnan(values[1, 0]) and np.isfinite(values[0, 0])


def test_minima_of_the_moving_hydrogen(toy, database):
    """The two places of the second hydrogen; where it is stuck, the loss says so."""
    molecule = toy.water()
    molecule.rotate(molecule.positions[1], "x")
    axis = np.linspace(-2, 2, 41)
    rows = toy.minima(database, molecule, 2, axis, toy.surface(database, molecule, 2, axis))
    found = [row for row in rows if row["loss"] < 1e-8]
    assert len(found) == 2
    assert sorted(np.sign(row["y"]) for row in found) == [-1, 1]
    for row in found:
        assert row["angle"] == pytest.approx(104.52, abs=0.01)
        assert row["second"] == pytest.approx(0.9572, abs=1e-4)
    assert all(row["loss"] > 0.1 for row in rows if row not in found)


def test_whole_run(toy, tmp_path, capsys):
    assert toy.main(["--grid", "9", "--starts", "3", "--output", str(tmp_path / "new" / "water")]) == 0
    written = sorted(path.name for path in (tmp_path / "new" / "water").iterdir())
    assert written == ["loss.png", "surface-a.png", "surface-b.png"]
    text = capsys.readouterr().out
    assert "stages of the first random start" in text
    assert "104.52" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "2"], "at least 3"),
        (["--starts", "-1"], "invalid whole value: '-1'"),
        (["--extent", "nan"], "between 0 and 100"),
    ],
)
def test_wrong_arguments(toy, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        toy.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_unwritable_output_is_one_line(toy, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert toy.main(["--grid", "5", "--starts", "0", "--output", str(tmp_path / "file" / "x")]) == 1
    assert capsys.readouterr().err.startswith("Error: ")
