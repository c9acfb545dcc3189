"""Crystals that cannot be used, or go wrong, in the program: named, and the rest is done."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from aiida_losiko.sources.reference_crystals import build_crystal

QUICK = ["--set", "descriptor.n_max=4", "--set", "descriptor.l_max=3"]
EMBEDDED = ["--known-crystals", "--source", "reference_crystals", *QUICK]

BLOCK = """data_{name}
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
ROCK_SALT = "Co{0} Co 0 0 0 {1}\nO{0} O 0.5 0.5 0.5 {2}\n"


def block(name: str, *sites: str, a: float = 2.7) -> str:
    return BLOCK.format(name=name, a=a) + "".join(sites)


@pytest.fixture
def many(tmp_path):
    """One CIF with four entries: the second is partly occupied, the third has two species at a site."""
    text = block("whole", ROCK_SALT.format(1, 1, 1))
    text += block("half", ROCK_SALT.format(1, 0.5, 1))
    text += block("mixed", "Co1 Co 0 0 0 0.5\nLi1 Li 0 0 0 0.5\nO1 O 0.5 0.5 0.5 1\n")
    text += block("last", ROCK_SALT.format(1, 1, 1), a=2.8)
    path = tmp_path / "many.cif"
    path.write_text(text)
    return path


def relax_known(losiko, files, out, *options):
    return losiko("relax", *files, *EMBEDDED, "--output", out, "--set", "relax.max_steps=5", *options)


# -- disordered or partly occupied entries ----------------------------------------------------------------------------


def test_disordered_entries_of_a_file_are_named_and_the_rest_makes_the_database(losiko, many, tmp_path):
    built = tmp_path / "known.db"
    result = losiko("database", "build", many, "-o", built, "--protocol", "crystals", *QUICK)
    assert result.exit_code == 3
    half, mixed, summary = result.stderr.splitlines()
    assert "many:1" in half and "(Co 0.5)" in half and "ordered structure" in half
    assert "many:2" in mixed and "Co 0.5, Li 0.5" in mixed
    assert summary == "2 of 4 structures were left out (see the errors above)."
    shown = json.loads(losiko("database", "info", built, "--json").stdout)
    assert shown["n_sources"] == 2
    # Lithium is in the entry alone that was left out.
    assert set(shown["n_environments"]) == {"O", "Co"}


def test_disordered_entries_of_a_file_are_named_and_the_rest_is_relaxed(losiko, many, tmp_path):
    out, report = tmp_path / "out.extxyz", tmp_path / "report.json"
    result = relax_known(losiko, [many], out, "--report", report)
    assert result.exit_code == 3, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert [error.partition(": site")[0] for error in errors] == ["Error: many:1", "Error: many:2"]
    statuses = [atoms.info["losiko_status"] for atoms in read(out, ":")]
    assert statuses[1:3] == ["error", "error"]
    assert "error" not in (statuses[0], statuses[3])
    rows = json.loads(report.read_text())["structures"]
    assert ["partly occupied" in (row["error"] or "") for row in rows] == [False, True, True, False]
    # The elements of what cannot be used are not asked for.
    assert "Li" not in json.loads(report.read_text())["database"]["n_environments"]


def test_a_disordered_cif_is_told_before_a_service_is_asked(
    losiko, materials_project, tmp_path, monkeypatch, assert_one_line_error
):
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    path = tmp_path / "half.cif"
    path.write_text(block("half", ROCK_SALT.format(1, 0.5, 1)))
    out = tmp_path / "out.cif"
    result = losiko("relax", path, "--known-crystals", "--output", out)
    assert_one_line_error(result, "half", "partly occupied", "Co 0.5", "ordered structure")
    assert materials_project.requests == []
    assert not out.exists()


def test_nothing_but_disordered_entries(losiko, tmp_path, assert_one_line_error):
    files = []
    for name in ("a", "b"):
        files.append(tmp_path / f"{name}.cif")
        files[-1].write_text(block(name, ROCK_SALT.format(1, 0.5, 1)))
    for command in (("database", "build"), ("relax", *EMBEDDED)):
        result = losiko(*command, *files, "--output", tmp_path / "out.extxyz")
        assert result.exit_code == 1
        *named, last = result.stderr.splitlines()
        assert [line.split(":")[1].strip() for line in named] == ["a", "b"]
        assert last == "Error: none of the 2 structures can be used; nothing was written"
    assert not (tmp_path / "out.extxyz").exists()


def test_disordered_entries_of_a_service_are_named_and_the_rest_kept(losiko, materials_project, tmp_path, monkeypatch):
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    path = tmp_path / "rough.cif"
    write(path, build_crystal("LiCoO2"))
    result = losiko("relax", path, "--known-crystals", "--output", tmp_path / "out.cif", *QUICK)
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        "Warning: entries of the Materials Project are left out, disordered or partially occupied: mp-900004 "
        "(Li1.5Co3O6)\n"
    )
    assert "Known crystals: 3 from Materials Project" in result.stdout
    assert "mp-900003" in result.stdout


# -- species without environment --------------------------------------------------------------------------------------


def test_elements_of_no_known_crystal_are_named(losiko, tmp_path, assert_one_line_error):
    path, out = tmp_path / "rn.cif", tmp_path / "out.cif"
    write(path, bulk("SiRn", "rocksalt", a=6.0))
    result = relax_known(losiko, [path], out)
    assert_one_line_error(result, "known crystals", "has Rn;", "MP_API_KEY", "losiko database build")
    write(path, bulk("Rn", "fcc", a=6.0))
    assert_one_line_error(relax_known(losiko, [path], out), "no embedded crystal consists of Rn;", "--source optimade")
    write(path, bulk("Si"))
    result = relax_known(losiko, [path], out, "--num-sites", "1")
    assert_one_line_error(result, "consists of Si and has at most 1 sites", "losiko database build")
    assert not out.exists()


def test_elements_that_a_service_lacks_are_named(
    losiko, materials_project, tmp_path, monkeypatch, assert_one_line_error
):
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    path = tmp_path / "fe.cif"
    write(path, bulk("FeO", "rocksalt", a=4.3))
    arguments = ("relax", path, "--known-crystals", "--output", tmp_path / "out.cif")
    assert_one_line_error(losiko(*arguments), "no entry of O-Fe and its subsystems")
    write(path, bulk("SiFe", "zincblende", a=5.0))
    assert_one_line_error(losiko(*arguments), "(Materials Project) has Fe;", "--energy-above-hull or --num-sites")


def test_a_structure_with_an_unknown_element_does_not_stop_the_others(losiko, tmp_path):
    files, out = [tmp_path / "rn.cif", tmp_path / "si.cif"], tmp_path / "out.extxyz"
    write(files[0], bulk("SiRn", "rocksalt", a=6.0))
    write(files[1], bulk("Si"))
    result = relax_known(losiko, files, out)
    assert result.exit_code == 3, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert line.startswith("Error: rn: species Rn not allowed here; allowed are ")
    first, second = read(out, ":")
    assert first.info["losiko_status"] == "error"
    assert second.info["losiko_status"] != "error"
    assert np.allclose(first.positions, read(files[0]).positions, atol=1e-7)


def test_a_species_that_was_left_out_of_the_database(losiko, tmp_path, assert_one_line_error):
    """The database is for silicon and oxygen, but holds no environment of oxygen."""
    known, built, path = tmp_path / "si.cif", tmp_path / "si.db", tmp_path / "quartz.cif"
    write(known, bulk("Si"))
    write(path, build_crystal("quartz-alpha"))
    assert losiko("database", "build", known, "-o", built, "--species", "Si,O", *QUICK).exit_code == 0
    result = losiko("relax", path, "--database", built, "--output", tmp_path / "out.cif")
    assert_one_line_error(result, "quartz", "species O not allowed here; allowed are Si:")


# -- thresholds that leave nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--energy-above-hull", "0.05"], ["energy_above_hull=0.05 leaves nothing", "the lowest is 0.11 eV/atom"]),
        (["--num-sites", "1"], ["num_sites=1 leaves nothing", "the lowest is 8 sites"]),
    ],
)
def test_a_threshold_that_leaves_nothing(
    losiko, materials_project, tmp_path, monkeypatch, assert_one_line_error, options, words
):
    materials_project.summaries = [entry for entry in materials_project.summaries if entry["material_id"] == "mp-66"]
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    path = tmp_path / "rough.cif"
    write(path, bulk("C", a=3.6))
    outputs = ["--output", tmp_path / "out.cif", "--save-database", tmp_path / "kept.db"]
    result = losiko("relax", path, "--known-crystals", *outputs, "--energy-above-hull", "0.2", *options)
    assert_one_line_error(result, *words, "allow more")
    assert [each.name for each in tmp_path.iterdir()] == ["rough.cif"]


def test_everything_excluded(losiko, materials_project, tmp_path, monkeypatch, assert_one_line_error):
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    path = tmp_path / "rough.cif"
    write(path, bulk("Si"))
    result = losiko("relax", path, "--known-crystals", "--exclude", "mp-149", "-o", tmp_path / "out.cif", *QUICK)
    assert_one_line_error(result, "--exclude")


# -- cells that collapse or explode -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "larger"), [(0.6, True), (2.0, False)])
def test_a_cell_that_explodes_or_shrinks_is_flagged(losiko, tmp_path, scale, larger):
    """From a cell of 0.22 or 8 times the volume the way to diamond is longer than threefold."""
    path, out, report = tmp_path / "wrong.cif", tmp_path / "out.extxyz", tmp_path / "report.json"
    start = bulk("C", cubic=True)
    start.set_cell(start.cell * scale, scale_atoms=True)
    write(path, start)
    options = ["--set", "relax.relax_cell=true", "--report", report]
    result = losiko("relax", path, *EMBEDDED, "--output", out, *options)
    assert result.exit_code == 0, result.output
    assert "(exploded_cell)" in result.stdout
    (row,) = json.loads(report.read_text())["structures"]
    assert row["flags"] == ["exploded_cell"]
    ratio = read(out).cell.volume / start.cell.volume
    assert (ratio > 3) == larger and (ratio < 1 / 3) == (not larger)


def test_atoms_on_each_other_are_flagged(losiko, tmp_path):
    path, out = tmp_path / "wrong.cif", tmp_path / "out.extxyz"
    start = bulk("C", cubic=True)
    start.positions[1] = start.positions[0] + [0.5, 0, 0]
    write(path, start)
    result = losiko("relax", path, *EMBEDDED, "--output", out, "--set", "relax.max_steps=0")
    assert result.exit_code == 0, result.output
    assert "(collapsed)" in result.stdout
