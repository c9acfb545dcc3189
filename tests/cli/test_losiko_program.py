"""The program as a whole: help, version, protocols, how fast it starts and what it imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from aiida_losiko import __version__
from aiida_losiko.core.protocols import load_protocol, protocol_names


def test_help_shows_every_command_and_the_exit_statuses(losiko):
    result = losiko("--help")
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ["database", "relax", "protocols", "Exit status", "143"])


@pytest.mark.parametrize(
    "command", [["database"], ["database", "build"], ["database", "info"], ["relax"], ["protocols"]]
)
def test_help_of_commands(losiko, command):
    result = losiko(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    if command != ["database"]:
        assert "Examples:" in result.stdout and f"losiko {' '.join(command)} " in result.stdout
    if command not in (["database"], ["protocols"]):
        assert "Angstrom" in result.stdout


def test_version(losiko):
    assert losiko("--version").stdout == f"losiko, version {__version__}\n"


def test_wrong_usage_is_status_2(losiko, tmp_path):
    assert losiko("relax", "x.xyz").exit_code == 2
    assert losiko("nonsense").exit_code == 2
    assert losiko("relax", "x.xyz", "--database", "d", "--output", "o", "--max-seconds", "soon").exit_code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["database", "build", "--help"], ["relax", "--help"], ["protocols"]])
def test_starting_imports_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from aiida_losiko.cli.losiko import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'ase', 'numpy', 'scipy', 'aiida', 'pymatgen', 'matplotlib', 'tqdm'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_protocols_lists_all_with_the_default_marked(losiko):
    lines = losiko("protocols").stdout.splitlines()
    assert [line.split()[0] for line in lines] == protocol_names()
    assert [line.endswith("(default)") for line in lines] == [name == "balanced" for name in protocol_names()]


def test_protocols_shows_one_as_yaml_that_reads_back(losiko):
    assert yaml.safe_load(losiko("protocols", "carbon").stdout) == load_protocol("carbon").to_dict()


def test_unknown_protocol_to_show(losiko):
    result = losiko("protocols", "carbo")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: unknown protocol 'carbo' (did you mean 'carbon'?)")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [("losiko relax --protocol si", "silica-interface"), ("losiko relax --set descriptor.r", "descriptor.r_cut=")],
)
def test_completion_in_the_shell(words, expected):
    import os

    environment = {**os.environ, "_LOSIKO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}
    code = "from aiida_losiko.cli.losiko import main; main(prog_name='losiko')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert expected in done.stdout
