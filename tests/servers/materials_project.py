"""A Materials Project on this machine: answers the official client for the end points that aiida-losiko uses.

    python tests/servers/materials_project.py --port 8000
    MP_API_ENDPOINT=http://127.0.0.1:8000/ MP_API_KEY=00000000000000000000000000000000 python ...

Heartbeat, summary and thermo search with the service's filters, paging, projection, compression and refusals; and
errors on purpose. The entries are those of materials_project_entries.json unless told otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

if __package__:
    from .materials_project_documents import BadRequestError, answer, read_entries
else:
    from materials_project_documents import BadRequestError, answer, read_entries

KEY = "0" * 32
VERSION = "2026.01.01"
LONGEST_ADDRESS = 8190
FAULTS = (
    "429[:retry after] 500 ... drop (no answer) cut (in the middle) garbage redirect:address slow:seconds drip:seconds"
)


class LocalMaterialsProject(ThreadingHTTPServer):
    """The server; what it does can be changed while it runs.

    Parameters
    ----------
    entries : sequence of Path
        Tables and collections to serve, see `read_entries`; none for the committed table.
    port : int
        0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, entries: Sequence[Path] = (), port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.summaries, self.energies = read_entries(*entries)
        self.key = KEY
        self.refusal = 401  # what a key that is missing or wrong gets
        self.db_version = VERSION
        self.heartbeat_status = 200
        self.accepts_non_commercial = True  # whether the account has accepted the terms of GNoME
        self.faults: deque[str] = deque()  # one for each of the next requests for documents
        self.heartbeat_faults: deque[str] = deque()
        self.requests: list[tuple[str, dict[str, str]]] = []  # path and parameters of all so far
        self.keys: list[str | None] = []  # the keys that came with them
        self.repeats_the_key = False  # in every refusal, as no service should

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def fail(self, fault: str, times: int = 1) -> None:
        """Let the next requests for documents fail; see FAULTS."""
        self.faults.extend([fault] * times)

    def searches(self) -> list[dict[str, str]]:
        """Return the parameters of the requests for documents so far."""
        return [parameters for path, parameters in self.requests if path != "/heartbeat"]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is expected here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "kong/local", ""

    @property
    def service(self) -> LocalMaterialsProject:
        return cast(LocalMaterialsProject, self.server)

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.service.requests.append((parts.path, parameters))
        self.service.keys.append(self.headers.get("x-api-key"))
        heartbeat = parts.path == "/heartbeat"
        faults = self.service.heartbeat_faults if heartbeat else self.service.faults
        fault = faults.popleft() if faults else ""
        if fault and not self.survives(fault):
            return
        if heartbeat:
            self.heartbeat(fault)
        elif self.headers.get("x-api-key") != self.service.key:
            missing = not self.headers.get("x-api-key")
            said = "No API key found in request" if missing else "Invalid authentication credentials"
            self.reply(self.service.refusal, {"message": said})
        elif len(self.path) > LONGEST_ADDRESS:
            self.reply(414, "<html><head><title>414 Request-URI Too Large</title></head></html>")
        else:
            self.search(parts.path, parameters, fault)

    def heartbeat(self, fault: str) -> None:
        if self.service.heartbeat_status != 200:
            self.reply(self.service.heartbeat_status, "<html><title>Just a moment...</title></html>")
            return
        batches = ["gnome_r2scan_statics"]
        content = {"status": "OK", "time": "2026-01-01T00:00:00", "version": "0.87.3", "suffix": ""}
        content |= {"pymatgen": "2026.1.1", "db_version": self.service.db_version}
        self.reply(200, {**content, "access_controlled_batch_ids": batches}, fault=fault)

    def search(self, path: str, parameters: dict[str, str], fault: str) -> None:
        documents = {"/materials/summary/": self.service.summaries, "/materials/thermo/": self.service.energies}
        if path not in documents:
            self.reply(404, {"message": "no Route matched with those values"})
            return
        defaults = {}
        if path == "/materials/summary/":
            defaults = {"deprecated": "False", "license": "All" if self.service.accepts_non_commercial else "BY-C"}
        try:
            content = answer(documents[path], parameters, defaults)
        except BadRequestError as exc:
            self.reply(400, {"detail": str(exc)})
        else:
            self.reply(200, content, fault=fault)

    def survives(self, fault: str) -> bool:
        """Do what a fault asks for; return whether an answer is to follow."""
        name, _, argument = fault.partition(":")
        if name == "slow":
            time.sleep(float(argument))
            return True
        if name == "drop":
            self.close_connection = True
            return False
        if name == "redirect":
            self.reply(307, "", extra={"Location": argument + self.path.lstrip("/")})
            return False
        if name == "garbage":
            self.reply(200, "<html>maintenance</html>")
            return False
        if name.isdigit():
            said = "API rate limit exceeded" if name == "429" else "An unexpected error occurred"
            extra = {"Retry-After": argument} if argument else {}
            self.reply(int(name), {"message": said}, extra=extra)
            return False
        return True

    def reply(
        self, status: int, content: dict[str, Any] | str, fault: str = "", extra: dict[str, str] | None = None
    ) -> None:
        is_text = isinstance(content, str)
        if status != 200 and self.service.repeats_the_key and isinstance(content, dict):
            content = {name: f"{said} {self.headers.get('x-api-key')}" for name, said in content.items()}
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        if len(body) >= 1000 and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "text/html" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        name, _, argument = fault.partition(":")
        if name == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif name == "drip":
            for start in range(0, len(body), 64):
                self.wfile.write(body[start : start + 64])
                time.sleep(float(argument))
        else:
            self.wfile.write(body)


@contextlib.contextmanager
def running(entries: Sequence[Path] = ()) -> Iterator[LocalMaterialsProject]:
    """Run the server in a thread of this process."""
    server = LocalMaterialsProject(entries)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--entries", type=Path, action="append", default=[], help=".json table, or .jsonl[.xz]")
    parser.add_argument("--db-version", default=VERSION)
    parser.add_argument("--key", default=KEY, help="the only one accepted")
    parser.add_argument("--fail", action="append", default=[], metavar="FAULT[xN]", help=f"next answers: {FAULTS}")
    options = parser.parse_args()
    server = LocalMaterialsProject(options.entries, options.port)
    server.key, server.db_version = options.key, options.db_version
    for fault in options.fail:
        name, _, times = fault.partition("x")
        server.fail(name, int(times or 1))
    print(f"{len(server.summaries)} entries at {server.address}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
