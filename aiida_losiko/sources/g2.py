"""The organic molecules of the G2/97 test set, as ASE ships them.

Geometries are MP2(full)/6-31G(d) minima of Curtiss, Raghavachari, Redfern and Pople, J. Chem. Phys. 106, 1063 (1997).
Of the 162 systems in ``ase.collections.g2``, 98 hold only H, C, N, O and F; five of these are single atoms (H, C, N,
O, F), which have no environment to learn from. The other 93, radicals and diatomics included, are this source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.selection import SelectionLike, parse_selection, select_records

ELEMENTS = ("H", "C", "N", "O", "F")

HELD_OUT = (
    "C3H4_C3v",
    "C5H5N",
    "C6H6",
    "CH3CH2NH2",
    "CH3CH2OH",
    "CH3COCH3",
    "CH3CONH2",
    "CH3COOH",
    "H2CCHF",
    "HCOOCH3",
    "butadiene",
    "isobutane",
)
"""Twelve closed-shell molecules of 6 to 14 atoms to test on: an alkane, a diene, an alkyne, an arene, a heteroarene,
and one each of alcohol, amine, ketone, acid, ester, amide and fluoride."""


def g2_info() -> SourceInfo:
    """Return the account of the source; the version is that of the ASE that is installed."""
    import ase

    return SourceInfo(
        name="G2/97 molecules of ASE",
        version=f"ase {ase.__version__}",
        licence="LGPL-2.1-or-later",
        reference="10.1063/1.473182",
        url="https://gitlab.com/ase/ase",
    )


def g2_names() -> list[str]:
    """Return the names of the 93 molecules, the smallest first, then by name."""
    from ase.collections import g2

    molecules = {name: g2[name] for name in g2.names}
    organic = [name for name, atoms in molecules.items() if len(atoms) > 1 and set(atoms.symbols) <= set(ELEMENTS)]
    return sorted(organic, key=lambda name: (len(molecules[name]), name))


def load_g2(path: str | Path | None, selection: SelectionLike) -> tuple[SourceInfo, list[SourceRecord]]:
    """Load the molecules for `aiida_losiko.sources.load_source`; there is no file to give the path of."""
    if path is not None:
        raise LosikoError(f"source g2 takes no path (given: {path}); its molecules come with ASE, leave the path out")
    return g2_info(), list(read_g2(selection))


def read_g2(selection: SelectionLike = None) -> Iterator[SourceRecord]:
    """Yield the molecules.

    Parameters
    ----------
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`; numbers are places in :func:`g2_names`, identifiers ``g2:CH4``, the
        named selection is ``held-out`` (:data:`HELD_OUT`).

    Yields
    ------
    SourceRecord
        Identifier ``g2:<name>``; numbers and positions (Angstrom) only, without ASE's magnetic moments.

    Raises
    ------
    LosikoError
        A selection that is not understood.
    """
    names = g2_names()
    held_out = frozenset(names.index(name) + 1 for name in HELD_OUT)
    chosen = parse_selection(selection, {"held-out": lambda: held_out})
    return select_records(((number, _record(name)) for number, name in enumerate(names, start=1)), chosen)


def _record(name: str) -> SourceRecord:
    from ase import Atoms
    from ase.collections import g2

    atoms = g2[name]
    return SourceRecord(f"g2:{name}", Atoms(numbers=atoms.numbers, positions=atoms.positions), {"name": name})
