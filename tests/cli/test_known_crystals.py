"""`losiko relax --known-crystals`: one command from a rough crystal to a relaxed one, with and without a key."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from aiida_losiko.cli.materials import ranges
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.sources.reference_crystals import build_crystal

from ..servers.materials_project import KEY
from ..sources.materials_project_service import KEY_VARIABLES

QUICK = ["--set", "descriptor.n_max=4", "--set", "descriptor.l_max=3"]
NOWHERE = "http://127.0.0.1:9/"


def distances(atoms):
    return atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]


@pytest.fixture
def quartz(tmp_path):
    """Quartz, displaced by 0.05 Angstrom per coordinate."""
    atoms = build_crystal("quartz-alpha")
    atoms.rattle(0.05, seed=1)
    path = tmp_path / "rough.cif"
    write(path, atoms)
    return path


@pytest.fixture
def service(materials_project, monkeypatch):
    """The local Materials Project in the place of the real one."""
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    return materials_project


@pytest.fixture
def without_key(monkeypatch, tmp_path):
    """No key anywhere, and no network: an empty home, and a service that does not answer."""
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MP_API_ENDPOINT", NOWHERE)
    return home


def test_one_command_asks_relaxes_and_tells(losiko, service, quartz, tmp_path):
    out, report, kept = tmp_path / "out.cif", tmp_path / "report.json", tmp_path / "kept.db"
    arguments = ("relax", quartz, "--known-crystals", "--output", out, "--report", report, "--save-database", kept)
    result = losiko(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    (sent,) = service.searches()
    assert (sent["chemsys"], sent["energy_above_hull_max"]) == ("O,O-Si,Si", "0.1")
    assert "nsites_max" not in sent
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "Known crystals: 3 from Materials Project (version 2026.01.01, CC-BY-4.0), at most 0.1 eV/atom above the hull"
    )
    assert lines[1] == "Relaxing rough (9 atoms) with lbfgs, protocol crystals"
    rows = [line.split() for line in lines if line.startswith(("Si ", "O "))]
    assert [row[:6] for row in rows] == [
        ["Si", "0-2", "mp-900001", "SiO2", "P3_221", "0.010"],
        ["O", "3-8", "mp-900001", "SiO2", "P3_221", "0.010"],
    ]
    assert lines[-4:] == [
        f"Database: {kept}",
        f"Structures: {out}",
        f"Report: {report}",
        f"Next: ase gui {shlex.quote(str(out))}",
    ]

    true = build_crystal("quartz-alpha")
    before, after = (np.abs(distances(read(path)) - distances(true)).max() for path in (quartz, out))
    assert after < 0.25 * before
    document = json.loads(report.read_text())
    assert document["protocol"] == "crystals"
    assert set(document["structures"][0]["matches"]["source"]) == {"mp-900001"}
    account = document["database"]["metadata"]["source"]
    assert (account["name"], account["version"]) == ("Materials Project", "2026.01.01")
    assert json.loads(account["description"])["asked"] == {"chemsys": "O-Si", "energy_above_hull": 0.1}
    for text in (result.output, report.read_text(), kept.read_bytes().decode("latin-1")):
        assert KEY not in text

    # The database that was kept does the same without the service.
    database = EnvironmentDatabase.load(kept)
    assert database.sources == ["mp-149", "mp-900001", "mp-900002"]
    shown = losiko("database", "info", kept).stdout
    assert "Source      Materials Project, version 2026.01.01, CC-BY-4.0, doi:10.1063/1.4812323, http://127" in shown
    n_requests, again = len(service.requests), tmp_path / "again.cif"
    assert losiko("relax", quartz, "--database", kept, "--output", again).exit_code == 0
    assert len(service.requests) == n_requests
    assert again.read_text() == out.read_text()


@pytest.mark.parametrize(
    ("options", "sent", "sources"),
    [
        (["--energy-above-hull", "0.2"], ("0.2", None), ["mp-149", "mp-900001", "mp-900002", "mp-900010"]),
        (["--energy-above-hull", "inf", "--num-sites", "8"], (None, "8"), ["mp-149", "mp-900010"]),
        (["--exclude", "mp-900001"], ("0.1", None), ["mp-149", "mp-900002"]),
    ],
)
def test_which_crystals_are_taken(losiko, service, quartz, tmp_path, options, sent, sources):
    kept = tmp_path / "kept.db"
    arguments = ("relax", quartz, "--known-crystals", *options, "-o", tmp_path / "out.cif", "--save-database", kept)
    result = losiko(*arguments, *QUICK, "--set", "relax.max_steps=0")
    assert result.exit_code == 0, result.output
    (search,) = service.searches()
    assert (search.get("energy_above_hull_max"), search.get("nsites_max")) == sent
    database = EnvironmentDatabase.load(kept)
    assert database.sources == sources
    assert database.descriptor.parameters["n_max"] == 4
    assert ("at most" in result.stdout) == (sent[0] is not None)


def test_another_protocol_and_settings_of_the_database(losiko, service, quartz, tmp_path):
    kept = tmp_path / "kept.db"
    changes = ["database.max_environments=1", "database.selection=farthest", "relax.max_steps=1"]
    chosen = ["--protocol", "carbon", *(word for change in changes for word in ("--set", change))]
    result = losiko(
        "relax", quartz, "--known-crystals", *chosen, "-o", tmp_path / "out.cif", "--save-database", kept, "--quiet"
    )
    assert (result.exit_code, result.output) == (0, "")
    database = EnvironmentDatabase.load(kept)
    assert database.metadata["protocol"] == "carbon"
    assert database.n_environments == {"O": 1, "Si": 1}
    assert database.descriptor.r_cut == load_protocol("carbon").descriptor["r_cut"]


def test_without_a_key_the_embedded_crystals_are_used_and_it_is_said(losiko, without_key, quartz, tmp_path):
    out = tmp_path / "out.cif"
    result = losiko("relax", quartz, "--known-crystals", "--output", out)
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: no key of the Materials Project is set (MP_API_KEY; free at https://")
    assert "the embedded crystals (--source reference_crystals) are used" in line
    assert "Known crystals: 18 from reference crystals of aiida-losiko" in result.stdout
    assert "crystal:quartz-alpha  SiO2       P3_221" in result.stdout
    assert "above" not in result.stdout
    true = distances(build_crystal("quartz-alpha"))
    assert np.abs(distances(read(out)) - true).max() < np.abs(distances(read(quartz)) - true).max()

    meant = losiko("relax", quartz, "--known-crystals", "--source", "reference_crystals", "--output", out, "--quiet")
    assert (meant.exit_code, meant.output) == (0, "")


def test_a_threshold_that_the_embedded_crystals_cannot_keep_is_told(losiko, without_key, quartz, tmp_path):
    arguments = ["relax", quartz, "--known-crystals", "--energy-above-hull", "0.05", "-o", tmp_path / "out.cif", *QUICK]
    result = losiko(*arguments, "--set", "relax.max_steps=0")
    assert result.exit_code == 0, result.output
    assert result.stderr.rstrip().endswith("are used, of any energy, since they have none")


def test_a_broken_key_is_an_error_and_no_reason_to_fall_back(
    losiko, without_key, quartz, tmp_path, monkeypatch, assert_one_line_error
):
    arguments = ("relax", quartz, "--known-crystals", "--output", tmp_path / "out.cif")
    settings = without_key / ".config" / ".pmgrc.yaml"
    settings.write_text("PMG_MAPI_KEY: [unfinished")
    assert_one_line_error(losiko(*arguments), str(settings), "cannot be read as YAML")
    settings.write_text("PMG_MAPI_KEY: tooshort\n")
    assert_one_line_error(losiko(*arguments), "8 characters", "https://materialsproject.org/api")
    settings.unlink()
    monkeypatch.setenv("MP_API_KEY", "x" * 31)
    assert_one_line_error(losiko(*arguments), "MP_API_KEY", "31 characters")
    monkeypatch.delenv("MP_API_KEY")
    asked = losiko(*arguments, "--source", "materials_project")
    assert_one_line_error(asked, "no key of the Materials Project", "reference_crystals")
    assert not (tmp_path / "out.cif").exists()


def test_no_network_names_the_way_out(losiko, without_key, quartz, tmp_path, monkeypatch, assert_one_line_error):
    monkeypatch.setenv("MP_API_KEY", KEY)
    files = ["--output", tmp_path / "out.cif", "--save-database", tmp_path / "kept.db"]
    result = losiko("relax", quartz, "--known-crystals", *files, "--max-seconds", "3")
    assert_one_line_error(result, "does not answer", "without a network: --source reference_crystals")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "rough.cif"]


def test_a_busy_service_is_outlasted(losiko, service, quartz, tmp_path):
    service.fail("429:0")
    service.fail("cut")
    arguments = ["relax", quartz, "--known-crystals", "--output", tmp_path / "out.cif", *QUICK]
    assert losiko(*arguments, "--set", "relax.max_steps=0").exit_code == 0
    assert len(service.searches()) == 3


def test_optimade(losiko, optimade, quartz, tmp_path, assert_one_line_error):
    pytest.importorskip("optimade")
    common = ["relax", quartz, "--known-crystals", "--source", "optimade", "--output", tmp_path / "out.cif", *QUICK]
    common += ["--set", "relax.max_steps=0", "--provider"]
    result = losiko(*common, f"{optimade}/alexandria")
    assert result.exit_code == 0, result.output
    assert "Known crystals: 3 from OPTIMADE alexandria" in result.stdout
    assert "  optimade:alexandria:" in result.stdout
    assert "at most 0.1 eV/atom above the hull" in result.stdout
    # One that has no hull is not asked for everything unless this is said.
    assert_one_line_error(losiko(*common, f"{optimade}/cod"), "no energy above hull", "--energy-above-hull inf")
    result = losiko(*common, f"{optimade}/cod", "--energy-above-hull", "inf")
    assert result.exit_code == 0, result.output
    assert "Known crystals: 4 from OPTIMADE cod" in result.stdout
    assert_one_line_error(losiko(*common, "alexandra"), "unknown OPTIMADE provider", "did you mean 'alexandria'")


def test_what_the_table_lacks_comes_from_the_prototypes(losiko, tmp_path):
    salt = tmp_path / "salt.cif"
    write(salt, bulk("NaCl", "rocksalt", a=5.64))
    result = losiko(
        "relax", salt, "--known-crystals", "--source", "reference_crystals", "-o", tmp_path / "out.cif", *QUICK
    )
    assert result.exit_code == 0, result.output
    assert "aflow:AB_cF8_225_a_b  NaCl" in result.stdout


def test_several_structures_have_a_row_each(losiko, service, quartz, tmp_path):
    silicon = tmp_path / "silicon.cif"
    write(silicon, bulk("Si"))
    files = [quartz, silicon]
    result = losiko("relax", *files, "--known-crystals", "-o", tmp_path / "out.extxyz")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.partition("modelled on")[2].splitlines()]
    assert ["silicon", "Si", "0-1", "mp-149", "Si", "Fd-3m", "0.000"] in [row[:7] for row in rows]
    assert ["rough", "O", "3-8", "mp-900001", "SiO2", "P3_221", "0.010"] in [row[:7] for row in rows]


@pytest.mark.parametrize("keep", [False, True])
def test_what_to_type_when_it_is_not_finished(losiko, without_key, quartz, tmp_path, keep):
    out, kept = tmp_path / "out.cif", tmp_path / "kept.db"
    asked = ["--known-crystals", "--source", "reference_crystals", "--num-sites", "12"]
    options = [*asked, *(["--save-database", kept] if keep else []), *QUICK, "--set", "relax.max_steps=1"]
    result = losiko("relax", quartz, *options, "-o", out)
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()[-1]
    assert f"relax {out} {f'--database {kept}' if keep else ' '.join(asked)} --output" in shown
    command = shlex.split(shown.removeprefix("Next: losiko "))
    assert losiko(*command, "--set", "relax.max_steps=1").exit_code == 0
    assert (tmp_path / "out-2.cif").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give one of --database DB and --known-crystals"),
        (["--known-crystals", "--database", "known.db"], "give one of --database DB and --known-crystals"),
        (["--database", "known.db", "--source", "optimade"], "--source goes with --known-crystals only"),
        (["--database", "known.db", "--save-database", "x.db"], "--save-database goes with --known-crystals only"),
        (["--known-crystals", "--source", "mp"], "'mp' is not one of"),
        (["--known-crystals", "--energy-above-hull", "-1"], "-1"),
        (["--known-crystals", "--num-sites", "0"], "0"),
    ],
)
def test_wrong_usage(losiko, quartz, tmp_path, options, words):
    result = losiko("relax", quartz, *options, "--output", tmp_path / "out.cif")
    assert result.exit_code == 2
    assert words in result.stderr


def test_options_that_would_do_nothing(losiko, quartz, tmp_path, assert_one_line_error):
    arguments = ("relax", quartz, "--known-crystals", "--output", tmp_path / "out.cif")
    assert_one_line_error(losiko(*arguments, "--provider", "oqmd"), "--provider oqmd", "--source optimade")
    embedded = losiko(*arguments, "--source", "reference_crystals", "--energy-above-hull", "0.2")
    assert_one_line_error(embedded, "--energy-above-hull 0.2", "have no energies")


def test_wrong_settings_are_told_before_the_service_is_asked(losiko, service, quartz, tmp_path, assert_one_line_error):
    arguments = ("relax", quartz, "--known-crystals", "--output", tmp_path / "out.cif")
    assert_one_line_error(losiko(*arguments, "--set", "descriptor.r_cut=-1"), "r_cut")
    assert_one_line_error(losiko(*arguments, "--set", "relax.optimizer=bfgz"), "bfgz")
    assert_one_line_error(losiko(*arguments, "--save-database", quartz), "--save-database", "an input")
    unknown = losiko("relax", quartz, "--known-crystals", "--output", tmp_path / "out.nonsense")
    assert_one_line_error(unknown, "out.nonsense", "ASE knows no format")
    assert service.requests == []


def test_several_processes_give_the_same(losiko, without_key, quartz, tmp_path):
    texts = []
    for number in (1, 2):
        copies = [shutil.copy(quartz, tmp_path / f"copy-{place}.cif") for place in range(2)]
        out = tmp_path / f"out-{number}.extxyz"
        asked = ["--known-crystals", "--source", "reference_crystals", "--set", "relax.batch_size=1"]
        result = losiko("relax", *copies, *asked, *QUICK, "--processes", number, "-o", out, "--quiet")
        assert result.exit_code == 0, result.output
        texts.append(out.read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8"),
        (range(0, 40, 2), "0, 2, 4, 6, 8, 10, ... (20)"),
    ],
)
def test_lists_of_atoms_are_short(numbers, text):
    assert ranges(numbers) == text
