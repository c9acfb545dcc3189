"""The Materials Project, asked through its official client.

Jain et al., APL Mater. 1, 011002 (2013), CC BY 4.0. Identifiers are the service's: ``mp-149``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiida_losiko.core.checks import is_whole, require
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceRecord
from aiida_losiko.sources.materials_project_client import MaterialsProjectClient
from aiida_losiko.sources.materials_project_key import ENDPOINT, find_endpoint
from aiida_losiko.sources.materials_project_query import (
    COUNTED_FIELDS,
    FIELDS,
    THERMO_TYPE,
    Document,
    MaterialsProjectQuery,
    nothing_left,
)
from aiida_losiko.sources.materials_project_records import LICENCE, NON_COMMERCIAL, REFERENCE, make_records
from aiida_losiko.sources.patient_session import Patience
from aiida_losiko.sources.remote import RemoteInfo, ServiceError, query_text
from aiida_losiko.sources.selection import SelectionLike, parse_selection, select_records


def load_materials_project(
    path: str | Path | None,
    selection: SelectionLike,
    *,
    chemsys: str | None = None,
    formula: str | Sequence[str] | None = None,
    material_ids: str | Sequence[str] | None = None,
    subsystems: bool = True,
    energy_above_hull: float | None = None,
    num_sites: int | None = None,
    deprecated: bool = False,
    theoretical: bool | None = None,
    thermo_type: str = THERMO_TYPE,
    include_gnome: bool = False,
    database_version: str | None = None,
    endpoint: str | None = None,
    retries: int = 5,
    timeout: float = 60.0,
    pause: float = 1.0,
    max_seconds: float = 900.0,
    page_size: int = 1000,
) -> tuple[RemoteInfo, list[SourceRecord]]:
    """Ask the Materials Project, for `aiida_losiko.sources.load_source`.

    One search brings everything; the service applies the filters. Either all of the answer is returned or nothing.

    Parameters
    ----------
    path : None
        There is no file.
    selection : str or mapping, optional
        See :mod:`aiida_losiko.sources.selection`; of what the service sends. Numbers are places in it, by number of
        the material id.
    chemsys, formula, material_ids, subsystems
        What to ask for, see :class:`aiida_losiko.sources.materials_project_query.MaterialsProjectQuery`; formulas and
        ids may be lists.
    energy_above_hull, num_sites, deprecated, theoretical, thermo_type, include_gnome
        Filters, see there.
    database_version : str, optional
        The release that must answer, such as ``2025.09.25``.
    endpoint : str, optional
        Address of the service; default ``MP_API_ENDPOINT``, else the official one.
    retries, timeout, pause, max_seconds
        How long to try, see :class:`aiida_losiko.sources.patient_session.Patience`.
    page_size : int
        Entries per request, at most 1000.

    Returns
    -------
    (RemoteInfo, list of SourceRecord)
        ``info.version`` is the version of the service's database and ``info.query`` what was asked and sent. Energies
        are in eV/atom, positions in Angstrom.

    Raises
    ------
    LosikoError
        No key; a value that is not allowed; another database version; a service that refuses or keeps failing; an
        empty result, with the filter that emptied it. No message holds the key.

    Warns
    -----
    UserWarning
        Disordered entries (left out), ids that the service does not know or that a filter leaves out, a service that
        does not tell its version.
    """
    if path is not None:
        raise LosikoError(f"source materials_project takes no path (given: {path}); give chemsys='Si-O' or the like")
    chosen = parse_selection(selection, {})
    query = MaterialsProjectQuery(
        chemsys=chemsys,
        formula=formula if formula is None else _listed(formula),
        material_ids=material_ids if material_ids is None else _listed(material_ids),
        subsystems=subsystems,
        energy_above_hull=energy_above_hull,
        num_sites=num_sites,
        deprecated=deprecated,
        theoretical=theoretical,
        thermo_type=thermo_type,
        include_gnome=include_gnome,
    )
    require("page_size", page_size, is_whole(page_size, 1) and page_size <= 1000, "a whole number from 1 to 1000")
    address = find_endpoint(endpoint)
    patience = Patience(retries=retries, timeout=timeout, pause=pause, max_seconds=max_seconds)
    with MaterialsProjectClient(address, patience) as client:
        version = _expected_version(client, database_version)
        documents = _ask(client, query, page_size)
        if not documents:
            raise _why_nothing(client, query, page_size)
        now = client.database_version()
        if version and now and now != version:
            raise ServiceError(
                f"the Materials Project changed from database version {version} to {now} during the query; nothing of "
                "it was kept, ask again"
            )
        sent = client.sent
    records = make_records(documents, database_version=version, thermo_type=query.thermo_type)
    _warn_of_missing(query, documents)
    asked = {**query.to_dict(), **({"database_version": database_version} if database_version else {})}
    info = RemoteInfo(
        name="Materials Project",
        version=version or "unknown",
        licence=" AND ".join(sorted({record.properties["licence"] for record in records})),
        reference=REFERENCE,
        url="https://materialsproject.org" if address == ENDPOINT else address,
        description=query_text({"asked": asked, "requests": sent}),
    )
    return info, list(select_records(enumerate(records, start=1), chosen))


def _listed(names: Any) -> Any:
    """Return a sequence as a tuple, anything else as it is; the query checks it."""
    return tuple(names) if isinstance(names, list) else names


def _expected_version(client: MaterialsProjectClient, asked: str | None) -> str:
    version = client.database_version()
    if asked is not None and _plain(asked) != _plain(version):
        raise LosikoError(
            f"the Materials Project answers from database version {version or '(not told)'}, asked for is {asked}; it "
            "keeps one version at a time: leave database_version out and record the one that answers, or use a set or "
            "database that was made then"
        )
    if not version:
        warnings.warn(
            "the Materials Project does not tell its database version now; it is recorded as unknown",
            UserWarning,
            stacklevel=4,
        )
    return version


def _plain(version: str) -> str:
    return re.sub(r"[-_.]", ".", version.strip())


def _ask(
    client: MaterialsProjectClient, query: MaterialsProjectQuery, page_size: int, only_count: bool = False
) -> list[Document]:
    """Return what passes the filters; with ``only_count`` all, without structures and filters."""
    filters = {"deprecated": query.deprecated} if only_count else query.filters()
    fields = COUNTED_FIELDS if only_count else FIELDS
    documents: list[Document] = list(client.summaries(fields, page_size, **query.what(), **filters))
    if documents and not query.summary_has_the_hull:
        documents = _with_energies(client, query, page_size, documents, only_count)
    if only_count:
        return documents
    # Again here: who may see what is not CC BY depends on the account, and the client has no filter for it.
    return [document for document in documents if all(test(document) for test in query.tests().values())]


def _why_nothing(client: MaterialsProjectClient, query: MaterialsProjectQuery, page_size: int) -> LosikoError:
    """Return the error for an empty result; costs a request without filters and structures, or two."""
    documents = _ask(client, query, page_size, only_count=True)
    if documents:
        return nothing_left(query, documents)
    others = client.summaries(["material_id"], page_size, **query.what(), deprecated=not query.deprecated)
    return nothing_left(query, [], len(others))


def _with_energies(
    client: MaterialsProjectClient,
    query: MaterialsProjectQuery,
    page_size: int,
    documents: list[Document],
    keep_all: bool,
) -> list[Document]:
    """Put the energies of another thermo type into the summaries."""
    highest = None if keep_all else query.energy_above_hull
    found = client.energies(
        page_size,
        **query.what(),
        thermo_types=[query.thermo_type],
        energy_above_hull=None if highest is None else (None, highest),
    )
    energies = {entry["material_id"]: entry for entry in found}
    joined: list[Document] = []
    for document in documents:
        energy = energies.get(document["material_id"], {})
        if energy or keep_all:
            own = {name: energy.get(name) for name in ("energy_above_hull", "energy_per_atom")}
            joined.append({**document, **own})
    return joined


def _warn_of_missing(query: MaterialsProjectQuery, documents: list[Document]) -> None:
    found = {document.get("material_id") for document in documents}
    missing = [name for name in query.material_ids or () if name not in found]
    if missing:
        warnings.warn(
            f"the Materials Project gave {len(found)} of {len(query.material_ids or ())} ids; it does not have "
            f"{', '.join(missing)}, or a filter leaves them out",
            UserWarning,
            stacklevel=4,
        )


__all__ = ["LICENCE", "NON_COMMERCIAL", "load_materials_project"]
