"""`losiko relax` on real molecules: what is written, and every bad input with its exit status and untouched outputs."""

from __future__ import annotations

import json
import os
import shlex

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.io import read, write

from aiida_losiko import __version__
from aiida_losiko.core.structures import read_any, write_any

HALF_OCCUPIED = """data_half
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
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
C1 C 0 0 0 0.5
O1 O 0.3 0 0 1.0
"""


def coincident():
    return Atoms("HOH", [[0, 0, 0], [0, 0, 0.96], [0, 0, 0]])


def broken(value):
    atoms = molecule("H2O")
    atoms.positions[1, 2] = value
    return atoms


def flat():
    return Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True)


# Name, structure (or the text of a CIF file), what the message has to name.
BAD_STRUCTURES = [
    pytest.param(Atoms("HCl", [[0, 0, 0], [0, 0, 1.3]]), ["Cl", "H, C, O"], id="species"),
    pytest.param(broken(np.nan), ["nan"], id="nan"),
    pytest.param(broken(np.inf), ["inf"], id="inf"),
    pytest.param(coincident(), ["0 (H)", "2 (H)", "0.01"], id="coincident"),
    pytest.param(flat(), ["volume", "pbc"], id="flat-cell"),
    pytest.param(HALF_OCCUPIED, ["C 0.5", "occupancy 1"], id="occupancy"),
]


def write_bad(folder, content):
    path = folder / ("bad.cif" if isinstance(content, str) else "bad.extxyz")
    path.write_text(content) if isinstance(content, str) else write(path, content)
    return path


@pytest.fixture
def outputs(tmp_path):
    """An output and a report from before, and a check that both are as they were and alone in their folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    files = [folder / "out.extxyz", folder / "report.json"]
    for file in files:
        file.write_text("before")

    class Outputs:
        arguments = ("--output", files[0], "--report", files[1])

        @staticmethod
        def assert_untouched():
            assert [file.read_text() for file in files] == ["before", "before"]
            assert sorted(folder.iterdir()) == files

    return Outputs


def distances(atoms):
    return atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]


def test_displaced_molecules_of_the_database_come_back(losiko, database, rough_file, tmp_path):
    out, report = tmp_path / "relaxed.extxyz", tmp_path / "report.json"
    result = losiko("relax", rough_file, "--database", database, "--output", out, "--report", report)
    assert result.exit_code == 0, result.output
    relaxed = read(out, ":")
    for start, atoms in zip(read(rough_file, ":"), relaxed, strict=True):
        true = distances(molecule(atoms.info["identifier"]))
        assert atoms.info["identifier"] == start.info["identifier"]
        assert np.abs(distances(atoms) - true).max() < 0.25 * np.abs(distances(start) - true).max()
        assert atoms.info["losiko_status"] == "converged"
        assert atoms.info["losiko_converged"]
        assert atoms.info["losiko_loss"] < 1e-3
        assert atoms.arrays["losiko_distance"].shape == (len(atoms),)
    document = json.loads(report.read_text())
    assert (document["format"], document["version"]) == ("losiko-report/1", __version__)
    assert (document["protocol"], document["settings"]["optimizer"]) == ("balanced", "lbfgs")
    assert document["database"]["n_environments"].keys() == {"H", "C", "O"}
    for index, (row, atoms) in enumerate(zip(document["structures"], relaxed, strict=True)):
        assert (row["label"], row["index"], row["error"]) == (atoms.info["identifier"], index, None)
        assert row["loss"] == pytest.approx(atoms.info["losiko_loss"])
        assert row["loss"] < row["initial_loss"]
        assert row["matches"]["distance"] == pytest.approx(atoms.arrays["losiko_distance"].tolist(), abs=1e-7)
        assert len(row["matches"]["source"]) == len(atoms)


def test_table_and_what_to_type_next(losiko, database, rough_file, tmp_path):
    out = tmp_path / "relaxed.extxyz"
    result = losiko("relax", rough_file, "-d", database, "-o", out)
    lines = result.stdout.splitlines()
    rows = [line for line in lines if line.startswith(("CH3CH2OH ", "CH3OH ", "H2O "))]
    assert [row.split()[1] for row in rows] == ["9", "6", "3"]
    assert all("converged" in row for row in rows)
    assert "3 structures: 3 converged" in lines
    assert lines[-1] == f"Next: ase gui {out}"
    assert "Relaxing 3 structures (18 atoms) with lbfgs, protocol balanced" in result.stdout
    unfinished = losiko("relax", rough_file, "-d", database, "-o", out, "--set", "relax.max_steps=1")
    assert f"Next: losiko relax {out} --database {database} --output " in unfinished.stdout
    assert unfinished.exit_code == 0
    assert losiko("relax", rough_file, "-d", database, "-o", out, "--quiet").output == ""


def test_labels_of_an_earlier_run_do_not_stay(losiko, database, rough_file, tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    assert losiko("relax", rough_file, "-d", database, "-o", first, "-q").exit_code == 0
    again = ["--max-seconds", "1e-9", "--set", "relax.batch_size=1", "-q"]
    assert losiko("relax", first, "-d", database, "-o", second, *again).exit_code == 0
    infos = [atoms.info for atoms in read_any(second)]
    # The time was over before the second batch began; the first may have had nothing left to do.
    assert [info["losiko_status"] for info in infos].count("max_seconds") >= 2
    assert sum("losiko_loss" in info for info in infos) == 1


@pytest.mark.parametrize("name", ["it's ünï.npz", "it's.extxyz.gz"])
def test_what_to_type_next_can_be_typed(losiko, database, rough_file, tmp_path, name):
    (tmp_path / "a.b").mkdir()
    out = tmp_path / "a.b" / name
    done = losiko("relax", rough_file, "-d", database, "-o", out).stdout.splitlines()[-1].split(maxsplit=1)[1]
    assert str(out) in shlex.split(done)[-1] or repr(str(out)) in shlex.split(done)[-1]
    few = losiko("relax", rough_file, "-d", database, "-o", out, "--set", "relax.max_steps=1").stdout
    arguments = shlex.split(few.splitlines()[-1].split(maxsplit=1)[1])
    assert arguments[-1] == str(out.with_name(name.replace(".", "-2.", 1)))
    assert losiko(*arguments[1:]).exit_code == 0


def test_order_labels_arrays_and_frozen_atoms_are_kept_in_a_set_file(losiko, database, named, tmp_path):
    structures = [named("H2O", 0.05), named("CH3OH", 0.05)]
    for number, atoms in enumerate(structures):
        atoms.info["run"] = {"number": number}
        atoms.set_tags(range(len(atoms)))
    structures[1].set_constraint(FixAtoms([0, 1]))
    write_any(tmp_path / "in.npz", structures)
    result = losiko("relax", tmp_path / "in.npz", "-d", database, "-o", tmp_path / "out.npz")
    assert result.exit_code == 0
    assert result.stderr.count("Warning") == 0
    relaxed = read_any(tmp_path / "out.npz")
    assert [atoms.info["identifier"] for atoms in relaxed] == ["H2O", "CH3OH"]
    assert [atoms.info["run"]["number"] for atoms in relaxed] == [0, 1]
    assert relaxed[1].get_tags().tolist() == list(range(6))
    assert relaxed[1].constraints[0].index.tolist() == [0, 1]
    assert (relaxed[1].positions[:2] == structures[1].positions[:2]).all()
    assert np.abs(relaxed[1].positions[2:] - structures[1].positions[2:]).max() > 1e-3


def test_weights_by_atom(losiko, database, named, tmp_path, assert_one_line_error):
    """An atom without weight has no say, in whatever file the weights are."""
    losses = {}
    for name, weights in {"alike": None, "one": [1, 0, 0, 0, 0, 0], "half": [0.5, 0, 0, 0, 0, 0]}.items():
        atoms = named("CH3OH", 0.05)
        if weights is not None:
            atoms.set_array("losiko_weight", np.array(weights, dtype=float))
        write_any(tmp_path / "in.extxyz", [atoms])
        out, still = tmp_path / "out.npz", ("--set", "relax.max_steps=0")
        assert losiko("relax", tmp_path / "in.extxyz", "-d", database, "-o", out, *still).exit_code == 0
        losses[name] = read_any(out)[0].info["losiko_loss"]
    assert losses["one"] < 0.9 * losses["alike"]
    assert losses["half"] != pytest.approx(losses["one"])
    atoms.arrays["losiko_weight"][2] = -1
    write_any(tmp_path / "in.npz", [atoms])
    result = losiko("relax", tmp_path / "in.npz", "-d", database, "-o", tmp_path / "no.npz")
    assert_one_line_error(result, "weights are", "6 numbers from 0")
    assert not (tmp_path / "no.npz").exists()


def test_settings_reach_the_optimiser(losiko, database, rough_file, tmp_path):
    (tmp_path / "p.yaml").write_text("relax: {optimizer: fire, max_steps: 3, seed: 5}")
    losiko(
        *("relax", rough_file, "-d", database, "-o", tmp_path / "out.xyz", "--report", tmp_path / "r.json"),
        *("--parameters", tmp_path / "p.yaml", "--set", "relax.max_steps=2"),
    )
    document = json.loads((tmp_path / "r.json").read_text())
    assert [document["settings"][key] for key in ("optimizer", "max_steps", "seed")] == ["fire", 2, 5]
    assert {row["status"] for row in document["structures"]} == {"max_steps"}
    assert {row["steps"] for row in document["structures"]} == {2}


def test_exclude_leaves_a_source_out(losiko, database, rough_file, tmp_path, assert_one_line_error):
    arguments = ["relax", rough_file, "-d", database, "-o", tmp_path / "out.xyz", "--report", tmp_path / "r.json"]
    assert losiko(*arguments, "--exclude", "CH3CH2OH", "--exclude", "H2O").exit_code == 0
    document = json.loads((tmp_path / "r.json").read_text())
    sources = {source for row in document["structures"] for source in row["matches"]["source"]}
    assert document["excluded"] == ["CH3CH2OH", "H2O"]
    assert "CH3OH" in sources
    assert not sources & {"CH3CH2OH", "H2O"}
    assert_one_line_error(losiko(*arguments, "--exclude", "CH3CH2O"), "'CH3CH2O'", "did you mean 'CH3CH2OH'")


def test_relax_settings_are_those_of_the_protocol_of_the_database(losiko, known_file, rough_file, tmp_path):
    build = ["database", "build", known_file, "-o", tmp_path / "db", "--protocol", "carbon"]
    assert losiko(*build, "--set", "descriptor.n_max=3", "--set", "descriptor.l_max=2").exit_code == 0
    relax = ["relax", rough_file, "-d", tmp_path / "db", "-o", tmp_path / "o.xyz", "--report", tmp_path / "r.json"]
    # The protocol that the database was built with is no contradiction, even if it was changed then.
    for arguments in ([], ["--protocol", "carbon"], ["--set", "descriptor.n_max=3"]):
        assert losiko(*relax, *arguments).exit_code == 0
        document = json.loads((tmp_path / "r.json").read_text())
        assert (document["protocol"], document["settings"]["relax_cell"]) == ("carbon", True)


def test_time_that_ran_out_is_a_status(losiko, database, rough_file, tmp_path):
    out = tmp_path / "out.extxyz"
    result = losiko("relax", rough_file, "-d", database, "-o", out, "--max-seconds", "1e-6")
    assert result.exit_code == 0
    assert [atoms.info["losiko_status"] for atoms in read(out, ":")] == ["max_seconds"] * 3


@pytest.mark.parametrize(("content", "words"), BAD_STRUCTURES)
def test_one_bad_structure_alone(losiko, database, tmp_path, outputs, assert_one_line_error, content, words):
    path = write_bad(tmp_path, content)
    assert_one_line_error(losiko("relax", path, "-d", database, *outputs.arguments), "bad", *words)
    outputs.assert_untouched()


@pytest.mark.parametrize(("content", "words"), BAD_STRUCTURES)
def test_one_bad_structure_in_a_batch(losiko, database, rough_file, tmp_path, outputs, content, words):
    path = write_bad(tmp_path, content)
    result = losiko("relax", rough_file, path, "-d", database, *outputs.arguments)
    assert result.exit_code == 3, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in ["bad", *words])
    relaxed = read(outputs.arguments[1], ":")
    assert [atoms.info["losiko_status"] for atoms in relaxed] == ["converged"] * 3 + ["error"]
    unchanged = read(path)
    np.testing.assert_array_equal(relaxed[3].positions, unchanged.positions)
    assert not relaxed[3].info["losiko_converged"]
    rows = json.loads(outputs.arguments[3].read_text())["structures"]
    assert [row["status"] for row in rows] == ["converged"] * 3 + ["error"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["error"] in errors[0]
    assert "4 structures: 3 converged, 1 error" in result.stdout


@pytest.mark.parametrize("content", ["", "2\n\nH 0 0\n", "nonsense\n"])
def test_files_that_cannot_be_read(losiko, database, rough_file, tmp_path, outputs, assert_one_line_error, content):
    path = tmp_path / "bad.xyz"
    path.write_text(content)
    assert_one_line_error(losiko("relax", path, "-d", database, *outputs.arguments), "bad.xyz")
    outputs.assert_untouched()
    result = losiko("relax", path, rough_file, "-d", database, *outputs.arguments)
    assert result.exit_code == 3
    assert len(read(outputs.arguments[1], ":")) == 3
    rows = json.loads(outputs.arguments[3].read_text())["structures"]
    assert [row["index"] for row in rows] == [None, 0, 1, 2]
    assert [row["status"] for row in rows] == ["error"] + ["converged"] * 3


def test_an_empty_structure(losiko, database, named, tmp_path, outputs, assert_one_line_error):
    write_any(tmp_path / "bad.npz", [Atoms()])
    assert_one_line_error(losiko("relax", tmp_path / "bad.npz", "-d", database, *outputs.arguments), "bad", "no atoms")
    outputs.assert_untouched()
    write_any(tmp_path / "both.npz", [named("H2O", 0.05), Atoms()])
    result = losiko("relax", tmp_path / "both.npz", "-d", database, "-o", tmp_path / "out.npz")
    assert result.exit_code == 3
    assert [len(atoms) for atoms in read_any(tmp_path / "out.npz")] == [3, 0]


def test_several_structures_that_are_all_bad(losiko, database, tmp_path, outputs):
    write(tmp_path / "bad.extxyz", [coincident(), broken(np.nan)])
    result = losiko("relax", tmp_path / "bad.extxyz", "-d", database, *outputs.arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: none of the 2 structures can be used; nothing was written"
    outputs.assert_untouched()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "balenced"], ["'balenced'", "did you mean 'balanced'", "licoo2"]),
        (["--protocol", "qm9"], ["qm9", "sigma 0.5 (database: 0.3)", "losiko database build"]),
        (["--set", "descriptor.r_cut=3.5"], ["r_cut 3.5 (database: 4.0)", "losiko database build"]),
        (["--set", "descriptor.weighting=null"], ["weighting none (database: {", "losiko database build"]),
        (["--set", "relax.max_step=3"], ["'relax.max_step'", "max_steps"]),
        (["--set", "relax.max_steps=many"], ["many", "max_steps"]),
        (["--set", "relax.optimizer=newton"], ["newton", "lbfgs"]),
        (["--set", "database.seed=1"], ["database.seed", "losiko database build"]),
        (["--set", "max_steps=1"], ["'max_steps=1'", "section.key=value"]),
        (["--max-seconds", "0"], ["--max-seconds 0"]),
        (["--max-seconds", "nan"], ["--max-seconds nan"]),
        (["--parameters", "missing.json"], ["missing.json"]),
    ],
)
def test_bad_options(losiko, database, rough_file, outputs, assert_one_line_error, arguments, words):
    result = losiko("relax", rough_file, "-d", database, *outputs.arguments, *arguments)
    assert_one_line_error(result, *words)
    outputs.assert_untouched()


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content[:-64] + bytes(64), id="altered"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"not a database", id="other"),
    ],
)
def test_a_database_that_is_not_what_was_written(
    losiko, database, rough_file, tmp_path, outputs, assert_one_line_error, alter
):
    (tmp_path / "bad.db").write_bytes(alter(database.read_bytes()))
    assert_one_line_error(losiko("relax", rough_file, "-d", tmp_path / "bad.db", *outputs.arguments, "-q"), "bad.db")
    outputs.assert_untouched()


def test_bad_paths(losiko, database, rough_file, tmp_path, outputs, assert_one_line_error):
    def relax(*arguments):
        return losiko("relax", rough_file, "-d", database, *arguments)

    before = rough_file.read_bytes()
    assert_one_line_error(relax("-o", tmp_path / "no" / "out.xyz"), "no such folder", "mkdir")
    assert_one_line_error(relax("-o", tmp_path), "is a folder")
    assert_one_line_error(relax("-o", rough_file), "an input of this command")
    assert_one_line_error(relax("-o", tmp_path / "a.xyz", "--report", database), "--report", "an input of this command")
    assert_one_line_error(relax("-o", tmp_path / "a.xyz", "--report", tmp_path / "a.xyz"), "also the file of --output")
    assert_one_line_error(relax("-o", tmp_path / "out.nonsense"), f"Error: {tmp_path / 'out.nonsense'}: ")
    os.mkfifo(tmp_path / "pipe.xyz")
    assert_one_line_error(relax("-o", tmp_path / "pipe.xyz"), "--output", "is a device or a pipe")
    assert_one_line_error(relax("-o", tmp_path / "a.xyz", "--report", tmp_path / "pipe.xyz"), "--report", "a pipe")
    assert (tmp_path / "pipe.xyz").is_fifo()
    assert_one_line_error(losiko("relax", rough_file, "-d", tmp_path / "no.db", *outputs.arguments), "no.db")
    assert_one_line_error(losiko("relax", tmp_path / "no.xyz", "-d", database, *outputs.arguments), "no.xyz")
    outputs.assert_untouched()
    assert rough_file.read_bytes() == before
    assert not (tmp_path / "a.xyz").exists()


def test_a_report_that_cannot_be_written_leaves_the_structures_alone(
    losiko, database, rough_file, outputs, assert_one_line_error, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    result = losiko("relax", rough_file, "-d", database, *outputs.arguments, "--quiet")
    assert_one_line_error(result, "No space left on device", "report.json")
    monkeypatch.undo()
    outputs.assert_untouched()


def test_a_bug_keeps_its_traceback(losiko, database, rough_file, outputs, monkeypatch):
    def bug(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr("aiida_losiko.core.relaxation.driver.relax", bug)
    with pytest.raises(KeyError, match="a bug"):
        losiko("relax", rough_file, "-d", database, *outputs.arguments)
    outputs.assert_untouched()


def test_any_number_of_processes_writes_the_same(losiko, database, rough_file, tmp_path):
    command = ("relax", rough_file, "-d", database, "--set", "relax.batch_size=1", "--quiet")
    for name, options in (("one", ["--processes", 1]), ("two", ["--processes", 2]), ("default", [])):
        result = losiko(*command, "-o", tmp_path / f"{name}.extxyz", *options)
        assert (result.exit_code, result.output) == (0, "")
    one = (tmp_path / "one.extxyz").read_bytes()
    assert one == (tmp_path / "two.extxyz").read_bytes() == (tmp_path / "default.extxyz").read_bytes()
    wrong = losiko(*command, "-o", tmp_path / "wrong.extxyz", "--processes", 0)
    assert wrong.exit_code == 2 and "--processes" in wrong.stderr
    assert not (tmp_path / "wrong.extxyz").exists()
