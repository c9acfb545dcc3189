"""Pictures: files of the expected kind and size, drawings that say what they should."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools import figures
from aiida_losiko.tools.drawing import draw_molecule, viewing_axes


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG")
    return imread(path)[..., :3]


@pytest.fixture
def ethanol() -> tuple[Atoms, Atoms, Atoms]:
    true = molecule("CH3CH2OH")
    rng = np.random.default_rng(1)
    before, after = true.copy(), true.copy()
    before.positions += rng.normal(scale=0.1, size=(9, 3))
    after.positions += rng.normal(scale=0.02, size=(9, 3)) + 5.0
    return before, after, true


def test_histogram(tmp_path):
    path = figures.rmsd_histogram([0.16, 0.17, 0.15], [0.05, float("nan"), 0.08], path=tmp_path / "rmsd.png")
    image = pixels(path)
    assert image.shape[0] > 500 and image.shape[1] > 900
    assert [p.name for p in tmp_path.iterdir()] == ["rmsd.png"]


@pytest.mark.parametrize(("top", "width"), [(0.19, 0.02), (1.3, 0.2), (0.0011, 0.0002)])
def test_bins_have_round_edges(top, width):
    edges = np.array(figures._round_edges(top, 10))
    np.testing.assert_allclose(np.diff(edges), np.diff(edges)[0])
    assert edges[0] == 0.0
    assert edges[-2] < top <= edges[-1]
    assert np.diff(edges)[0] == pytest.approx(width)


def test_histogram_of_nothing(tmp_path):
    pixels(figures.rmsd_histogram([], [], path=tmp_path / "empty.png"))


def test_triptych_has_three_panels(tmp_path, ethanol):
    image = pixels(figures.molecule_triptych(*ethanol, path=tmp_path / "deep" / "ethanol.png", title="ethanol"))
    assert image.shape[1] > image.shape[0] > 300
    # The oxygen's red appears in each third.
    red = (image[..., 0] > 0.7) & (image[..., 1] < 0.4) & (image[..., 2] < 0.4)
    assert all(third.sum() > 100 for third in np.array_split(red, 3, axis=1))


def test_triptych_refuses_other_molecules(tmp_path, ethanol):
    with pytest.raises(LosikoError, match="same elements"):
        figures.molecule_triptych(molecule("H2O"), ethanol[1], ethanol[2], path=tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_triptych_of_a_crystal_and_of_one_atom(tmp_path):
    crystal = bulk("Si", cubic=True)
    pixels(figures.molecule_triptych(crystal, crystal, crystal, path=tmp_path / "si.png"))
    pixels(figures.molecule_triptych(Atoms("He"), Atoms("He"), Atoms("He"), path=tmp_path / "he.png"))


def test_same_drawing_twice_is_the_same_file(tmp_path, ethanol):
    first, second = (figures.molecule_triptych(*ethanol, path=tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()


def test_loss_surface(tmp_path):
    x, y = np.linspace(-2, 2, 9), np.linspace(-1, 1, 5)
    values = x[None, :] ** 2 + y[:, None] ** 2
    values[0, 0] = np.nan
    path = tmp_path / "surface.png"
    pixels(figures.loss_surface((x, y), values, Atoms("H2", [[-1, 0, 0], [1, 0, 0]]), path=path, minima=[[0, 0]]))


def test_loss_curves_reach_zero(tmp_path):
    pixels(figures.loss_curves([[1.0, 1e-3, 0.0], [2.0]], path=tmp_path / "curves.png", highlight=1))


def test_suffix_is_checked_and_nothing_left(tmp_path):
    with pytest.raises(LosikoError, match=r"\.png, \.pdf or \.svg"):
        figures.rmsd_histogram([0.1], [0.2], path=tmp_path / "picture.docx")
    assert not list(tmp_path.iterdir())


def test_existing_picture_is_replaced(tmp_path):
    path = tmp_path / "rmsd.svg"
    path.write_text("old")
    figures.rmsd_histogram([0.1], [0.2], path=path)
    assert "<svg" in path.read_text()


@pytest.mark.parametrize("name", ["CO2", "CH4", "C6H6", "H2"])
def test_viewing_axes_are_a_proper_rotation(name):
    axes = viewing_axes(molecule(name).positions)
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_nearer_atoms_are_drawn_over_farther_ones():
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    axes = Figure().add_subplot()
    draw_molecule(axes, [6, 8], np.array([[0, 0, 0], [0.2, 0, 1.2]]))
    order = {round(p.center[0], 3): p.zorder for p in axes.patches if isinstance(p, Circle) and p.get_edgecolor()[3]}
    assert order[0.2] > order[0.0]


def test_matplotlib_is_imported_late():
    code = "import sys, aiida_losiko.tools.figures, aiida_losiko.tools.drawing; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
