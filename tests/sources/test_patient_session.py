from __future__ import annotations

import pytest
import requests

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources import patient_session as module
from aiida_losiko.sources.patient_session import FailedError, Patience, PatientSession


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def session(**options) -> PatientSession:
    return PatientSession("service", {}, "secret", Patience(**options))


def failing(error: Exception, times: int = 10**6):
    """Return an attempt that fails a number of times, and the seconds that each may take."""
    allowed: list[float] = []

    def attempt(seconds: float) -> str:
        allowed.append(seconds)
        if len(allowed) <= times:
            raise error
        return "done"

    return attempt, allowed


def test_waits_double_up_to_a_bound_and_vary(clock):
    attempt, _ = failing(FailedError("busy"))
    with pytest.raises(LosikoError, match=r"service does not answer: 9 of at most 9 tries .* \(busy\)"):
        session(retries=8, pause=1.0, max_seconds=10000).persist(attempt)
    for wait, most in zip(clock.waits, (1, 2, 4, 8, 16, 32, 32, 32), strict=True):
        assert most / 2 <= wait <= most
    assert len({wait / most for wait, most in zip(clock.waits, (1, 2, 4, 8, 16, 32, 32, 32), strict=True)}) > 1


def test_the_total_is_bounded_and_the_last_try_gets_what_is_left(clock):
    attempt, allowed = failing(requests.exceptions.ReadTimeout("slow"))
    with pytest.raises(LosikoError, match=r"of at most 101 tries within 20 s failed \(time-out"):
        session(retries=100, pause=1.0, timeout=15, max_seconds=20).persist(attempt)
    assert sum(clock.waits) <= 20
    assert allowed[0] == 15 and allowed[-1] < 15


def test_what_the_service_asks_to_wait_is_waited(clock):
    attempt, _ = failing(FailedError("busy", wait=7.0), times=2)
    assert session(retries=2, pause=0.1).persist(attempt) == "done"
    assert clock.waits == [7.0, 7.0]


def test_a_certificate_is_not_tried_again(clock):
    attempt, allowed = failing(requests.exceptions.SSLError("certificate verify failed: secret"))
    with pytest.raises(LosikoError, match="no secure connection: certificate verify failed: <key>"):
        session(retries=5).persist(attempt)
    assert len(allowed) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("3", 3, 3), (" 12 ", 12, 12), ("", 0, 0), ("soon", 0, 0), ("-5", 0, 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0)],
)
def test_retry_after(header, least, most):
    assert least <= module._seconds_to_wait(header) <= most
