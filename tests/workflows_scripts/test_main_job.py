"""The main job as far as it goes without a daemon; with one it is run by the AiiDA tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule

SCRIPT = Path(__file__).parents[2] / "workflows" / "main_job.py"


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("main_job", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments: str, aiida_path: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "AIIDA_PATH": str(aiida_path)}
    environment.pop("AIIDA_PROFILE", None)
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-held-out", "0"], "at least 1"),
        (["--seed", "-3"], "whole number from 0"),
        (["--displacement", "nan"], "0 to 10 Angstrom"),
        (["--displacement", "-0.1"], "0 to 10 Angstrom"),
    ],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_profile_the_setup_is_named(tmp_path):
    done = run(aiida_path=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: no AiiDA profile") and "setup_profiles/quickstart.sh" in last
    assert "Traceback" not in done.stderr


def test_stopped_daemon_is_named(tmp_path):
    """A profile as the set-up makes it, whose daemon does not run."""
    folder = tmp_path / ".aiida"
    folder.mkdir()
    profile = {
        "PROFILE_UUID": "0" * 32,
        "default_user_email": "someone@localhost",
        "storage": {"backend": "core.sqlite_dos", "config": {"filepath": str(folder / "storage")}},
        "process_control": {"backend": "core.zeromq", "config": {}},
        "options": {},
    }
    content = {
        "CONFIG_VERSION": {"CURRENT": 10, "OLDEST_COMPATIBLE": 9},
        "default_profile": "losiko",
        "profiles": {"losiko": profile},
    }
    (folder / "config.json").write_text(json.dumps(content))
    done = run(aiida_path=folder)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "Error: the daemon of the AiiDA profile losiko does not run: start it with `verdi daemon start`"
    )


def test_table_ends_with_means(job):
    row = {"molecule": "g2:CH4", "formula": "CH4", "atoms": 5, "loss": 1e-3, "out": "0 of 5", "steps": 3}
    row |= {"status": "converged", "before": 0.1, "after": 0.02, "seconds": None}
    lines = job.table([row, {**row, "molecule": "g2:CO", "after": 0.04}]).splitlines()
    assert lines[-3].split()[:5] == ["g2:CH4", "CH4", "5", "0.100", "0.020"]
    assert lines[-1].split()[:5] == ["mean", "-", "-", "0.100", "0.030"]


def test_a_molecule_that_fell_apart_is_told_in_the_table(job):
    class Arrays(dict):
        get_array = dict.__getitem__

    class Report(dict):
        def get_dict(self):
            return dict(self)

    molecules = [molecule("H2O"), molecule("OH")]
    for atoms, name in zip(molecules, ("whole", "broken"), strict=True):
        atoms.info["identifier"] = name
    numbers = {key: np.array([0.1, 0.2]) for key in ("loss", "steps")}
    matches = Arrays(
        offsets=np.array([0, 3, 5]),
        out_of_reach=np.array([0, 1, 0, -1, -1]),
        status=np.array(["converged", "converged"]),
        **numbers,
    )
    report = Report(flags={"fragmented": ["broken"]}, seconds=2.0)
    compared = {"rmsd": Arrays(rmsd=np.array([0.1, 0.9]))}
    true = type("Set", (), {"get_atoms": lambda self: molecules, "__len__": lambda self: 2})()
    rows = job.table_rows(true, compared, compared, SimpleNamespace(matches=matches, report=report))
    assert [row["status"] for row in rows] == ["converged", "converged, fragmented"]
    assert [row["out"] for row in rows] == ["1 of 3", "0 of 2"]
    assert "converged, fragmented" in job.table(rows)
