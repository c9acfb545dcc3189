"""Every code block of README.md runs, and what the README names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def block(language: str, text: str) -> str:
    """Return the one block of a language that holds a text."""
    (found,) = (code for name, code in BLOCKS if name == language and text in code)
    return found


def test_every_block_has_a_test():
    assert sorted(name for name, _ in BLOCKS) == ["bash", "bash", "bash", "python", "python"]


def test_the_commands_are_files():
    commands = re.findall(r"^(?:bash|python) (\S+)", "\n".join(code for name, code in BLOCKS if name == "bash"), re.M)
    assert commands == ["setup_profiles/quickstart.sh", "tests/run.sh"]
    named = (
        commands
        + re.findall(r"\]\(([\w./]+)\)", README)
        + re.findall(r"\b(?:workflows|setup_profiles)/\w+\.py", README)
    )
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert "bash tests/run.sh" in (ROOT / ".ci" / "run").read_text()


def test_pictures_are_small():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert [path for path in pictures if (ROOT / path).stat().st_size > 150_000] == []


def test_python_example(capsys):
    exec(compile(block("python", "SoapPowerSpectrum"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("converged after")
    before, after = map(float, re.search(r"RMSD ([\d.]+) -> ([\d.]+) Angstrom", printed).groups())
    assert before > 0.1
    assert after < before / 2
    assert "g2:C6H6" not in printed


def test_shell_example(tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    code = block("bash", "losiko relax")
    result = subprocess.run(
        ["bash", "-eu"], input=code, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    from ase.io import read

    assert read(tmp_path / "relaxed.extxyz").get_chemical_formula() == "C2H6O"
    assert (tmp_path / "report.json").stat().st_size > 0


@pytest.mark.usefixtures("aiida_profile_clean")
def test_aiida_example(aiida_code_installed, aiida_localhost, capsys):
    program = Path(sys.executable).parent / "losiko"
    aiida_localhost.set_default_mpiprocs_per_machine(1)
    aiida_code_installed("losiko", "losiko.relax", computer=aiida_localhost, filepath_executable=str(program))
    exec(compile(block("python", "load_profile"), "README.md", "exec"), {})
    *rows, path = capsys.readouterr().out.strip().splitlines()
    assert len(rows) > 3
    assert all(re.fullmatch(r"\w+ \d+ <- g2:\S+ \d+ G2/97 molecules of ASE", row) for row in rows), rows
    assert path.startswith("[('output'")
    assert "'origin'" in path
