"""The table and the pictures of a validation: energies, geometries, densities of states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.tools.figures import BLUE, GREY, ORANGE, picture
from aiida_losiko.tools.tables import Column, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ("densities_of_states", "energies_and_geometries", "validation_rows", "validation_table")

FloatArray = NDArray[np.float64]

#: Stages in their order, and what people call them.
STAGES = {"start": "start", "losiko": "LOSIKO", "minimum": "minimum"}
COLOURS = {"start": GREY, "losiko": ORANGE, "minimum": BLUE}
#: Of elements: green, purple, sky blue, yellow, vermilion and blue of Okabe and Ito.
ELEMENT_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#D55E00", "#0072B2")
#: So many structures are drawn with their names.
MOST_DRAWN = 40

COLUMNS = (
    Column("identifier", "structure"),
    Column("n_atoms", "atoms"),
    Column("above_start", "start", "eV", ".3f"),
    Column("above_losiko", "LOSIKO", "eV", ".3f"),
    Column("above_per_atom_losiko", "LOSIKO", "eV/atom", ".4f"),
    Column("recovered_percent", "recovered", "%", ".1f"),
    Column("rmsd_start", "RMSD start", "Å", ".3f"),
    Column("rmsd_losiko", "RMSD LOSIKO", "Å", ".3f"),
    Column("largest_displacement", "largest", "Å", ".3f"),
    Column("volume_change", "volume", "%", "+.1f"),
    Column("coordination_changed", "neighbours", "atoms"),
    Column("gap_losiko", "gap LOSIKO", "eV", ".2f"),
    Column("gap_minimum", "gap minimum", "eV", ".2f"),
    Column("converged", "as asked"),
)


def validation_rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a table of `losiko.tabulate_validation`, with energies above the minimum.

    Parameters
    ----------
    table
        The content of the node (`node.get_dict()`).

    Returns
    -------
    list of dict
        The columns of the table, and `above_start`, `above_losiko` (eV), `above_per_atom_start`,
        `above_per_atom_losiko` (eV/atom) and `recovered_percent`; None for what is not known.

    Raises
    ------
    LosikoError
        If it is no such table.
    """
    columns = table.get("rows")
    if not isinstance(columns, Mapping) or "energy_minimum" not in columns:
        raise LosikoError(f"no table of a validation: it has {', '.join(table) or 'nothing'}, not rows with energies")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        for stage in ("start", "losiko"):
            for kind in ("", "per_atom_"):
                energy, lowest = row[f"energy_{kind}{stage}"], row[f"energy_{kind}minimum"]
                row[f"above_{kind}{stage}"] = None if energy is None or lowest is None else energy - lowest
        row["recovered_percent"] = None if row["recovered"] is None else 100.0 * row["recovered"]
    return rows


def validation_table(table: Mapping[str, Any]) -> str:
    """Return the table as text, one line for each structure; columns of which nothing is known are left out.

    Parameters
    ----------
    table
        See `validation_rows`.

    Returns
    -------
    str
        With the problems, if there are any, under it.
    """
    rows = validation_rows(table)
    always = ("identifier", "n_atoms", "converged")
    columns = [c for c in COLUMNS if c.key in always or any(row[c.key] is not None for row in rows)]
    engine = table.get("engine") or "an unknown engine"
    lines = [
        f"Energies of {engine} above its minimum, and differences of geometry from there",
        text_table(rows, columns),
    ]
    lines += [f"{row['identifier']}: {row['problems']}" for row in rows if row["problems"]]
    return "\n".join(lines)


@picture
def energies_and_geometries(table: Mapping[str, Any], *, title: str = "") -> Figure:
    """The energies of start, LOSIKO's structure and minimum as ladders, and below how far the first two are from it.

    Parameters
    ----------
    table
        See `validation_rows`; its first 40 structures whose minimum is known are drawn.
    path
        Where the picture goes.
    title
        A line above.

    Returns
    -------
    pathlib.Path
        Where the picture is.

    Raises
    ------
    LosikoError
        If no structure has a minimum and an energy of LOSIKO's structure.
    """
    from matplotlib.figure import Figure

    rows = [row for row in validation_rows(table) if row["above_losiko"] is not None][:MOST_DRAWN]
    if not rows:
        raise LosikoError(
            f"none of {table.get('n_rows')} structures has energies of LOSIKO's structure and the minimum"
        )
    figure = Figure(figsize=(max(3.6, 1.6 + 0.62 * len(rows)), 4.6), layout="constrained")
    ladder, distance = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1.0))
    _draw_ladders(ladder, rows)
    _draw_distances(distance, rows)
    ladder.set_ylabel(f"above the {table.get('engine') or ''} minimum (eV)".replace("  ", " "))
    distance.set_ylabel("RMSD to it (Å)")
    distance.set_xticks(range(len(rows)), [_short(row["identifier"]) for row in rows], rotation=45, ha="right")
    distance.set_xlim(-0.6, len(rows) - 0.4)
    ladder.tick_params(axis="x", length=0)
    figure.legend(*ladder.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    if title:
        figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def _draw_ladders(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a level for each stage; broken lines join those of a structure."""
    for place, row in enumerate(rows):
        levels = [("start", row["above_start"]), ("losiko", row["above_losiko"]), ("minimum", 0.0)]
        levels = [(stage, level) for stage, level in levels if level is not None]
        heights = [level for _, level in levels]
        axes.plot([place] * len(heights), heights, color=GREY, linestyle=":", linewidth=0.8, zorder=1)
        for stage, level in levels:
            label = STAGES[stage] if stage not in {text.get_gid() for text in axes.get_lines()} else None
            # LOSIKO's level over the minimum's, where both are nearly the same.
            above = 3 if stage == "losiko" else 2
            ends = [place - 0.32, place + 0.32]
            (line,) = axes.plot(ends, [level] * 2, color=COLOURS[stage], linewidth=2.4, zorder=above)
            line.set_gid(stage)
            line.set_label(label or "_")
    axes.set_ylim(bottom=min(0.0, *(row["above_losiko"] for row in rows)) - 0.03 * axes.get_ylim()[1])


def _draw_distances(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a bar for start and LOSIKO's structure each."""
    for stage, shift in (("start", -0.2), ("losiko", 0.2)):
        values = [row[f"rmsd_{stage}"] for row in rows]
        known = [(place + shift, value) for place, value in enumerate(values) if value is not None]
        if known:
            places, heights = zip(*known, strict=True)
            axes.bar(places, heights, width=0.36, color=COLOURS[stage])


@picture
def densities_of_states(
    densities: Mapping[str, DensityOfStates],
    *,
    window: tuple[float, float] | None = None,
    notes: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """Densities of states one above the other, with the share of each element (Fig. 5 d to f of the paper).

    Parameters
    ----------
    densities
        By `start`, `losiko` and `minimum` (or other labels), drawn in this order.
    path
        Where the picture goes.
    window
        Lowest and highest energy that is drawn, in eV relative to the Fermi level; default all.
    notes
        A text for some of them, such as the gap.
    title
        A line above.

    Returns
    -------
    pathlib.Path
        Where the picture is.

    Raises
    ------
    LosikoError
        For none, and for an empty window.
    """
    from matplotlib.figure import Figure

    if not densities:
        raise LosikoError("no density of states to draw: run losiko.validate with dos=True")
    low, high = window or (
        min(float(dos.energies[0]) for dos in densities.values()),
        max(float(dos.energies[-1]) for dos in densities.values()),
    )
    if not low < high:
        raise LosikoError(f"the window from {low:g} to {high:g} eV is empty: give the lower energy first")
    elements = sorted({symbol for dos in densities.values() for symbol in dos.projected})
    colours = {symbol: ELEMENT_COLOURS[i % len(ELEMENT_COLOURS)] for i, symbol in enumerate(elements)}
    figure = Figure(figsize=(5.4, 0.9 + 1.5 * len(densities)), layout="constrained")
    panels = figure.subplots(len(densities), 1, sharex=True, squeeze=False)[:, 0]
    ordered = [stage for stage in STAGES if stage in densities] + [label for label in densities if label not in STAGES]
    for axes, label in zip(panels, ordered, strict=True):
        _draw_density(axes, densities[label], colours, (low, high))
        told = (notes or {}).get(label)
        axes.set_title(STAGES.get(label, label) + (f"  {told}" if told else ""), loc="left", fontsize=10)
    zeros = {dos.zero for dos in densities.values()}
    panels[-1].set(xlabel=f"energy relative to the {' or the '.join(sorted(zeros))} (eV)", xlim=(low, high))
    figure.supylabel("density of states (1/eV)", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(elements) + 1)
    if title:
        figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def _draw_density(axes: Axes, dos: DensityOfStates, colours: Mapping[str, str], window: tuple[float, float]) -> None:
    inside = (dos.energies >= window[0]) & (dos.energies <= window[1])
    energies = dos.energies[inside]
    axes.fill_between(energies, dos.total[inside], color="#DDDDDD", linewidth=0, label="total")
    for symbol, colour in colours.items():
        own = dos.projected.get(symbol, np.full_like(dos.total, np.nan))
        axes.plot(energies, own[inside], color=colour, linewidth=1.3, label=symbol)
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=0.8)
    axes.set_ylim(bottom=0.0)


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:19]}..."
