"""The other end of `workers`: a process that does one job after the other.

It is a fresh interpreter, not a fork: a fork of a process with threads (torch's, a notebook's, the driver's of an
accelerator) may hang, and starting it asks nothing of the script that calls `relax`.
"""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeAlias

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.relaxation.messages import (
    DONE,
    FAILED,
    GO_ON,
    JOB,
    READY,
    RESULTS,
    START,
    STEP,
    STOP,
    WARNING,
    pack_results,
    pack_step,
    unpack_job,
)
from aiida_losiko.core.relaxation.run import Run, StepReport

if TYPE_CHECKING:
    Channel: TypeAlias = Connection[Any, Any]


def main() -> None:
    """Do what the other end of the standard input says, until it is closed."""
    # Ctrl-C reaches all processes of a terminal, a batch system's signal all of a job: who started this one decides.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    channel: Channel = Connection(os.dup(0))
    # Nobody else is to read what comes there.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    with suppress(EOFError, OSError):  # when the other end is gone
        _serve(channel)


def _serve(channel: Channel) -> None:
    def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        channel.send((WARNING, str(message), category.__name__))

    warnings.showwarning = warn
    kind, options = channel.recv()
    if kind != START:
        raise ValueError(f"the first message is {kind!r}")
    try:
        run = _WorkerRun.of(channel, **options)
        channel.send((READY,))
        run.work()
    except (EOFError, ConnectionError):
        raise
    except LosikoError as error:
        channel.send((FAILED, str(error), None))
    except Exception as error:
        channel.send((FAILED, f"{type(error).__name__}: {error}", traceback.format_exc()))


class _WorkerRun(Run):
    """A run whose callback and whose reasons to stop are those of the other end."""

    channel: Channel
    _reason: str | None = None

    @classmethod
    def of(cls, channel: Channel, database: str, settings: dict[str, Any], threads: int, steps: bool) -> _WorkerRun:
        """Load what is needed; `steps` tells whether there is a callback."""
        import torch

        from aiida_losiko.core.environments.database import EnvironmentDatabase
        from aiida_losiko.core.optimizers import resolve_optimizer
        from aiida_losiko.core.settings import RelaxSettings

        torch.set_num_threads(threads)
        run = cls(RelaxSettings.from_dict(settings), EnvironmentDatabase.load(database))
        run.channel = channel
        if steps:
            run.callback = run._tell
        # What is not known here is told before there is work.
        resolve_optimizer(run.settings.optimizer)
        run.database.descriptor  # noqa: B018
        return run

    def work(self) -> None:
        """Do jobs for ever: `_take` ends with the channel."""
        from aiida_losiko.core.relaxation.jobs import do_job

        while True:
            kind, *values = self._take()
            if kind == JOB:
                number, packed = values
                results = do_job(self, unpack_job(packed), lambda count: self.channel.send((DONE, count)))
                self.channel.send((RESULTS, number, pack_results(results)))

    def stop_reason(self) -> str | None:
        """The reason that the other end told."""
        while self._reason is None and self.channel.poll():
            self._take()
        return self._reason

    def _take(self) -> tuple[Any, ...]:
        """Wait for the next message; that it is time to stop is noted."""
        message: tuple[Any, ...] = self.channel.recv()
        if message[0] == STOP:
            self._reason = message[1]
        return message

    def _tell(self, report: StepReport) -> None:
        """Tell of a step and wait until the callback is done: it may have found a reason to stop."""
        self.channel.send((STEP, pack_step(report)))
        while self._take()[0] != GO_ON:
            pass
