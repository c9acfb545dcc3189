"""What the parsers make of the files of a job, for each exit status."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from ase.build import molecule

from aiida_losiko.core.structures import write_structures
from aiida_losiko.data import atoms_to_structure

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1\nRuntimeError: out of luck\n'


def row(name: str, atoms, status: str = "converged", **changes):
    """One structure of a report as the program writes it."""
    if status == "error":
        return {"label": name, "index": 0, "status": status, "converged": False, "error": "coincident atoms"}
    n = len(atoms)
    matches = {
        "distance": [0.01] * n,
        "source": ["g2:H2O", *["g2:CH4"] * (n - 1)],
        "atom_index": list(range(n)),
        "environment": list(range(n)),
        "out_of_reach": [True, *[None] * (n - 1)],
    }
    content = {"status": status, "converged": status == "converged", "loss": 0.1, "initial_loss": 1.0, "steps": 9}
    content |= {"evaluations": 11, "seconds": 0.1, "flags": [], "error": None, "loss_history": [1.0, 0.1]}
    return {"label": name, "index": 0, **content, "matches": matches, **changes}


@pytest.fixture
def write_files(tmp_path, make_molecules):
    """Write the files of a relaxation of some molecules with these statuses."""

    def write(statuses: dict[str, str], **report):
        molecules = make_molecules(*statuses)
        write_structures(tmp_path / "relaxed.npz", molecules)
        rows = [
            row(atoms.info["identifier"], atoms, status)
            for atoms, status in zip(molecules, statuses.values(), strict=True)
        ]
        document = {"format": "losiko-report/1", "version": "0.1.0", "protocol": "balanced", "structures": rows}
        (tmp_path / "report.json").write_text(json.dumps({**document, **report}))
        return tmp_path

    return write


def test_all_converged(parse_job, write_files, make_set, database_node):
    inputs = {"structures": make_set("H2O", "CH4"), "database": database_node}
    outputs, node = parse_job("losiko.relax", inputs, write_files({"H2O": "converged", "CH4": "converged"}))
    assert node.is_finished_ok, node.exit_message
    assert outputs["structures"].get_identifiers() == ["g2:H2O", "g2:CH4"]
    assert outputs["report"]["n_converged"] == 2
    assert outputs["report"]["protocol"] == "balanced"
    assert outputs["report"]["n_out_of_reach"] == 2
    assert outputs["matches"].get_array("offsets").tolist() == [0, 3, 8]
    assert set(outputs["matches"].get_array("sources").tolist()) == {"g2:H2O", "g2:CH4"}


def test_one_structure(parse_job, write_files, database_node):
    start = molecule("H2O")
    start.positions += 1.0
    inputs = {"structure": atoms_to_structure(start), "database": database_node}
    outputs, node = parse_job("losiko.relax", inputs, write_files({"H2O": "converged"}))
    assert node.is_finished_ok, node.exit_message
    assert "structures" not in outputs
    np.testing.assert_allclose(outputs["structure"].get_ase().positions, molecule("H2O").positions)


@pytest.mark.parametrize(
    ("statuses", "status", "message"),
    [
        (["max_seconds", "max_steps", "error"], 400, "1 of 3"),
        (["interrupted", "interrupted", "converged"], 400, "2 of 3"),
        (["converged", "max_steps", "error"], 410, "1 of 3"),
        (["converged", "stalled", "converged"], 410, "1 of 3"),
        (["converged", "converged", "error"], 420, r"1 of 3 .* g2:CO \(coincident atoms\)"),
    ],
)
def test_what_is_not_as_asked_for_comes_with_the_last_structures(
    parse_job, write_files, make_set, database_node, statuses, status, message
):
    names = ("H2O", "CH4", "CO")
    inputs = {"structures": make_set(*names), "database": database_node}
    folder = write_files(dict(zip(names, statuses, strict=True)))
    outputs, node = parse_job("losiko.relax", inputs, folder)
    assert node.exit_status == status
    assert re.search(message, node.exit_message)
    assert len(outputs["structures"]) == 3
    assert outputs["matches"].get_array("status").tolist() == statuses
    assert outputs["report"]["n_converged"] == statuses.count("converged")


@pytest.mark.parametrize(
    ("stderr", "scheduler", "status", "message"),
    [
        ("Error: species N is not in the database\n", None, 201, "rejected its input: species N is not"),
        ("Usage: losiko relax\n\nError: No such option: --datbase\n", None, 201, "No such option"),
        (TRACEBACK, None, 310, "RuntimeError: out of luck"),
        ("Killed\n", None, 301, "relaxed.npz and report.json and no error message: Killed"),
        ("", None, 301, "nothing on stderr"),
        ("", (120, "out of walltime"), 120, "out of walltime"),
    ],
)
def test_without_outputs(parse_job, tmp_path, make_set, database_node, stderr, scheduler, status, message):
    inputs = {"structures": make_set("H2O"), "database": database_node}
    outputs, node = parse_job("losiko.relax", inputs, tmp_path, stderr, scheduler)
    assert outputs == {}
    assert node.exit_status == status
    assert message in node.exit_message


def test_altered_outputs(parse_job, write_files, make_set, database_node):
    def parse():
        return parse_job("losiko.relax", {"structures": make_set("H2O"), "database": database_node}, folder)[1]

    folder = write_files({"H2O": "converged"})
    content = (folder / "relaxed.npz").read_bytes()
    (folder / "relaxed.npz").write_bytes(content[:-30])
    assert (parse().exit_status, "relaxed.npz" in parse().exit_message) == (302, True)
    (folder / "relaxed.npz").write_bytes(content)
    for text in ("{", "[]", '{"format": "losiko-report/9", "structures": []}'):
        (folder / "report.json").write_text(text)
        assert parse().exit_status == 302
        assert "report.json" in parse().exit_message
    write_files({"H2O": "converged"}, structures=[])
    assert "tells of 0 structures" in parse().exit_message


def test_a_flag_is_a_warning(parse_job, write_files, make_set, database_node, caplog):
    folder = write_files({"H2O": "converged"}, structures=[row("g2:H2O", molecule("H2O"), flags=["collapsed"])])
    outputs, node = parse_job("losiko.relax", {"structures": make_set("H2O"), "database": database_node}, folder)
    assert node.is_finished_ok
    assert "flag 'collapsed' for 1 structures: g2:H2O" in caplog.text
    assert outputs["report"]["flags"] == {"collapsed": ["g2:H2O"]}


def test_database(parse_job, tmp_path, make_set, small_database):
    small_database.save(tmp_path / "database.safetensors")
    names = ("CH3CH2OH", "CH3OH", "H2O", "CH4", "C2H6", "CH3OCH3", "H2CO")
    outputs, node = parse_job("losiko.describe", {"structures": make_set(*names)}, tmp_path)
    assert node.is_finished_ok, node.exit_message
    assert outputs["database"].n_environments == small_database.n_environments
    assert outputs["report"]["n_sources"] == 7


def test_database_without_some_structures(parse_job, tmp_path, make_set, small_database):
    small_database.save(tmp_path / "database.safetensors")
    names = ("CH3CH2OH", "CH3OH", "H2O", "CH4", "C2H6", "CH3OCH3", "H2CO", "CO")
    outputs, node = parse_job(
        "losiko.describe", {"structures": make_set(*names)}, tmp_path, "Error: g2:CO: coincident atoms\n"
    )
    assert node.exit_status == 420
    assert "1 of 8" in node.exit_message
    assert "g2:CO: coincident atoms" in node.exit_message
    assert outputs["database"].n_sources == 7


def test_broken_database(parse_job, tmp_path, make_set, small_database):
    path = tmp_path / "database.safetensors"
    small_database.save(path)
    path.write_bytes(path.read_bytes()[:-1])
    outputs, node = parse_job("losiko.describe", {"structures": make_set("H2O")}, tmp_path)
    assert (node.exit_status, outputs) == (302, {})
    assert "truncated" in node.exit_message
