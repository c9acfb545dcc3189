"""The reference OPTIMADE server as a process of its own, for as long as it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LOSIKO_DATA", ROOT.parent / "shared" / "data"))
REAL = DATA / "mp" / "mp_Si-O.jsonl.xz"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Start the program; its address. Serves the real entries as well where they are there."""
    for module in ("optimade.client", "optimade.server.config", "mongomock", "uvicorn"):
        pytest.importorskip(module, reason=f"{module} is missing: pip install -e .[tests]")
    command = [sys.executable, str(Path(__file__).with_name("optimade_server.py")), "--folder", str(folder)]
    if REAL.exists():
        command += ["--real", str(DATA), "Si-O"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(180, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    assert line.startswith("ready "), f"the server did not start: {line!r}"
    yield f"http://127.0.0.1:{int(line.split()[1])}"
    process.terminate()
    process.wait(timeout=30)
