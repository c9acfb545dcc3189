"""Every code block of README.md runs, and what the README names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def block(language: str, text: str) -> str:
    """Return the one block of a language that holds a text."""
    (found,) = (code for name, code in BLOCKS if name == language and text in code)
    return found


def test_every_block_has_a_test():
    assert sorted(name for name, _ in BLOCKS) == ["bash", "bash", "bash", "bash", "python", "python"]


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


def run_in_shell(code, folder):
    """Run a block where there is no key of any service, and no service."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MP_", "PMG_", "MAPI_"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
    environment["MP_API_ENDPOINT"] = "http://127.0.0.1:9/"
    result = subprocess.run(
        ["bash", "-eu"], input=code, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result


def test_shell_example(tmp_path):
    run_in_shell(block("bash", "losiko database build"), tmp_path)
    from ase.io import read

    assert read(tmp_path / "relaxed.extxyz").get_chemical_formula() == "C2H6O"
    assert (tmp_path / "report.json").stat().st_size > 0


def test_crystal_example(tmp_path):
    result = run_in_shell(block("bash", "--known-crystals"), tmp_path)
    assert "no key of the Materials Project is set" in result.stderr
    assert re.search(r"^C +0-15 +crystal:diamond +C +Fd-3m ", result.stdout, re.MULTILINE)
    assert result.stdout.endswith("Next: ase gui relaxed.cif\n")
    from ase.io import read

    rough, relaxed = (read(tmp_path / f"{name}.cif") for name in ("rough", "relaxed"))
    nearest = [
        np.sort(atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms)), axis=1)[:, :4] for atoms in (rough, relaxed)
    ]
    assert np.abs(nearest[0] - 1.545).max() > 0.3
    assert np.abs(nearest[1] - 1.545).max() < 0.05


@pytest.mark.usefixtures("aiida_profile_clean")
def test_aiida_example(aiida_code_installed, aiida_localhost, capsys):
    program = Path(sys.executable).parent / "losiko"
    aiida_localhost.set_default_mpiprocs_per_machine(1)
    aiida_code_installed("losiko", None, "losiko.relax", computer=aiida_localhost, filepath_executable=str(program))
    exec(compile(block("python", "load_profile"), "README.md", "exec"), {})
    *rows, path = capsys.readouterr().out.strip().splitlines()
    assert len(rows) > 3
    assert all(re.fullmatch(r"\w+ \d+ <- g2:\S+ \d+ G2/97 molecules of ASE", row) for row in rows), rows
    assert path.startswith("[('output'")
    assert "'origin'" in path
