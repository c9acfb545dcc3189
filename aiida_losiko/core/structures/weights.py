"""How much each atom counts, as an array of the structure that travels with it through files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["WEIGHTS", "set_weights", "weights_of"]

WEIGHTS = "losiko_weight"
"""Per-atom array with the c_i of Eq. 8, on top of those by species; without it all atoms count one."""


def set_weights(atoms: Atoms, weights: Sequence[float]) -> None:
    """Give the atoms their weights, in place.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure.
    weights : sequence of float, shape (n_atoms,)
        From 0.

    Raises
    ------
    LosikoError
        A number of weights that differs from the number of atoms, or one that is no number from 0.
    """
    atoms.set_array(WEIGHTS, _checked(weights, len(atoms)), float, ())


def weights_of(structures: Sequence[Atoms]) -> list[NDArray[np.float64]] | None:
    """Return the weights of each structure; None where no structure has any.

    Raises
    ------
    LosikoError
        Weights that are no numbers from 0.
    """
    if not any(WEIGHTS in atoms.arrays for atoms in structures):
        return None
    return [_checked(atoms.arrays.get(WEIGHTS, np.ones(len(atoms))), len(atoms)) for atoms in structures]


def _checked(weights: Any, count: int) -> NDArray[np.float64]:
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape != (count,) or not (np.isfinite(array) & (array >= 0)).all():
        raise LosikoError(f"weights are {_short(weights)}: give {count} numbers from 0, one for each atom")
    return array


def _short(weights: Any) -> str:
    text = " ".join(str(weights).split())
    return text if len(text) <= 60 else text[:60] + " ..."
