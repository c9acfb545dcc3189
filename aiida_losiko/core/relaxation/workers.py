"""Several processes that share the jobs of one call of `relax`."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.relaxation import messages
from aiida_losiko.core.relaxation.jobs import Job, not_begun
from aiida_losiko.core.relaxation.results import Relaxation
from aiida_losiko.core.relaxation.run import Run, StepReport
from aiida_losiko.core.settings import RelaxSettings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# A process takes about two seconds to start, in which one core relaxes some hundred atoms of molecules.
ATOMS_PER_PROCESS = 1000
# How often, in seconds, the reasons to stop are looked at while nothing is heard from the processes.
PATIENCE = 0.05
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from aiida_losiko.core.relaxation.worker import main; main()"
_REMEDY = "where memory is short, use fewer processes or a smaller batch_size"
# Told in the environment, since some libraries make their threads when they are imported.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sensible_processes(jobs: Sequence[Job], settings: RelaxSettings) -> int:
    """How many processes make these jobs quicker: one for little work, and one on an accelerator."""
    if settings.device != "cpu" or os.name != "posix":
        return 1
    return max(1, min(usable_cores(), len(jobs), sum(job.n_atoms for job in jobs) // ATOMS_PER_PROCESS))


def do_in_processes(
    run: Run, jobs: Sequence[Job], n_processes: int, on_done: Callable[[int], Any]
) -> list[list[Relaxation]]:
    """Let processes do jobs until it is time to stop.

    Parameters
    ----------
    run : Run
        Its callback and its reasons to stop are asked in this process.
    jobs : sequence of Job
        What to do; the first one is begun, whatever the time.
    n_processes : int
        How many at once.
    on_done : callable
        Told how many more structures are finished.

    Returns
    -------
    list of list of Relaxation
        For each job the results of its structures.

    Raises
    ------
    LosikoError
        The processes cannot start.
    """
    import torch

    with _on_disk(run.database) as file:
        options = {
            "database": str(file),
            "settings": run.settings.to_dict(),
            "threads": max(1, torch.get_num_threads() // n_processes),
            "steps": run.callback is not None,
        }
        crew = _Crew(run, jobs, options, on_done)
        try:
            return crew.work(n_processes)
        finally:
            crew.end()


@contextmanager
def _on_disk(database: EnvironmentDatabase) -> Iterator[Path]:
    """The file of a database, which all processes map into memory; one in memory is written to a temporary one."""
    if database.file is not None:
        yield database.file
        return
    with tempfile.TemporaryDirectory(prefix="losiko-") as folder:
        path = Path(folder) / "database.safetensors"
        database.save(path)
        yield path


class _Worker:
    """A process and the way to talk to it.

    Attributes
    ----------
    ready : bool
        Whether it has started.
    told : bool
        Whether it knows that it is time to stop.
    job : int or None
        Number of the job that it does.
    left : int
        How many structures of that are not finished.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.ready, self.told, self.left = False, False, 0
        self.job: int | None = None
        self.channel: Connection[Any, Any]
        self.channel, theirs = Pipe()
        # Before it has a say in it a signal would end the process.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            threads = dict.fromkeys(_THREADS, str(options["threads"]))
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **threads},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            theirs.close()
        self.send(messages.START, options)

    def send(self, *message: Any) -> None:
        """Send a message; that the process is gone shows when it is listened to."""
        with suppress(ConnectionError):
            self.channel.send(message)

    def end(self) -> None:
        """End the process at once: it has nothing that is not here."""
        self.process.kill()
        self.process.wait()
        self.channel.close()


class _Crew:
    """The processes of one call and what is left to do."""

    def __init__(self, run: Run, jobs: Sequence[Job], options: dict[str, Any], on_done: Callable[[int], Any]) -> None:
        self.run, self.jobs, self.options, self.on_done = run, jobs, options, on_done
        self.waiting = deque(range(len(jobs)))
        self.outcomes: dict[int, list[Relaxation]] = {}
        self.workers: list[_Worker] = []
        self.reason: str | None = None

    def work(self, n_processes: int) -> list[list[Relaxation]]:
        """Hand out jobs and take in results until all is done."""
        for _ in range(n_processes):
            self.workers.append(_Worker(self.options))
        while len(self.outcomes) < len(self.jobs):
            self._look_for_a_reason_to_stop()
            by_channel = {worker.channel: worker for worker in self.workers}
            for channel in wait(list(by_channel), PATIENCE):
                self._listen(by_channel[channel])  # type: ignore[index]
        return [self.outcomes[number] for number in range(len(self.jobs))]

    def end(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.end()

    def _look_for_a_reason_to_stop(self) -> None:
        if self.reason is None:
            self.reason = self.run.stop_reason()
        if self.reason is None:
            return
        for worker in self.workers:
            if not worker.told:
                worker.told = True
                worker.send(messages.STOP, self.reason)
        # As in a single process, the first job is begun whatever the time.
        while self.waiting and self.waiting[-1] > 0:
            number = self.waiting.pop()
            self.outcomes[number] = not_begun(self.jobs[number], self.reason)

    def _listen(self, worker: _Worker) -> None:
        """Take a message of a worker."""
        message = None
        with suppress(EOFError, OSError):
            message = worker.channel.recv()
        if message is None:
            self._mourn(worker)
            return
        kind, *values = message
        if kind == messages.DONE:
            worker.left -= values[0]
            self.on_done(values[0])
        elif kind == messages.STEP:
            if self.run.callback is not None:
                self.run.callback(StepReport(**values[0]))
            self._look_for_a_reason_to_stop()
            worker.send(messages.GO_ON)
        elif kind == messages.WARNING:
            warnings.warn(values[0], getattr(builtins, values[1], UserWarning), stacklevel=2)
        elif kind == messages.FAILED:
            self._fail(worker, *values)
        else:
            if kind == messages.RESULTS:
                number, packed = values
                self.outcomes[number] = messages.unpack_results(packed, self.jobs[number].structures)
            worker.ready, worker.job, worker.left = True, None, 0
            self._hand_out(worker)

    def _hand_out(self, worker: _Worker) -> None:
        if self.waiting:
            worker.job = self.waiting.popleft()
            worker.left = len(self.jobs[worker.job].structures)
            worker.send(messages.JOB, worker.job, messages.pack_job(self.jobs[worker.job]))

    def _fail(self, worker: _Worker, message: str, trace: str | None) -> None:
        """Raise what was raised in a worker."""
        if not worker.ready:
            raise LosikoError(f"a process to share the work cannot start: {message}; use processes=1")
        if trace is None:
            raise LosikoError(message)
        raise RuntimeError(f"a process that shared the work failed:\n{trace}")

    def _mourn(self, worker: _Worker) -> None:
        """Give the structures of a process that died the status `error`, and go on without them."""
        status = worker.process.wait()
        death = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self.workers.remove(worker)
        worker.channel.close()
        lost = [] if worker.job is None else [worker.job]
        if not worker.ready and not self.workers:
            if not self.outcomes:
                raise LosikoError(f"a process to share the work cannot start: it {death}; use processes=1")
            lost, worker.left = list(self.waiting), sum(len(self.jobs[number].structures) for number in self.waiting)
            self.waiting.clear()
        for number in lost:
            starts = self.jobs[number].structures
            error = f"the process for its batch of {len(starts)} {death}; {_REMEDY}"
            self.outcomes[number] = [Relaxation(atoms=atoms.copy(), error=error) for atoms in starts]
        self.on_done(worker.left)
        # One that could not start is not tried again while there are others.
        if self.waiting and worker.ready:
            self.workers.append(_Worker(self.options))
