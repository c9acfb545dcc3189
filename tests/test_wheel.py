"""The wheel holds the package and nothing else."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling is in the tests extra")
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation, so that no network is needed.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_holds_the_package_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"aiida_losiko", "aiida_losiko-0.1.0.dist-info"}


def test_holds_every_file_of_the_package(wheel):
    package = ROOT / "aiida_losiko"
    kept = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert any(name.endswith(".yaml") for name in kept)
    assert {name for name in wheel.namelist() if name.startswith("aiida_losiko/")} == kept


def test_metadata(wheel):
    metadata = wheel.read("aiida_losiko-0.1.0.dist-info/METADATA").decode()
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "\nRequires-Dist: ase<3.27,>=3.26\n" in metadata
    assert "aiida_losiko-0.1.0.dist-info/licenses/LICENSE" in wheel.namelist()


def test_entry_points_point_into_the_wheel(wheel):
    parser = configparser.ConfigParser(delimiters=["="])
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(wheel.read("aiida_losiko-0.1.0.dist-info/entry_points.txt").decode())
    names = set(wheel.namelist())
    targets = [target for section in parser.sections() for target in parser[section].values()]
    assert len(targets) >= 13
    missing = [t for t in targets if t.split(":")[0].replace(".", "/") + ".py" not in names]
    assert missing == []
