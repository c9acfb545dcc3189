"""The same two layers put onto each other at several distances and places: starts to choose from by their loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from aiida_losiko.builders.assembly import interface
from aiida_losiko.core.checks import is_real, require

if TYPE_CHECKING:
    from ase import Atoms


def interfaces(
    slab_a: Atoms,
    slab_b: Atoms,
    *,
    gaps: Sequence[float],
    shifts: Sequence[Sequence[float]] = ((0.0, 0.0),),
    **others: Any,
) -> list[Atoms]:
    """Return an interface for each pair of a gap and a shift.

    Parameters
    ----------
    slab_a, slab_b
        The lower and the upper layer.
    gaps
        Between the outermost nuclei of the two, Angstrom.
    shifts
        Of the upper layer, each two fractions of the common cell's vectors.
    **others
        The other parameters of `aiida_losiko.builders.interface`.

    Returns
    -------
    list of ase.Atoms
        The gaps in turn, all shifts of each. Identifiers end in ``":gap-<gap>:shift-<x>_<y>"``.

    Raises
    ------
    LosikoError
        As of `aiida_losiko.builders.interface`, and for what is no list of gaps or shifts.
    """
    several = isinstance(gaps, Sequence) and not isinstance(gaps, str) and len(gaps) > 0
    require("gaps", gaps, several, "a list of one or more numbers of Angstrom")
    pairs = isinstance(shifts, Sequence) and len(shifts) > 0 and all(_is_pair(shift) for shift in shifts)
    require("shifts", shifts, pairs, "a list of one or more pairs of fractions of the common cell's vectors")
    found = []
    for gap, (x, y) in product(gaps, shifts):
        atoms = interface(slab_a, slab_b, gap=gap, shift=(x, y), **others)
        atoms.info["identifier"] += f":gap-{gap:g}:shift-{x:g}_{y:g}"
        found.append(atoms)
    return found


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2 and all(map(is_real, value))
