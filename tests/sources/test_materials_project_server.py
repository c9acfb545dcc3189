"""The local Materials Project itself: its table, and that it runs by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..servers import materials_project as program
from ..servers.materials_project_documents import TABLE, read_entries
from .materials_project_service import ask, names


def test_the_table_holds_the_crystals_that_it_says():
    from emmet.core.summary import SummaryDoc
    from pymatgen.core import Structure
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    summaries, _ = read_entries()
    assert len({document["material_id"] for document in summaries}) == len(summaries) >= 12
    assert "INVENTED" in json.loads(TABLE.read_text())["about"]
    bonds = {"O-Si": (1.59, 1.82), "Si": (2.34, 2.36), "C": (1.42, 1.56), "Co-O": (2.1, 2.2), "Li-O": (1.5, 2.01)}
    for document in summaries:
        SummaryDoc.model_validate(document)
        crystal = Structure.from_dict(document["structure"])
        assert SpacegroupAnalyzer(crystal).get_space_group_number() == document["symmetry"]["number"]
        shortest = min(neighbor.nn_distance for site in crystal for neighbor in crystal.get_neighbors(site, 3.0))
        low, high = bonds.get(document["chemsys"], (0.9, 2.0))
        assert low < shortest < high, document["material_id"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_it_runs_by_hand(materials_project_key, tmp_path, suffix):
    entries = tmp_path / f"mine{suffix}"
    if suffix == ".json":
        table = json.loads(TABLE.read_text())
        entries.write_text(json.dumps({"entries": [entry for entry in table["entries"] if entry["name"] == "diamond"]}))
    else:
        diamond = next(document for document in read_entries()[0] if document["material_id"] == "mp-66")
        entries.write_text(json.dumps({**diamond, "losiko_provenance": {}}) + "\n")
    command = [sys.executable, str(Path(program.__file__)), "--port", "0", "--entries", str(entries)]
    command += ["--db-version", "2026.06.06", "--fail", "429:0x2", "--fail", "cut"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        count, _, address = process.stdout.readline().strip().partition(" entries at ")
        assert count == "1" and address.startswith("http://127.0.0.1:")
        info, records = ask(type("Process", (), {"address": address}), chemsys="C")
        assert (info.version, names(records)) == ("2026.06.06", ["mp-66"])
    finally:
        process.terminate()
        process.wait(timeout=30)
