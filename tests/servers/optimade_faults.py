"""A proxy on loopback in front of an OPTIMADE server, which fails as it is told to."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Status:
    """Answer with a status instead of passing the request on."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Cut:
    """Close the connection in the middle of the answer, or before it."""

    share: float = 0.5


@dataclass(frozen=True)
class Slow:
    """Answer after a while (s)."""

    seconds: float


@dataclass(frozen=True)
class Change:
    """Pass on what a function makes of the answer."""

    function: Callable[[dict[str, Any]], Any]


class FaultyProxy:
    """The proxy; a context manager.

    ``plans`` holds for each end point (``info``, ``info/structures``, ``structures``) what happens to the next
    requests, one after the other; after them, and for None, requests are passed on. ``always`` holds what happens to
    each. ``requests`` records end point and parameters of all.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.plans: dict[str, list[Any]] = defaultdict(list)
        self.always: dict[str, Any] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> FaultyProxy:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, endpoint: str) -> int:
        """Return how often an end point was asked."""
        return sum(1 for asked, _ in self.requests if asked == endpoint)

    def next_fault(self, endpoint: str, parameters: dict[str, str]) -> Any:
        with self._lock:
            self.requests.append((endpoint, parameters))
            plan = self.plans[endpoint]
            return plan.pop(0) if plan else self.always.get(endpoint)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        endpoint = address.path.partition("/v1/")[2]
        fault = self.proxy.next_fault(endpoint, {key: value[0] for key, value in parse_qs(address.query).items()})
        if isinstance(fault, Status):
            self._answer(fault.code, fault.body, fault.headers)
            return
        if isinstance(fault, Slow):
            time.sleep(fault.seconds)
        # With the name of the proxy, so that the links to next pages lead through it.
        request = urllib.request.Request(self.proxy.upstream + self.path, headers={"Host": self.headers["Host"]})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                code, body = response.status, response.read()
        except urllib.error.HTTPError as exc:
            code, body = exc.code, exc.read()
        if isinstance(fault, Change):
            body = json.dumps(fault.function(json.loads(body))).encode()
        self._answer(code, body, {}, fault.share if isinstance(fault, Cut) else 1.0)

    def _answer(self, code: int, body: bytes, headers: dict[str, str], share: float = 1.0) -> None:
        if share == 0:
            self.close_connection = True
            return
        try:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: int(len(body) * share)])
        except ConnectionError:
            # A client that went away, having waited long enough.
            self.close_connection = True
            return
        if share < 1:
            self.close_connection = True
