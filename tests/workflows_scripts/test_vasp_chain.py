"""The launch script of the VASP chain as far as it goes without a daemon."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from aiida.orm import load_code

from aiida_losiko.tools.launching import JobError

SCRIPT = Path(__file__).parents[2] / "workflows" / "vasp_chain.py"


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("vasp_chain", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--family", "PBE.54"], "--family goes with --vasp"),
        (["--displacement", "0"], "above 0, to 1 Angstrom"),
        (["--displacement", "nan"], "above 0, to 1 Angstrom"),
        (["--seed", "-3"], "whole number from 0"),
        (["--processors", "0"], "1 or more"),
    ],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_stand_in_is_set_up_once_and_said_to_mean_nothing(job, aiida_profile, aiida_localhost, tmp_path, capsys):
    options = job.parse_arguments(["--output", str(tmp_path)])
    code, settings = job.find_vasp(options)
    assert "the numbers mean nothing" in capsys.readouterr().out
    assert "the numbers mean nothing" in job.note(options)
    assert code.filepath_executable.name == "mock-vasp" and settings["potential_family"] == "stand-in"
    again, _ = job.find_vasp(options)
    assert again.uuid == code.uuid
    with pytest.raises(JobError, match="was made for another --output"):
        job.find_vasp(job.parse_arguments(["--output", str(tmp_path / "other")]))
    # The real one has its own potentials.
    real = job.parse_arguments(["--vasp", f"{job.STAND_IN}@localhost", "--family", "PBE.54"])
    assert job.find_vasp(real) == (load_code(code.pk), {"potential_family": "PBE.54"})
    assert job.note(real) == ""


def test_the_start_is_displaced_and_its_graph_can_be_drawn(job, aiida_profile, tmp_path):
    start, entries = job.displaced(0.1, 3)
    (crystal,) = (atoms for atoms in entries if atoms.info["identifier"] == job.HOST)
    moved = np.linalg.norm(start.get_ase(0).positions - crystal.positions, axis=1)
    assert 0.05 < moved.max() < 0.5 and len(entries) > 5
    if shutil.which("dot") is None:
        pytest.skip("Graphviz draws the graph: sudo apt-get install graphviz")
    picture = tmp_path / "graph.png"
    job.draw_provenance(start.creator, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.png"]
