"""Well-known crystals of Si-O, Li-Co-O-H and C, written down as facts; they need no network and no key.

``reference_crystals.yaml`` has space group, lattice, Wyckoff positions and literature of each; pymatgen makes the
structures. On request the AFLOW prototypes that pymatgen ships come with them
(:mod:`aiida_losiko.sources.aflow_prototypes`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko import __version__
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.sources.aflow_prototypes import iterate_prototypes, space_group_symbol
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.download import md5_of
from aiida_losiko.sources.selection import Selection, SelectionLike, parse_selection

if TYPE_CHECKING:
    from ase import Atoms

TABLE = Path(__file__).with_name("reference_crystals.yaml")
PREFIX = "crystal:"


@dataclass(frozen=True)
class Site:
    """One atom of the asymmetric unit: element, Wyckoff position (``"6c"``), fractional coordinates."""

    element: str
    wyckoff: str
    position: tuple[float, float, float]

    @property
    def multiplicity(self) -> int:
        """Atoms of this orbit in the conventional cell."""
        return int(self.wyckoff[:-1])


@dataclass(frozen=True)
class Crystal:
    """One entry of the table.

    Parameters
    ----------
    name : str
        Without the prefix ``crystal:``.
    formula : str
        Reduced, as pymatgen writes it.
    space_group : str
        Symbol of the setting that the table uses, as pymatgen knows it.
    number : int
        Of the space group.
    cell : tuple of float
        a, b, c in Angstrom, alpha, beta, gamma in degrees.
    sites : tuple of Site
        The asymmetric unit.
    density : float
        From the literature, measured or by X-rays, in g/cm3.
    reference, doi, note : str
        Literature; conditions and what is a model. Empty where there is nothing.
    stable : bool or None
        Whether it is the stable form at ambient conditions; None where textbooks do not say.
    theoretical : bool
        Predicted or idealised, never refined as such.
    """

    name: str
    formula: str
    space_group: str
    number: int
    cell: tuple[float, float, float, float, float, float]
    sites: tuple[Site, ...]
    density: float
    reference: str
    doi: str = ""
    note: str = ""
    stable: bool | None = None
    theoretical: bool = False

    @property
    def n_atoms(self) -> int:
        """Atoms in the conventional cell."""
        return sum(site.multiplicity for site in self.sites)

    @property
    def elements(self) -> frozenset[str]:
        """The symbols in it."""
        return frozenset(site.element for site in self.sites)


@cache
def crystal_table() -> dict[str, Crystal]:
    """Return the crystals by name, in the order of the table."""
    import yaml

    entries: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: _crystal(name, dict(entry)) for name, entry in entries.items()}


def _crystal(name: str, entry: dict[str, Any]) -> Crystal:
    cell, sites = entry.pop("cell"), entry.pop("sites")
    a = cell["a"]
    lengths = (a, cell.get("b", a), cell.get("c", a))
    # Trigonal crystals are in hexagonal axes.
    gamma = cell.get("gamma", 120.0 if 143 <= entry["number"] <= 194 else 90.0)
    return Crystal(
        name=name,
        cell=(*lengths, cell.get("alpha", 90.0), cell.get("beta", 90.0), gamma),
        sites=tuple(_site(line) for line in sites),
        **entry,
    )


def _site(line: str) -> Site:
    element, wyckoff, *coordinates = line.split()
    x, y, z = (float(Fraction(value)) for value in coordinates)
    return Site(element, wyckoff, (x, y, z))


def build_crystal(name: str, conventional: bool = False) -> Atoms:
    """Make a crystal of the table.

    Parameters
    ----------
    name : str
        As in the table, for instance ``quartz-alpha``.
    conventional : bool, default False
        The conventional cell instead of a primitive one.

    Returns
    -------
    ase.Atoms
        A new object at every call.

    Raises
    ------
    LosikoError
        A name that is not in the table.
    """
    table = crystal_table()
    if name not in table:
        raise LosikoError(f"unknown crystal {name!r}{did_you_mean(name, table)}; allowed are {', '.join(table)}")
    atoms: Atoms = _build(name, conventional).copy()
    return atoms


@cache
def _build(name: str, conventional: bool) -> Atoms:
    from ase import Atoms
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.structure import Structure

    crystal = crystal_table()[name]
    with warnings.catch_warnings():
        # It falls back to the short symbol of a setting, which is the one meant.
        warnings.filterwarnings("ignore", message="Full symbol not available")
        structure = Structure.from_spacegroup(
            crystal.space_group,
            Lattice.from_parameters(*crystal.cell),
            [site.element for site in crystal.sites],
            [site.position for site in crystal.sites],
            tol=1e-3,
        )
    if not conventional:
        # Its default of 0.25 Angstrom would take a superstructure for its average.
        structure = structure.get_primitive_structure(tolerance=0.01)
    return Atoms(
        [site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
        pbc=True,
    )


def reference_crystals_info(prototypes: bool | Sequence[str] = False) -> SourceInfo:
    """Return the account of the source; with prototypes it names the pymatgen that they come from."""
    version = f"aiida-losiko {__version__}"
    if prototypes is not False:
        from importlib.metadata import version as version_of

        version += f", pymatgen {version_of('pymatgen')}"
    return SourceInfo(
        name="reference crystals of aiida-losiko" + (" and AFLOW prototypes" if prototypes is not False else ""),
        version=version,
        licence="MIT",
        reference="10.1016/j.commatsci.2017.01.017" if prototypes is not False else "",
        url="",
        checksum=f"md5:{md5_of(TABLE)}",
    )


def load_reference_crystals(
    path: str | Path | None,
    selection: SelectionLike,
    *,
    prototypes: bool | Sequence[str] = False,
    conventional: bool = False,
) -> tuple[SourceInfo, list[SourceRecord]]:
    """Load crystals for `aiida_losiko.sources.load_source`; the options are those of `read_reference_crystals`."""
    if path is not None:
        raise LosikoError(f"source reference_crystals takes no path (given: {path}); its table is in the package")
    records = list(read_reference_crystals(selection, prototypes=prototypes, conventional=conventional))
    return reference_crystals_info(prototypes), records


def read_reference_crystals(
    selection: SelectionLike = None, *, prototypes: bool | Sequence[str] = False, conventional: bool = False
) -> Iterator[SourceRecord]:
    """Yield crystals.

    Parameters
    ----------
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`; numbers are places in the table, prototypes follow after it. The
        named selection ``stable`` has the stable forms at ambient conditions.
    prototypes : bool or sequence of str, default False
        Add the AFLOW prototypes that pymatgen ships, all that pass the selection or those of these labels.
    conventional : bool, default False
        Conventional cells instead of primitive ones (prototypes are always primitive).

    Yields
    ------
    SourceRecord
        Identifier ``crystal:<name>`` or ``aflow:<label>``, positions in Angstrom; properties ``formula``,
        ``space_group``, ``space_group_symbol``, ``n_sites``, ``density`` (g/cm3, literature), ``theoretical``,
        ``licence``, ``reference``, and where known ``doi``, ``note``, ``stable``. No energies: they are no facts of
        this kind.

    Raises
    ------
    LosikoError
        A selection that is not understood, or a label that pymatgen does not have.
    """
    table = crystal_table()
    stable = frozenset(number for number, crystal in enumerate(table.values(), start=1) if crystal.stable)
    chosen = parse_selection(selection, {"stable": lambda: stable})
    found = _selected(table.values(), chosen, conventional)
    if prototypes is False:
        return chosen.draw(found)
    labels = None if prototypes is True else prototypes
    return chosen.draw(_both(found, iterate_prototypes(chosen, labels, after=len(table))))


def _both(first: Iterator[SourceRecord], second: Iterator[SourceRecord]) -> Iterator[SourceRecord]:
    yield from first
    yield from second


def _selected(crystals: Iterable[Crystal], chosen: Selection, conventional: bool) -> Iterator[SourceRecord]:
    """Make what is wanted and nothing else."""
    for number, crystal in enumerate(crystals, start=1):
        elements_fit = chosen.elements is None or crystal.elements <= chosen.elements
        if elements_fit and chosen.wants(number, PREFIX + crystal.name):
            atoms = build_crystal(crystal.name, conventional)
            if chosen.fits(atoms.symbols):
                yield SourceRecord(PREFIX + crystal.name, atoms, _properties(crystal, len(atoms)))


def _properties(crystal: Crystal, n_sites: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "name": crystal.name,
        "formula": crystal.formula,
        "space_group": crystal.number,
        "space_group_symbol": space_group_symbol(crystal.number),
        "n_sites": n_sites,
        "density": crystal.density,
        "theoretical": crystal.theoretical,
        "licence": "MIT",
        "reference": crystal.reference,
    }
    known = {"doi": crystal.doi or None, "note": crystal.note or None, "stable": crystal.stable}
    return properties | {key: value for key, value in known.items() if value is not None}
