"""What the launch scripts in `workflows/` share: a profile whose daemon works, waiting for what was submitted."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from aiida.orm import AbstractCode, ProcessNode, WorkChainNode

__all__ = (
    "JobError",
    "add_aiida_options",
    "call",
    "launch",
    "load_aiida",
    "load_code",
    "outputs_of",
    "report_cache",
    "say",
    "wait_for",
)

SETUP = "bash setup_profiles/quickstart.sh --no-run"
DAEMON_START = "verdi daemon start"
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 30.0  # without a change of state, after which there is a line all the same


class JobError(Exception):
    """What ends a job; its text is one line that says what to do."""


def add_aiida_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where AiiDA runs the job."""
    parser.add_argument("--profile", help="AiiDA profile (default: the default one)")
    parser.add_argument("--code", default="losiko@localhost", help="label of the code (default losiko@localhost)")


def launch(run: Callable[[argparse.Namespace, str], None], options: argparse.Namespace, checkout: Path) -> int:
    """Load the profile, run a job, and turn its errors into one line.

    Parameters
    ----------
    run
        The job: a function of the options and of what `load_aiida` returns.
    options
        The command line, with those of `add_aiida_options`.
    checkout
        See `load_aiida`.

    Returns
    -------
    int
        The exit status.
    """
    try:
        run(options, load_aiida(options.profile, checkout))
    except (JobError, LosikoError, OSError) as error:
        print(f"Error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped waiting; what was submitted goes on: see verdi process list", file=sys.stderr)
        return 130
    return 0


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"==> {text}", flush=True)


def load_aiida(profile: str | None, checkout: Path) -> str:
    """Load the profile and check that a daemon works for it.

    Parameters
    ----------
    profile
        Its name; None for the default one.
    checkout
        Folder of the project, whose own profile in `.aiida` is taken where nothing else is said.

    Returns
    -------
    str
        What a person has to type before `verdi` and `python` for the same profile: empty in a set-up shell.

    Raises
    ------
    JobError
        Where there is no such profile, or no daemon for it.
    """
    before: list[str] = []
    embedded = checkout / ".aiida"
    if "AIIDA_PATH" not in os.environ and profile is None and (embedded / "config.json").is_file():
        # The checkout's own profile, never by accident the one that the person has for other work.
        os.environ["AIIDA_PATH"] = str(embedded)
        before.append(f"AIIDA_PATH='{embedded}'")
    from aiida import load_profile
    from aiida.common.exceptions import ConfigurationError, MissingConfigurationError, ProfileConfigurationError
    from aiida.engine.daemon.client import get_daemon_client

    try:
        name = load_profile(profile).name
    except (ConfigurationError, MissingConfigurationError, ProfileConfigurationError) as error:
        raise JobError(f"no AiiDA profile to work with ({error}): set one up with `{SETUP}`") from None
    if profile:
        before.append(f"AIIDA_PROFILE={name}")
    _check_daemon(get_daemon_client(name), name)
    return " ".join([*before, ""])


def _check_daemon(client: Any, profile: str) -> None:
    """Raise a `JobError` where no daemon takes what is submitted."""
    if not client.profile.process_control_backend:
        raise JobError(f"the AiiDA profile {profile} has no broker, thus no daemon: set one up with `{SETUP}`")
    if not _daemon_lives(client):
        raise JobError(f"the daemon of the AiiDA profile {profile} does not run: start it with `{DAEMON_START}`")


def _daemon_lives(client: Any) -> bool:
    """Return whether there is a daemon; the file with its number stays behind when it is killed."""
    import psutil  # type: ignore[import-untyped]

    number = client.get_daemon_pid()
    return number is not None and psutil.pid_exists(number)


def load_code(label: str) -> AbstractCode:
    """Return the code of that label.

    Raises
    ------
    JobError
        Where there is none, or more than one.
    """
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    try:
        return orm.load_code(label)
    except (NotExistent, MultipleObjectsError) as error:
        raise JobError(f"the code {label} cannot be used ({error}): set it up with `{SETUP}`") from None


def wait_for(process: WorkChainNode, what: str) -> None:
    """Wait for a submitted work chain and print what it does.

    Raises
    ------
    JobError
        Where the daemon stopped.
    """
    from aiida.engine.daemon.client import get_daemon_client

    begin, shown, last = time.monotonic(), "", 0.0
    while not process.is_terminated:
        children = process.called
        current = max(children, key=lambda node: node.pk or 0) if children else process
        state = f"{current.process_label}<{current.pk}> {current.process_state.value if current.process_state else ''}"
        seconds = time.monotonic() - begin
        if state != shown or seconds - last > PATIENCE_SECONDS:
            print(f"    {seconds:5.1f} s  {what}: {state}", flush=True)
            shown, last = state, seconds
            if not _daemon_lives(get_daemon_client()):
                raise JobError(f"the daemon stopped: `{DAEMON_START}` lets {process.process_label}<{process.pk}> go on")
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - begin
    ended = process.process_state.value if process.process_state else ""
    print(f"    {seconds:5.1f} s  {what}: {process.process_label}<{process.pk}> {ended}")


def outputs_of(process: WorkChainNode, needed: str) -> Any:
    """Return the outputs; a work chain that did not do all as asked gives what it has, and a note is printed.

    Raises
    ------
    JobError
        Where the output `needed` is not there.
    """
    if needed not in process.outputs:
        raise JobError(
            f"{process.process_label}<{process.pk}> failed with exit status {process.exit_status} "
            f"({process.exit_message}): see `verdi process report {process.pk}`"
        )
    if process.exit_status:
        say(f"note: {process.process_label}<{process.pk}> ended with {process.exit_status}: {process.exit_message}")
    return process.outputs


def call(function: Any, *arguments: Any, **inputs: Any) -> tuple[Any, ProcessNode]:
    """Run a calculation function and return its results and node.

    Raises
    ------
    JobError
        Where its exit status is not zero.
    """
    results, node = function.run_get_node(*arguments, **inputs)
    if not node.is_finished_ok:
        raise JobError(f"{node.process_label}<{node.pk}>: {node.exit_message}")
    return results, node


def report_cache(processes: Iterable[ProcessNode]) -> None:
    """Say what was not computed again."""
    every = list(processes)
    cached = [str(node.process_label) for node in every if node.base.caching.is_created_from_cache]
    if cached:
        say(f"from the cache: {len(cached)} of {len(every)} calculations ({', '.join(cached)})")
