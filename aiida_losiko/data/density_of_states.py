"""Densities of states, whichever program they come from: one form for tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from aiida.orm import ArrayData
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

__all__ = ("FERMI_LEVEL", "MIDDLE_OF_GAP", "DensityOfStates")

FloatArray = NDArray[np.float64]

FERMI_LEVEL, MIDDLE_OF_GAP = "Fermi level", "middle of the gap"


@dataclass(frozen=True)
class DensityOfStates:
    """A density of states, the sum of both spins.

    Attributes
    ----------
    energies
        (n,) in eV, ascending, relative to `zero`.
    total
        (n,) in states/eV, of the whole cell or molecule.
    projected
        By element, (n,) in states/eV each; empty where the program does not project. Their sum need not be `total`.
    zero
        What the energies are relative to: `Fermi level` or, of molecules, `middle of the gap`.

    Raises
    ------
    LosikoError
        For arrays that do not belong together or are not finite, and for energies that do not ascend.
    """

    energies: FloatArray
    total: FloatArray
    projected: Mapping[str, FloatArray] = field(default_factory=dict)
    zero: str = FERMI_LEVEL

    def __post_init__(self) -> None:
        """Check the arrays."""
        energies = np.asarray(self.energies, dtype=np.float64)
        densities = {"total": self.total, **self.projected}
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in densities.items()}
        for name, values in arrays.items():
            if energies.ndim != 1 or values.shape != energies.shape:
                raise LosikoError(
                    f"the density of states {name!r} has the shape {values.shape}, its energies {energies.shape}: "
                    "both must be (n,)"
                )
        if not all(np.isfinite(values).all() for values in (energies, *arrays.values())):
            raise LosikoError("the density of states holds values that are not finite: the program's output is broken")
        if len(energies) < 2 or not (np.diff(energies) > 0).all():
            raise LosikoError(f"the {len(energies)} energies of the density of states must be two or more, ascending")
        object.__setattr__(self, "energies", energies)
        object.__setattr__(self, "total", arrays.pop("total"))
        object.__setattr__(self, "projected", arrays)

    def to_node(self) -> ArrayData:
        """Return an unstored node with the arrays `energies`, `total`, `elements` (m,) and `projected` (m, n)."""
        shape = (len(self.projected), len(self.energies))
        arrays = {
            "energies": self.energies,
            "total": self.total,
            "elements": np.array(list(self.projected), dtype="U2"),
            "projected": np.array(list(self.projected.values()), dtype=np.float64).reshape(shape),
        }
        node = ArrayData(arrays)
        node.base.attributes.set_many({"zero": self.zero, "units": {"energies": "eV", "total": "states/eV"}})
        return node

    @classmethod
    def from_node(cls, node: ArrayData) -> DensityOfStates:
        """Return what `to_node` wrote.

        Raises
        ------
        LosikoError
            Where an array is not there.
        """
        missing = {"energies", "total", "elements", "projected"} - set(node.get_arraynames())
        if missing:
            raise LosikoError(f"node {node.pk} is no density of states of this package: it lacks {sorted(missing)}")
        names = [str(name) for name in node.get_array("elements")]
        projected = dict(zip(names, node.get_array("projected"), strict=True))
        zero = cast("str", node.base.attributes.get("zero", FERMI_LEVEL))
        return cls(node.get_array("energies"), node.get_array("total"), projected, zero)
