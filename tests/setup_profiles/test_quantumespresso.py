"""Family, computer and codes of Quantum ESPRESSO: made once, and what is missing is named."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest
from aiida import orm

pytest.importorskip("aiida_pseudo", reason="the extra qe")

FOLDER = Path(__file__).resolve().parents[2] / "setup_profiles"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("setup_quantumespresso", FOLDER / "quantumespresso.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def specification(script, tmp_path):
    """Two elements, in files that hold what aiida-pseudo reads, and a program that every system has."""
    for element, valence in (("Si", 4), ("C", 4)):
        text = f'<UPF version="2.0.1">\n<PP_HEADER element="{element}" z_valence="{valence}.0"/>\n</UPF>\n'
        (tmp_path / f"{element}.upf").write_text(text)
    return {
        **script.read_specification(),
        "family": "made-of-two",
        "folder": str(tmp_path),
        "pseudopotentials": {"Si": ["Si.upf", 20, 80], "C": ["C.upf", 30, 240]},
        "codes": {"pw": "true"},
    }


def test_everything_is_made_once(script, specification, aiida_profile, capsys):
    family = script.ensure_family(specification)
    assert set(family.elements) == {"Si", "C"}
    assert family.get_recommended_cutoffs(elements=("Si", "C"), unit="Ry") == pytest.approx((30, 240))
    computer = script.ensure_computer()
    assert computer.is_configured and computer.get_mpirun_command()[0] == "mpirun.openmpi"
    script.ensure_codes(specification, computer)
    code = orm.load_code("pw@localhost-mpi")
    assert code.default_calc_job_plugin == "quantumespresso.pw" and code.with_mpi
    assert "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1" in code.prepend_text
    assert "made the code" in capsys.readouterr().out
    assert script.ensure_family(specification).uuid == family.uuid
    assert script.ensure_computer().uuid == computer.uuid
    script.ensure_codes(specification, computer)
    assert "made" not in capsys.readouterr().out.replace("made-of-two", "")


def test_what_is_missing_is_named(script, specification, aiida_profile):
    lacking = {**specification, "family": "another", "pseudopotentials": {"Li": ["Li.upf", 40, 240]}}
    with pytest.raises(script.SetupError, match=r"has no Li.upf: sudo apt-get install -y quantum-espresso-data"):
        script.ensure_family(lacking)
    with pytest.raises(script.SetupError, match=r"no a-program-that-is-nowhere: sudo apt-get install -y"):
        script.ensure_codes({**specification, "codes": {"ph": "a-program-that-is-nowhere"}}, script.ensure_computer())


def test_the_table_has_sensible_cutoffs(script):
    for element, (name, wfc, rho) in script.read_specification()["pseudopotentials"].items():
        assert name.lower().startswith(element.lower())
        assert 20 <= wfc <= 60 and 4 * wfc - 5 <= rho <= 12.5 * wfc, element


def test_wrong_options_are_told():
    command = ["bash", FOLDER / "quantumespresso.sh", "--pw"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "unknown option --pw (allowed: --venv DIR" in result.stderr
