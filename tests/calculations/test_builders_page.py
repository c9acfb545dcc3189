"""The code of docs/builders.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "builders.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("aiida_profile_clean")
def test_the_page(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    names: dict = {}
    for block in blocks:
        exec(compile(block, "builders.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed[:3]) == ["Co 3a R-3m", "Li 3b R-3m", "O 6c R-3m"]
    assert re.fullmatch(r"LiCoO2:H_Li-0 \d+ 112", printed[3])
    assert printed[4].startswith("Si:slab-0_0_1-0|random:O40Si20-seed0-0:layer-0.00-")
    assert len(names["carbon"]) == 20
    assert len(names["amorphous"]) == 96 and names["amorphous"].info["glass"]["accepted"] > 0
    assert names["suboxide"].get_chemical_formula() == "O38Si64"
    # the numbers of the text
    from ase.geometry import minkowski_reduce

    apart = [
        min(minkowski_reduce(names[name].cell.array)[0] ** 2 @ [1, 1, 1]) ** 0.5 for name in ("proton", "no_lithium")
    ]
    assert [round(value, 1) for value in apart] == [9.8, 8.4]
    assert 0 < len(names["start"].constraints[0].index) < len(names["start"])
    assert names["protons"].get_identifiers() == ["LiCoO2:H_Li-0"]
    assert names["starts"].get_ase(0).constraints
