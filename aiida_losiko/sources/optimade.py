"""Crystals of any OPTIMADE database: the Materials Project, Alexandria, OQMD, JARVIS, AFLOW, COD ... without a key.

OPTIMADE (Andersen et al., Sci. Data 8, 217 (2021)) is one interface that many databases serve. Identifiers are
``optimade:<provider>:<id>``, where the provider is the name in
:data:`aiida_losiko.sources.optimade_providers.DATABASES` or, for other servers, the prefix that the server says.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiida_losiko.core.checks import is_whole, require
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceInfo, SourceRecord
from aiida_losiko.sources.optimade_providers import (
    DATABASES,
    DIALECTS,
    OPTIMADE_REFERENCE,
    Dialect,
    find_database,
)
from aiida_losiko.sources.optimade_query import THERMO_TYPE, OptimadeQuery, joined
from aiida_losiko.sources.selection import SelectionLike, parse_selection, select_records

STANDARD_FIELDS = (
    "chemical_formula_reduced",
    "nsites",
    "lattice_vectors",
    "cartesian_site_positions",
    "species",
    "species_at_sites",
    "dimension_types",
    "structure_features",
    "last_modified",
    "space_group_it_number",
)
"""What is asked for of every entry, where the server lists it."""

_log = logging.getLogger(__name__)


def load_optimade(
    path: str | Path | None,
    selection: SelectionLike = None,
    *,
    provider: str = "",
    base_url: str = "",
    chemsys: str = "",
    formula: str | Iterable[str] = (),
    ids: Iterable[str] = (),
    filter: str = "",
    subsystems: bool = True,
    energy_above_hull: float | None = None,
    num_sites: int | None = None,
    ordered: bool = False,
    thermo_type: str = THERMO_TYPE,
    max_entries: int = 5000,
    page_limit: int | None = 100,
    retries: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
    max_seconds: float = 900.0,
) -> tuple[SourceInfo, list[SourceRecord]]:
    """Ask a database; all of its answer or an error.

    Parameters
    ----------
    path : None
        There is no file to give the path of.
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`; applied to what came, in the order of the identifiers.
    provider, base_url : str
        The database: a name of :data:`aiida_losiko.sources.optimade_providers.DATABASES`, or the address of a server.
    chemsys, formula, ids, filter, subsystems, energy_above_hull, num_sites, ordered, thermo_type
        What is asked; see :class:`aiida_losiko.sources.optimade_query.OptimadeQuery`.
    max_entries : int
        A query with more entries than this is an error.
    page_limit : int, optional
        Entries of a page; None for the server's own.
    retries, timeout, pause, max_seconds
        How long to try, see :class:`aiida_losiko.sources.patient_session.Patience`; the time counts for each of the
        three questions (about the server, about its properties, for entries).

    Returns
    -------
    (RemoteInfo, list of SourceRecord)
        ``version`` is the version of the database or, as most servers say none, the latest change among the entries
        of the answer; ``query`` holds options, address, filter, fields, counts and software of the server. Records
        are in the order of their identifiers. Their properties are ``formula``, ``n_sites``, ``reference`` (DOI of the
        database), ``url`` (of the entry) and, where the server knows them, ``energy_above_hull`` (eV/atom),
        ``thermo_type``, ``space_group``, ``space_group_symbol``, ``licence``, ``last_modified``.

    Raises
    ------
    LosikoError
        Options that are not allowed, a missing package, a server that fails or refuses, a limit of the energy above
        hull where the provider gives none, or nothing left (with the filter that left nothing).

    Warns
    -----
    UserWarning
        Names entries that cannot be taken, with the reason, and identifiers that the database does not have.
    """
    from aiida_losiko.sources.optimade_client import OptimadeServer, check_filter
    from aiida_losiko.sources.optimade_records import read_entries, within_hull
    from aiida_losiko.sources.patient_session import Patience

    if path is not None:
        raise LosikoError(f"source optimade takes no path (given: {path}); it asks a server, leave the path out")
    name, address = find_database(provider, base_url)
    query = OptimadeQuery(
        chemsys=chemsys,
        formula=formula if isinstance(formula, str) else tuple(formula),
        ids=(ids,) if isinstance(ids, str) else tuple(ids),
        filter=filter,
        subsystems=subsystems,
        energy_above_hull=energy_above_hull,
        num_sites=num_sites,
        ordered=ordered,
        thermo_type=thermo_type,
    )
    check_filter(filter)
    chosen = parse_selection(selection, {})
    require("max_entries", max_entries, is_whole(max_entries, 1), "a whole number from 1")
    require("page_limit", page_limit, page_limit is None or is_whole(page_limit, 1), "a whole number from 1 or None")
    server = OptimadeServer(address, Patience(retries=retries, timeout=timeout, pause=pause, max_seconds=max_seconds))
    about = _About(server, name)
    dialect = about.dialect(query)
    parts = query.parts(dialect)
    sent, fields = joined(parts), about.fields(dialect)
    _log.info("OPTIMADE %s: %s", address, sent)
    entries, meta = server.ask("structures", sent, fields, max_entries=max_entries, page_limit=page_limit)
    if not entries:
        raise _nothing(server, parts)
    entries.sort(key=lambda entry: str(entry.get("id")))
    _warn_missing(query.ids, entries, about.name)
    records, rejected = read_entries(
        within_hull(entries, query, dialect),
        query,
        dialect,
        name=about.name,
        licence=about.licence,
        reference=about.reference,
        base_url=address,
    )
    if rejected:
        named = "; ".join(f"{reason}: {', '.join(some)}" for reason, some in rejected.items())
        if not records:
            raise LosikoError(f"no entry of OPTIMADE {about.name} for {sent} can be taken: {named[:500]}")
        count = sum(map(len, rejected.values()))
        warnings.warn(f"{count} of {len(entries)} OPTIMADE entries are left out: {named}", UserWarning, stacklevel=2)
    asked = {"provider": provider} if provider else {"base_url": address}
    info = about.info(asked | query.to_dict(), sent, fields, entries, meta)
    return info, list(select_records(enumerate(records, start=1), chosen))


class _About:
    """What a server says about itself: its provider, licence and properties."""

    def __init__(self, server: Any, name: str) -> None:
        self.server = server
        attributes, meta = _attributes(server, "info")
        prefix = (meta.get("provider") or {}).get("prefix")
        self.prefix = prefix if isinstance(prefix, str) and prefix else name.partition(".")[0]
        self.name = name or self.prefix
        if not self.name:
            raise LosikoError(f"the server {server.base_url} names no provider, as OPTIMADE servers do; check base_url")
        self.reference = DATABASES[self.name].reference if self.name in DATABASES else OPTIMADE_REFERENCE
        self.licence = _licence(attributes)
        listed, _ = _attributes(server, "info/structures", optional=True)
        self.properties = frozenset(listed.get("properties") or ())

    def dialect(self, query: OptimadeQuery) -> Dialect:
        """Return the names of the provider's own properties, as far as the server lists them.

        Raises
        ------
        LosikoError
            A limit of the energy above hull, and the server does not give it.
        """
        dialect = DIALECTS.get(self.prefix, Dialect())
        known = self.properties
        if known:
            dialect = replace(
                dialect,
                hull=dialect.hull if dialect.hull.partition(".")[0] in known else "",
                space_group=dialect.space_group if dialect.space_group in known else "",
                space_group_symbol=dialect.space_group_symbol if dialect.space_group_symbol in known else "",
            )
        if query.energy_above_hull is not None and not dialect.hull:
            raise LosikoError(
                f"OPTIMADE provider {self.name} gives no energy above hull that is known here; leave "
                f"energy_above_hull out, or ask one of {', '.join(n for n in DATABASES if n.split('.')[0] in DIALECTS)}"
            )
        return dialect

    def fields(self, dialect: Dialect) -> tuple[str, ...]:
        """Return the properties to ask for, those that the server does not list left out."""
        standard = [field for field in STANDARD_FIELDS if not self.properties or field in self.properties]
        return (*standard, *dialect.fields())

    def info(
        self,
        options: dict[str, Any],
        sent: str,
        fields: tuple[str, ...],
        entries: list[Any],
        meta: dict[str, Any],
    ) -> SourceInfo:
        """Return the account of an answer."""
        from aiida_losiko.sources.remote import RemoteInfo, query_text

        database, latest = meta.get("database") or {}, max(filter(None, map(_last_modified, entries)), default="")
        implementation = meta.get("implementation") or {}
        query = {
            "options": options,
            "base_url": self.server.base_url,
            "filter": sent,
            "response_fields": list(fields),
            "api_version": meta.get("api_version"),
            "implementation": {key: implementation.get(key) for key in ("name", "version")},
            "provider": {key: (meta.get("provider") or {}).get(key) for key in ("prefix", "name")},
            "data_returned": meta.get("data_returned"),
            "data_available": meta.get("data_available"),
            "time_stamp": meta.get("time_stamp"),
        }
        version = database.get("version") if isinstance(database, dict) else None
        return RemoteInfo(
            name=f"OPTIMADE {self.name}",
            version=str(version or (f"last modified {latest}" if latest else "")),
            licence=self.licence,
            reference=self.reference,
            url=self.server.base_url,
            description=query_text(query),
        )


def _attributes(server: Any, endpoint: str, optional: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what an info end point says: its attributes (or, of entry types, all of it) and ``meta``."""
    data, meta = server.ask(endpoint, only_some=True, optional=optional)
    if not isinstance(data, dict):
        return {}, meta
    attributes = data.get("attributes")
    return attributes if isinstance(attributes, dict) else data, meta


def _licence(attributes: dict[str, Any]) -> str:
    """Return the SPDX identifiers that the server names, else the address of its terms, else nothing."""
    for key in ("available_licenses", "available_licenses_for_entries"):
        if spdx := attributes.get(key):
            return " OR ".join(map(str, spdx))
    link = attributes.get("license")
    return str((link.get("href") if isinstance(link, dict) else link) or "")


def _last_modified(entry: dict[str, Any]) -> str:
    return str((entry.get("attributes") or {}).get("last_modified") or "")


def _nothing(server: Any, parts: list[tuple[str, str]]) -> LosikoError:
    """Return the error for an empty answer: the first piece of the filter after which nothing is left."""
    for count in range(1, len(parts)):
        some, _ = server.ask("structures", joined(parts[:count]), ("id",), page_limit=1, only_some=True)
        if not some:
            break
    else:
        count = len(parts)
    option, piece = parts[count - 1]
    passed = ", ".join(name for name, _ in parts[: count - 1])
    told = option if option.startswith("filter=") else f"{option} ({piece})"
    return LosikoError(
        f"the OPTIMADE server {server.base_url} has nothing for {told}"
        f"{f', though it has entries for {passed}' if passed else ''}; ask for something else or more"
    )


def _warn_missing(ids: tuple[str, ...], entries: list[Any], name: str) -> None:
    missing = sorted(set(ids) - {str(entry.get("id")) for entry in entries})
    if missing:
        warnings.warn(f"OPTIMADE {name} gave no entry for {', '.join(missing)}", UserWarning, stacklevel=3)
