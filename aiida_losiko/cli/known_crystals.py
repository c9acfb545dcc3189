"""The database of `losiko relax --known-crystals`: what a service, or the package, knows about the elements at hand."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.environments.database import EnvironmentDatabase
    from aiida_losiko.core.protocols import Protocol
    from aiida_losiko.sources.base import SourceInfo, SourceRecord

Command = TypeVar("Command", bound=Callable[..., Any])

EMBEDDED = "reference_crystals"
CRYSTAL_SOURCES = ("materials_project", "optimade", EMBEDDED)
CRYSTALS_PROTOCOL = "crystals"
ENERGY_ABOVE_HULL = 0.1
"""eV/atom; what is kept of a service's entries unless told otherwise."""
OPTIMADE_PROVIDER = "mp"

_OPTIONS = (
    click.option(
        "--known-crystals",
        is_flag=True,
        help="In place of --database: build one from the known crystals of the elements in FILE, with the protocol "
        f"{CRYSTALS_PROTOCOL} unless told otherwise. The options below say from which.",
    ),
    click.option(
        "--source",
        type=click.Choice(CRYSTAL_SOURCES),
        help="Default: materials_project where its key is set (MP_API_KEY), else the embedded reference_crystals.",
    ),
    click.option(
        "--provider",
        metavar="NAME",
        help=f"With --source optimade: name or address of the OPTIMADE database; default {OPTIMADE_PROVIDER}.",
    ),
    click.option(
        "--energy-above-hull",
        type=click.FloatRange(min=0),
        metavar="EV",
        help="Take entries at most this far above the convex hull, in eV/atom; inf for all. "
        f"Default {ENERGY_ABOVE_HULL}; the embedded crystals have no energies.",
    ),
    click.option(
        "--num-sites",
        type=click.IntRange(min=1),
        metavar="N",
        help="Take entries with at most N sites in the cell; default: all.",
    ),
    click.option("--save-database", metavar="DB", help="Keep the database for later: relax ... --database DB."),
)


def known_crystals_options(command: Command) -> Command:
    """Add ``--known-crystals`` and what belongs to it to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class KnownCrystalsRequest:
    """Which crystals a person wants; None where nothing was said."""

    source: str | None = None
    provider: str | None = None
    energy_above_hull: float | None = None
    num_sites: int | None = None

    def check(self) -> None:
        """Refuse options that would do nothing."""
        if self.provider is not None and self.source != "optimade":
            raise LosikoError(f"--provider {self.provider} does nothing without --source optimade; add it")
        if self.energy_above_hull is not None and self.source == EMBEDDED:
            raise LosikoError(
                f"--energy-above-hull {self.energy_above_hull:g}: the embedded crystals (--source {EMBEDDED}) have no "
                "energies; leave the option away, or take another source"
            )

    def options(self) -> dict[str, Any]:
        """Return the values by their options."""
        return {
            "--source": self.source,
            "--provider": self.provider,
            "--energy-above-hull": self.energy_above_hull,
            "--num-sites": self.num_sites,
        }

    def arguments(self) -> str:
        """Return what to type to ask the same again."""
        given = self.options().items()
        words = [word for option, value in given if value is not None for word in (option, str(value))]
        return shlex.join(["--known-crystals", *words])


def check_usage(
    asked: bool, database_file: str | None, request: KnownCrystalsRequest, save_database: str | None
) -> None:
    """Check that a database is given or asked for, not both, and that every option of a request has one.

    Raises
    ------
    click.UsageError
        It is not so.
    """
    if asked == (database_file is not None):
        raise click.UsageError("give one of --database DB and --known-crystals")
    given = {**request.options(), "--save-database": save_database}
    unused = [option for option, value in given.items() if value is not None]
    if unused and not asked:
        raise click.UsageError(f"{', '.join(unused)} goes with --known-crystals only")
    request.check()


@dataclass(frozen=True)
class KnownCrystals:
    """Crystals that were found: the name of their source, its account, and the limit that was told to it."""

    source: str
    info: SourceInfo
    records: list[SourceRecord]
    energy_above_hull: float | None

    @property
    def elements(self) -> set[str]:
        """All symbols in them."""
        return {symbol for record in self.records for symbol in record.atoms.symbols}

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        """What the source says of each, by identifier."""
        return {record.identifier: record.properties for record in self.records}

    def overview(self) -> str:
        """Return one line for a person."""
        of = [f"version {self.info.version}" if self.info.version else "", self.info.licence]
        told = f" ({', '.join(part for part in of if part)})" if any(of) else ""
        limit = self.energy_above_hull
        below = "" if limit is None else f", at most {limit:g} eV/atom above the hull"
        return f"Known crystals: {len(self.records):,} from {self.info.name}{told}{below}"


def find_known_crystals(
    request: KnownCrystalsRequest, elements: Sequence[str], max_seconds: float | None = None
) -> KnownCrystals:
    """Return every known crystal of the elements or some of them.

    Parameters
    ----------
    request
        From where and how many. Without a source: the Materials Project where its key is set, else the embedded
        crystals.
    elements
        Symbols.
    max_seconds
        The most that a service may take.

    Raises
    ------
    LosikoError
        A key that cannot be one, a service that fails, nothing found.
    """
    source = request.source or _default_source()
    return _embedded(request, elements) if source == EMBEDDED else _asked(source, request, elements, max_seconds)


def _tell_default(request: KnownCrystalsRequest) -> None:
    from aiida_losiko.sources.materials_project_key import KEY_PAGE

    unused = "" if request.energy_above_hull is None else ", of any energy, since they have none"
    warnings.warn(
        f"no key of the Materials Project is set (MP_API_KEY; free at {KEY_PAGE}): the embedded crystals "
        f"(--source {EMBEDDED}) are used{unused}",
        UserWarning,
        stacklevel=3,
    )


def _default_source() -> str:
    from aiida_losiko.sources.materials_project_key import NoKeyError, find_key

    try:
        find_key()
    except NoKeyError:
        return EMBEDDED
    return "materials_project"


def _embedded(request: KnownCrystalsRequest, elements: Sequence[str]) -> KnownCrystals:
    """Load from the table; what it lacks may be among the prototypes that pymatgen ships."""
    from aiida_losiko.sources import load_source
    from aiida_losiko.sources.reference_crystals import crystal_table

    in_table = {element for crystal in crystal_table().values() for element in crystal.elements}
    limit = {} if request.num_sites is None else {"max_atoms": request.num_sites}
    selection = {"elements": list(elements), **limit}
    try:
        info, records = load_source(EMBEDDED, None, selection, prototypes=not set(elements) <= in_table)
    except LosikoError:  # nothing else can be wrong with these options
        most = f" and has at most {request.num_sites} sites" if limit else ""
        raise LosikoError(
            f"no embedded crystal consists of {', '.join(elements)}{most}; {_way_out(EMBEDDED)}"
        ) from None
    return KnownCrystals(EMBEDDED, info, records, None)


def _asked(
    source: str, request: KnownCrystalsRequest, elements: Sequence[str], max_seconds: float | None
) -> KnownCrystals:
    """Ask a service."""
    from aiida_losiko.sources import load_source
    from aiida_losiko.sources.remote import ServiceError

    limit: float | None = ENERGY_ABOVE_HULL if request.energy_above_hull is None else request.energy_above_hull
    limit = None if limit == math.inf else limit
    options: dict[str, Any] = {} if max_seconds is None else {"max_seconds": max_seconds}
    if source == "optimade":
        provider = request.provider or OPTIMADE_PROVIDER
        options["base_url" if "://" in provider else "provider"] = provider
    try:
        info, records = load_source(
            source,
            chemsys="-".join(elements),
            energy_above_hull=limit,
            num_sites=request.num_sites,
            **options,
        )
    except ServiceError as error:
        raise ServiceError(f"{error}; without a network: --source {EMBEDDED}") from None
    except LosikoError as error:
        if limit is not None and "leave energy_above_hull out" in str(error):
            raise LosikoError(f"{error} (here: --energy-above-hull inf)") from None
        raise
    return KnownCrystals(source, info, records, limit)


def check_elements(found: KnownCrystals, contents: Sequence[set[str]]) -> None:
    """Refuse to go on where each structure, given by its elements, has one that no crystal has."""
    if any(content <= found.elements for content in contents):
        return
    missing = sorted(set().union(*contents) - found.elements)
    raise LosikoError(
        f"none of the {len(found.records)} known crystals ({found.info.name}) has {', '.join(missing)}; "
        f"{_way_out(found.source)}"
    )


def _way_out(source: str) -> str:
    if source == EMBEDDED:
        return (
            "set MP_API_KEY to ask the Materials Project, or --source optimade, or build a database: "
            "losiko database build"
        )
    return "allow more with --energy-above-hull or --num-sites, or build a database: losiko database build"


def elements_of(structures: Sequence[Atoms]) -> list[str]:
    """Return the symbols in structures by atomic number."""
    from ase.data import chemical_symbols

    return [chemical_symbols[number] for number in sorted({int(z) for atoms in structures for z in atoms.numbers})]


def database_for(
    structures: Sequence[Atoms], request: KnownCrystalsRequest, chosen: Protocol, max_seconds: float | None
) -> tuple[KnownCrystals, EnvironmentDatabase]:
    """Find the known crystals of the elements in structures and build their database.

    Raises
    ------
    LosikoError
        Settings that are not allowed (before a service is asked), nothing found, or no crystal with some element that
        every structure needs.

    Warns
    -----
    UserWarning
        There is no key, so that the embedded crystals are used.
    """
    from aiida_losiko.core.descriptors import make_descriptor
    from aiida_losiko.core.settings import RelaxSettings

    elements = elements_of(structures)
    make_descriptor({**chosen.descriptor, "species": elements})
    RelaxSettings.from_dict(chosen.relax)
    found = find_known_crystals(request, elements, max_seconds)
    check_elements(found, [set(atoms.symbols) for atoms in structures])
    if request.source is None and found.source == EMBEDDED:
        _tell_default(request)
    return found, build_database(found, elements, chosen)


def build_database(found: KnownCrystals, elements: Sequence[str], chosen: Protocol) -> EnvironmentDatabase:
    """Build a database of the crystals with the descriptor of a protocol; its metadata holds their account."""
    from aiida_losiko import __version__
    from aiida_losiko.core.descriptors import make_descriptor
    from aiida_losiko.core.environments.database import EnvironmentDatabase

    return EnvironmentDatabase.build(
        [record.atoms for record in found.records],
        make_descriptor({**chosen.descriptor, "species": list(elements)}),
        sources=[record.identifier for record in found.records],
        **chosen.database,
        metadata={
            "protocol": chosen.name,
            "source": found.info.to_dict(),
            "created_by": f"aiida-losiko {__version__}",
        },
    )
