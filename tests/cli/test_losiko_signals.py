"""Signals sent to the real program: what there is is written, and the exit status says which signal it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write

SETTINGS = ("noise_variance=0.01", "noise_decay=1e-6", "max_steps=100000000", "fmax=0.0", "loss_tolerance=0.0")


@pytest.fixture
def interrupt(database, tmp_path):
    """Start a relaxation that would take hours (noise that hardly decays) and signal it some seconds after its start.

    Returns the exit status, stdout and stderr.
    """
    structures = [molecule(name) for name in ("CH3CH2OH", "CH3OCH3", "CH3OH")]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.2, seed=seed)
    write(tmp_path / "in.extxyz", structures)
    command = [sys.executable, "-m", "aiida_losiko.cli.losiko", "relax", "in.extxyz", "--database", str(database)]
    command += ["--output", "out.extxyz", "--report", "report.json"]
    command += [part for setting in SETTINGS for part in ("--set", f"relax.{setting}")]

    def run(number, seconds):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            assert line.startswith("Relaxing 3 structures"), line + process.stderr.read()
            time.sleep(seconds)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        return process.returncode, stdout, stderr

    return run


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_at_the_next_step_and_writes_what_there_is(interrupt, tmp_path, number, status):
    # On a busy machine the first step takes its time, and all but the motion holds without one.
    for seconds in (1, 5, 25):
        returncode, stdout, stderr = interrupt(number, seconds)
        assert returncode == status, stderr
        assert "Stopping after this step" in stderr
        assert "3 structures: 3 interrupted" in stdout
        relaxed = read(tmp_path / "out.extxyz", ":")
        starts = read(tmp_path / "in.extxyz", ":")
        assert [atoms.info["losiko_status"] for atoms in relaxed] == ["interrupted"] * 3
        document = json.loads((tmp_path / "report.json").read_text())
        assert document["signal"] == number
        assert [row["status"] for row in document["structures"]] == ["interrupted"] * 3
        assert {path.name for path in tmp_path.iterdir()} == {"in.extxyz", "out.extxyz", "report.json"}
        moved = max(np.abs(a.positions - b.positions).max() for a, b in zip(relaxed, starts, strict=True))
        if moved > 1e-3:
            break
    assert moved > 1e-3


@pytest.fixture
def in_processes(database, tmp_path):
    """Start three relaxations that would take hours in two processes; returns the program once these run."""
    write(tmp_path / "in.extxyz", [molecule(name) for name in ("CH3CH2OH", "CH3OCH3", "CH3OH")])
    command = [sys.executable, "-m", "aiida_losiko.cli.losiko", "relax", "in.extxyz", "--database", str(database)]
    command += ["--output", "out.extxyz", "--processes", "2"]
    command += [part for setting in (*SETTINGS, "batch_size=1") for part in ("--set", f"relax.{setting}")]
    # A group of its own, as a shell gives to what Ctrl-C is for.
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Relaxing 3 structures"), line + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def wait_until_gone(group):
    """Wait until no process of a group is left."""
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("there are processes left after a minute")


def test_a_signal_to_all_processes_stops_at_the_next_step(in_processes, tmp_path):
    time.sleep(1)
    os.killpg(in_processes.pid, signal.SIGINT)
    stdout, stderr = in_processes.communicate(timeout=60)
    assert in_processes.returncode == 130, stderr
    assert stderr.count("Stopping after this step") == 1 and "Traceback" not in stderr
    assert "3 structures: 3 interrupted" in stdout
    relaxed = read(tmp_path / "out.extxyz", ":")
    assert [atoms.info["losiko_status"] for atoms in relaxed] == ["interrupted"] * 3
    # The first batch is begun whenever the signal comes, the third has to wait for another to end.
    assert 1 <= sum("losiko_loss" in atoms.info for atoms in relaxed) <= 2
    wait_until_gone(in_processes.pid)


def test_a_killed_program_leaves_no_processes(in_processes, tmp_path):
    time.sleep(1)
    in_processes.kill()
    in_processes.wait()
    wait_until_gone(in_processes.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["in.extxyz"]


def test_exit_statuses_of_the_real_program(database, tmp_path):
    write(tmp_path / "good.xyz", molecule("H2O"))
    (tmp_path / "empty.xyz").touch()

    def status(*arguments):
        command = [sys.executable, "-m", "aiida_losiko.cli.losiko", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr.count("\n")

    relax = ["--database", str(database), "--output", "out.xyz", "--quiet"]
    assert status("relax", "good.xyz", *relax) == (0, 0)
    assert status("relax", "empty.xyz", *relax) == (1, 1)
    assert status("relax", "good.xyz", "empty.xyz", *relax) == (3, 1)
    assert status("relax", *relax)[0] == 2


def test_closed_streams_are_no_reason_to_fail(database, tmp_path):
    write(tmp_path / "good.xyz", molecule("H2O"))
    arguments = ["relax", "good.xyz", "--database", str(database), "--output", "out.xyz"]
    command = [sys.executable, "-m", "aiida_losiko.cli.losiko", *arguments]
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], cwd=tmp_path, check=False)
    assert done.returncode == 0 and (tmp_path / "out.xyz").is_file()
