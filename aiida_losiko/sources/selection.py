"""Which records of a source are wanted: a JSON-able description, the same for every source.

Every record has a number (QM9: the gdb number; other sources: its place, from 1) and an identifier. A selection is a
mapping of these keys; a record must pass all of them:

``named``
    A selection that the source knows by name (QM9: ``paper``, ``paper-b``). A selection given as a plain string is
    this key.
``ids``
    Numbers or identifiers to take.
``exclude``
    Numbers or identifiers to leave out, or the name of a named selection as a plain string.
``offset``, ``first``, ``stride``
    Of the numbers 1, 2, 3, ... those that Python's ``numbers[offset:offset + first:stride]`` takes. They count the
    numbers of the source and not the records that a file happens to hold: ``{"first": 100}`` means 1 to 100, whatever
    is missing. So the same description means the same molecules in every copy of a source.
``elements``
    Symbols that a record may contain; one with any other atom is left out.
``min_atoms``, ``max_atoms``
    Bounds of the number of atoms, hydrogen included, both inclusive.
``random``, ``seed``
    Of what passed all the rest, this many drawn without replacement; the seed is 0 unless given. The only key that
    depends on what a file holds.

Records come in the order of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceRecord

SelectionLike: TypeAlias = str | Mapping[str, Any] | None
NamedSelections: TypeAlias = Mapping[str, Callable[[], frozenset[int]]]
_T = TypeVar("_T")

KEYS = (
    "named",
    "ids",
    "exclude",
    "offset",
    "first",
    "stride",
    "elements",
    "min_atoms",
    "max_atoms",
    "random",
    "seed",
)


@dataclass(frozen=True)
class Selection:
    """A checked selection; make it with :func:`parse_selection`. ``None`` means no restriction by that key."""

    numbers: frozenset[int] | None = None
    identifiers: frozenset[str] | None = None
    excluded_numbers: frozenset[int] = frozenset()
    excluded_identifiers: frozenset[str] = frozenset()
    named: frozenset[int] | None = None
    offset: int = 0
    first: int | None = None
    stride: int = 1
    elements: frozenset[str] | None = None
    min_atoms: int = 0
    max_atoms: int | None = None
    random: int | None = None
    seed: int = 0

    def wants(self, number: int, identifier: str) -> bool:
        """Tell whether a record may be wanted, from its number and identifier alone (before it is read)."""
        if number in self.excluded_numbers or identifier in self.excluded_identifiers:
            return False
        listed = number in (self.numbers or ()) or identifier in (self.identifiers or ())
        if self.numbers is not None and not listed:
            return False
        if self.named is not None and number not in self.named:
            return False
        place = number - 1 - self.offset
        return place >= 0 and (self.first is None or place < self.first) and place % self.stride == 0

    def fits(self, symbols: Iterable[str]) -> bool:
        """Tell whether the atoms of a record are wanted."""
        found = list(symbols)
        if len(found) < self.min_atoms or (self.max_atoms is not None and len(found) > self.max_atoms):
            return False
        return self.elements is None or self.elements.issuperset(found)

    def last_number(self) -> int | None:
        """Return the highest number that can pass, None if there is no bound: an ordered source is done after it."""
        bounds = []
        if self.named is not None:
            bounds.append(max(self.named, default=0))
        if self.first is not None:
            bounds.append(self.offset + self.first)
        if self.numbers is not None and not self.identifiers:
            bounds.append(max(self.numbers, default=0))
        return min(bounds) if bounds else None

    def draw(self, records: Iterable[_T]) -> Iterator[_T]:
        """Yield the records, or ``random`` of them in their order.

        Raises
        ------
        LosikoError
            Fewer records than are to be drawn.
        """
        if self.random is None:
            yield from records
            return
        pool = list(records)
        if self.random > len(pool):
            raise LosikoError(
                f"random {self.random} of {len(pool)} records that pass the rest of the selection; "
                f"allowed is at most {len(pool)}: draw fewer or select more"
            )
        chosen = np.random.default_rng(self.seed).choice(len(pool), size=self.random, replace=False)
        yield from (pool[i] for i in sorted(chosen.tolist()))


def select_records(records: Iterable[tuple[int, SourceRecord]], selection: Selection) -> Iterator[SourceRecord]:
    """Apply a selection to numbered records."""
    passed = (
        record
        for number, record in records
        if selection.wants(number, record.identifier) and selection.fits(record.atoms.symbols)
    )
    return selection.draw(passed)


def parse_selection(selection: SelectionLike, named: NamedSelections, prefix: str = "") -> Selection:
    """Check a description.

    Parameters
    ----------
    selection : str, mapping or None
        See the module; None takes everything.
    named : mapping
        The named selections of the source: functions that return numbers.
    prefix : str
        What the source puts before a number to make an identifier (``gdb_``); such identifiers are taken as numbers.

    Raises
    ------
    LosikoError
        An unknown key, name or element, or a value of the wrong kind.
    """
    if selection is None:
        return Selection()
    description = {"named": selection} if isinstance(selection, str) else selection
    if not isinstance(description, Mapping):
        raise LosikoError(f"selection {selection!r} is no mapping; allowed keys are {', '.join(KEYS)}")
    unknown = [str(key) for key in description if key not in KEYS]
    if unknown:
        raise LosikoError(f"unknown selection key {', '.join(unknown)}; allowed are {', '.join(KEYS)}")
    values: dict[str, Any] = {}
    if "named" in description:
        values["named"] = _by_name(description["named"], named)
    if "ids" in description:
        values["numbers"], values["identifiers"] = _split_ids("ids", description["ids"], prefix)
    if "exclude" in description:
        if isinstance(description["exclude"], str):
            values["excluded_numbers"] = _by_name(description["exclude"], named)
        else:
            values["excluded_numbers"], values["excluded_identifiers"] = _split_ids(
                "exclude", description["exclude"], prefix
            )
    if "elements" in description:
        values["elements"] = _elements(description["elements"])
    for key, smallest in (("offset", 0), ("first", 1), ("stride", 1), ("min_atoms", 1), ("max_atoms", 1)):
        if key in description:
            values[key] = _integer(key, description[key], smallest)
    for key, smallest in (("random", 1), ("seed", 0)):
        if key in description:
            values[key] = _integer(key, description[key], smallest)
    if "seed" in values and "random" not in values:
        raise LosikoError("selection has a seed but nothing is drawn; give random as well or leave seed out")
    return Selection(**values)


def _by_name(name: Any, named: NamedSelections) -> frozenset[int]:
    if not isinstance(name, str) or name not in named:
        allowed = ", ".join(named) or "none for this source"
        raise LosikoError(f"unknown named selection {name!r}; allowed are {allowed}")
    return named[name]()


def _integer(key: str, value: Any, smallest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
        raise LosikoError(f"selection {key} is {value!r}; allowed are whole numbers from {smallest}")
    return int(value)


def _split_ids(key: str, ids: Any, prefix: str) -> tuple[frozenset[int], frozenset[str]]:
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise LosikoError(f"selection {key} is {ids!r}; give a list of numbers or identifiers")
    numbers, identifiers = set(), set()
    for item in ids:
        if isinstance(item, int | np.integer) and not isinstance(item, bool):
            numbers.add(int(item))
        elif isinstance(item, str) and prefix and item.removeprefix(prefix).isdigit():
            numbers.add(int(item.removeprefix(prefix)))
        elif isinstance(item, str) and item:
            identifiers.add(item)
        else:
            raise LosikoError(f"selection {key} holds {item!r}; allowed are numbers and identifiers")
    return frozenset(numbers), frozenset(identifiers)


def _elements(symbols: Any) -> frozenset[str]:
    from ase.data import chemical_symbols

    known = set(chemical_symbols[1:])
    if isinstance(symbols, str) or not isinstance(symbols, Iterable):
        raise LosikoError(f"selection elements is {symbols!r}; give a list of symbols")
    found = list(symbols)
    wrong = [str(symbol) for symbol in found if symbol not in known]
    if wrong or not found:
        raise LosikoError(f"selection elements holds {', '.join(wrong) or 'nothing'}; allowed are element symbols")
    return frozenset(found)
