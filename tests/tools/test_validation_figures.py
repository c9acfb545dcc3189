"""Table and pictures of a validation."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.tools import validation_figures as figures


def table(n=2, **columns):
    made = {
        "identifier": [f"molecule-{i}" for i in range(n)],
        "formula": ["H2O"] * n,
        "n_atoms": [4] * n,
        "energy_start": [-8.0] * n,
        "energy_losiko": [-9.0 - 0.1 * i for i in range(n)],
        "energy_minimum": [-10.0] * n,
        "gap_start": [None] * n,
        "gap_losiko": [5.0] * n,
        "gap_minimum": [None] * n,
        "rmsd_start": [0.2] * n,
        "rmsd_losiko": [0.05] * n,
        "largest_displacement": [0.1] * n,
        "volume_change": [None] * n,
        "coordination_changed": [0] * n,
        "converged": [True] * n,
        "problems": [""] * n,
        "recovered": [0.5] * n,
        **columns,
    }
    for stage in ("start", "losiko", "minimum"):
        made[f"energy_per_atom_{stage}"] = [None if e is None else e / 4 for e in made[f"energy_{stage}"]]
    return {"engine": "xtb", "n_rows": n, "rows": made}


def coloured(path, colour) -> int:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG")
    return int((np.abs(imread(path)[..., :3] - to_rgb(colour)).max(axis=2) < 0.02).sum())


def test_rows_are_relative_to_the_minimum():
    first, second = figures.validation_rows(table(energy_start=[-8.0, None]))
    assert (first["above_start"], first["above_losiko"], first["above_per_atom_losiko"]) == (2.0, 1.0, 0.25)
    assert (second["above_start"], second["recovered_percent"]) == (None, 50.0)


def test_the_table():
    text = figures.validation_table(table(converged=[True, False], problems=["", "minimum: not converged"]))
    assert text.startswith("Energies of xtb above its minimum")
    assert "eV/atom" in text and "0.2500" in text and "molecule-1: minimum: not converged" in text
    # Columns of which nothing is known are not there.
    assert "volume" not in text and "gap minimum" not in text and "gap LOSIKO" in text
    for wrong in ({}, {"rows": {"loss": [1.0]}}):
        with pytest.raises(LosikoError, match="no table of a validation"):
            figures.validation_table(wrong)


def test_ladders(tmp_path):
    few = figures.energies_and_geometries(table(), path=tmp_path / "few.png", title="Two")
    assert all(coloured(few, colour) > 200 for colour in figures.COLOURS.values())
    without = table(energy_start=[None, None], rmsd_start=[None, None])
    no_start = figures.energies_and_geometries(without, path=tmp_path / "no.png")
    assert (
        coloured(no_start, figures.ORANGE) > 200 and coloured(no_start, figures.GREY) < coloured(few, figures.GREY) / 3
    )
    many = figures.energies_and_geometries(table(60), path=tmp_path / "many.png")
    assert coloured(many, figures.BLUE) > 5 * coloured(few, figures.BLUE)
    with pytest.raises(LosikoError, match="none of 2 structures has energies"):
        figures.energies_and_geometries(table(energy_minimum=[None, None]), path=tmp_path / "none.png")


def test_each_stage_is_once_in_the_legend():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    figures._draw_ladders(axes, figures.validation_rows(table(3, energy_start=[None, -8.0, -8.0])))
    assert sorted(axes.get_legend_handles_labels()[1]) == ["LOSIKO", "minimum", "start"]


def test_densities_of_states(tmp_path):
    energies = np.linspace(-10, 10, 201)
    hill = np.exp(-((energies + 3) ** 2))
    both = DensityOfStates(energies, 2 * hill, {"H": 0.5 * hill, "O": 1.5 * hill})
    total = DensityOfStates(energies, hill)
    path = figures.densities_of_states(
        {"minimum": both, "losiko": both, "start": total}, path=tmp_path / "d.png", notes={"minimum": "gap 2 eV"}
    )
    assert all(coloured(path, colour) > 100 for colour in figures.ELEMENT_COLOURS[:2])
    assert coloured(path, figures.ELEMENT_COLOURS[2]) == 0
    away = figures.densities_of_states({"start": both}, path=tmp_path / "away.png", window=(2.0, 8.0))
    assert coloured(away, figures.ELEMENT_COLOURS[0]) < coloured(path, figures.ELEMENT_COLOURS[0])
    with pytest.raises(LosikoError, match="dos=True"):
        figures.densities_of_states({}, path=tmp_path / "none.png")
    with pytest.raises(LosikoError, match="from 2 to 1 eV is empty"):
        figures.densities_of_states({"start": both}, path=tmp_path / "none.png", window=(2.0, 1.0))
