"""The proton in LiCoO2 as far as it goes without a daemon."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from aiida.orm import Dict
from ase.io import write

from aiida_losiko.builders import substitute
from aiida_losiko.core import EnvironmentDatabase, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.core.settings import RelaxSettings
from aiida_losiko.data.matches import matches_to_node, summarise
from aiida_losiko.sources import load_source
from aiida_losiko.tools.launching import JobError

SCRIPT = Path(__file__).parents[2] / "workflows" / "proton_licoo2.py"


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("proton_licoo2", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site():
    """Hydrogen at the lithium site, 48 atoms."""
    _, (host,) = load_source("reference_crystals", None, {"ids": ["crystal:LiCoO2"]}, conventional=True)
    (atoms,) = substitute(host.atoms, "Li", "H", supercell=[2, 2, 1])
    return atoms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--starts", "-1"], "--starts -1 is negative"),
        (["--seed", "-3"], "whole number from 0"),
        (["--displacement", "0"], "above 0, to 10 Angstrom"),
        (["--displacement", "nan"], "above 0, to 10 Angstrom"),
        (["--max-sites", "0"], "leaves no entry"),
        (["--entries", "nowhere.xyz"], "nowhere.xyz does not exist"),
        (["--protocol", "cristals"], "invalid choice: 'cristals'"),
        (["--entries", "x", "--materials-project"], "not allowed with"),
    ],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_paper_comes_with_it_by_default(job):
    assert job.parse_arguments([]).protocol == ["crystals", "licoo2"]
    assert job.parse_arguments(["--protocol", "licoo2"]).protocol == ["licoo2"]


def test_what_makes_a_hydroxyl(job, site):
    proton = site.info["defect"]["index"]
    at_site = job.measure(site, site, proton)
    assert at_site["bond"] == pytest.approx(at_site["next"]) and at_site["bonded"] == 0
    assert at_site["others"] == at_site["proton"] == pytest.approx(0)
    assert not at_site["hydroxyl"]

    oxygens = [index for index in range(len(site)) if site[index].symbol == "O"]
    nearest = min(oxygens, key=lambda index: site.get_distance(proton, index, mic=True))
    bonded = site.copy()
    bonded.set_distance(proton, nearest, 1.0, fix=1, mic=True)
    found = job.measure(bonded, site, proton)
    assert found["bond"] == pytest.approx(1.0) and found["bonded"] == 1 and found["hydroxyl"]
    assert found["proton"] == pytest.approx(at_site["bond"] - 1.0, abs=0.05)

    broken = bonded.copy()
    far = max(oxygens, key=lambda index: site.get_distance(proton, index, mic=True))
    broken.positions[far] += [0.0, 0.0, 0.6]
    assert not job.measure(broken, site, proton)["hydroxyl"]
    between = site.copy()
    between.set_distance(proton, nearest, 1.25, fix=1, mic=True)
    assert not job.measure(between, site, proton)["hydroxyl"]


def test_entries_and_starts(job, aiida_profile, tmp_path):
    entries, node = job.ask_for_entries(job.parse_arguments([]))
    assert node.process_type == "aiida.calculations:losiko.query.reference_crystals"
    assert set(entries.elements) == {"Li", "Co", "O", "H"}
    assert job.formulas_of(entries)["crystal:Co(OH)2"] == "Co(HO)2"
    assert max(len(atoms) for atoms in entries) <= job.MAX_SITES

    path = tmp_path / "own.extxyz"
    write(path, [atoms for atoms in entries if len(atoms) <= 8])
    few, node = job.ask_for_entries(job.parse_arguments(["--entries", str(path), "--max-sites", "4"]))
    assert node.process_type == "aiida.calculations:losiko.query.archive"
    assert max(len(atoms) for atoms in few) == 4
    write(path, [atoms for atoms in entries if set(atoms.symbols) == {"Li", "O"}])
    with pytest.raises(JobError, match="the entries hold no Co, H"):
        job.ask_for_entries(job.parse_arguments(["--entries", str(path)]))

    starts, processes = job.make_starts(2, 0.2, 0)
    assert len(processes) == 4
    assert [len(atoms) for atoms in starts] == [108] * 3
    site, first, second = starts.get_atoms()
    assert site.symbols[site.info["defect"]["index"]] == "H" and (site.numbers == 1).sum() == 1
    moves = [each.positions - site.positions for each in (first, second)]
    assert 0.18 < np.std(moves[0]) < 0.22 and not np.allclose(*moves)
    alone, _ = job.make_starts(0, 0.2, 0)
    assert len(alone) == 1


def test_the_proton_of_the_lithium_site_is_bound(job, aiida_profile, site, tmp_path):
    """With the protocol, to the table and the picture; in the small cell that is there in seconds."""
    from aiida_losiko.data import StructureSetData

    protocol = load_protocol("crystals")
    _, records = load_source("reference_crystals", None, {"elements": ["Li", "Co", "O", "H"], "max_atoms": 20})
    descriptor = make_descriptor({**protocol.descriptor, "species": ["Li", "Co", "O", "H"]})
    known = [record.atoms for record in records]
    database = EnvironmentDatabase.build(known, descriptor, **protocol.database)
    (result,) = relax([site], database, settings=RelaxSettings.from_dict(protocol.relax))

    starts, relaxed = StructureSetData([site]), StructureSetData([result.atoms])
    names = starts.get_identifiers()
    report = {**summarise([result.to_dict()], names), "seconds": 1.5}
    matches = matches_to_node([result.to_dict()], [len(site)], names)
    (row,) = job.table_rows(starts, relaxed, matches, Dict(report), {"crystal:LiOH": "LiHO"})
    assert row["hydroxyl"]
    assert row["start"] == "lithium site"
    assert row["matched"].endswith(f"({result.matches.source[site.info['defect']['index']]})")
    assert "lithium site" in job.table([row]) and "yes" in job.table([row])
    assert job.verdict([row]).startswith("1 of 1 a hydroxyl")
    assert job.draw(tmp_path, "crystals", starts, relaxed, [row]).name == "proton-crystals.png"
