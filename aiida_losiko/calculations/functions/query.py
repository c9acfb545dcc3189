"""Questions to the sources of structures: `losiko.query.<source>`, one calculation function for each.

All are one function, `ask`, with the name of a source. They are calculation functions and no work chains, since an
answer is made of nothing but its question: a work chain may not create data, and would be a second node around this
one, with nothing between to restart from (a source repeats what fails by itself, and gives all or nothing).
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode, Process, calcfunction
from aiida.orm import Dict, FolderData, SinglefileData

from aiida_losiko.calculations.functions.common import keep_from_cache, rejected
from aiida_losiko.calculations.functions.question import SELECTION, collect_warnings, validate_question, write_file
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData
from aiida_losiko.data.set_properties import columns_of
from aiida_losiko.sources import SourceInfo, SourceRecord, load_source
from aiida_losiko.sources.remote import RemoteInfo, ServiceError

__all__ = ("SERVICE_FAILED", "archive", "g2", "materials_project", "optimade", "qm9", "reference_crystals")

#: Exit status where a service failed and the question may be right; 3xx, since no other input would have helped.
SERVICE_FAILED = 301

#: Up to this many entries, the answer lists the properties of each; the set has them always.
MAX_LISTED = 1000

Files = Mapping[str, SinglefileData | FolderData | None]


def ask(source: str, question: Dict | None, files: Files) -> dict[str, Any] | ExitCode:
    """Return the answer of a source, or an exit code.

    Parameters
    ----------
    source
        Name in `aiida_losiko.sources.SOURCES`.
    question
        Options of the source, and `selection`, see `aiida_losiko.sources.selection`.
    files
        `file` is the path that the source reads, the others are options of the same name.

    Returns
    -------
    dict
        `structures` (StructureSetData with the properties of the entries and the `source`) and `answer` (Dict):
        `source`, `database_version`, `query` (as it was sent), `n_structures`, `licences` (how many of each),
        `warnings` (also in the log of the process) and, up to 1,000 structures, what is known of each as columns in
        `structures`. Exit status 201 for a question that cannot be answered, such as one whose filters leave nothing;
        301 for a service that does not answer, or not with a whole answer. Then there is no output.
    """
    query = {} if question is None else question.get_dict()
    if not (files or _names_its_answer(query)):
        keep_from_cache()
    with tempfile.TemporaryDirectory(prefix="losiko-") as name:
        folder = Path(name).resolve()
        try:
            with collect_warnings() as messages:
                info, records = _load(source, query, files, folder)
            account = info.without_time() if isinstance(info, RemoteInfo) else info
            structures = StructureSetData.from_records(account, records)
        except LosikoError as error:
            return _failure(error, folder)
    messages = [_without(folder, message) for message in messages]
    process: Any = Process.current()
    for message in messages:
        process.node.logger.warning(message)
    return {"structures": structures, "answer": Dict(_answer(info, records, messages))}


def _names_its_answer(query: Mapping[str, Any]) -> bool:
    """Whether the same question has the same answer another day, and with another version of a library.

    Not where the address that answers is in the environment alone, or the account decides what it may see.
    """
    elsewhere = bool(os.environ.get("MP_API_ENDPOINT")) and "endpoint" not in query
    return "database_version" in query and not elsewhere and not query.get("include_gnome")


def _load(source: str, query: dict[str, Any], files: Files, folder: Path) -> tuple[SourceInfo, list[SourceRecord]]:
    """Ask with the files written to disk."""
    selection = query.pop(SELECTION, None)
    for name in files:
        if name in query:
            raise LosikoError(
                f"the question has {name!r}, which is a file and an input of its own: give a SinglefileData, paths of "
                "one machine mean nothing on another"
            )
    paths = {name: write_file(node, folder / name) for name, node in files.items() if node is not None}
    return load_source(source, paths.pop("file", None), selection, **query, **paths)


def _failure(error: LosikoError, folder: Path) -> ExitCode:
    """Return the exit code of what cannot be answered; none is for the cache, it may be different next time."""
    if isinstance(error, ServiceError):
        keep_from_cache()
        return ExitCode(SERVICE_FAILED, f"The service failed: {_without(folder, str(error))}")
    return rejected(LosikoError(_without(folder, str(error))))


def _without(folder: Path, text: str) -> str:
    """Return a text without the temporary folders that the files were in."""
    for place in (folder / "file", folder):
        text = text.replace(f"{place}/", "").replace(str(place), "the folder")
    return " ".join(text.split())


def _answer(info: SourceInfo, records: Sequence[SourceRecord], messages: list[str]) -> dict[str, Any]:
    """Return the account of an answer."""
    account = {key: value for key, value in info.to_dict().items() if key != "description"}
    licences = Counter(str(record.properties.get("licence") or info.licence or "not told") for record in records)
    answer: dict[str, Any] = {
        "source": account,
        "database_version": info.version,
        "query": info.query if isinstance(info, RemoteInfo) else {},
        "n_structures": len(records),
        "licences": dict(sorted(licences.items())),
        "warnings": messages,
    }
    if len(records) <= MAX_LISTED:
        columns = columns_of([record.properties for record in records])
        answer["structures"] = {"identifier": [record.identifier for record in records], **columns}
    return answer


@calcfunction
def materials_project(query: Dict) -> dict[str, Any] | ExitCode:
    """Ask the Materials Project. The key is read from the environment where this runs, and is in no node.

    Parameters
    ----------
    query
        Options of `aiida_losiko.sources.materials_project.load_materials_project` (`chemsys`, `formula` or
        `material_ids`; `energy_above_hull` in eV/atom, ...) and `selection`. Answered from the cache only where it
        names the `database_version` that must answer.

    Returns
    -------
    dict
        `structures` and `answer`, see `ask`. Exit status 201 or 301.
    """
    return ask("materials_project", query, {})


@calcfunction
def optimade(query: Dict) -> dict[str, Any] | ExitCode:
    """Ask an OPTIMADE database; no key, but the extra `optimade`.

    Parameters
    ----------
    query
        Options of `aiida_losiko.sources.optimade.load_optimade` (`provider` or `base_url`; `chemsys`, `formula`, `ids`
        or `filter`; `energy_above_hull` in eV/atom, ...) and `selection`. Never answered from the cache.

    Returns
    -------
    dict
        `structures` and `answer`, see `ask`. Exit status 201 or 301.
    """
    return ask("optimade", query, {})


@calcfunction
def qm9(
    file: SinglefileData | FolderData, query: Dict | None = None, uncharacterized: SinglefileData | None = None
) -> dict[str, Any] | ExitCode:
    """Take molecules out of QM9.

    Parameters
    ----------
    file
        The official archive, a folder of its files, a packed file or a collection, see
        `aiida_losiko.sources.qm9.read_qm9`.
    query
        `selection` and options of `aiida_losiko.sources.qm9.load_qm9`.
    uncharacterized
        The official list of molecules that are not what they were meant to be; they are left out.

    Returns
    -------
    dict
        `structures` and `answer`, see `ask`. Exit status 201.
    """
    return ask("qm9", query, {"file": file, "uncharacterized": uncharacterized})


@calcfunction
def archive(file: SinglefileData | FolderData, query: Dict | None = None) -> dict[str, Any] | ExitCode:
    """Take structures out of an archive of a random search.

    Parameters
    ----------
    file
        Extended XYZ, `.res`, a tar or a zip of them, or a folder.
    query
        Options of `aiida_losiko.sources.archive.load_archive` (`max_energy_above_lowest` in eV/atom, `licence`, ...)
        and `selection`.

    Returns
    -------
    dict
        `structures` and `answer`, see `ask`. Exit status 201.
    """
    return ask("archive", query, {"file": file})


@calcfunction
def reference_crystals(query: Dict | None = None) -> dict[str, Any] | ExitCode:
    """Take crystals out of the table in the package.

    Parameters
    ----------
    query
        Options of `aiida_losiko.sources.reference_crystals.load_reference_crystals` and `selection`.

    Returns
    -------
    dict
        `structures` and `answer`, see `ask`. Exit status 201.
    """
    return ask("reference_crystals", query, {})


@calcfunction
def g2(query: Dict | None = None) -> dict[str, Any] | ExitCode:
    """Take the small organic molecules that ASE has.

    Parameters
    ----------
    query
        `selection`.

    Returns
    -------
    dict
        `structures` and `answer`, see `ask`. Exit status 201.
    """
    return ask("g2", query, {})


for _function in (materials_project, optimade, qm9, archive, reference_crystals, g2):
    _function.spec().inputs["query"].validator = validate_question
