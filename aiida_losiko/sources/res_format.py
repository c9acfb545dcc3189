"""The ``.res`` files of AIRSS: SHELX files whose title carries the results of a search.

``TITL name pressure volume enthalpy spin |spin| [n_atoms] (space group) n - copies``, then ``CELL``, ``LATT``, ``SFAC``
and the atoms. ASE 3.26 reads well-formed files to the same structures, but drops an atom whose coordinate has an
exponent, takes labels such as ``C1`` for elements, overlooks occupancies, ``LATT`` and a missing end, and gives up the
whole title for one word; pymatgen 2026.10 stops at instructions other than these. Therefore this reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

_SPACE_GROUP = re.compile(r"\(([^()]*(?:\([^()]*\))?[^()]*)\)")
_COPIES = re.compile(r"\bn\s*-\s*(\d+)\s*$")
_SKIPPED = {
    "REM",
    "ZERR",
    "UNIT",
    "FVAR",
    "WGHT",
    "TEMP",
    "L.S.",
    "CGLS",
    "BOND",
    "FMAP",
    "PLAN",
    "ACTA",
    "CONF",
    "SIZE",
}


@dataclass
class ResTitle:
    """What a title says: name, and as far as given pressure (GPa), enthalpy (eV per cell), copies and the rest."""

    name: str
    enthalpy: float | None = None
    properties: dict[str, Any] = field(default_factory=dict)


def split_res(text: str) -> list[str]:
    """Cut a file of several structures (as ``cat *.res`` makes them) at their titles."""
    parts = re.split(r"^(?=\s*TITL\b)", text, flags=re.MULTILINE | re.IGNORECASE)
    return [part for part in parts if part.strip()]


def parse_title(line: str) -> ResTitle:
    """Read the line ``TITL ...``.

    Raises
    ------
    LosikoError
        A word in the place of a number.
    """
    words = line.split()[1:]
    if not words:
        return ResTitle("")
    title = ResTitle(words[0])
    rest = line.split(maxsplit=2)[2] if len(words) > 1 else ""
    if group := _SPACE_GROUP.search(rest):
        title.properties["space_group_symbol"] = group[1].strip()
    if copies := _COPIES.search(rest):
        title.properties["n_copies"] = int(copies[1])
    numbers = _COPIES.sub("", rest[: group.start()] if group else rest).split()
    for key, word in zip(("pressure", "volume", "enthalpy", "spin", "absolute_spin", "n_atoms"), numbers, strict=False):
        value = _number(word, f"{key} of the title")
        if key == "enthalpy":
            title.enthalpy = value
        else:
            title.properties[key] = int(value) if key == "n_atoms" else value
    return title


def parse_res(text: str) -> tuple[ResTitle, Atoms]:
    """Read one structure.

    Parameters
    ----------
    text : str
        From ``TITL`` to ``END``.

    Returns
    -------
    (ResTitle, ase.Atoms)
        Periodic; positions in Angstrom.

    Raises
    ------
    LosikoError
        Something is missing, cut off, partly occupied or not understood; symmetry that would have to be applied.
    """
    from ase import Atoms
    from ase.geometry import cellpar_to_cell

    title, cell, species = ResTitle(""), None, None
    sites: list[tuple[str, tuple[float, ...]]] = []
    ended = False
    for words in _lines(text):
        keyword = words[0].upper()
        if keyword == "TITL":
            title = parse_title(" ".join(words))
        elif keyword == "CELL":
            cell = _cell(words)
        elif keyword == "LATT":
            if len(words) < 2 or words[1] != "-1":
                raise LosikoError(f"{' '.join(words)} asks for symmetry; allowed is LATT -1, all atoms of the cell")
        elif keyword == "SYMM":
            raise LosikoError("SYMM asks for symmetry; allowed are files with all atoms of the cell")
        elif keyword == "SFAC":
            species = words[1:]
        elif keyword in ("END", "HKLF"):
            ended = True
            break
        elif keyword[:4] not in _SKIPPED:
            sites.append(_site(words, species))
    missing = [
        name for name, there in (("CELL", cell), ("SFAC", species), ("atoms", sites), ("END", ended)) if not there
    ]
    if missing:
        raise LosikoError(f"has no {', '.join(missing)}; the file is cut off or of another kind")
    expected = title.properties.pop("n_atoms", len(sites))
    if expected != len(sites):
        raise LosikoError(f"has {len(sites)} atoms, its title says {expected}; the file is damaged")
    return title, Atoms(
        [symbol for symbol, _ in sites],
        cell=cellpar_to_cell(cell),
        scaled_positions=[position for _, position in sites],
        pbc=True,
    )


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        # what follows an exclamation mark is a comment, but a title may hold one
        words = line.split() if line.lstrip()[:4].upper() == "TITL" else line.split("!")[0].split()
        if words:
            yield words


def _cell(words: list[str]) -> list[float]:
    if len(words) != 8:
        raise LosikoError(f"CELL has {len(words) - 1} numbers; allowed are wavelength, a, b, c and three angles")
    cell = [_number(word, "CELL") for word in words[2:]]
    if min(cell[:3]) <= 0 or not all(0 < angle < 180 for angle in cell[3:]):
        raise LosikoError(f"CELL {' '.join(words[2:])} is no cell; allowed are positive lengths and angles below 180")
    return cell


def _site(words: list[str], species: list[str] | None) -> tuple[str, tuple[float, ...]]:
    from ase.data import atomic_numbers

    if species is None or len(words) < 5 or not words[1].isdecimal():
        raise LosikoError(f"the line {' '.join(words)[:60]!r} is no atom: label, number in SFAC, x, y, z, occupancy")
    kind = int(words[1])
    if not 1 <= kind <= len(species):
        raise LosikoError(f"atom {words[0]} is of kind {kind}; SFAC has {len(species)}")
    symbol = species[kind - 1].capitalize()
    symbol = "H" if symbol == "D" else symbol
    if symbol not in atomic_numbers or symbol == "X":
        raise LosikoError(f"SFAC has {species[kind - 1]!r}; allowed are element symbols")
    position = tuple(_number(word, f"atom {words[0]}") for word in words[2:5])
    # SHELX adds 10 to what is not to be refined
    occupancy = _number(words[5], f"atom {words[0]}") % 10 if len(words) > 5 else 1.0
    if abs(occupancy - 1.0) > 1e-6:
        raise LosikoError(f"atom {words[0]} is partly occupied ({occupancy:g}); make an ordered structure first")
    return symbol, position


def _number(word: str, what: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LosikoError(f"{what}: {word!r} is no number; the file is damaged")
    return value
