"""A question to the Materials Project: what is asked, how the service is told, and which filter leaves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError, did_you_mean

THERMO_TYPE = "GGA_GGA+U_R2SCAN"
"""The hull whose energies the service's summaries hold: GGA, GGA+U and r2SCAN mixed."""

THERMO_TYPES = (THERMO_TYPE, "GGA_GGA+U", "R2SCAN")

MAX_ELEMENTS = 8
"""A chemical system of n elements has 2^n - 1 subsystems, which go into one address; 255 fit, 511 may not."""

GNOME_BATCH = "gnome_r2scan_statics"
"""The batch of the entries from GNoME, which are not under CC BY 4.0 but CC BY-NC 4.0."""

FIELDS = (
    "material_id",
    "formula_pretty",
    "chemsys",
    "nsites",
    "symmetry",
    "energy_above_hull",
    "energy_per_atom",
    "theoretical",
    "deprecated",
    "builder_meta",
    "structure",
)
"""What is asked for of every entry."""

COUNTED_FIELDS = tuple(field for field in FIELDS if field not in ("structure", "symmetry"))
"""What is asked for to count what each filter leaves: no structures."""

Document = Mapping[str, Any]

_MATERIAL_ID = re.compile(r"(mp|mvc)-[0-9a-z]+")


@dataclass(frozen=True)
class MaterialsProjectQuery:
    """A question, checked when it is made; exactly one of the first three is given.

    Parameters
    ----------
    chemsys : str, optional
        Elements, such as ``Li-Co-O-H``.
    formula : tuple of str, optional
        Reduced formulas, such as ``SiO2``.
    material_ids : tuple of str, optional
        Such as ``mp-149``.
    subsystems : bool
        With ``chemsys``: also every system of some of its elements, so that Si-O brings silicon and oxygen.
    energy_above_hull : float, optional
        At most this (eV/atom, of ``thermo_type``); entries that have none are left out.
    num_sites : int, optional
        At most this many sites in the cell.
    deprecated : bool
        The entries that the service has withdrawn instead of those in use.
    theoretical : bool, optional
        True: only entries never seen in an experiment; False: only those seen.
    thermo_type : str
        One of :data:`THERMO_TYPES`.
    include_gnome : bool
        Also the entries from GNoME (CC BY-NC 4.0), which the service gives to accounts that accepted the terms.

    Raises
    ------
    LosikoError
        A value that is not allowed.
    """

    chemsys: str | None = None
    formula: tuple[str, ...] | None = None
    material_ids: tuple[str, ...] | None = None
    subsystems: bool = True
    energy_above_hull: float | None = None
    num_sites: int | None = None
    deprecated: bool = False
    theoretical: bool | None = None
    thermo_type: str = THERMO_TYPE
    include_gnome: bool = False

    def __post_init__(self) -> None:
        """Check every value and bring it into one form."""
        given = [name for name in ("chemsys", "formula", "material_ids") if getattr(self, name) is not None]
        if len(given) != 1:
            raise LosikoError(
                f"a query of the Materials Project needs one of chemsys, formula, material_ids; given "
                f"{'are ' + ' and '.join(given) if given else 'is none'}: for instance chemsys='Si-O'"
            )
        for name, normal in (("chemsys", _chemsys), ("formula", _formulas), ("material_ids", _material_ids)):
            if name in given:
                object.__setattr__(self, name, normal(getattr(self, name)))
        hull = self.energy_above_hull
        require("energy_above_hull", hull, hull is None or (is_real(hull) and hull >= 0), "at least 0 (eV/atom)")
        require("num_sites", self.num_sites, self.num_sites is None or is_whole(self.num_sites, 1), "at least 1")
        for name in ("subsystems", "deprecated", "include_gnome"):
            require(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        require("theoretical", self.theoretical, self.theoretical in (None, True, False), "True, False or None")
        if self.thermo_type not in THERMO_TYPES:
            raise LosikoError(
                f"unknown thermo_type {self.thermo_type!r}{did_you_mean(self.thermo_type, THERMO_TYPES)}; "
                f"allowed are {', '.join(THERMO_TYPES)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their default, JSON-able: given to the loader they ask the same."""
        default = {name: field.default for name, field in self.__dataclass_fields__.items()}
        values = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def subject(self) -> str:
        """What is asked about, without the filters: ``Si-O and its subsystems``."""
        if self.chemsys is not None:
            below = self.subsystems and "-" in self.chemsys
            return f"{self.chemsys} and its subsystems" if below else f"the chemical system {self.chemsys}"
        names = self.formula or self.material_ids or ()
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{', '.join(names[:3])}{more}"

    @property
    def summary_has_the_hull(self) -> bool:
        """Whether the summaries hold the energies asked for; if not, the thermo end point is asked as well."""
        return self.thermo_type == THERMO_TYPE

    def what(self) -> dict[str, Any]:
        """Return the keywords of the client's searches that say what is asked about; the same for every end point."""
        if self.chemsys is not None:
            systems = all_subsystems(self.chemsys)
            return {"chemsys": systems if self.subsystems else ["-".join(sorted(self.chemsys.split("-")))]}
        if self.formula is not None:
            return {"formula": list(self.formula)}
        return {"material_ids": list(self.material_ids or ())}

    def filters(self) -> dict[str, Any]:
        """Return the keywords of the client's summary search that are filters: all that the service can apply."""
        keywords: dict[str, Any] = {"deprecated": self.deprecated, "include_gnome": self.include_gnome}
        if self.energy_above_hull is not None and self.summary_has_the_hull:
            keywords["energy_above_hull"] = (None, self.energy_above_hull)
        if self.num_sites is not None:
            keywords["num_sites"] = (None, self.num_sites)
        if self.theoretical is not None:
            keywords["theoretical"] = self.theoretical
        return keywords

    def tests(self) -> dict[str, Callable[[Document], bool]]:
        """Return every filter as a test of one document, in the order in which they are counted."""
        tests: dict[str, Callable[[Document], bool]] = {}
        if not self.include_gnome:
            tests["include_gnome=False"] = lambda doc: not is_non_commercial(doc)
        if not self.summary_has_the_hull:
            tests[f"thermo_type={self.thermo_type}"] = lambda doc: doc.get("energy_above_hull") is not None
        if self.theoretical is not None:
            tests[f"theoretical={self.theoretical}"] = lambda doc: doc.get("theoretical") is self.theoretical
        if (most := self.num_sites) is not None:
            tests[f"num_sites={most}"] = lambda doc: doc.get("nsites") is not None and doc["nsites"] <= most
        if (highest := self.energy_above_hull) is not None:
            tests[f"energy_above_hull={highest:g}"] = lambda doc: (
                doc.get("energy_above_hull") is not None and doc["energy_above_hull"] <= highest
            )
        return tests


def all_subsystems(chemsys: str) -> list[str]:
    """Return every chemical system of some or all of the elements, sorted: ``Si-O`` gives ``O``, ``O-Si``, ``Si``."""
    elements = sorted(chemsys.split("-"))
    return sorted("-".join(some) for size in range(1, len(elements) + 1) for some in combinations(elements, size))


def is_non_commercial(document: Document) -> bool:
    """Tell whether an entry is under CC BY-NC 4.0 instead of CC BY 4.0."""
    meta = document.get("builder_meta") or {}
    return meta.get("license") == "BY-NC" or meta.get("batch_id") == GNOME_BATCH


def nothing_left(query: MaterialsProjectQuery, documents: list[Document], n_others: int = 0) -> LosikoError:
    """Return the error for an empty result: how many entries there are, and what each filter leaves of them.

    Parameters
    ----------
    query : MaterialsProjectQuery
        What gave nothing.
    documents : list of mapping
        All entries of the same subject, filtered by nothing but ``deprecated``.
    n_others : int
        If there is none: the number of entries with the opposite of ``deprecated``.
    """
    if not documents:
        if n_others:
            return LosikoError(
                f"deprecated={query.deprecated} leaves nothing of {query.subject} in the Materials Project: all "
                f"{n_others} entries are {'in use' if query.deprecated else 'withdrawn'}; ask with "
                f"deprecated={not query.deprecated}"
            )
        return LosikoError(f"the Materials Project has no entry of {query.subject}, with any filter; ask for another")
    left, steps = list(documents), [f"{len(documents)} with deprecated={query.deprecated}"]
    for name, test in query.tests().items():
        before, left = left, [document for document in left if test(document)]
        steps.append(f"{len(left)} with {name}")
        if not left:
            return LosikoError(
                f"{name} leaves nothing of {query.subject} in the Materials Project: entries are "
                f"{', '.join(steps)}{_way_out(name, before)}"
            )
    return LosikoError(
        f"the Materials Project gave nothing for {query.subject}, though by its own entries something should be left "
        f"({', '.join(steps)}): ask again later"
    )


def _way_out(name: str, left: list[Document]) -> str:
    """Return the least value that would leave something, where the filter is a threshold."""
    for key, unit in (("energy_above_hull", " eV/atom"), ("num_sites", " sites")):
        if name.startswith(key):
            field = "nsites" if key == "num_sites" else key
            values = [document[field] for document in left if document.get(field) is not None]
            return f"; the lowest is {min(values):g}{unit}: allow more" if values else f"; none of them has a {field}"
    return "; leave that out"


def _chemsys(value: Any) -> str:
    from ase.data import atomic_numbers

    elements = value.split("-") if isinstance(value, str) else None
    if not elements or not all(element in atomic_numbers and element != "X" for element in elements):
        raise LosikoError(f"chemsys {value!r} is no chemical system; give elements and hyphens, such as Li-Co-O-H")
    if len(set(elements)) < len(elements):
        raise LosikoError(f"chemsys {value!r} names an element twice; give every element once")
    if len(elements) > MAX_ELEMENTS:
        raise LosikoError(
            f"chemsys {value!r} has {len(elements)} elements, allowed are at most {MAX_ELEMENTS}: ask for smaller "
            "systems one by one"
        )
    return "-".join(elements)


def _names(key: str, value: Any, example: str) -> list[str]:
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise LosikoError(f"{key} is {value!r}; give a text or a list of them, such as {example}")
    return list(dict.fromkeys(names))


def _formulas(value: Any) -> tuple[str, ...]:
    from ase.data import atomic_numbers
    from ase.formula import Formula

    formulas = _names("formula", value, "SiO2")
    for formula in formulas:
        try:
            symbols = set(Formula(formula).count())
        except ValueError:
            symbols = set()
        if not symbols or "X" in symbols or not symbols <= set(atomic_numbers):
            raise LosikoError(f"formula {formula!r} is no chemical formula; give elements and counts, such as SiO2")
    return tuple(formulas)


def _material_ids(value: Any) -> tuple[str, ...]:
    names = _names("material_ids", value, "mp-149")
    for name in names:
        if not _MATERIAL_ID.fullmatch(name):
            raise LosikoError(f"material_ids holds {name!r}; an identifier of the Materials Project looks like mp-149")
    return tuple(names)
