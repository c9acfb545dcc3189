"""Pictures for people: RMSD histograms, molecules side by side, loss surfaces and loss curves.

Each function writes one file, under a temporary name first, in the format that the name's suffix says (png, pdf, svg).
Blue and orange are those of Okabe and Ito and surfaces use a perceptually uniform map: both can be told apart by
everyone. matplotlib is imported only when a picture is made, without its global state and without a display.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.files import temporary_target
from aiida_losiko.core.metrics import displacements, rmsd

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6E6E6E"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 200,
    "svg.hashsalt": "aiida-losiko",
}


def picture(draw: Callable[..., Figure]) -> Callable[..., Path]:
    """Let a function that returns a figure write it to its argument `path` and return that path."""

    @wraps(draw)
    def write(*args: Any, path: str | Path, **kwargs: Any) -> Path:
        import matplotlib

        path = Path(path)
        with matplotlib.rc_context(STYLE):
            _save(draw(*args, **kwargs), path)
        return path

    return write


def _save(figure: Figure, path: Path) -> None:
    supported = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in supported:
        raise LosikoError(f"a picture cannot be written to {path.name!r}: give it the suffix .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_target(path) as temporary:
        figure.savefig(temporary, format=suffix, bbox_inches="tight", pad_inches=0.08)


@picture
def rmsd_histogram(before: ArrayLike, after: ArrayLike, *, title: str = "") -> Figure:
    """Histogram of the RMSD to the true structures, before and after (Fig. 4b of the paper).

    Parameters
    ----------
    before, after
        (n_structures,) RMSD in Angstrom; NaN (failed structures) is left out.
    path
        Where the picture goes.
    title
        A line above the axes.

    Returns
    -------
    pathlib.Path
        Where the picture is.
    """
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    groups = [(np.asarray(before, float), GREY, "before"), (np.asarray(after, float), ORANGE, "after")]
    groups = [(values[np.isfinite(values)], colour, label) for values, colour, label in groups]
    top = max([*(values.max() for values, _, _ in groups if values.size), 1e-3])
    edges = _round_edges(top, 10 if groups[1][0].size < 50 else 25)
    figure = Figure(figsize=(5.4, 3.3))
    axes = figure.add_subplot()
    for values, colour, label in groups:
        if not values.size:
            continue
        median = float(np.median(values))
        # Each bar with its outline: two of the same height are not one broad bar.
        axes.hist(values, edges, facecolor=to_rgba(colour, 0.35), edgecolor=colour, linewidth=1.2)
        axes.axvline(median, color=colour, linestyle="--", linewidth=1.2, label=f"{label}, median {median:.3f} Å")
    axes.set(xlabel="RMSD to the true structure (Å)", ylabel="number of structures", xlim=(0, 1.01 * edges[-1]))
    axes.set_xticks(edges[:: 1 + len(edges) // 12])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(title, pad=24)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        # Above the axes, where no bar or line can be under it.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def _round_edges(top: float, n_bins: int) -> list[float]:
    """Return edges of about so many bins from zero to beyond `top`, at round numbers (tiny for no spread at all)."""
    from matplotlib.ticker import MaxNLocator

    edges = MaxNLocator(n_bins, steps=[1, 2, 2.5, 5, 10]).tick_values(0.0, top)
    return [float(edge) for edge in edges if edge >= 0.0]


@picture
def molecule_triptych(before: Atoms, after: Atoms, true: Atoms, *, title: str = "") -> Figure:
    """One molecule three times in the same orientation: displaced, relaxed, true (Fig. 4d of the paper).

    Parameters
    ----------
    before, after, true
        The same atoms in the same order; the first two are aligned to the third.
    path
        Where the picture goes.
    title
        A line above the panels.

    Returns
    -------
    pathlib.Path
        Where the picture is.
    """
    from matplotlib.figure import Figure

    from aiida_losiko.tools.drawing import draw_elements, draw_molecule, viewing_axes

    axes_of_view = viewing_axes(true.positions)
    centre = true.positions.mean(axis=0)
    panels = []
    for label, atoms, note in (
        ("before", before, f"RMSD {rmsd(before, true):.3f} Å"),
        ("after", after, f"RMSD {rmsd(after, true):.3f} Å"),
        ("true", true, "reference"),
    ):
        positions = true.positions + displacements(atoms, true) - centre
        panels.append((label, positions @ axes_of_view.T, note))
    everything = np.vstack([positions for _, positions, _ in panels])[:, :2]
    low, high = everything.min(axis=0) - 0.5, everything.max(axis=0) + 0.5
    # All in inches: the panels have the same scale and the text around them a fixed height.
    scale = min(0.45, 3.2 / (high - low)[0], 3.6 / (high - low)[1])
    width, height = np.maximum((high - low) * scale, (1.5, 0.4))
    below, above = 0.62, 0.34 + (0.28 if title else 0.0)
    figure = Figure(figsize=(3 * width, below + height + above))
    for column, (label, positions, note) in enumerate(panels):
        place = (column / 3, below / (below + height + above), 1 / 3, height / (below + height + above))
        axes = figure.add_axes(place, aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_axis_off()
        draw_molecule(axes, true.numbers, positions)
        middle = (column + 0.5) * width
        for text, y, style in ((label, below + height + 0.08, {"fontsize": 11}), (note, 0.42, {"color": GREY})):
            figure.text(middle / (3 * width), y / (below + height + above), text, ha="center", **style)
    draw_elements(figure, true.numbers)
    if title:
        figure.text(0.5, 1.0, title, ha="center", va="top", fontweight="bold", fontsize=11)
    return figure


@picture
def loss_surface(
    grid: tuple[ArrayLike, ArrayLike],
    values: ArrayLike,
    atoms: Atoms,
    *,
    moving: str = "atom",
    minima: ArrayLike = (),
    shallow: ArrayLike = (),
    title: str = "",
) -> Figure:
    """Loss against the place of one atom in the plane, the other atoms fixed (Fig. 3a and b of the paper).

    Parameters
    ----------
    grid
        x (n_x,) and y (n_y,), Angstrom.
    values
        Loss, (n_y, n_x), no unit; NaN is left white.
    atoms
        The fixed atoms, in the plane z = 0.
    path
        Where the picture goes.
    moving
        The symbol of the atom that moves, for the labels.
    minima
        (n, 2) places to mark with a star, Angstrom.
    shallow
        (n, 2) minima of a high loss, marked with a cross, Angstrom.
    title
        A line above the axes.

    Returns
    -------
    pathlib.Path
        Where the picture is.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    from aiida_losiko.tools.drawing import draw_atom

    x, y = (np.asarray(axis, float) for axis in grid)
    values = np.asarray(values, float)
    figure = Figure(figsize=(4.9, 4.1))
    axes = figure.add_subplot(aspect="equal")
    # Levels and colours are dense where the loss is low: what matters is where it falls to zero.
    top = float(np.nanmax(values))
    levels = top * np.linspace(0.0, 1.0, 29) ** 2
    filled = axes.contourf(x, y, values, levels, cmap="viridis", norm=PowerNorm(0.5, 0.0, top))
    axes.contour(x, y, values, levels[1::3], colors="white", linewidths=0.4, alpha=0.6)
    for position, number, symbol in zip(atoms.positions, atoms.numbers, atoms.symbols, strict=True):
        draw_atom(axes, position, int(number), zorder=5, scale=0.6)
        axes.text(position[0], position[1] - 0.01, symbol, ha="center", va="center", zorder=6, fontsize=8)
    for places, marker, size in ((minima, "*", 13), (shallow, "X", 7)):
        style: dict[str, Any] = {"linestyle": "", "color": "white", "markeredgecolor": "black", "zorder": 7}
        axes.plot(*np.asarray(places, float).reshape(-1, 2).T, marker=marker, markersize=size, **style)
    axes.set(xlabel=f"x of {moving} (Å)", ylabel=f"y of {moving} (Å)", title=title)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ticks = [tick for tick in (0, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50) if tick <= top]
    figure.colorbar(filled, ax=axes, label="loss", fraction=0.046, pad=0.03, ticks=ticks, format="%g")
    return figure


@picture
def loss_curves(curves: Sequence[ArrayLike], *, highlight: int = 0, title: str = "", floor: float = 1e-16) -> Figure:
    """Loss against step for several relaxations (Fig. 3c of the paper).

    Parameters
    ----------
    curves
        One (n_steps + 1,) loss history per relaxation.
    path
        Where the picture goes.
    highlight
        The curve to draw in colour.
    title
        A line above the axes.
    floor
        Losses below are drawn here: zero has no logarithm.

    Returns
    -------
    pathlib.Path
        Where the picture is.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.3))
    axes = figure.add_subplot(yscale="log", xlabel="step", ylabel="loss", title=title)
    for index, curve in enumerate(curves):
        curve = np.maximum(np.asarray(curve, float), floor)
        chosen = index == highlight
        axes.plot(curve, color=BLUE if chosen else GREY, linewidth=1.8 if chosen else 0.8, alpha=1 if chosen else 0.5)
        axes.plot(len(curve) - 1, curve[-1], "o", color=BLUE if chosen else GREY, markersize=5 if chosen else 3)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure
