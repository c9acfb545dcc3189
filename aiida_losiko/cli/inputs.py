"""Structures from files, each with a label and, where it cannot be used, the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from aiida_losiko.cli.options import one_line
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms


class Outcome(Protocol):
    """What a run says of one structure."""

    @property
    def status(self) -> str:
        """How it ended; `error` where there is no result."""

    @property
    def error(self) -> str | None:
        """Why there is none."""


OutcomeT = TypeVar("OutcomeT", bound=Outcome)

LABEL_KEYS = ("identifier", "name", "label")


@dataclass
class Entry:
    """One structure of an input file.

    Attributes
    ----------
    label
        What messages, tables and reports call it.
    atoms
        The structure; None where a whole file could not be read.
    error
        Why it cannot be used, in one line; None if it can.
    """

    label: str
    atoms: Atoms | None
    error: str | None = None

    def fail(self, error: object) -> None:
        """Note the reason and print it."""
        self.error = one_line(error)
        prefix = "" if self.error.startswith((self.label, f"'{self.label}'")) else f"{self.label}: "
        click.echo(f"Error: {prefix}{self.error}", err=True)


def read_entries(
    files: Sequence[str], keys: Iterable[str] = LABEL_KEYS, required_key: str | None = None
) -> list[Entry]:
    """Read all structures of the files in order.

    Parameters
    ----------
    files
        Set files (.npz) or anything that ASE reads.
    keys
        Keys of ``atoms.info`` that may hold the label, first match first. Without one the label is the stem of the
        file's name, followed by ``:<index>`` where the file holds several structures.
    required_key
        A key that every structure has to have instead.

    Returns
    -------
    list of Entry
        An unreadable file among several is an entry without atoms, its reason already printed.

    Raises
    ------
    LosikoError
        The only file is unreadable, or a structure lacks the required key.
    """
    from aiida_losiko.core.structures import read_any

    entries: list[Entry] = []
    for file in files:
        try:
            # Partly occupied structures come along, so that `check_entries` refuses them one by one.
            structures = read_any(file, allow_partial_occupancy=True)
        except (LosikoError, OSError) as error:
            if len(files) == 1:
                raise
            entries.append(Entry(file, None))
            entries[-1].fail(error)
            continue
        stem = Path(file).stem
        for index, atoms in enumerate(structures):
            default = stem if len(structures) == 1 else f"{stem}:{index}"
            if required_key is not None and required_key not in atoms.info:
                have = ", ".join(sorted(map(str, atoms.info))) or "none"
                raise LosikoError(
                    f"structure {index} of '{file}' has no info key {required_key!r}; its keys: {have}; "
                    "give one of them to --identifier-key or leave the option away"
                )
            entries.append(Entry(_label(atoms, (required_key,) if required_key else keys, default), atoms))
    return entries


def _label(atoms: Atoms, keys: Iterable[str], default: str) -> str:
    for key in keys:
        value = atoms.info.get(key)
        if value is not None and str(value).strip():
            return one_line(value)
    return default


def check_entries(entries: Sequence[Entry], species: Sequence[str] | None = None) -> list[Entry]:
    """Note and print what is wrong with the structures, and return those that can be used.

    Raises
    ------
    LosikoError
        None of them can be used. Where there is only one the message is its reason.
    """
    from aiida_losiko.core.structures import check_structure

    for entry in entries:
        if entry.error is not None or entry.atoms is None:
            continue
        try:
            check_structure(entry.atoms, species=species)
        except LosikoError as error:
            if len(entries) == 1:
                raise LosikoError(f"{entry.label}: {one_line(error)}") from None
            entry.fail(error)
    usable = [entry for entry in entries if entry.error is None and entry.atoms is not None]
    if not usable:
        raise LosikoError(f"none of the {len(entries)} structures can be used; nothing was written")
    return usable


def structures_of(entries: Iterable[Entry]) -> list[Atoms]:
    """Return the structures of the entries that have one."""
    return [entry.atoms for entry in entries if entry.atoms is not None]


def assign(
    entries: Sequence[Entry], usable: Sequence[Entry], results: Sequence[OutcomeT], what_was_done: str
) -> list[OutcomeT | None]:
    """Return the result of each entry, None where there is none, and print the errors met on the way.

    Parameters
    ----------
    entries
        All of them.
    usable
        Those that there are results of, in the same order.
    results
        Of the usable ones.
    what_was_done
        To them, for the message: "relaxed".

    Raises
    ------
    LosikoError
        There is no result at all.
    """
    by_entry: dict[int, OutcomeT] = {}
    for entry, result in zip(usable, results, strict=True):
        if result.status == "error":
            if len(entries) == 1:
                raise LosikoError(f"{entry.label}: {result.error}")
            entry.fail(result.error)
        else:
            by_entry[id(entry)] = result
    if not by_entry:
        raise LosikoError(f"none of the {len(entries)} structures could be {what_was_done}; nothing was written")
    return [by_entry.get(id(entry)) for entry in entries]
