"""Pictures of structure searches: densities, crystals side by side, principal components of environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools.figures import BLUE, GREY, ORANGE, picture

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

#: The first is for the starts; blue, orange, green and purple of Okabe and Ito after it.
COLOURS = (GREY, BLUE, ORANGE, "#009E73", "#CC79A7")
DRAWN_RADIUS = 4.2  # Angstrom


@picture
def density_histogram(groups: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Histogram of densities, one outline for each group (Fig. 6b of the paper).

    Parameters
    ----------
    groups
        Label to (n_structures,) densities in g/cm3, the starts first; up to five.
    path
        Where the picture goes.
    title
        A line above the axes.

    Returns
    -------
    pathlib.Path
        Where the picture is.

    Raises
    ------
    LosikoError
        For no groups, empty ones or too many.
    """
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    values = {label: np.asarray(group, float) for label, group in groups.items()}
    if not 0 < len(values) <= len(COLOURS) or not all(group.size for group in values.values()):
        raise LosikoError(f"{len(values)} groups of densities to draw: give 1 to {len(COLOURS)}, none of them empty")
    every = np.concatenate(list(values.values()))
    first = int(np.floor(every.min() * 10))
    last = max(int(np.ceil(every.max() * 10)), first + 1)
    edges = [tenth / 10 for tenth in range(first, last + 1)]
    figure = Figure(figsize=(5.8, 3.3))
    axes = figure.add_subplot(xlabel="density (g/cm³)", ylabel="number of structures", title=title)
    for (label, group), colour in zip(values.items(), COLOURS, strict=False):
        note = f"{label}, mean {group.mean():.2f}"
        axes.hist(group, edges, facecolor=to_rgba(colour, 0.3), edgecolor=colour, linewidth=1.2, label=note)
    axes.legend()
    return figure


@picture
def crystals_in_a_row(panels: Sequence[tuple[str, Atoms, str]], *, title: str = "") -> Figure:
    """What is around an atom of each of several crystals.

    Parameters
    ----------
    panels
        Label above, crystal and note below of each.
    path
        Where the picture goes.
    title
        A line above the panels.

    Returns
    -------
    pathlib.Path
        Where the picture is.

    Raises
    ------
    LosikoError
        For no panels.
    """
    from matplotlib.figure import Figure

    from aiida_losiko.tools.drawing import draw_molecule

    if not panels:
        raise LosikoError("no crystals to draw: give at least one")
    figure = Figure(figsize=(2.3 * len(panels), 3.0))
    for column, (label, atoms, note) in enumerate(panels, start=1):
        numbers, positions = _ball(atoms)
        axes = figure.add_subplot(1, len(panels), column, aspect="equal")
        axes.set(xlim=(-DRAWN_RADIUS - 0.5, DRAWN_RADIUS + 0.5), ylim=(-DRAWN_RADIUS - 0.5, DRAWN_RADIUS + 0.5))
        axes.set_axis_off()
        axes.set_title(label)
        axes.text(0.5, -0.02, note, transform=axes.transAxes, ha="center", va="top", fontsize=9, color=GREY)
        draw_molecule(axes, numbers, positions)
    if title:
        figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def _ball(atoms: Atoms) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the atoms within a radius of the first one, turned so that layers are seen from the side."""
    from ase.neighborlist import neighbor_list

    i, j, vectors = neighbor_list("ijD", atoms, DRAWN_RADIUS)
    numbers = np.concatenate([atoms.numbers[:1], atoms.numbers[j[i == 0]]])
    positions = np.vstack([np.zeros(3), vectors[i == 0]])
    bonds = np.vstack([vectors[np.linalg.norm(vectors, axis=1) < 1.6], np.eye(3) * 1e-3])
    # The axis with the least of the bonds, the normal of layers where there are any, points upwards.
    right, _, up = np.linalg.svd(bonds, full_matrices=False)[2]
    return numbers, positions @ np.array([right, up, np.cross(right, up)]).T @ _tilt().T


def _tilt() -> FloatArray:
    """Rows are the picture's right, up and towards the reader, a little off the axes so that atoms do not eclipse."""
    a, b = np.radians(-14.0), np.radians(12.0)
    turn_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return np.asarray(turn_x @ turn_y)


def principal_components(vectors: ArrayLike, n_components: int = 2) -> tuple[FloatArray, FloatArray]:
    """Return the coordinates along the principal components, and the share of the variance of each.

    Parameters
    ----------
    vectors
        (n_environments, n_features).
    n_components
        How many.

    Returns
    -------
    coordinates : numpy.ndarray
        (n_environments, n_components).
    share : numpy.ndarray
        (n_components,), of the whole variance.
    """
    matrix = np.asarray(vectors, float)
    centred = matrix - matrix.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    chosen = np.argsort(variances)[::-1][:n_components]
    # Signs of eigenvectors are arbitrary: fix them, so that the same set always looks the same.
    basis = axes[:, chosen]
    basis = basis * np.where(basis[np.abs(basis).argmax(axis=0), np.arange(len(chosen))] < 0, -1.0, 1.0)
    total = max(float(variances.sum()), 1e-300)
    return centred @ basis, variances[chosen] / total


@picture
def environment_map(coordinates: ArrayLike, labels: Sequence[str], *, share: ArrayLike = (), title: str = "") -> Figure:
    """Two principal components of environments, one colour for each label (Fig. 2f of the paper).

    Parameters
    ----------
    coordinates
        (n_environments, 2) or more columns.
    labels
        One for each environment; drawn in the order of their first appearance, up to five.
    path
        Where the picture goes.
    share
        Of the variance of each component, for the labels of the axes.
    title
        A line above the axes.

    Returns
    -------
    pathlib.Path
        Where the picture is.

    Raises
    ------
    LosikoError
        For labels that do not fit.
    """
    from matplotlib.figure import Figure

    points, names = np.asarray(coordinates, float), list(dict.fromkeys(labels))
    if len(points) != len(labels) or not 0 < len(names) <= len(COLOURS):
        raise LosikoError(
            f"{len(points)} environments with {len(labels)} labels of {len(names)} kinds: give one label for each, "
            f"of 1 to {len(COLOURS)} kinds"
        )
    figure = Figure(figsize=(5.2, 4.2))
    axes = figure.add_subplot(title=title)
    every = np.asarray(labels)
    for name, colour in zip(names, COLOURS, strict=False):
        own = points[every == name]
        axes.scatter(own[:, 0], own[:, 1], s=9, color=colour, alpha=0.6, linewidths=0, label=f"{name} ({len(own)})")
    parts = [f" ({100 * float(part):.0f} %)" for part in np.asarray(share, float)[:2]] or ["", ""]
    axes.set(xlabel=f"principal component 1{parts[0]}", ylabel=f"principal component 2{parts[1]}")
    axes.legend(markerscale=2)
    return figure
