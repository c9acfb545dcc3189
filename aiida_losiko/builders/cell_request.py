"""What random cells are to be like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiida_losiko.builders.distances import Distances, minimal_distances
from aiida_losiko.core.checks import is_real, is_whole, require


@dataclass(frozen=True)
class CellRequest:
    """What the cells are to be like, checked; the fields are the parameters of `random_cells`."""

    composition: Mapping[str, int]
    density: tuple[float, float]
    formula_units: tuple[int, int]
    distances: Mapping[str, float]
    max_aspect: float
    angles: tuple[float, float]
    space_groups: tuple[int, ...]
    seed: int
    max_tries: int

    def contents(self, formula_units: int) -> list[str]:
        """Return the symbols of the atoms of so many formula units."""
        return [symbol for symbol, count in self.composition.items() for _ in range(count * formula_units)]

    @property
    def formula(self) -> str:
        """The formula unit, in the order it was given in."""
        return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in self.composition.items())


def check_request(
    composition: str | Mapping[str, int],
    density: Sequence[float],
    formula_units: int | Sequence[int],
    distances: Distances,
    max_aspect: float,
    angles: Sequence[float],
    space_groups: Sequence[int] | None,
    seed: int,
    max_tries: int,
) -> CellRequest:
    """Return the checked request; parameters and errors are those of `aiida_losiko.builders.random_cells`."""
    contents = _composition(composition)
    units = list(formula_units) if isinstance(formula_units, Sequence) else [formula_units] * 2
    require(
        "formula_units",
        formula_units,
        len(units) == 2 and is_whole(units[0], 1) and is_whole(units[1], units[0]),
        "a whole number of at least 1, or a pair of them, smallest and largest",
    )
    require(
        "density", density, _is_range(density) and density[0] > 0, "smallest and largest, in g/cm3, both above zero"
    )
    require("max_aspect", max_aspect, is_real(max_aspect) and max_aspect >= 1, "a number of at least 1")
    require(
        "angles",
        angles,
        _is_range(angles) and angles[0] >= 30 and angles[1] <= 150 and angles[0] < 120,
        "smallest and largest in degree, within 30 to 150, the smallest below 120",
    )
    require("seed", seed, is_whole(seed), "a whole number of at least 0")
    require("max_tries", max_tries, is_whole(max_tries, 1), "a whole number of at least 1")
    groups = [] if space_groups is None else space_groups
    require(
        "space_groups",
        space_groups,
        space_groups is None
        or (isinstance(groups, Sequence) and len(groups) > 0 and all(is_whole(g, 1) and g <= 230 for g in groups)),
        "a list of numbers from 1 to 230, or left out for cells without symmetry",
    )
    if groups:
        from aiida_losiko.builders.space_groups import require_pyxtal

        require_pyxtal()
    return CellRequest(
        composition=contents,
        density=(float(density[0]), float(density[1])),
        formula_units=(int(units[0]), int(units[1])),
        distances=minimal_distances(list(contents), distances),
        max_aspect=float(max_aspect),
        angles=(float(angles[0]), float(angles[1])),
        space_groups=tuple(int(group) for group in groups),
        seed=int(seed),
        max_tries=int(max_tries),
    )


def _composition(composition: str | Mapping[str, int]) -> dict[str, int]:
    from ase.data import atomic_numbers
    from ase.formula import Formula

    counts: dict[str, int] = {}
    try:
        counts = dict(Formula(composition).count()) if isinstance(composition, str) else dict(composition)
    except (ValueError, TypeError):
        counts = {}
    known = all(atomic_numbers.get(symbol, 0) > 0 and is_whole(count, 1) for symbol, count in counts.items())
    require("composition", composition, bool(counts) and known, 'a formula ("SiO2") or whole numbers of real elements')
    return {symbol: int(count) for symbol, count in counts.items()}


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == 2
        and all(is_real(bound) for bound in value)
        and value[0] <= value[1]
    )
