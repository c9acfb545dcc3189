"""Invented molecules in the official format of QM9."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

METHANE = (
    "5\n"
    "gdb 1\t157.5\t157.25\t157.125\t0.\t13.5\t-0.3875\t0.125\t0.5125\t35.5\t0.04475"
    "\t-40.25\t-40.125\t-40.0625\t-40.5\t6.5\t\n"
    "C\t 0.0\t 0.0\t 0.0\t-0.5\n"
    "H\t 0.625\t 0.625\t 0.625\t 0.125\n"
    "H\t-0.625\t-0.625\t 0.625\t 0.125\n"
    "H\t-0.625\t 0.625\t-0.625\t 0.125\n"
    "H\t 0.625\t-0.625\t-6.25*^-1\t 1.25*^-6\n"
    "1000.5\t1000.5\t1000.5\t1500.\t1500.\t3000.\t3100.\t3100.\t3100.\n"
    "C\tC\t\n"
    "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4\n"
)

_SYMBOLS = {3: "OHH", 2: "CO", 4: "NHHH", 6: "CCFHHH"}


def molecule_text(number: int, size: int | None = None) -> str:
    """An invented molecule; number 1 is methane, others take their size from the number."""
    if number == 1 and size is None:
        return METHANE
    symbols = _SYMBOLS[size or (2, 3, 4, 6)[number % 4]]
    properties = "\t".join(f"{number}.{k:02d}" for k in range(15))
    atoms = "".join(f"{s}\t{1.5 * k}\t{number % 7}.5\t1.0*^-6\t0.0\n" for k, s in enumerate(symbols))
    smiles = {"OHH": "O", "CO": "C=O", "NHHH": "N", "CCFHHH": "C=CF"}[symbols]
    return (
        f"{len(symbols)}\ngdb {number}\t{properties}\t\n{atoms}1000.\t2000.\n{smiles}\t{smiles}\t\n"
        f"InChI=1S/x{number}\tInChI=1S/x{number}\n"
    )


def file_name(number: int) -> str:
    return f"dsgdb9nsd_{number:06d}.xyz"


def write_folder(folder: Path, numbers) -> Path:
    folder.mkdir()
    for number in numbers:
        (folder / file_name(number)).write_text(molecule_text(number))
    return folder


def write_archive(path: Path, numbers, texts: dict[int, str] | None = None) -> Path:
    with tarfile.open(path, "w:bz2") as archive:
        for number in numbers:
            data = (texts or {}).get(number, molecule_text(number)).encode()
            entry = tarfile.TarInfo(file_name(number))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


UNCHARACTERIZED = """==========================================
 3 molecules of an invented list
 134 kilo molecules were checked
==========================================

Index     SMILES_1    SMILES_2    InChI
------------------------------------------
     4   C=O          [C-]#[O+]    InChI
    12   N            nothing      InChI
 21725   CC(C)F       c1ccco1      InChI
==========================================
"""
