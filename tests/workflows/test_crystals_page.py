"""The code of docs/aiida-crystals.md runs as it stands, against the local service."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ase.build import bulk

from aiida_losiko.core.metrics import density

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "aiida-crystals.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("aiida_profile_clean")
def test_the_page(capsys, monkeypatch, materials_project, aiida_code_installed, aiida_localhost):
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    program = Path(sys.executable).parent / "losiko"
    aiida_localhost.set_default_mpiprocs_per_machine(1)
    aiida_code_installed("losiko", None, "losiko.relax", computer=aiida_localhost, filepath_executable=str(program))
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, "aiida-crystals.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    identifier, hull, version = printed[0].split()
    assert re.fullmatch(r"mp-\w+", identifier) and 0 <= float(hull) <= 0.3 and version == materials_project.db_version
    assert int(printed[1]) > 0
    assert printed[2].startswith("['C-Si-O@2026-11-20/0.1eV'] {")
    assert printed[3].split(" ", 1)[0].startswith("crystal:")
    assert "'merge', 'origin', 'query'" in printed[4]
    # each database draws the starts to its own crystal
    graphite, diamond = map(float, printed[5].split())
    assert diamond == pytest.approx(density(bulk("C")), rel=0.05)
    assert graphite != pytest.approx(diamond, rel=0.02)
