"""One OPTIMADE server, asked through the official client: all pages or an error, patiently and without a word.

The client of the package ``optimade`` builds addresses, follows ``links.next`` and joins pages. It repeats nothing but
answers of 429, without a bound and at once, so that the session it is given here does the repeating.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.patient_session import Patience, PatientSession
from aiida_losiko.sources.remote import ServiceError

LONGEST_DELAY = 10.0
"""Seconds between two pages, at most, where the server asks for a pause (``meta.request_delay``)."""

MISSING_PACKAGE = "the package optimade is not installed; source optimade needs it: pip install aiida-losiko[optimade]"

NO_SECRET = "\0"
"""There is no key; this is in no text that a server can send."""


class OptimadeSession(PatientSession):
    """A patient session that pauses between pages as the server asks, and says why the server refuses.

    The client makes one for every query, with no arguments: use a class made by :meth:`for_server`.
    """

    server: str
    terms: Patience
    refused: list[int]

    def __init__(self) -> None:
        super().__init__(f"OPTIMADE server {self.server}", {}, NO_SECRET, self.terms)

    @classmethod
    def for_server(cls, server: str, patience: Patience) -> type[OptimadeSession]:
        """Return a class of sessions for one server; ``refused`` collects the statuses that say no."""
        return type("Session", (cls,), {"server": server, "terms": patience, "refused": []})

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request until it is answered.

        Raises
        ------
        LosikoError
            The server refuses, or no answer within the tries or the time.
        """
        delay = self.answers[-1][2].get("request_delay") if self.answers else None
        if isinstance(delay, int | float) and delay > 0:
            time.sleep(min(delay, LONGEST_DELAY))
        response = super().send(request, **options)
        if response.status_code >= 400:
            self.refused.append(response.status_code)
            raise LosikoError(f"the {self.service} refuses: {self.clean(_refusal(response), 400)}")
        return response


@dataclass(frozen=True)
class OptimadeServer:
    """A server by its address, without the version at its end.

    Parameters
    ----------
    base_url : str
        Such as ``https://optimade.materialsproject.org``.
    patience : Patience
        How long to try.
    """

    base_url: str
    patience: Patience = field(default_factory=Patience)
    session: type[OptimadeSession] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the class of sessions."""
        object.__setattr__(self, "session", OptimadeSession.for_server(self.base_url, self.patience))

    def ask(
        self,
        endpoint: str,
        filter: str = "",
        fields: tuple[str, ...] | None = None,
        *,
        max_entries: int = 1,
        page_limit: int | None = None,
        only_some: bool = False,
        optional: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """Ask and follow all pages.

        Parameters
        ----------
        endpoint : str
            ``structures``, ``info`` or ``info/structures``.
        filter : str
            In the language of OPTIMADE filters.
        fields : tuple of str, optional
            The properties to send.
        max_entries : int
            More than that many are an error, before they are fetched where the server says how many there are.
        page_limit : int, optional
            Entries of a page; the server's own limit unless given.
        only_some : bool
            The first page is enough.
        optional : bool
            A server that refuses gives two empty dictionaries instead of an error.

        Returns
        -------
        (list or dict, dict)
            ``data`` of all pages together, and ``meta`` of the last one.

        Raises
        ------
        LosikoError
            The package ``optimade`` is missing, the filter is wrong, the server refuses or keeps failing, or gives
            too many entries, too few, or one twice.
        """
        check_filter(filter)
        from optimade.client import OptimadeClient

        def not_too_many(_url: str, page: dict[str, Any]) -> None:
            count = page["meta"].get("data_returned")
            if not only_some and isinstance(count, int) and count > max_entries and isinstance(page["data"], list):
                raise LosikoError(_too_many(self.base_url, str(count), max_entries))

        client = OptimadeClient(
            [self.base_url],
            max_results_per_provider=max_entries + 1,
            http_timeout=self.patience.timeout,
            use_async=False,
            http_client=self.session,
            callbacks=[not_too_many],
            silent=True,
        )
        # Told to be silent, it prints errors all the same: rich sets its console's `print` over the client's own.
        client._progress.console.quiet = True
        answer = client.get_one(
            endpoint,
            quote(filter, safe=""),
            self.base_url,
            response_fields=None if fields is None else list(fields),
            page_limit=page_limit,
            paginate=not only_some,
        )[self.base_url]
        if answer.errors:
            if optional and self.session.refused:
                return {}, {}
            raise _first_error(self.base_url, answer.errors[0])
        if isinstance(answer.data, list) and not only_some:
            self._check_complete(answer.data, answer.meta, max_entries, bool(answer.links.get("next")))
        return answer.data, answer.meta

    def _check_complete(self, data: list[Any], meta: dict[str, Any], max_entries: int, more: bool) -> None:
        if len(data) > max_entries:
            raise LosikoError(_too_many(self.base_url, f"more than {max_entries}", max_entries))
        count = meta.get("data_returned")
        if more or (isinstance(count, int) and len(data) < count):
            of = f" of {count}" if isinstance(count, int) else ""
            raise ServiceError(
                f"the OPTIMADE server {self.base_url} gave {len(data)}{of} entries and no further page; run the same "
                "again"
            )
        seen: set[Any] = set()
        for entry in data:
            if entry.get("id") in seen:
                raise ServiceError(
                    f"the OPTIMADE server {self.base_url} gave entry {entry.get('id')} twice, so that another may be "
                    "missing (its entries changed while they were fetched?); run the same again"
                )
            seen.add(entry.get("id"))


def check_filter(filter: str) -> None:
    """Raise a `LosikoError` for a filter that is none, or where the package ``optimade`` is missing."""
    try:
        from optimade.exceptions import BadRequest
        from optimade.filterparser import LarkParser
    except ImportError:
        raise LosikoError(MISSING_PACKAGE) from None
    if filter:
        try:
            LarkParser().parse(filter)
        except BadRequest as exc:
            detail = " ".join(str(exc.detail or exc).partition("Expected one of")[0].split())
            raise LosikoError(f"filter {filter!r} is no OPTIMADE filter ({detail[:200]})") from None


def _too_many(server: str, count: str, max_entries: int) -> str:
    return (
        f"the OPTIMADE server {server} has {count} entries for this query, max_entries is {max_entries}; narrow the "
        "query or allow more"
    )


def _first_error(server: str, error: Any) -> LosikoError:
    """Return what the client noted down of an exception (``Name: message``), or of the server's own error."""
    if isinstance(error, dict):
        error = f"{error.get('title', 'error')}: {error.get('detail', '')}"
    name, _, message = str(error).partition(": ")
    for kind in (ServiceError, LosikoError):
        if name == kind.__name__:
            return kind(message)
    return LosikoError(f"the OPTIMADE server {server}: {' '.join(str(error).split())[:300]}")


def _refusal(response: requests.Response) -> str:
    """Return status and detail of an error answer, and the way out."""
    try:
        errors = json.loads(response.content).get("errors") or [{}]
        detail = " ".join(str(errors[0].get("detail") or "").split())
    except (ValueError, AttributeError, TypeError, IndexError, KeyError):
        detail = ""
    way_out = {
        400: "; give a filter that this server knows",
        403: "; a smaller page_limit may do",
        404: "; check the address",
        414: "; ask for fewer entries at once",
        501: "; give a filter that this server can do",
    }.get(response.status_code, "")
    return f"{response.status_code} {response.reason}{': ' + detail[:200] if detail else ''}{way_out}"
