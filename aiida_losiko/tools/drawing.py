"""Ball-and-stick drawings of molecules in matplotlib axes, shaded and sorted by depth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_losiko.core.metrics import bonds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

#: Radius of a drawn atom: this, plus this share of its covalent radius; half the width of a bond. Angstrom.
ATOM_RADIUS, ATOM_SCALE = 0.15, 0.32
BOND_HALF_WIDTH = 0.085
#: Bonds are drawn up to this times the sum of the covalent radii: a displaced structure has long ones.
DRAWN_BOND_SCALE = 1.3
#: How far the farthest atom fades towards white.
FADE = 0.30
_OUTLINE = np.array([0.15, 0.15, 0.15])


def viewing_axes(positions: FloatArray) -> FloatArray:
    """Rows are the picture's right, up and towards the reader: principal axes, tilted so that atoms do not eclipse.

    Parameters
    ----------
    positions
        (n_atoms, 3), Angstrom.

    Returns
    -------
    numpy.ndarray
        (3, 3) proper rotation.
    """
    _, _, axes = np.linalg.svd(positions - positions.mean(axis=0), full_matrices=True)
    # Signs of singular vectors are arbitrary: fix them, so that the same molecule always looks the same.
    axes = axes * np.where(axes[np.arange(3), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    axes[2] *= np.sign(np.linalg.det(axes))
    about_y, about_x = np.radians(-20.0), np.radians(16.0)
    turn_y = [[np.cos(about_y), 0, np.sin(about_y)], [0, 1, 0], [-np.sin(about_y), 0, np.cos(about_y)]]
    turn_x = [[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]]
    return np.asarray(np.array(turn_x) @ np.array(turn_y) @ axes)


def draw_molecule(
    axes: Axes, numbers: ArrayLike, positions: FloatArray, pairs: Iterable[tuple[int, int]] | None = None
) -> None:
    """Draw atoms as shaded balls and bonds as two-coloured sticks.

    Parameters
    ----------
    axes
        Axes of equal aspect, in Angstrom.
    numbers
        (n_atoms,) atomic numbers.
    positions
        (n_atoms, 3), Angstrom: right, up, towards the reader.
    pairs
        Atoms between which there are sticks; by default all that are closer than the sum of the covalent radii allows.
    """
    from ase import Atoms

    depth = positions[:, 2]
    faded = FADE * (depth.max() - depth) / max(float(np.ptp(depth)), 2.0)
    numbers = np.asarray(numbers)
    if pairs is None:
        first, second, _ = bonds(Atoms(numbers, positions), DRAWN_BOND_SCALE)
        pairs = zip(first.tolist(), second.tolist(), strict=True)
    for i, j in pairs:
        _draw_bond(axes, positions[[i, j]], numbers[[i, j]], faded[[i, j]])
    for number, position, fade in zip(numbers, positions, faded, strict=True):
        draw_atom(axes, position, int(number), zorder=10 + float(position[2]), fade=float(fade))


def draw_atom(
    axes: Axes, position: ArrayLike, number: int, *, zorder: float, fade: float = 0.0, scale: float = 1.0
) -> None:
    """Draw one ball.

    Parameters
    ----------
    axes
        Axes of equal aspect, in Angstrom.
    position
        Its first two entries are the place, Angstrom.
    number
        Atomic number: colour and size.
    zorder
        Larger is nearer.
    fade
        0 for the full colour, 1 for white.
    scale
        Of the radius.
    """
    from matplotlib.patches import Circle

    x, y = np.asarray(position, float)[:2]
    radius, colour = scale * _radius(number), _element_colour(number)
    axes.add_patch(Circle((x, y), radius, fc=_mix(colour, fade), ec=_mix(_OUTLINE, fade), lw=0.8, zorder=zorder))
    # Ever smaller and lighter discs towards the upper left make the ball.
    for step, share in enumerate(np.linspace(0.92, 0.15, 9), start=1):
        offset = 0.30 * radius * (1 - share)
        light = colour + (1.0 - colour) * 0.62 * (step / 9) ** 2
        disc = Circle(
            (x - offset, y + offset), radius * share, fc=_mix(light, fade), ec="none", zorder=zorder + 1e-4 * step
        )
        axes.add_patch(disc)


def draw_elements(figure: Figure, numbers: ArrayLike) -> None:
    """Add a legend of the elements at the bottom of the figure.

    Parameters
    ----------
    figure
        The figure.
    numbers
        Atomic numbers; each element is listed once.
    """
    from ase.data import chemical_symbols
    from matplotlib.lines import Line2D

    elements = [int(number) for number in np.unique(np.asarray(numbers))]
    style: dict[str, Any] = {
        "marker": "o",
        "linestyle": "",
        "markersize": 8,
        "markeredgewidth": 0.8,
        "markeredgecolor": _OUTLINE,
    }
    handles = [Line2D([], [], markerfacecolor=tuple(_element_colour(number)), **style) for number in elements]
    labels = [chemical_symbols[number] for number in elements]
    figure.legend(
        handles,
        labels,
        loc="lower center",
        ncols=len(elements),
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.0,
    )


def _draw_bond(axes: Axes, ends: FloatArray, numbers: NDArray[np.int64], fades: FloatArray) -> None:
    from matplotlib.patches import Polygon

    along = ends[1] - ends[0]
    length, seen = float(np.linalg.norm(along)), float(np.linalg.norm(along[:2]))
    # A stick comes out of the ball's surface, not out of its centre; seen end on there is nothing to draw.
    radii = [0.93 * _radius(int(number)) for number in numbers]
    if seen < 1e-3 or length <= sum(radii):
        return
    unit = along / length
    start, stop = ends[0] + radii[0] * unit, ends[1] - radii[1] * unit
    middle = (start + stop) / 2
    across = np.array([-along[1], along[0]]) / seen * BOND_HALF_WIDTH
    zorder = 10 + float(middle[2])
    for end, number, fade in zip((start, stop), numbers, fades, strict=True):
        colour = _element_colour(int(number))
        # A lighter stripe inside makes the stick round.
        for width, shade in ((1.0, colour), (0.45, colour + (1.0 - colour) * 0.35)):
            corners = [end[:2] + width * across, middle[:2] + width * across]
            corners += [middle[:2] - width * across, end[:2] - width * across]
            axes.add_patch(Polygon(corners, fc=_mix(shade, fade), ec="none", zorder=zorder + 1e-4 * (1 - width)))
    for side in (across, -across):
        line = np.array([start[:2] + side, stop[:2] + side])
        axes.plot(*line.T, color=_mix(_OUTLINE, float(fades.mean())), linewidth=0.8, zorder=zorder + 2e-4)


def _element_colour(number: int) -> FloatArray:
    from ase.data.colors import jmol_colors

    # A little darker than in Jmol, whose white and yellow get lost on white paper.
    return 0.88 * np.asarray(jmol_colors[number], dtype=np.float64)


def _radius(number: int) -> float:
    from ase.data import covalent_radii

    return float(ATOM_RADIUS + ATOM_SCALE * covalent_radii[number])


def _mix(colour: FloatArray, fade: float) -> FloatArray:
    return np.clip(colour + (1.0 - colour) * fade, 0.0, 1.0)
