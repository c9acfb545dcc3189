#!/usr/bin/env python
"""Set up, stop or remove the embedded AiiDA profile of this checkout.

The profile lies in an AiiDA folder of its own (``.aiida`` in the checkout), with SQLite storage and the ZeroMQ broker
that comes with aiida-core, so no service is needed and no other profile is read or changed. Running it again keeps
what is there: profile, computer and code are recognised, the daemon is restarted only if the installed code changed.

Run it with the Python of the environment that aiida-losiko is installed in::

    python setup_profiles/embedded.py                # set up, start the daemon
    python setup_profiles/embedded.py --stop         # stop the daemon
    python setup_profiles/embedded.py --remove       # stop it and delete the profile with all its results
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil
    from aiida import orm
    from aiida.manage.configuration.profile import Profile

HERE = Path(__file__).resolve().parent
MARKER = "made-by-aiida-losiko"
ACTIVATE_MARKER = "# aiida-losiko: the embedded profile"
OPTIONS = {
    "runner.poll.interval": 1,
    # The default of 2 s is not enough for a daemon that starts on a busy machine.
    "daemon.timeout": 30,
    "caching.enabled_for": ["aiida.calculations:losiko.*"],
}


class SetupError(Exception):
    """A problem that the person can mend; its text is one line."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"==> {text}", flush=True)


def main() -> int:
    """Run the command line program; returns the exit status."""
    arguments = parse_arguments()
    try:
        folder = use_aiida_folder(arguments.aiida_path)
        if arguments.remove:
            remove(folder, arguments.profile, arguments.yes)
        elif arguments.stop:
            stop_daemon(folder, arguments.profile)
        else:
            set_up(folder, arguments)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    checkout = HERE.parent
    parser.add_argument(
        "--aiida-path",
        type=Path,
        default=checkout / ".aiida",
        metavar="DIR",
        help="the AiiDA folder (default: .aiida in the checkout)",
    )
    parser.add_argument("--profile", default="losiko", metavar="NAME", help="name of the profile (default: losiko)")
    parser.add_argument("--losiko", type=Path, metavar="FILE", help="the losiko program (default: that of this Python)")
    parser.add_argument("--activate", type=Path, metavar="FILE", help="activate script that is to set AIIDA_PATH")
    parser.add_argument("--no-daemon", action="store_true", help="do not start the daemon")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--stop", action="store_true", help="stop the daemon and leave the rest")
    action.add_argument("--remove", action="store_true", help="stop the daemon and delete the profile and its results")
    parser.add_argument("--yes", action="store_true", help="with --remove: do not ask")
    return parser.parse_args()


def use_aiida_folder(path: Path) -> Path:
    """Make this process and its children use the AiiDA folder `path`, whatever the environment says.

    Must run before the first import of aiida, which otherwise creates ``~/.aiida``.
    """
    if "aiida" in sys.modules:
        raise SetupError("aiida was imported before its folder was chosen: run this script on its own")
    path = path.expanduser().resolve()
    if ":" in str(path):
        raise SetupError(f"the path {path} holds a colon, which AIIDA_PATH cannot take: move the checkout elsewhere")
    # AiiDA appends .aiida to a folder of any other name.
    folder = path if path.name == ".aiida" else path / ".aiida"
    os.environ["AIIDA_PATH"] = str(folder)
    for name in ("AIIDA_PROFILE", "PYTHONPATH"):
        os.environ.pop(name, None)
    # What the daemon's workers run in: this environment, not one that happens to be active in the shell.
    os.environ["VIRTUAL_ENV"] = sys.prefix
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # The daemon's sockets lie in the temporary folder, and a socket's path may have 107 bytes at most.
    if len(tempfile.gettempdir()) > 60:
        os.environ["TMPDIR"] = "/tmp"
    warnings.filterwarnings("ignore", message="Creating AiiDA configuration folder")
    return folder


def set_up(folder: Path, arguments: argparse.Namespace) -> None:
    """Bring the profile, computer, code and daemon to where they should be."""
    program = arguments.losiko or Path(sys.executable).parent / "losiko"
    program = Path(os.path.abspath(program))  # not resolved: a link in an environment is what should run  # noqa: PTH100
    if not os.access(program, os.X_OK):
        raise SetupError(f"{program} is not an executable file: install aiida-losiko, or give --losiko FILE")
    profile = ensure_profile(folder, arguments.profile)
    ensure_code(ensure_computer(folder, arguments.profile), program)
    if arguments.activate:
        add_to_activate(arguments.activate, folder)
    if not arguments.no_daemon:
        ensure_daemon(folder, profile.name)


# -- profile, computer, code -------------------------------------------------------------------------------------------


def ensure_profile(folder: Path, name: str) -> Profile:
    """Load the profile `name`, made first if need be."""
    folder_is_new = not (folder / "config.json").exists()
    from aiida.manage.configuration import create_profile, get_config, load_profile
    from aiida.plugins import BrokerFactory

    config = get_config(create=True)
    if name in config.profile_names:
        check_place(folder, config.get_profile(name))
        say(f"the AiiDA profile {name} exists in {folder}")
    else:
        if folder_is_new:
            (folder / MARKER).write_text("embedded.py --remove may delete this folder\n")
        broker = "core.zeromq"
        create_profile(
            config,
            name=name,
            email="losiko@localhost",
            storage_backend="core.sqlite_dos",
            storage_config={},
            broker_backend=broker,
            broker_config=BrokerFactory(broker).get_default_config(),
        )
        config.set_default_profile(name, overwrite=False)
        say(f"made the AiiDA profile {name} in {folder}")
    for option, value in OPTIONS.items():
        config.set_option(option, value, scope=name)
    config.store()
    return load_profile(name, allow_switch=True)


def check_place(folder: Path, profile: Profile) -> None:
    """Refuse a profile whose storage lies elsewhere: a checkout that was moved, or copied with its profile."""
    storage = Path(str(profile.storage_config.get("filepath", folder)))
    if not storage.resolve().is_relative_to(folder):
        raise SetupError(
            f"the profile in {folder} was made at another place (its data: {storage}): delete {folder} and run again, "
            "or move the checkout back"
        )


def read_template(name: str, **values: str) -> dict[str, Any]:
    """Return the mapping in the YAML file `name` with ``{...}`` in its texts filled in."""
    import yaml

    content = yaml.safe_load((HERE / name).read_text())
    for key, text in content.items():
        for field, value in values.items():
            if isinstance(text, str):
                content[key] = text = text.replace("{" + field + "}", value)
    return dict(content)


def ensure_computer(folder: Path, profile: str) -> orm.Computer:
    """Return the configured computer of ``computer-localhost.yaml``."""
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    spec = read_template("computer-localhost.yaml", work_dir=str(folder / "scratch" / profile))
    try:
        computer = orm.load_computer(spec["label"])
    except NotExistent:
        computer = orm.Computer(
            label=spec["label"],
            hostname=spec["hostname"],
            description=spec["description"],
            transport_type=spec["transport"],
            scheduler_type=spec["scheduler"],
            workdir=spec["work_dir"],
        )
        computer.set_shebang(spec["shebang"])
        computer.set_mpirun_command(shlex.split(spec["mpirun_command"]))
        computer.set_default_mpiprocs_per_machine(spec["mpiprocs_per_machine"])
        computer.set_prepend_text(spec["prepend_text"])
        computer.set_append_text(spec["append_text"])
        # Nobody else shares this machine's "queue": ask it often.
        computer.set_minimum_job_poll_interval(0.5)
        computer.store()
        say(f"made the computer {computer.label}")
    if not computer.is_configured:
        computer.configure(safe_interval=0)
    return computer


def ensure_code(computer: orm.Computer, program: Path) -> orm.InstalledCode:
    """Return the code of ``code-losiko.yaml`` for `program`; one for another program is kept under another label."""
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    spec = read_template("code-losiko.yaml", filepath_executable=str(program))
    spec.pop("computer")
    full_label = f"{spec['label']}@{computer.label}"
    try:
        code = orm.load_code(full_label)
    except NotExistent:
        pass
    else:
        if Path(code.filepath_executable) == program:
            return code
        # What a code runs cannot be changed once stored, and results point to it.
        code.label = f"{spec['label']}-{code.pk}"
        code.is_hidden = True
        say(f"the losiko program has moved: the code of {code.filepath_executable} is now {code.label}")
    code = orm.InstalledCode(computer=computer, **spec).store()
    say(f"made the code {full_label} ({program})")
    return code


def add_to_activate(activate: Path, folder: Path) -> None:
    """Let the `activate` script of a virtual environment set AIIDA_PATH, and its ``deactivate`` put it back; once."""
    text = activate.read_text()
    kept = text.split(f"\n{ACTIVATE_MARKER}\n", 1)[0]
    kept = "".join(line for line in kept.splitlines(keepends=True) if "_LOSIKO_OLD_AIIDA_PATH" not in line)
    restore = (
        '    if [ -n "${_LOSIKO_OLD_AIIDA_PATH+set}" ] ; then AIIDA_PATH="$_LOSIKO_OLD_AIIDA_PATH"; export AIIDA_PATH; '
        '[ -n "$AIIDA_PATH" ] || unset AIIDA_PATH; unset _LOSIKO_OLD_AIIDA_PATH; fi\n'
    )
    kept = kept.replace("deactivate () {\n", f"deactivate () {{\n{restore}", 1)
    added = (
        f"\n{ACTIVATE_MARKER}\n"
        f'_LOSIKO_OLD_AIIDA_PATH="${{AIIDA_PATH-}}"\nexport AIIDA_PATH={shlex.quote(str(folder))}\n'
    )
    if kept.rstrip("\n") + "\n" + added != text:
        temporary = activate.with_name(activate.name + ".losiko-new")
        temporary.write_text(kept.rstrip("\n") + "\n" + added)
        shutil.copymode(activate, temporary)
        temporary.replace(activate)
        say(f"{activate} now sets AIIDA_PATH")


# -- daemon ------------------------------------------------------------------------------------------------------------


def verdi(profile: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's ``verdi -p PROFILE ARGUMENTS``."""
    program = Path(sys.executable).parent / "verdi"
    return subprocess.run([program, "-p", profile, *arguments], text=True, capture_output=True, check=False)


def daemon_processes(folder: Path, profile: str) -> list[psutil.Process]:
    """Return the running daemon, broker and worker processes of this profile in this folder, leftovers included."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if not ({"-p", profile, "daemon"} <= set(command) and {"worker", "broker", "start-circus"} & set(command)):
                continue
            if Path(process.environ().get("AIIDA_PATH", "")).resolve() == folder:
                found.append(process)
        except psutil.Error:
            continue
    return found


def fingerprint() -> str:
    """Return a checksum of what a daemon has in memory: this package's files and the versions of all installed ones."""
    digest = hashlib.sha256(f"{sys.prefix} {sys.version}".encode())
    specification = importlib.util.find_spec("aiida_losiko")
    for place in (specification.submodule_search_locations or []) if specification else []:
        for path in sorted(Path(place).rglob("*")):
            if path.suffix in {".py", ".yaml"}:
                digest.update(str(path.relative_to(place)).encode() + path.read_bytes())
    versions = sorted(f"{d.metadata['Name']} {d.version}" for d in importlib.metadata.distributions())
    digest.update("\n".join(versions).encode())
    return digest.hexdigest()


def ensure_daemon(folder: Path, profile: str) -> None:
    """Start the daemon if it does not run, restart it if the code has changed since it was started."""
    from aiida.engine.daemon.client import get_daemon_client

    note = folder / "daemon" / f"losiko-{profile}.sha256"
    now = fingerprint()
    # The file that holds the PID stays when a daemon is killed: ask the processes too.
    if get_daemon_client(profile).get_daemon_pid() in {process.pid for process in daemon_processes(folder, profile)}:
        if note.exists() and note.read_text().strip() == now:
            say("the daemon is running")
            return
        say("the code has changed: restarting the daemon")
    stop_daemon(folder, profile, quiet=True)
    result = verdi(profile, "daemon", "start", "1")
    if result.returncode != 0:
        last = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()][-1:]
        raise SetupError(f"the daemon did not start ({' '.join(last)}): see the logs in {folder / 'daemon' / 'log'}")
    note.write_text(now + "\n")
    say("started the daemon")


def stop_daemon(folder: Path, profile: str, quiet: bool = False) -> None:
    """Stop the daemon, and processes that a killed one left behind (they would go on taking tasks)."""
    import psutil

    if (folder / "config.json").exists():
        verdi(profile, "daemon", "stop")
    leftovers = daemon_processes(folder, profile)
    for process in leftovers:
        process.terminate()
    _, alive = psutil.wait_procs(leftovers, timeout=10)
    for process in alive:
        process.kill()
    if not quiet:
        say(f"the daemon of the profile {profile} in {folder} is stopped")


def remove(folder: Path, profile: str, sure: bool) -> None:
    """Stop the daemon and delete the AiiDA folder that this script made."""
    if not folder.exists():
        say(f"there is no {folder}")
        return
    if not (folder / MARKER).exists():
        raise SetupError(f"{folder} was not made by this script: use verdi profile delete {profile}")
    if not sure:
        if not sys.stdin.isatty():
            raise SetupError(f"this deletes {folder} and every result in it: add --yes")
        if input(f"Delete {folder} and every result in it? [y/N] ").strip().lower() not in {"y", "yes"}:
            say("nothing was deleted")
            return
    stop_daemon(folder, profile)
    shutil.rmtree(folder)
    say(f"deleted {folder}")


if __name__ == "__main__":
    sys.exit(main())
