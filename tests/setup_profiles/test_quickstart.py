"""The shell side of the first command: options, and errors that say what to do. The way through is run by hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "setup_profiles" / "quickstart.sh"


def quickstart(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", QUICKSTART, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help():
    result = quickstart("--help")
    assert result.returncode == 0
    for option in ("--qm9 PATH", "--venv DIR", "--no-run"):
        assert option in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frobnicate"], "error: unknown option --frobnicate (allowed: --qm9 PATH, --venv DIR, --no-run, --help)\n"),
        (["--qm9", "/nowhere"], "error: --qm9 /nowhere: no such file or folder\n"),
        (["--venv"], "error: --venv needs a path\n"),
        (["--venv", "/etc/ssl"], "error: /etc/ssl exists and is not a virtual environment"),
    ],
)
def test_bad_options(arguments, message):
    result = quickstart(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(message)


def a_machine_with(folder: Path, python3_11: str) -> dict[str, str]:
    """The environment of a machine whose only Python is the given shell script."""
    folder.mkdir()
    for name in ["bash", "cat", "dirname", "grep", "ls", "mkdir", "realpath", "sha256sum"]:
        (folder / name).symlink_to(shutil.which(name))
    for name in ("python3.11", "python3"):
        (folder / name).write_text(python3_11)
        (folder / name).chmod(0o755)
    return {"PATH": str(folder), "PYTHON": "", "HOME": str(folder)}


def test_no_python(tmp_path):
    machine = a_machine_with(tmp_path / "bin", "#!/bin/sh\nexit 127\n")
    result = quickstart("--no-run", "--venv", tmp_path / "env", **machine)
    assert result.returncode == 1
    assert re.search(r"error: no Python 3\.11 found; .* apt-get install -y python3\.11 python3\.11-venv", result.stderr)
    assert not (tmp_path / "env").exists()


def test_no_venv_module(tmp_path):
    no_ensurepip = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexit 0\n'
    machine = a_machine_with(tmp_path / "bin", no_ensurepip)
    result = quickstart("--no-run", "--venv", tmp_path / "env", **machine)
    assert result.returncode == 1
    assert "has no venv module; on Debian 12: sudo apt-get install -y python3.11-venv" in result.stderr


def test_no_network(tmp_path):
    # A port where nothing listens stands for a network that is down.
    away = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_NO_CACHE_DIR": "1"}
    away |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    result = quickstart("--no-run", "--venv", tmp_path / "env", **away)
    assert result.returncode == 1
    assert result.stderr.startswith("error: no connection to the package index while installing pip itself")
    assert result.stderr.count("\n") == 1


def test_an_environment_that_was_moved(tmp_path):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "activate").write_text("VIRTUAL_ENV=/elsewhere\n")
    result = quickstart("--no-run", "--venv", tmp_path / "env")
    assert result.returncode == 1
    assert "does not work (interrupted, moved or copied?): rm -r" in result.stderr


def test_constraints_fit_the_project():
    text = (ROOT / "constraints.txt").read_text()
    pins = dict(line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert "aiida-losiko" not in pins and not any("@" in line for line in text.splitlines())
    project = (ROOT / "pyproject.toml").read_text()
    required = re.findall(r'^    "([A-Za-z0-9-]+)[>=<]', project, flags=re.MULTILINE)
    assert len(required) > 20
    names = {name.lower().replace("_", "-") for name in pins}
    assert [name for name in required if name.lower() not in names] == []
