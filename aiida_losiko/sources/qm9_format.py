"""The official text format of one QM9 molecule, and the list of uncharacterised molecules.

A file holds, for n atoms: the number of atoms; a line ``gdb <number>`` with 15 properties; n lines of symbol, x, y, z
(Angstrom) and Mulliken charge (e); the harmonic frequencies; SMILES of GDB-17 and of the relaxed molecule; InChI of
both. Numbers may have the exponent written ``*^`` (``1.0*^-6``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceRecord

PREFIX = "gdb_"
N_MOLECULES = 133885
ELEMENTS = ("H", "C", "N", "O", "F")

PROPERTY_UNITS = {
    "A": "GHz",
    "B": "GHz",
    "C": "GHz",
    "mu": "Debye",
    "alpha": "Bohr^3",
    "homo": "Hartree",
    "lumo": "Hartree",
    "gap": "Hartree",
    "r2": "Bohr^2",
    "zpve": "Hartree",
    "U0": "Hartree",
    "U": "Hartree",
    "H": "Hartree",
    "G": "Hartree",
    "Cv": "cal/(mol K)",
}
"""The 15 properties in the order of the file: rotational constants, dipole moment, isotropic polarisability, orbital
energies and their gap, electronic spatial extent, zero-point vibrational energy, internal energy at 0 K, then internal
energy, enthalpy, free energy and heat capacity at 298.15 K."""


def parse_molecule(text: str, name: str, number: int | None = None) -> SourceRecord:
    """Parse one molecule.

    Parameters
    ----------
    text : str
        Content of a file ``dsgdb9nsd_<number>.xyz``.
    name : str
        Name of the file, for messages.
    number : int, optional
        The gdb number that the file's name says.

    Returns
    -------
    SourceRecord
        ``gdb_<number>`` with the properties of :data:`PROPERTY_UNITS` and ``smiles``, ``smiles_relaxed``, ``inchi``,
        ``inchi_relaxed``. Charges and frequencies are checked to be numbers and not kept.

    Raises
    ------
    LosikoError
        Anything that is not as the format says; the message names file and line.
    """
    from ase import Atoms

    lines = text.rstrip().splitlines()
    count = _count(lines, name)
    if len(lines) != count + 5:
        raise _error(
            name,
            len(lines),
            f"the file has {len(lines)} lines, {count} atoms need {count + 5}; it is truncated or not QM9",
        )
    found, properties = _properties(lines[1], name)
    if number is not None and found != number:
        raise _error(name, 2, f"the molecule is gdb {found}, the file name says {number}")
    symbols, positions = [], []
    for i, line in enumerate(lines[2 : count + 2], start=3):
        fields = line.split()
        if len(fields) != 5 or fields[0] not in ELEMENTS:
            raise _error(
                name, i, f"{line.strip()[:60]!r} is no atom; expected are one of {' '.join(ELEMENTS)}, x, y, z, charge"
            )
        x, y, z, _ = (_number(field, name, i) for field in fields[1:])
        symbols.append(fields[0])
        positions.append((x, y, z))
    for field in lines[count + 2].split():
        _number(field, name, count + 3)
    for i, key in ((count + 3, "smiles"), (count + 4, "inchi")):
        fields = lines[i].split()
        if len(fields) != 2 or (key == "inchi" and not all(field.startswith("InChI=") for field in fields)):
            raise _error(name, i + 1, f"{lines[i].strip()[:60]!r} is not the two {key} entries of the format")
        properties[key], properties[f"{key}_relaxed"] = fields
    return SourceRecord(f"{PREFIX}{found}", Atoms(symbols, positions=positions), properties)


def read_uncharacterized(path: str | Path) -> frozenset[int]:
    """Read the gdb numbers of the molecules that failed the consistency check (3,054 in the official list).

    Lines that start with a gdb number, alone or before a SMILES, count; header and footer are passed over.

    Raises
    ------
    LosikoError
        The file cannot be read or holds no such line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        raise LosikoError(f"{path}: cannot be read ({exc.strerror}); give QM9's uncharacterized.txt") from exc
    numbers = set()
    for line in lines:
        fields = line.split()
        if not fields or not fields[0].isdecimal() or not 1 <= int(fields[0]) <= N_MOLECULES:
            continue
        if len(fields) == 1 or _looks_like_smiles(fields[1]):
            numbers.add(int(fields[0]))
    if not numbers:
        raise LosikoError(f"{path}: holds no gdb numbers; give QM9's uncharacterized.txt")
    return frozenset(numbers)


def _looks_like_smiles(text: str) -> bool:
    # a header may say "134 kilo molecules": a word in small letters is no SMILES, except of aromatic atoms
    return bool(re.fullmatch(r"[A-Za-z0-9@+\-\[\]()=#/\\.%:]+", text)) and not (
        text.isalpha() and text.islower() and not set(text) <= set("cno")
    )


def _error(name: str, line: int, what: str) -> LosikoError:
    return LosikoError(f"{name}, line {line}: {what}")


def _count(lines: list[str], name: str) -> int:
    first = lines[0].strip() if lines else ""
    if not first.isdecimal() or int(first) < 1:
        raise _error(name, 1, f"{first[:60]!r} is no number of atoms; the file is empty, truncated or not QM9")
    return int(first)


def _properties(line: str, name: str) -> tuple[int, dict[str, Any]]:
    fields = line.split()
    if len(fields) != 2 + len(PROPERTY_UNITS) or fields[0] != "gdb" or not fields[1].isdecimal():
        raise _error(name, 2, f"{line.strip()[:60]!r} is not 'gdb', the number and {len(PROPERTY_UNITS)} properties")
    values = (_number(field, name, 2) for field in fields[2:])
    return int(fields[1]), dict(zip(PROPERTY_UNITS, values, strict=True))


def _number(field: str, name: str, line: int) -> float:
    try:
        value = float(field.replace("*^", "e"))
    except ValueError:
        value = float("nan")
    if value - value != 0:  # NaN or infinite
        raise _error(name, line, f"{field!r} is no finite number")
    return value
