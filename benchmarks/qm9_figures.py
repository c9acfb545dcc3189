"""Pictures of the rows of `qm9_accuracy.py`: RMSD distributions, bond errors, and what the flag knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qm9_measures import RIGHT, WRONG, Row
from qm9_study import STARTS

from aiida_losiko.core.files import temporary_target
from aiida_losiko.tools.figures import BLUE, GREY, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours for the peers; LOSIKO is orange, darker with the size of its database.
PEER_STYLE: dict[str, dict[str, Any]] = {
    "the start": {"color": "black", "linestyle": ":"},
    "MMFF94": {"color": "#CC79A7"},
    "GFN1-xTB": {"color": "#56B4E9"},
    "GFN2-xTB": {"color": BLUE},
    "paper, L-BFGS": {"color": GREY, "linestyle": "--"},
}
LOSIKO_COLOURS = ("#F0B27A", ORANGE, "#7E2F00")
RMSD_RANGE = (2e-3, 2.0)


def draw_all(folder: Path, rows: list[Row], protocol: str) -> list[Path]:
    """Draw every picture for which there are rows, in colour for one protocol; return where they are."""
    import matplotlib

    shown = [row for row in rows if row.who in PEER_STYLE or row.who == f"LOSIKO {protocol}"]
    shown.sort(key=lambda row: row.role == "losiko")
    pictures: dict[str, Callable[[], Figure]] = {
        f"rmsd-{start}.png": lambda start=start: distributions([row for row in shown if row.start == start], start)
        for start in dict.fromkeys(row.start for row in shown)
    }
    pictures["bonds.png"] = lambda: bond_bars(shown)
    for size in sorted({row.database or 0 for row in shown if row.role == "losiko"}):
        own = [row for row in shown if row.role == "losiko" and row.database == size]
        pictures[f"flag-{protocol}-{size}.png"] = lambda own=own: flag_histograms(own)
    paths = []
    for name, draw in pictures.items():
        with matplotlib.rc_context(STYLE), temporary_target(folder / name) as temporary:
            draw().savefig(temporary, bbox_inches="tight", pad_inches=0.08)
        paths.append(folder / name)
    return paths


def label(row: Row) -> str:
    """Name of a contestant with its database."""
    return f"{row.who} ({row.database})" if row.database else row.who


def styles(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Return line styles by label."""
    sizes = sorted({row.database for row in rows if row.role == "losiko" and row.database})
    colours = dict(zip(sizes, LOSIKO_COLOURS[-len(sizes) :] if len(sizes) < 4 else [ORANGE] * len(sizes), strict=False))
    found = {}
    for row in rows:
        own = {"color": colours.get(row.database or 0, ORANGE), "linewidth": 2.2, "zorder": 3}
        found[label(row)] = own if row.role == "losiko" else {"linewidth": 1.5} | PEER_STYLE[row.who]
    return found


def distributions(rows: list[Row], start: str) -> Figure:
    """Draw the share of molecules below an RMSD, for all contestants from one start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.9))
    axes = figure.add_subplot(xscale="log", xlim=RMSD_RANGE, ylim=(0, 100))
    style = styles(rows)
    for row in rows:
        if not len(row.rmsd) or row.rmsd.max() < 1e-9:
            continue  # the truth itself
        x = np.sort(np.maximum(row.rmsd, RMSD_RANGE[0]))
        y = 100 * np.arange(1, len(x) + 1) / len(x)
        line = style[label(row)]
        # From the left edge at zero to the right one at all: no curve ends in the middle.
        x, y = np.concatenate([RMSD_RANGE[:1], x, RMSD_RANGE[1:]]), np.concatenate([[0], y, [100]])
        axes.step(x, y, where="post", label=f"{label(row)}: {np.median(row.rmsd):.3f}", **line)
    axes.set_xticks([0.003, 0.01, 0.03, 0.1, 0.3, 1], labels=["0.003", "0.01", "0.03", "0.1", "0.3", "1"])
    axes.set(xlabel="RMSD to the DFT geometry (Å)", ylabel="molecules below (%)")
    axes.set_title(f"start ({start}): {STARTS[start]}, {max(len(row.rmsd) for row in rows)} molecules")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(title="median (Å)", loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return figure


def bond_bars(rows: list[Row]) -> Figure:
    """Draw the mean absolute error of bond lengths, one panel per start, on a common logarithmic axis."""
    from matplotlib.figure import Figure

    starts = list(dict.fromkeys(row.start for row in rows))
    style = styles(rows)
    names = [name for name in style if any(label(row) == name for row in rows)]
    figure = Figure(figsize=(2.1 * len(starts) + 1.2, 0.3 * len(names) + 1.1))
    panels = figure.subplots(1, len(starts), sharey=True, sharex=True, squeeze=False)[0]
    for axes, start in zip(panels, starts, strict=True):
        for row in (row for row in rows if row.start == start):
            value = row.values["bond"]
            if not value:
                continue  # the truth itself
            y = names.index(label(row))
            axes.barh(y, value - 1e-4, left=1e-4, height=0.7, color=style[label(row)]["color"])
            # Within the bar where there is no room behind it.
            inside = value > 0.03
            text = {"ha": "right" if inside else "left", "color": "white" if inside else "black"}
            axes.text(value * (0.92 if inside else 1.1), y, f"{value:.4f}", va="center", fontsize=8, **text)
        axes.set(xscale="log", xlim=(1e-3, 0.3))
        axes.set_title(f"({start}) {STARTS[start]}", fontsize=9)
        axes.set_xticks([0.001, 0.01, 0.1], labels=["0.001", "0.01", "0.1"])
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), labels=names)
    panels[0].invert_yaxis()
    panels[len(panels) // 2].set_xlabel("mean absolute error of bond lengths (Å)")
    figure.tight_layout()
    return figure


def flag_histograms(rows: list[Row]) -> Figure:
    """Draw how many molecules of which error are flagged and how many are not, one panel per start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 1.1 * len(rows) + 0.9))
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    # Six bins to a factor of three: both limits of the flag are edges.
    edges = RIGHT * 3.0 ** (np.arange(-21, 17) / 6)
    for axes, row in zip(panels, rows, strict=True):
        _flag_panel(axes, row, edges)
    panels[-1].set_xticks([0.003, 0.01, 0.03, 0.1, 0.3, 1], labels=["0.003", "0.01", "0.03", "0.1", "0.3", "1"])
    panels[-1].set_xlabel("RMSD to the DFT geometry (Å)")
    panels[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    panels[0].set_title(label(rows[0]), loc="left")
    panels[len(panels) // 2].set_ylabel("molecules")
    figure.tight_layout()
    return figure


def _flag_panel(axes: Axes, row: Row, edges: np.ndarray[Any, Any]) -> None:
    assert row.flagged is not None
    error = np.clip(row.rmsd, edges[0] * 1.001, edges[-1] * 0.999)
    groups = [error[~row.flagged], error[row.flagged]]
    axes.hist(groups, list(edges), stacked=True, color=[BLUE, ORANGE], label=["not flagged", "flagged"])
    for limit in (RIGHT, WRONG):
        axes.axvline(limit, color="black", linewidth=0.8, linestyle=":")
    caught, alarmed = row.values["caught"], row.values["alarmed"]
    notes = [f"({row.start}) {STARTS[row.start]}"]
    notes += [f"none below {RIGHT} Å" if alarmed is None else f"< {RIGHT} Å: {alarmed:.0f} % flagged"]
    notes += [f"none above {WRONG} Å" if caught is None else f"> {WRONG} Å: {caught:.0f} % flagged"]
    axes.text(1.02, 0.95, "\n".join(notes), transform=axes.transAxes, va="top", fontsize=9, linespacing=1.4)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
