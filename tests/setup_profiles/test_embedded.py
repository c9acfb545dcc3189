"""The embedded profile: made in its own folder, recognised when it is there, and nothing else touched."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "setup_profiles" / "embedded.py"
PROBE = """
from aiida import load_profile, orm
from aiida.manage import get_config
profile = load_profile()
config = get_config()
code = orm.load_code("losiko@localhost")
computer = code.computer
print(profile.name, profile.storage_backend, profile.process_control_backend)
print(config.get_option("caching.enabled_for", scope=profile.name))
print(computer.transport_type, computer.scheduler_type, computer.get_minimum_job_poll_interval())
print(computer.is_configured, computer.get_default_mpiprocs_per_machine())
print(code.filepath_executable, code.default_calc_job_plugin)
print(orm.QueryBuilder().append(orm.Computer).count(), orm.QueryBuilder().append(orm.Code).count())
"""


@pytest.fixture
def place(tmp_path):
    """A home, and an AiiDA folder at a path with a blank and too long for a socket."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home", tmp_path / ("a long folder " * 8).strip() / ".aiida"


def run(arguments: list[str | Path], home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIIDA")}
    environment |= {"HOME": str(home), "AIIDA_PROFILE": "of-the-person", **more}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, cwd=home
    )


def embedded(home: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([SCRIPT, "--aiida-path", folder, *arguments], home)


def probe(home: Path, folder: Path) -> list[str]:
    result = run(["-c", PROBE], home, AIIDA_PATH=str(folder), AIIDA_PROFILE="losiko")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def load_script():
    specification = importlib.util.spec_from_file_location("embedded", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_set_up_twice_and_remove(place):
    home, folder = place
    result = embedded(home, folder, "--no-daemon")
    assert result.returncode == 0, result.stderr
    program = Path(sys.executable).parent / "losiko"
    expected = [
        "losiko core.sqlite_dos core.zeromq",
        "['aiida.calculations:losiko.*']",
        "core.local core.direct 0.5",
        "True 1",
        f"{program} losiko.relax",
        "1 1",
    ]
    assert probe(home, folder) == expected

    again = embedded(home, folder, "--no-daemon")
    assert again.returncode == 0, again.stderr
    assert "exists" in again.stdout and "made" not in again.stdout
    assert probe(home, folder) == expected

    # The program of another environment: a new code under the same name, the old one kept.
    other = folder.parent / "losiko"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    moved = embedded(home, folder, "--no-daemon", "--losiko", str(other))
    assert "has moved" in moved.stdout, moved.stderr
    assert probe(home, folder)[-2:] == [f"{other} losiko.relax", "1 2"]

    refused = embedded(home, folder, "--remove")
    assert refused.returncode == 1 and "add --yes" in refused.stderr and folder.exists()
    assert embedded(home, folder, "--remove", "--yes").returncode == 0
    assert not folder.exists()
    assert list(home.iterdir()) == []


def test_daemon_starts_once_and_stops(place):
    home, folder = place
    try:
        first = embedded(home, folder)
        assert first.returncode == 0, first.stderr
        pid = (folder / "daemon" / "circus-losiko.pid").read_text()
        second = embedded(home, folder)
        assert "the daemon is running" in second.stdout, second.stderr
        assert (folder / "daemon" / "circus-losiko.pid").read_text() == pid

        # As after an update of the package.
        (folder / "daemon" / "losiko-losiko.sha256").write_text("other code\n")
        assert "restarting" in embedded(home, folder).stdout

        # A daemon that was killed leaves its worker and its PID file.
        pid = (folder / "daemon" / "circus-losiko.pid").read_text()
        os.kill(int(pid), 9)
        third = embedded(home, folder)
        assert "started the daemon" in third.stdout, third.stderr
        assert count_workers(folder) == 1
    finally:
        stopped = embedded(home, folder, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert count_workers(folder) == 0
    assert list(home.iterdir()) == []


def count_workers(folder: Path) -> int:
    return sum("worker" in process.cmdline() for process in load_script().daemon_processes(folder, "losiko"))


def test_refuses_a_profile_made_elsewhere(place):
    home, folder = place
    assert embedded(home, folder, "--no-daemon").returncode == 0
    moved = folder.parent.with_name("moved") / ".aiida"
    folder.parent.rename(moved.parent)
    result = embedded(home, moved, "--no-daemon")
    assert result.returncode == 1
    assert result.stderr.startswith("error: the profile in") and "was made at another place" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--aiida-path", "/tmp/a:b"], "holds a colon"),
        (["--losiko", "/nowhere/losiko"], "/nowhere/losiko is not an executable file"),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, message):
    result = run([SCRIPT, "--aiida-path", tmp_path, *arguments], tmp_path)
    assert result.returncode == 1
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_does_not_delete_what_it_did_not_make(tmp_path):
    folder = tmp_path / ".aiida"
    folder.mkdir()
    result = run([SCRIPT, "--aiida-path", folder, "--remove", "--yes"], tmp_path)
    assert result.returncode == 1 and "was not made by this script" in result.stderr
    assert folder.exists()


def test_activate_sets_the_folder_and_deactivate_puts_it_back(tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    activate = tmp_path / "env" / "bin" / "activate"
    folder = tmp_path / "it's here" / ".aiida"
    script = load_script()
    script.add_to_activate(activate, tmp_path / "earlier" / ".aiida")
    script.add_to_activate(activate, folder)
    text = activate.read_text()
    script.add_to_activate(activate, folder)
    assert activate.read_text() == text
    assert text.count("export AIIDA_PATH=") == 1

    def seen(before: str) -> list[str]:
        show = 'echo "${AIIDA_PATH-unset}"'
        line = f'{before}; . "{activate}"; {show}; . "{activate}"; deactivate; {show}'
        return subprocess.run(["bash", "-euc", line], capture_output=True, text=True, check=True).stdout.split("\n")[:2]

    assert seen("unset AIIDA_PATH") == [str(folder), "unset"]
    assert seen("export AIIDA_PATH=/mine") == [str(folder), "/mine"]
