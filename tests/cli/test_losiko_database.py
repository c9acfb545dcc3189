"""`losiko database build` and `info`: what is in the file, and what is told instead of a traceback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from aiida_losiko.core.environments.database import EnvironmentDatabase


def test_build_keeps_identifiers_species_and_protocol(database, known):
    loaded = EnvironmentDatabase.load(database, verify=True)
    assert loaded.sources == known
    assert list(loaded.species) == ["H", "C", "O"]
    assert loaded.descriptor.parameters["n_max"] == 4
    assert loaded.descriptor.parameters["r_cut"] == 4.0
    assert loaded.metadata["protocol"] == "balanced"
    assert loaded.metadata["files"] == ["known.extxyz"]


def test_build_says_what_it_made_and_what_to_type_next(losiko, known_file, tmp_path, small):
    output = tmp_path / "a b.db"
    result = losiko("database", "build", known_file, "--output", output, *small)
    assert result.exit_code == 0
    assert "of 7 structures, protocol balanced" in result.stdout
    assert f"Next: losiko relax STRUCTURES --database '{output}'" in result.stdout
    assert result.stderr == ""
    assert losiko("database", "build", known_file, "-o", output, *small, "--quiet").output == ""
    assert list(tmp_path.iterdir()) == [output], "no temporary file stays"


def test_the_same_input_gives_the_same_bytes(losiko, known_file, database, tmp_path, small):
    losiko("database", "build", known_file, "-o", tmp_path / "again.db", *small)
    assert (tmp_path / "again.db").read_bytes() == database.read_bytes()


def test_labels_of_structures_without_identifier(losiko, tmp_path, small):
    write(tmp_path / "pair.xyz", [molecule("H2O"), molecule("CH4")])
    write(tmp_path / "single.xyz", molecule("CH3OH"))
    files = [tmp_path / "pair.xyz", tmp_path / "single.xyz"]
    assert losiko("database", "build", *files, "-o", tmp_path / "db", *small).exit_code == 0
    assert EnvironmentDatabase.load(tmp_path / "db").sources == ["pair:0", "pair:1", "single"]


def test_identifier_key(losiko, tmp_path, small, named, assert_one_line_error):
    atoms = [named("H2O"), named("CH4")]
    for number, structure in enumerate(atoms):
        structure.info["gdb"] = number
    write(tmp_path / "in.extxyz", atoms)
    arguments = ["database", "build", tmp_path / "in.extxyz", "-o", tmp_path / "db", *small]
    assert losiko(*arguments, "--identifier-key", "gdb").exit_code == 0
    assert EnvironmentDatabase.load(tmp_path / "db").sources == ["0", "1"]
    assert_one_line_error(losiko(*arguments, "--identifier-key", "mp"), "'mp'", "gdb, identifier")


def test_parameter_file_and_settings(losiko, known_file, tmp_path):
    parameters = {"protocol": "qm9", "descriptor": {"n_max": 3, "l_max": 2}, "relax": {"max_steps": 7}}
    (tmp_path / "p.json").write_text(json.dumps(parameters))
    arguments = ["--parameters", tmp_path / "p.json", "--set", "descriptor.l_max=1", "--set", "database.dtype=float64"]
    assert losiko("database", "build", known_file, "-o", tmp_path / "db", *arguments).exit_code == 0
    loaded = EnvironmentDatabase.load(tmp_path / "db")
    have = loaded.descriptor.parameters
    assert (have["n_max"], have["l_max"], have["sigma"]) == (3, 1, 0.5)
    assert loaded.metadata["protocol"] == "qm9"


def test_species_option_adds_species_and_leaves_structures_with_others_out(losiko, known_file, tmp_path, small):
    result = losiko("database", "build", known_file, "-o", tmp_path / "db", *small, "--species", "N,C,H")
    assert result.exit_code == 3
    assert "5 of 7 structures were left out" in result.stderr
    assert "Error: H2O: " in result.stderr
    loaded = EnvironmentDatabase.load(tmp_path / "db")
    assert list(loaded.species) == ["H", "C", "N"]
    assert loaded.sources == ["CH4", "C2H6"]


def test_one_bad_structure_is_left_out(losiko, tmp_path, small, named):
    bad = named("CH4")
    bad.positions[1] = np.nan
    write(tmp_path / "in.extxyz", [named("H2O"), bad, named("CH3OH")])
    (tmp_path / "empty.xyz").touch()
    result = losiko("database", "build", tmp_path / "in.extxyz", tmp_path / "empty.xyz", "-o", tmp_path / "db", *small)
    assert result.exit_code == 3
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 2
    assert any("CH4" in line for line in errors)
    assert any("empty.xyz" in line for line in errors)
    assert EnvironmentDatabase.load(tmp_path / "db").sources == ["H2O", "CH3OH"]


def test_only_bad_structures_write_nothing(losiko, tmp_path, small):
    write(tmp_path / "in.extxyz", [Atoms("H2", [[0, 0, 0]] * 2), Atoms("H2", [[0, 0, np.inf], [0, 0, 1]])])
    (tmp_path / "db").write_text("before")
    result = losiko("database", "build", tmp_path / "in.extxyz", "-o", tmp_path / "db", *small)
    assert result.exit_code == 1
    assert "none of the 2 structures can be used" in result.stderr
    assert (tmp_path / "db").read_text() == "before"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "watr"], ["'watr'", "did you mean 'water'", "silica-interface"]),
        (["--set", "descriptor.rcut=3"], ["'descriptor.rcut'", "r_cut"]),
        (["--set", "relax.max_steps=3"], ["relax.max_steps", "losiko relax"]),
        (["--set", "descriptor.r_cut=-1"], ["-1", "r_cut"]),
        (["--set", "descriptor.weighting={function: cubic}"], ["cubic", "poly"]),
        (["--set", "database.selection=nearest"], ["nearest", "farthest"]),
        (["--species", "H,Kr,Xx"], ["'Xx'", "not an element"]),
        (["--species", " , "], ["no element"]),
        (["--parameters", "missing.yaml"], ["missing.yaml", "No such file"]),
    ],
)
def test_bad_options(losiko, known_file, tmp_path, arguments, words, assert_one_line_error):
    output = tmp_path / "known.db"
    output.write_text("before")
    assert_one_line_error(losiko("database", "build", known_file, "-o", output, *arguments), *words)
    assert output.read_text() == "before"


def test_duplicate_identifiers(losiko, tmp_path, small, named, assert_one_line_error):
    write(tmp_path / "in.extxyz", [named("H2O"), named("CH4"), named("H2O")])
    result = losiko("database", "build", tmp_path / "in.extxyz", "-o", tmp_path / "db", *small)
    assert_one_line_error(result, "'H2O'", "--identifier-key")
    assert not (tmp_path / "db").exists()


def test_bad_paths(losiko, known_file, tmp_path, small, assert_one_line_error):
    build = ["database", "build", known_file, *small, "-o"]
    assert_one_line_error(losiko(*build, tmp_path / "no" / "db"), "no such folder", "mkdir")
    assert_one_line_error(losiko(*build, tmp_path), "is a folder")
    before = known_file.read_bytes()
    assert_one_line_error(losiko(*build, known_file), "an input of this command")
    assert known_file.read_bytes() == before
    missing = losiko("database", "build", tmp_path / "missing.xyz", "-o", tmp_path / "db")
    assert_one_line_error(missing, "missing.xyz")
    assert_one_line_error(losiko("database", "build", tmp_path, "-o", tmp_path / "db"), "folder")
    assert list(tmp_path.iterdir()) == []


def test_info(losiko, database):
    text = losiko("database", "info", database, "--verify").stdout
    assert "r_cut 4.0" in text
    assert "protocol" in text.lower()
    assert "checksums are right" in text
    rows = {line.split()[0]: line.split()[1] for line in text.splitlines() if line[:2] in ("H ", "C ", "O ")}
    summary = json.loads(losiko("database", "info", database, "--json").stdout)
    counts = EnvironmentDatabase.load(database).n_environments
    assert rows == {symbol: str(count) for symbol, count in counts.items()}
    assert summary["n_environments"] == counts


def test_info_of_altered_truncated_and_other_files(losiko, database, tmp_path, assert_one_line_error):
    content = database.read_bytes()
    bad = tmp_path / "bad.db"
    for altered in (content[: len(content) // 2], b"", b"not a database", zeroed := content[:-64] + bytes(64)):
        bad.write_bytes(altered)
        arguments = ["--verify"] if altered is zeroed else []
        assert_one_line_error(losiko("database", "info", bad, *arguments), "bad.db")
    assert_one_line_error(losiko("database", "info", tmp_path / "missing.db"), "missing.db")
