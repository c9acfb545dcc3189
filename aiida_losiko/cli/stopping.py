"""Signals: a first one asks the work to stop at the next step, a second one ends the program."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Context in which SIGINT and SIGTERM set a flag; calling the object tells whether one came.

    Attributes
    ----------
    signal
        Number of the signal that came, or None.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether the work should stop."""
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        """Take the signals over (only the main thread may)."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number
        if sys.stderr is None:  # closed: its number may be that of another file by now
            return
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"Stopping after this step; what there is will be written (once more: stop at once).\n")


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that temporary files are removed on the way out; exit status 143."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
