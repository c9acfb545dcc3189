"""HTTP with a key: repeated when the service is busy or the connection breaks, bounded, and silent about the key."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.sources.remote import ServiceError

T = TypeVar("T")

BUSY = frozenset({408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
"""Statuses after which the same request may succeed; 520 to 524 are a content network's for a server that fails."""

CHUNK = 1 << 16
"""Most bytes read between two looks at the clock."""

BROKEN = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, HTTPError)
"""What `requests`, and `urllib3` below it, raise for a connection that fails or breaks."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Parameters
    ----------
    retries : int
        How often one request is repeated.
    timeout : float
        Seconds without a byte before a try counts as failed.
    pause : float
        Seconds before the first repetition; doubled for every further one, up to 32 times, and varied at random
        between half and all of that, so that many clients do not come back together.
    max_seconds : float
        Seconds for everything together; a service that asks to wait longer is not waited for.
    """

    retries: int = 5
    timeout: float = 60.0
    pause: float = 1.0
    max_seconds: float = 900.0

    def __post_init__(self) -> None:
        """Check every value."""
        require("retries", self.retries, is_whole(self.retries), "a whole number of at least 0")
        require("pause", self.pause, is_real(self.pause) and self.pause >= 0, "at least 0 (seconds)")
        for name in ("timeout", "max_seconds"):
            value = getattr(self, name)
            require(name, value, is_real(value) and value > 0, "more than 0 (seconds)")


class FailedError(Exception):
    """One try failed in a way that may pass; ``wait`` is what the service asks for (seconds)."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class PatientSession(requests.Session):
    """A `requests.Session` whose requests are repeated as :class:`Patience` says.

    Every answer with status 200 is read whole and is JSON; others that will not change are given to the caller. The
    key goes into a header of the requests to the service, and nowhere else.

    Parameters
    ----------
    service : str
        Name of the service, for messages.
    headers : mapping
        Sent with every request.
    secret : str
        What must not be repeated: cut out of all that the server says; the header that holds it is not sent to
        another host that the service may redirect to.
    patience : Patience
        How long to try.
    """

    def __init__(self, service: str, headers: dict[str, str], secret: str, patience: Patience) -> None:
        super().__init__()
        self.headers.update(headers)
        self.service = service
        self.patience = patience
        self.deadline = time.monotonic() + patience.max_seconds
        self.answers: list[tuple[str, int, dict[str, Any]]] = []
        """Address, status and the "meta" of the JSON of every answer that was passed on."""
        self._secret = secret

    def clean(self, text: str, limit: int | None = 200) -> str:
        """Return a text of the server as one line without the key, cut to a number of characters."""
        line = " ".join(text.replace(self._secret, "<key>").split())
        return line if limit is None or len(line) <= limit else line[:limit] + " ..."

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """On a redirect to another host, drop every header that holds the key, as `requests` does with its own."""
        if response.request.url and self.should_strip_auth(response.request.url, prepared_request.url or ""):
            for name in [name for name, value in prepared_request.headers.items() if self._secret in str(value)]:
                del prepared_request.headers[name]
        super().rebuild_auth(prepared_request, response)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request until it is answered; see the class.

        Raises
        ------
        ServiceError
            No answer within the tries or the time.
        """
        return self.persist(lambda seconds: self._attempt(request, seconds, kwargs))

    def persist(self, attempt: Callable[[float], T]) -> T:
        """Call a function of the seconds that it may take until it succeeds.

        Raises
        ------
        ServiceError
            It keeps failing with what may pass (connection, time-out, busy service).
        """
        tries, asked = 0, 0.0
        while True:
            reason, final = "no time was left for the next request", False
            if (left := self.deadline - time.monotonic()) > 0:
                tries += 1
                try:
                    return attempt(min(self.patience.timeout, left))
                except FailedError as exc:
                    reason, asked = str(exc), exc.wait
                except requests.exceptions.SSLError as exc:
                    reason, final = f"no secure connection: {exc}", True
                except BROKEN as exc:
                    reason, asked = _in_short(exc), 0.0
            wait = max(asked, self.patience.pause * 2 ** min(max(tries - 1, 0), 5) * random.uniform(0.5, 1.0))
            if final or tries > self.patience.retries or wait >= self.deadline - time.monotonic():
                break
            time.sleep(wait)
        # Raised outside of the except clauses: the causes hold requests, and these the key in a header.
        if asked > 0:
            reason += f", asks to wait {asked:.0f} s"
        raise ServiceError(
            f"the {self.service} does not answer: {tries} of at most {self.patience.retries + 1} tries within "
            f"{self.patience.max_seconds:g} s failed ({self.clean(reason)}); nothing of this query was kept: try again "
            "later, or with more retries, timeout or max_seconds"
        )

    def _attempt(self, request: requests.PreparedRequest, seconds: float, options: dict[str, Any]) -> requests.Response:
        """Send once and read everything, or fail."""
        options = {**options, "timeout": seconds, "stream": True}
        response = super().send(request, **options)
        if isinstance(response.raw, io.BytesIO):
            return response  # from behind a redirect, which was sent through here and is read already
        with response:
            body = self._read(response)
        answer = requests.Response()
        answer.status_code, answer.reason, answer.url = response.status_code, response.reason, response.url
        answer.headers, answer.request, answer.history = response.headers, response.request, response.history
        answer.encoding = response.encoding or "utf-8"
        answer.raw = io.BytesIO(body)
        if answer.status_code in BUSY:
            said = self.clean(answer.text)
            raise FailedError(
                f"{answer.status_code} {answer.reason}" + (f": {said}" if said else ""),
                _seconds_to_wait(answer.headers.get("Retry-After")),
            )
        meta: Any = None
        if answer.status_code == 200:
            try:
                content = json.loads(body)
            except ValueError:
                raise FailedError(f"an answer of {len(body)} bytes that is no JSON") from None
            meta = content.get("meta") if isinstance(content, dict) else None
        self.answers.append((answer.url, answer.status_code, meta if isinstance(meta, dict) else {}))
        return answer

    def _read(self, response: requests.Response) -> bytes:
        """Return the whole body; as it comes, so that a trickle that never stops long enough for a time-out is seen."""
        body = bytearray()
        while part := response.raw.read1(CHUNK, decode_content=True):
            body += part
            if time.monotonic() > self.deadline:
                raise FailedError(f"the answer was not complete when the time was over, {len(body)} bytes had come")
        return bytes(body)


def _seconds_to_wait(header: str | None) -> float:
    """Return what a Retry-After header asks for: a number of seconds, or a date."""
    if not header:
        return 0.0
    if header.strip().isdigit():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp())


def _in_short(error: Exception) -> str:
    """Return what happened without the chain of classes and addresses that the libraries put around it."""
    if isinstance(error, requests.exceptions.Timeout | ReadTimeoutError):
        return "time-out: no byte came in time"
    if isinstance(error, HTTPError):
        return "the connection ended in the middle of the answer"
    cause: Any = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or cause)
    if "RemoteDisconnected" in text or "Connection aborted" in text:
        return "the connection ended before the answer"
    return f"no connection: {text.rpartition('>: ')[2]}"
