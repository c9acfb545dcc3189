"""Pictures of structure searches, and principal components."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, graphene

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools import search_figures as figures


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG")
    return imread(path)[..., :3]


def coloured(image, colour) -> int:
    from matplotlib.colors import to_rgb

    return int((np.abs(image - to_rgb(colour)).max(axis=2) < 0.02).sum())


def test_densities(tmp_path):
    few = figures.density_histogram({"start": [3.9, 4.0], "diamond": [3.5, 3.5]}, path=tmp_path / "few.png")
    image = pixels(few)
    assert coloured(image, figures.COLOURS[0]) > 100 and coloured(image, figures.COLOURS[1]) > 100
    assert coloured(image, figures.COLOURS[2]) == 0
    figures.density_histogram({"one": [3.5]}, path=tmp_path / "one.png")
    for groups in ({}, {"start": []}, {str(k): [1.0] for k in range(6)}):
        with pytest.raises(LosikoError, match="groups of densities to draw: give 1 to 5"):
            figures.density_histogram(groups, path=tmp_path / "none.png")


def test_crystals(tmp_path):
    sheet = graphene(vacuum=5.0)
    sheet.pbc = True
    one = figures.crystals_in_a_row([("diamond", bulk("C"), "3.5 g/cm³")], path=tmp_path / "1.png")
    two = figures.crystals_in_a_row([("a", bulk("C"), ""), ("b", sheet, "")], path=tmp_path / "2.png")
    assert pixels(two).shape[1] > 1.5 * pixels(one).shape[1]
    with pytest.raises(LosikoError, match="no crystals to draw"):
        figures.crystals_in_a_row([], path=tmp_path / "3.png")


def test_sheets_are_seen_from_the_side():
    sheet = graphene(vacuum=5.0)
    sheet.pbc = True
    _, positions = figures._ball(sheet)
    spread = np.ptp(positions, axis=0)
    assert spread[1] < 0.5 * spread[0]


def test_principal_components():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 3)) * [5.0, 1.0, 0.1] + 7.0
    coordinates, share = figures.principal_components(vectors)
    assert coordinates.shape == (200, 2)
    assert share[0] > 0.9 > 0.1 > share[1] and share.sum() < 1
    assert abs(np.corrcoef(coordinates[:, 0], vectors[:, 0])[0, 1]) > 0.99
    assert coordinates.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_map(tmp_path):
    points, labels = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]]), ["random", "random", "relaxed"]
    assert pixels(figures.environment_map(points, labels, share=[0.8, 0.1], path=tmp_path / "map.png")).shape[0] > 500
    with pytest.raises(LosikoError, match="3 environments with 2 labels of 1 kinds"):
        figures.environment_map(points, labels[:2], path=tmp_path / "none.png")
