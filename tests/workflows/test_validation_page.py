"""The code of docs/validation.md runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("aiida_profile_clean")
def test_the_page(capsys, monkeypatch, tmp_path, aiida_code_installed, aiida_localhost):
    pytest.importorskip("tblite", reason="the extra xtb")
    monkeypatch.chdir(tmp_path)
    program = Path(sys.executable).parent / "losiko"
    aiida_localhost.set_default_mpiprocs_per_machine(1)
    aiida_code_installed("losiko", None, "losiko.relax", computer=aiida_localhost, filepath_executable=str(program))
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "validation.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Energies of xtb above its minimum" in printed
    # Most of the energy of the displacement is won back for each of them.
    rows = names["table"]["rows"]
    assert len(rows["recovered"]) == 5 and min(rows["recovered"]) > 0.5 and all(rows["converged"])
    assert {path.suffix for path in tmp_path.iterdir()} >= {".png"}
