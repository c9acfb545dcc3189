"""Pictures of point defects: the atoms around one of them, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools.figures import GREY, picture

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

#: Sticks are drawn up to this times the sum of the covalent radii; those of ionic crystals are longer than a bond.
STICK_SCALE = 1.25
INCHES_PER_ANGSTROM = 0.42
#: The third axis of the crystal leans so far towards the reader; about it, the crystal is turned in such steps.
LEAN, TURNS = np.radians(-80.0), np.radians(np.arange(0.0, 360.0, 5.0))


@picture
def surroundings(
    panels: Sequence[tuple[str, Atoms, str]], atom: int, *, radius: float = 3.2, partner: str = "O", title: str = ""
) -> Figure:
    """The atoms around one atom in several structures of the same atoms, seen from the same side (Fig. 5a-c).

    Parameters
    ----------
    panels
        Label above, structure and note below of each, the start first.
    atom
        The defect, an index that all structures share.
    radius
        Of what is drawn, Angstrom, around the place that the atom has in the first structure. The same atoms are drawn
        in all.
    partner
        Sticks end at this element: metals are close to each other without a bond.
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
        For no panels, or structures of other atoms.
    """
    from matplotlib.figure import Figure

    from aiida_losiko.tools.drawing import draw_elements, draw_molecule

    if not panels or any(list(each.numbers) != list(panels[0][1].numbers) for _, each, _ in panels):
        raise LosikoError(
            f"{len(panels)} structures to draw: give at least one, all of the same atoms in the same order"
        )
    first = panels[0][1]
    index, places = _around(first, atom, radius)
    numbers = first.numbers[index]
    every = [places + _moves(structure, first)[index] for _, structure, _ in panels]
    view = _clearest_view(every, int(np.flatnonzero(index == atom)[0]))
    turned = [positions @ view.T for positions in every]
    everything = np.vstack(turned)[:, :2]
    low, high = everything.min(axis=0) - 0.8, everything.max(axis=0) + 0.8
    width, height = (high - low) * INCHES_PER_ANGSTROM
    below, above = 0.68, 0.36 + (0.30 if title else 0.0)
    tall = below + height + above
    figure = Figure(figsize=(len(panels) * width, tall))
    for column, ((label, _, note), positions) in enumerate(zip(panels, turned, strict=True)):
        place = (column / len(panels), below / tall, 1 / len(panels), height / tall)
        axes = figure.add_axes(place, aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_axis_off()
        draw_molecule(axes, numbers, positions, _sticks(numbers, positions, partner))
        middle = (column + 0.5) / len(panels)
        figure.text(middle, (below + height + 0.08) / tall, label, ha="center", fontsize=11)
        figure.text(middle, 0.42 / tall, note, ha="center", color=GREY)
    draw_elements(figure, numbers)
    if title:
        figure.text(0.5, 1.0, title, ha="center", va="top", fontweight="bold", fontsize=11)
    return figure


def _around(atoms: Atoms, atom: int, radius: float) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the atoms within the radius, and their places relative to the atom, (n, 3), Angstrom."""
    vectors = atoms.get_distances(atom, range(len(atoms)), mic=True, vector=True)
    index = np.flatnonzero(np.linalg.norm(vectors, axis=1) <= radius)
    return index, np.asarray(vectors[index], dtype=np.float64)


def _moves(structure: Atoms, reference: Atoms) -> FloatArray:
    """Displacements without the common shift, (n_atoms, 3), Angstrom."""
    from aiida_losiko.core.metrics import displacements

    return displacements(structure, reference)


def _view(turn: float) -> FloatArray:
    """Rows are the picture's right, up and towards the reader: the third axis of the crystal nearly upright."""
    turn_z = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    turn_x = [[1, 0, 0], [0, np.cos(LEAN), -np.sin(LEAN)], [0, np.sin(LEAN), np.cos(LEAN)]]
    return np.asarray(np.array(turn_x) @ np.array(turn_z))


def _clearest_view(panels: Sequence[FloatArray], atom: int) -> FloatArray:
    """Return the view in which nothing is in front of the atom, in any of the panels, as far as that can be."""

    def clearance(view: FloatArray) -> float:
        least = np.inf
        for positions in panels:
            seen = (positions - positions[atom]) @ view.T
            in_front = np.linalg.norm(seen[seen[:, 2] > 1e-3, :2], axis=1)
            least = min(least, float(in_front.min(initial=np.inf)))
        return least

    return max((_view(float(turn)) for turn in TURNS), key=clearance)


def _sticks(numbers: NDArray[np.integer], positions: FloatArray, partner: str) -> list[tuple[int, int]]:
    """Return the pairs of the partner's atoms with others that are close enough."""
    from ase.data import atomic_numbers, covalent_radii

    z = atomic_numbers[partner]
    reach = STICK_SCALE * (covalent_radii[numbers][:, None] + covalent_radii[numbers])
    near = np.linalg.norm(positions[:, None] - positions, axis=2) < reach
    mixed = (numbers == z)[:, None] != (numbers == z)
    i, j = np.nonzero(np.triu(near & mixed, 1))
    return list(zip(i.tolist(), j.tolist(), strict=True))
