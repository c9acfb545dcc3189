"""Pictures of interfaces, seen from the side, with the atoms that lack neighbours in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools.figures import BLUE, GREY, ORANGE, picture

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

INCHES_PER_ANGSTROM = 0.22
#: What is drawn around the height of the interface, Angstrom.
SPAN = 9.0
#: Radius of an atom: this share of its covalent radius.
RADIUS = 0.55
FROZEN_ALPHA = 0.35


@picture
def side_views(
    panels: Sequence[tuple[str, Atoms, str]], height: float, *, valences: dict[str, int], title: str = ""
) -> Figure:
    """An interface from the side in several structures of the same atoms (Fig. 5g).

    Atoms with as many neighbours as they should have are blue, with fewer orange, with more grey; larger ones are
    those of the larger element. What is frozen is pale.

    Parameters
    ----------
    panels
        Label above, structure and note below of each.
    height
        Of the interface above the bottom of the cell, Angstrom; its normal is z.
    path
        Where the picture goes.
    valences
        How many neighbours each element should have.
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
    from matplotlib.lines import Line2D

    if not panels:
        raise LosikoError("0 structures to draw: give at least one")
    width = max(float(atoms.positions[:, 0].max()) for _, atoms, _ in panels) + 1.5
    wide, tall = width * INCHES_PER_ANGSTROM, 2 * SPAN * INCHES_PER_ANGSTROM
    below, above = 0.80, 0.36 + (0.30 if title else 0.0)
    total = below + tall + above
    figure = Figure(figsize=(len(panels) * wide + 0.2, total))
    for column, (label, atoms, note) in enumerate(panels):
        place = (column / len(panels), below / total, 1 / len(panels), tall / total)
        axes = figure.add_axes(place, aspect="equal", xlim=(-1.5, width), ylim=(height - SPAN, height + SPAN))
        axes.set_axis_off()
        axes.axhline(height, color=GREY, linewidth=0.8, linestyle=":", zorder=-1e6)
        _draw(axes, atoms, height, valences)
        middle = (column + 0.5) / len(panels)
        figure.text(middle, (below + tall + 0.08) / total, label, ha="center", fontsize=11)
        figure.text(middle, 0.50 / total, note, ha="center", color=GREY)
    style: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 8, "markeredgecolor": "black"}
    colours = ((BLUE, "neighbours as they should be"), (ORANGE, "too few"), (GREY, "too many"))
    handles = [Line2D([], [], markerfacecolor=colour, label=text, **style) for colour, text in colours]
    figure.legend(handles=handles, loc="lower center", ncols=3, handletextpad=0.1, borderaxespad=0.2)
    if title:
        figure.text(0.5, 1.0, title, ha="center", va="top", fontweight="bold", fontsize=11)
    return figure


def _draw(axes: Any, atoms: Atoms, height: float, valences: dict[str, int]) -> None:
    from ase.data import covalent_radii
    from matplotlib.patches import Circle

    from aiida_losiko.core.metrics import bonds, coordination_numbers
    from aiida_losiko.core.structures.content import fixed_mask

    missing = coordination_numbers(atoms) - np.array([valences[symbol] for symbol in atoms.symbols])
    frozen, positions = fixed_mask(atoms), atoms.positions
    first, second, shift = bonds(atoms)
    for i, j in zip(first[~shift.any(axis=1)], second[~shift.any(axis=1)], strict=True):
        ends, depth = positions[[i, j]], float(positions[[i, j], 1].mean())
        alpha = FROZEN_ALPHA if frozen[i] and frozen[j] else 1.0
        axes.plot(ends[:, 0], ends[:, 2], color="0.45", linewidth=1.2, alpha=alpha, zorder=-depth)
    for index in np.flatnonzero(np.abs(positions[:, 2] - height) < SPAN):
        x, y, z = positions[index]
        colour = BLUE if missing[index] == 0 else ORANGE if missing[index] < 0 else GREY
        alpha = FROZEN_ALPHA if frozen[index] else 1.0
        radius = RADIUS * covalent_radii[atoms.numbers[index]]
        axes.add_patch(Circle((x, z), radius, fc=colour, ec="black", lw=0.6, alpha=alpha, zorder=-float(y)))
