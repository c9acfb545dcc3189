"""What of a structure is more than atoms and cell: frozen atoms, and the entries of ``Atoms.info``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.files import to_jsonable

if TYPE_CHECKING:
    from ase import Atoms


def fixed_mask(atoms: Atoms) -> NDArray[np.bool_]:
    """Which atoms (n_atoms,) are under ``FixAtoms``; other constraints are left out with a warning."""
    from ase.constraints import FixAtoms

    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
        else:
            kind = type(constraint).__name__
            warnings.warn(f"constraint {kind} is left out: only FixAtoms is respected", UserWarning, stacklevel=4)
    return mask


def jsonable_info(structures: Sequence[Atoms]) -> list[dict[str, Any]]:
    """``Atoms.info`` of each structure as JSON values; what cannot be is left out with one warning per key."""
    result = []
    dropped: dict[str, str] = {}
    for atoms in structures:
        kept = {}
        for key, value in atoms.info.items():
            try:
                kept[str(key)] = to_jsonable(value)
            except TypeError as exc:
                dropped[str(key)] = str(exc)
        result.append(kept)
    for key, reason in dropped.items():
        warnings.warn(f"info entry {key!r} is left out: {reason} has no JSON form", UserWarning, stacklevel=4)
    return result
