"""The official client of the Materials Project, with a session that is patient, and silent about the key.

Requests, paging and the names of the filters are the client's (`mp-api`). Documents are taken as plain dictionaries:
its document models take the fields of a page from the page's first entry, and one entry that does not validate loses
the page.
"""

from __future__ import annotations

import platform
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.materials_project_key import KEY_PAGE, find_key
from aiida_losiko.sources.patient_session import BROKEN, FailedError, Patience, PatientSession
from aiida_losiko.sources.remote import ServiceError

T = TypeVar("T")

SERVICE = "Materials Project"


class MaterialsProjectClient:
    """The end points of the service that are used, for one query; a context manager.

    The key is looked up when it is made, and forgotten when it is closed.

    Parameters
    ----------
    endpoint : str
        Address of the service.
    patience : Patience
        How long to try.

    Raises
    ------
    LosikoError
        There is no key.
    """

    def __init__(self, endpoint: str, patience: Patience) -> None:
        self.endpoint = endpoint
        self.sent: list[dict[str, str]] = []
        """Path and parameters of the requests for documents, as they were sent; of each search the first page."""
        find_key()  # before the imports, which take seconds
        self._classes = _client_classes()
        self._session = _open_session(patience)
        self._resters: dict[str, Any] = {}

    def __enter__(self) -> MaterialsProjectClient:
        """Use it in a ``with`` statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections and forget the key."""
        self._session.close()
        self._session.headers.clear()
        self._resters.clear()

    def database_version(self) -> str:
        """Return the version of the service's database; empty where the service does not tell.

        It is asked anew each time, while the client keeps the first answer as long as the process lives. The network
        in front of the service may refuse the question (403) although the key is good.
        """
        response = self._session.get(self.endpoint + "heartbeat")
        if response.status_code == 403:
            return ""
        if response.status_code == 401:
            raise self._refusal(response.text)
        content = response.json() if response.status_code == 200 else None
        version = content.get("db_version") if isinstance(content, dict) else None
        if not isinstance(version, str):
            raise LosikoError(
                f"{self.endpoint} is no service of the {SERVICE}: its heartbeat answers {response.status_code} "
                f"{self._session.clean(response.text)}; correct endpoint or MP_API_ENDPOINT, or leave it out"
            )
        return version

    def summaries(self, fields: Sequence[str], page_size: int, **keywords: Any) -> list[dict[str, Any]]:
        """Search the summaries of the materials; ``keywords`` as the client's ``materials.summary.search``."""
        # In a fixed order: without one, pages of a result may overlap.
        return self._search("summary", fields, page_size, _sort_fields="material_id", **keywords)

    def energies(self, page_size: int, **keywords: Any) -> list[dict[str, Any]]:
        """Search the energies of one thermo type; ``keywords`` as the client's ``materials.thermo.search``."""
        fields = ("material_id", "thermo_type", "energy_above_hull", "energy_per_atom")
        return self._search("thermo", fields, page_size, **keywords)

    def _search(self, name: str, fields: Sequence[str], page_size: int, **keywords: Any) -> list[dict[str, Any]]:
        rester = self._rester(name)
        self._session.answers.clear()
        failure = ""
        documents: list[dict[str, Any]] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                documents = rester.search(**keywords, all_fields=False, fields=list(fields), chunk_size=page_size)
        except LosikoError:
            raise
        except Exception as exc:
            failure = self._session.clean(f"{type(exc).__name__}: {exc}", limit=None)
        if failure:
            raise self._refusal(failure)
        self._check_pages(documents)
        return documents

    def _rester(self, name: str) -> Any:
        """Return the client's object for one end point; the first one asks for the heartbeat, with no time-out."""
        if name not in self._resters:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a heartbeat that is refused
                self._resters[name] = self._session.persist(
                    lambda seconds: _within(seconds, lambda: self._make_rester(name))
                )
        return self._resters[name]

    def _make_rester(self, name: str) -> Any:
        return self._classes[name](
            api_key=str(self._session.headers["x-api-key"]),
            endpoint=self.endpoint,
            session=self._session,
            use_document_model=False,
            mute_progress_bars=True,
            timeout=self._session.patience.timeout,
        )

    def _refusal(self, failure: str) -> LosikoError:
        """Return the error for an answer that repeating would not change."""
        status = self._session.answers[-1][1] if self._session.answers else 0
        said = self._session.clean(failure.rpartition("with message:")[2])
        if status in (401, 403):
            return LosikoError(
                f"the {SERVICE} refuses the key, or this machine ({status}: {said}); compare MP_API_KEY, or "
                f"PMG_MAPI_KEY in ~/.config/.pmgrc.yaml, with {KEY_PAGE}"
            )
        if status < 400:
            return LosikoError(
                f"the client of the {SERVICE} fails ({said}); it may not fit to what the service sends now: try "
                "another version of mp-api"
            )
        return LosikoError(
            f"the {SERVICE} does not accept the query ({status}: {said}); the service and mp-api may not fit to each "
            "other, or the query is too long: try another version of mp-api, or fewer names at once"
        )

    def _check_pages(self, documents: list[dict[str, Any]]) -> None:
        """Refuse a result whose pages do not fit together; keep what was sent."""
        announced, changed = 0, False
        total: Any = None
        for address, status, meta in self._session.answers:
            parameters = dict(parse_qsl(urlsplit(address).query))
            if status != 200:
                continue
            if "_skip" not in parameters:
                self.sent.append({"path": urlsplit(address).path, **parameters})
                total = meta.get("total_doc")
                announced += int(total or 0)
            changed = changed or meta.get("total_doc") != total
        names = Counter(str(document.get("material_id")) for document in documents)
        if changed or len(documents) != announced or len(names) != len(documents):
            raise ServiceError(
                f"the {SERVICE} announced {announced} entries and sent {len(documents)}, {len(names)} of them "
                "different: its database changed in between; nothing of this query was kept, ask again"
            )


def _client_classes() -> dict[str, Any]:
    with warnings.catch_warnings():
        # Of the many imports; pymatgen's own would quote the lines of a damaged settings file, the key among them.
        warnings.simplefilter("ignore")
        from mp_api.client.routes.materials.summary import SummaryRester
        from mp_api.client.routes.materials.thermo import ThermoRester
    return {"summary": SummaryRester, "thermo": ThermoRester}


def _open_session(patience: Patience) -> PatientSession:
    from importlib.metadata import version

    agent = f"mp-api/{version('mp-api')} aiida-losiko/{version('aiida-losiko')} Python/{platform.python_version()}"
    key = find_key()
    return PatientSession(SERVICE, {"x-api-key": key, "user-agent": agent}, key, patience)


def _within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function that has no time limit of its own; what takes longer is left behind and counts as failed."""
    results: list[T] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            results.append(function())
        except Exception as exc:
            errors.append(exc)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    if errors and isinstance(errors[0], BROKEN):
        raise errors[0]
    raise FailedError(f"the heartbeat fails: {type(errors[0]).__name__}" if errors else "time-out of the heartbeat")
