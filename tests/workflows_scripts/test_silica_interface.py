"""The interface of silicon and silica as far as it goes without a daemon."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write

from aiida_losiko.builders import atoms_near_plane, cleave, cut_layer, freeze, interface, oxidize
from aiida_losiko.core import EnvironmentDatabase, make_descriptor, relax
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.core.settings import RelaxSettings
from aiida_losiko.sources import load_source
from aiida_losiko.tools.interface_figures import side_views
from aiida_losiko.tools.interface_report import (
    VALENCES,
    compared,
    free,
    fully_bonded,
    measure,
    missing,
    shortest_distances,
    table_of_starts,
    verdict,
)
from aiida_losiko.tools.launching import JobError

SCRIPT = Path(__file__).parents[2] / "workflows" / "silica_interface.py"
GLASS = Path(os.environ.get("LOSIKO_DATA", "../shared/data")) / "silica" / "a-SiO2_204atoms_x30.extxyz"


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("silica_interface", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known():
    _, records = load_source("reference_crystals", None, {"elements": ["Si", "O"]})
    return [record.atoms for record in records]


def relaxed(start: Atoms, known: list[Atoms], name: str = "crystals") -> Atoms:
    protocol = load_protocol(name)
    descriptor = make_descriptor({**protocol.descriptor, "species": ["Si", "O"]})
    database = EnvironmentDatabase.build(known, descriptor, **protocol.database)
    (result,) = relax([start], database, settings=RelaxSettings.from_dict(protocol.relax))
    return result.atoms


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gap", "0"], "--gap 0 is not allowed: 0.5 to 4 Angstrom"),
        (["--gap", "nan"], "0.5 to 4 Angstrom"),
        (["--seed", "-3"], "whole number from 0"),
        (["--silica", "nowhere.xyz"], "--silica nowhere.xyz does not exist"),
        (["--entries", "nowhere.xyz"], "--entries nowhere.xyz does not exist"),
        (["--gap", "1.8", "--gap", "5"], "--gap 5 is not allowed: 0.5 to 4 Angstrom"),
        (["--protocol", "silica"], "invalid choice: 'silica'"),
        (["--entries", "x", "--materials-project"], "not allowed with"),
    ],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_paper_comes_with_it_by_default(job):
    assert job.parse_arguments([]).protocol == ["crystals", "silica-interface"]
    assert job.parse_arguments(["--protocol", "none"]).protocol == []
    assert job.parse_arguments(["--gap", "1.8"]).gap == [1.8]


def test_what_is_counted():
    """Two Si and an O in a row far from everything else, of which one Si does not move."""
    atoms = Atoms("SiOSiO", [[0, 0, 0], [1.6, 0, 0], [3.2, 0, 0], [9, 9, 9]], cell=[20] * 3, pbc=True)
    counts = measure(atoms, {"O-Si": 1.6, "Si-Si": 3.0})
    assert counts["fourfold"] == 0 and counts["twofold"] == 0.5
    assert counts["dangling"] == 3 + 0 + 3 + 2 and counts["excess"] == 0
    assert counts["si_o"] == 2 and counts["closest"] == pytest.approx(1.0)
    atoms.set_constraint(FixAtoms([0, 3]))
    counts = measure(atoms)
    assert counts["twofold"] == 1 and counts["dangling"] == 3 and counts["si_o"] == 2


def test_which_crystals_have_all_their_bonds(known):
    """Where nothing is cut nothing is missing, and the shortest distances are those of textbooks."""
    names = {atoms.info["identifier"].removeprefix("crystal:") for atoms in known if fully_bonded(atoms)}
    assert {"quartz-alpha", "cristobalite-beta", "tridymite", "coesite", "silicon", "silicon-bc8"} <= names
    assert not {"stishovite", "seifertite", "silicon-beta-tin", "O2-alpha"} & names
    quartz = next(atoms for atoms in known if atoms.info["identifier"] == "crystal:quartz-alpha")
    assert measure(quartz)["dangling"] == measure(quartz)["excess"] == 0
    shortest = shortest_distances(known)
    assert shortest["Si-Si"] == pytest.approx(2.31, abs=0.02) and 1.5 < shortest["O-Si"] < 1.6


def test_verdict_says_what_is_missed():
    before = {"fourfold": 0.5, "twofold": 0.5, "dangling": 9, "si_o": 3}
    good = {"fourfold": 0.6, "twofold": 0.6, "dangling": 5, "si_o": 4, "closest": 0.95, "held": True}
    assert verdict(before, good) == "6 of 6 as asked"
    assert "0.500 to 0.600" in table_of_starts([("gap-1.8", 1.0, before, good)])
    said = verdict(before, {**good, "si_o": 3, "closest": 0.89})
    assert said == "4 of 6 as asked; not: more Si-O bonds, no pair closer than 0.9 of the entries'"


def test_entries_and_the_interface(job, aiida_profile, tmp_path):
    entries, node = job.ask_for_entries(job.parse_arguments([]))
    assert node.process_type == "aiida.calculations:losiko.query.reference_crystals"
    assert set(entries.elements) == {"Si", "O"} and len(entries) == 18

    path = tmp_path / "own.extxyz"
    write(path, [atoms for atoms in entries if set(atoms.symbols) == {"Si"}])
    with pytest.raises(JobError, match="the entries hold no O"):
        job.ask_for_entries(job.parse_arguments(["--entries", str(path)]))
    with pytest.raises(JobError, match="silica has Si and O"):
        job.read_silica(path, [])

    # Cristobalite in the place of glass: 2 x 2 cells and 13.86 / 4.97 fit no better than what is allowed.
    crystal = next(atoms for atoms in entries if atoms.info["identifier"] == "crystal:cristobalite-alpha")
    write(path, crystal.repeat((2, 2, 2)))
    processes = []
    silica = job.read_silica(path, processes)
    starts = job.make_starts(silica, [1.2, 1.8], processes)
    assert len(processes) == 5 and len(starts) == 2 * len(job.SHIFTS)
    assert starts.get_identifiers()[-1].endswith(":gap-1.8:shift-0.125_0.125")
    atoms = starts.get_ase(0)
    plane = atoms.info["interface"]["planes"][0]
    away = np.abs(atoms.positions[:, 2] - plane)
    assert (free(atoms) == (away <= 5.0)).all() and 0 < free(atoms).sum() < len(atoms)
    assert measure(atoms)["dangling"] > 0


def test_what_heals_has_no_dangling_bond(job, aiida_profile, tmp_path):
    entries, _ = job.ask_for_entries(job.parse_arguments([]))
    processes = []
    known = job.with_oxidized(entries, 0, processes)
    assert [node.process_label for node in processes] == ["reference_crystals", "select", "oxidize", "merge"]
    names = known.get_identifiers()
    assert all(fully_bonded(atoms) for atoms in known)
    assert {"crystal:silicon", "crystal:quartz-alpha", "crystal:silicon:oxidized-0.5-seed0"} <= set(names)
    assert not {"crystal:stishovite", "crystal:O2-alpha"} & set(names)
    assert len(known) == 13 + len(job.SHARES)

    path = tmp_path / "dense.extxyz"
    write(path, [a for a in entries if a.info["identifier"] in ("crystal:stishovite", "crystal:silicon-beta-tin")])
    entries, _ = job.ask_for_entries(job.parse_arguments(["--entries", str(path)]))
    with pytest.raises(JobError, match="none of 2 entries has all its bonds"):
        job.with_oxidized(entries, 0, [])


def test_glass_fits_silicon(job, aiida_profile, monkeypatch):
    """Of a glass of no trials: the crystal in the cell of the glass, without its symmetry."""
    monkeypatch.setitem(job.GLASS, "trials", 0)
    silica = job.make_silica(0, [])
    atoms = silica.get_ase(0)
    assert len(atoms) == 216 and fully_bonded(atoms)
    starts = job.make_starts(silica, [1.8], [])
    start = starts.get_ase(0)
    assert start.info["interface"]["mismatch"] < 0.02 and start.info["interface"]["area"] == pytest.approx(236, abs=1)
    assert 300 < len(start) < 500


def test_picture(job, known, tmp_path):
    crystal = next(atoms for atoms in known if atoms.info["identifier"] == "crystal:cristobalite-alpha")
    start = interface(
        cleave(bulk("Si"), (0, 0, 1), thickness=8.0), cut_layer(crystal), gap=1.2, max_strain=0.06, vacuum=10.0
    )
    start = freeze(start, ~atoms_near_plane(start, 5.0))
    path = job.draw(tmp_path, [("as cut", start), ("again", start)])
    assert path.name == "silica-interface.png" and path.stat().st_size > 10_000
    with pytest.raises(LosikoError, match="0 structures"):
        side_views([], 1.0, valences=VALENCES, path=tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.skipif(not GLASS.is_file(), reason="no amorphous silica in LOSIKO_DATA (melt-quenched cells of 204 atoms)")
def test_real_glass_on_silicon(job, known):
    """All that is asked, and that nothing else moves, to the last bit."""
    glass = read(GLASS, 2)
    silica = cut_layer(Atoms(glass.numbers, positions=glass.positions, cell=glass.cell, pbc=True))
    silicon = bulk("Si", a=5.431)
    start = interface(cleave(silicon, (0, 0, 1), 12.0), silica, gap=1.8, max_strain=0.06, max_area=300.0, vacuum=10.0)
    start = freeze(start, ~atoms_near_plane(start, 5.0))
    oxides = [oxidize(silicon, share, n_atoms=(64, 64)) for share in job.SHARES]
    after = relaxed(start, [atoms for atoms in known if fully_bonded(atoms)] + oxides, "silica-healing")
    held = ~free(start)
    assert held.sum() > 200 and (after.positions[held] == start.positions[held]).all()
    closest = shortest_distances(known)
    before, healed = measure(start, closest), compared(start, after, closest)
    assert missing(before, healed) == []
    assert healed["dangling"] <= 0.7 * before["dangling"]
