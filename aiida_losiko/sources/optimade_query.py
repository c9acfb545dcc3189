"""A question to an OPTIMADE database, as a filter of the OPTIMADE language whose parts are known by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.optimade_providers import DIALECTS, Dialect

THERMO_TYPE = "GGA_GGA+U_R2SCAN"
"""The hull of the Materials Project's own pages: GGA, GGA+U and r2SCAN mixed."""


@dataclass(frozen=True)
class OptimadeQuery:
    """What is asked of a database; at least one of the first four is given.

    Parameters
    ----------
    chemsys : str
        Elements, such as ``Li-Co-O-H``.
    formula : str or tuple of str
        Formulas, such as ``SiO2``; taken as reduced ones.
    ids : tuple of str
        Identifiers of the database, such as ``mp-149``; also as ``optimade:mp:mp-149``.
    filter : str
        A filter in the OPTIMADE language, that has to hold as well.
    subsystems : bool
        With ``chemsys``: also every system of some of its elements, so that Si-O brings silicon and oxygen.
    energy_above_hull : float, optional
        At most this (eV/atom); entries that have none are left out. Only for providers of
        :data:`aiida_losiko.sources.optimade_providers.DIALECTS`.
    num_sites : int, optional
        At most this many sites in the cell.
    ordered : bool
        Have the server leave out entries with disorder. Otherwise they come, and are named in a warning; some servers
        know no such filter.
    thermo_type : str
        Which of the hulls of the Materials Project is meant; of no meaning for other providers.

    Raises
    ------
    LosikoError
        A value that is not allowed.
    """

    chemsys: str = ""
    formula: str | tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    filter: str = ""
    subsystems: bool = True
    energy_above_hull: float | None = None
    num_sites: int | None = None
    ordered: bool = False
    thermo_type: str = THERMO_TYPE

    def __post_init__(self) -> None:
        """Check every value and bring it into one form."""
        for key in ("chemsys", "filter", "thermo_type"):
            require(key, getattr(self, key), isinstance(getattr(self, key), str), "a text")
        for key, example in (("formula", "SiO2"), ("ids", "mp-149")):
            object.__setattr__(self, key, _names(key, getattr(self, key), example))
        if not (self.chemsys or self.formula or self.ids or self.filter.strip()):
            raise LosikoError(
                "a query of source optimade needs chemsys, formula, ids or filter, none is given: for instance "
                "chemsys='Si-O'; nobody needs a whole database"
            )
        for key in ("subsystems", "ordered"):
            require(key, getattr(self, key), isinstance(getattr(self, key), bool), "True or False")
        hull, sites = self.energy_above_hull, self.num_sites
        require("energy_above_hull", hull, hull is None or (is_real(hull) and hull >= 0), "at least 0 (eV/atom)")
        require("num_sites", sites, sites is None or is_whole(sites, 1), "a whole number from 1")
        _elements(self.chemsys)

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their default, JSON-able: given to the loader they ask the same."""
        default = {each.name: each.default for each in fields(self)}
        values = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def parts(self, dialect: Dialect) -> list[tuple[str, str]]:
        """Return every option that the server can apply with its piece of the filter, the subject first."""
        parts = []
        if self.chemsys:
            elements = ",".join(f'"{element}"' for element in _elements(self.chemsys))
            count = self.chemsys.count("-") + 1
            only = f"elements HAS ONLY {elements}"
            exactly = f"elements HAS ALL {elements} AND nelements={count}"
            parts.append((f"chemsys={self.chemsys}", only if self.subsystems else exactly))
        if self.formula:
            either = " OR ".join(f'chemical_formula_reduced="{_reduced(formula)}"' for formula in self.formula)
            parts.append((f"formula={_listed(self.formula)}", f"({either})" if len(self.formula) > 1 else either))
        if self.ids:
            either = " OR ".join(f'id="{name}"' for name in self.ids)
            parts.append((f"ids={_listed(self.ids)}", f"({either})" if len(self.ids) > 1 else either))
        if self.filter.strip():
            parts.append((f"filter={self.filter.strip()}", f"({self.filter.strip()})"))
        if self.num_sites is not None:
            parts.append((f"num_sites={self.num_sites}", f"nsites<={self.num_sites}"))
        if self.ordered:
            parts.append(("ordered=True", 'NOT structure_features HAS "disorder"'))
        if self.energy_above_hull is not None and dialect.hull and not dialect.by_thermo_type:
            parts.append((self.hull_option, f"{dialect.hull}<={self.energy_above_hull:g}"))
        return parts

    @property
    def hull_option(self) -> str:
        """The limit of the energy above hull as it is told to the user."""
        return f"energy_above_hull={self.energy_above_hull:g}"


def joined(parts: list[tuple[str, str]]) -> str:
    """Return the filter that pieces make together."""
    return " AND ".join(piece for _, piece in parts)


def optimade_filter(prefix: str, **options: Any) -> str:
    """Return the filter that the options of :class:`OptimadeQuery` make for a provider (``mp``, ``oqmd`` ...).

    A limit that the filter cannot hold (the energy above hull of the Materials Project) is applied to what comes.

    Raises
    ------
    LosikoError
        A value that is not allowed.
    """
    return joined(OptimadeQuery(**options).parts(DIALECTS.get(prefix, Dialect())))


def _names(key: str, value: Any, example: str) -> tuple[str, ...]:
    names: list[Any] = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [None]
    names = [name.rpartition(":")[2] if key == "ids" and _is_ours(name) else name for name in names]
    if not all(isinstance(name, str) and name and '"' not in name and "\\" not in name for name in names):
        raise LosikoError(f"{key} is {value!r}; give a text or a list of them, such as {example}")
    if key == "formula":
        for name in names:
            _reduced(name)
    return tuple(dict.fromkeys(names))


def _is_ours(name: Any) -> bool:
    return isinstance(name, str) and name.startswith("optimade:") and name.count(":") >= 2


def _listed(names: Iterable[str]) -> str:
    some = list(names)
    return ",".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")


def _elements(chemsys: str) -> list[str]:
    from ase.data import atomic_numbers

    elements = chemsys.split("-") if chemsys else []
    if not all(element in atomic_numbers and element != "X" for element in elements):
        raise LosikoError(f"chemsys {chemsys!r} is no chemical system; give elements and hyphens, such as Li-Co-O-H")
    if len(set(elements)) < len(elements):
        raise LosikoError(f"chemsys {chemsys!r} names an element twice; give every element once")
    return sorted(elements)


def _reduced(formula: str) -> str:
    """Return a formula as OPTIMADE writes it: reduced, elements in alphabetical order."""
    from math import gcd

    from ase.formula import Formula

    try:
        counts = dict(Formula(formula).count())
    except (ValueError, TypeError):
        counts = {}
    if not counts or "X" in counts:
        raise LosikoError(f"formula {formula!r} is no chemical formula; give elements and counts, such as SiO2")
    divisor = gcd(*counts.values())
    return "".join(f"{s}{n // divisor if n > divisor else ''}" for s, n in sorted(counts.items()))
