from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixedPlane

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures import (
    FORMAT,
    check_structure,
    read_any,
    read_structures,
    write_any,
    write_structures,
)


@pytest.fixture
def structures() -> list[Atoms]:
    water = molecule("H2O")
    water.info.update({"identifier": "g2:H2O", "energy": np.float64(-1.5), "shifts": np.arange(3), "note": "ä=1 b"})
    slab = bulk("NaCl", "rocksalt", a=5.64).repeat((1, 1, 2))
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms([0, 2]))
    slab.info["identifier"] = "slab"
    lone = Atoms("He", positions=[[0.1, 0.2, 1 / 3]])
    for atoms in (water, slab, lone):
        atoms.set_array("site", np.arange(len(atoms)) * 10)
        atoms.set_array("velocity", np.full((len(atoms), 3), 0.25))
        atoms.set_array("label", np.array([f"a{i}" * (i + 1) for i in range(len(atoms))]))
    return [water, slab, lone]


def assert_same(a: Atoms, b: Atoms) -> None:
    assert list(a.numbers) == list(b.numbers)
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.cell.array, b.cell.array)
    np.testing.assert_array_equal(a.pbc, b.pbc)
    assert set(a.arrays) == set(b.arrays)
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name])
    fixed = [sorted(i for c in atoms.constraints for i in c.index) for atoms in (a, b)]
    assert fixed[0] == fixed[1]


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_round_trip_keeps_everything(tmp_path, structures):
    path = tmp_path / "set.npz"
    write_structures(path, structures)
    back = read_structures(path)
    for a, b in zip(structures, back, strict=True):
        assert_same(a, b)
    assert back[0].info == {"identifier": "g2:H2O", "energy": -1.5, "shifts": [0, 1, 2], "note": "ä=1 b"}
    assert "identifier" not in back[2].info
    with np.load(path, allow_pickle=False) as archive:
        assert str(archive["format"]) == FORMAT
        assert archive["positions"].dtype == np.float64
        assert list(archive["n_atoms"]) == [3, 4, 1]
        assert not any(key.startswith("array:") and archive[key].dtype.hasobject for key in archive.files)


def test_same_content_same_bytes(tmp_path, structures):
    write_structures(tmp_path / "a.npz", structures)
    structures[0].info = dict(reversed(structures[0].info.items()))
    write_structures(tmp_path / "b.npz", structures)
    assert digest(tmp_path / "a.npz") == digest(tmp_path / "b.npz")
    write_structures(tmp_path / "c.npz", read_structures(tmp_path / "a.npz"))
    assert digest(tmp_path / "a.npz") == digest(tmp_path / "c.npz")
    structures[2].positions[0, 0] += 1e-12
    write_structures(tmp_path / "b.npz", structures)
    assert digest(tmp_path / "a.npz") != digest(tmp_path / "b.npz")


def test_file_objects_and_identifiers(tmp_path, structures):
    path = tmp_path / "set.npz"
    with path.open("wb") as stream:
        write_structures(stream, structures, identifiers=["x", "y", "z"])
    with path.open("rb") as stream:
        assert [atoms.info["identifier"] for atoms in read_structures(stream)] == ["x", "y", "z"]
    with pytest.raises(LosikoError, match="2 identifiers for 3 structures"):
        write_structures(path, structures, identifiers=["x", "y"])


def test_what_cannot_be_kept_is_named(tmp_path, structures):
    structures[0].info["function"] = print
    del structures[1].arrays["site"]
    structures[2].set_constraint(FixedPlane(0, (0, 0, 1)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_structures(tmp_path / "set.npz", structures)
    text = " ".join(str(warning.message) for warning in caught)
    assert "'function'" in text and "site" in text and "FixedPlane" in text
    back = read_structures(tmp_path / "set.npz")
    assert "function" not in back[0].info and "site" not in back[0].arrays and "velocity" in back[0].arrays


def test_failed_write_leaves_the_old_file(tmp_path, structures, monkeypatch):
    path = tmp_path / "set.npz"
    write_structures(path, structures)
    before = digest(path)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(KeyboardInterrupt):
        write_structures(path, structures[:1])
    assert digest(path) == before
    assert [item.name for item in tmp_path.iterdir()] == ["set.npz"]


def test_bad_set_files_are_refused_in_one_line(tmp_path, structures):
    good = tmp_path / "good.npz"
    write_structures(good, structures)
    data = good.read_bytes()

    def refuse(content: bytes, pattern: str) -> None:
        path = tmp_path / "bad.npz"
        path.write_bytes(content)
        for reader in (read_structures, read_any):
            with pytest.raises(LosikoError, match=pattern) as excinfo:
                reader(path)
            assert "\n" not in str(excinfo.value) and "bad.npz" in str(excinfo.value)

    refuse(b"", "empty")
    refuse(data[: len(data) // 2], "truncated")
    refuse(b"not a zip at all", "truncated, altered or of another kind")
    position = data.index(np.float64(1 / 3).tobytes())
    refuse(data[:position] + b"\x00" + data[position + 1 :], "CRC")
    np.savez(tmp_path / "foreign.npz", x=np.arange(3))
    refuse((tmp_path / "foreign.npz").read_bytes(), "format is 'none'")

    def rewritten(**changes) -> bytes:
        with np.load(good) as archive:
            arrays = {**{key: archive[key] for key in archive.files}, **changes}
        np.savez(tmp_path / "changed.npz", **{key: array for key, array in arrays.items() if array is not None})
        return (tmp_path / "changed.npz").read_bytes()

    refuse(rewritten(format=np.array("losiko-structures/2")), "losiko-structures/2.*reads 'losiko-structures/1'")
    refuse(rewritten(numbers=None), "no 'numbers'")
    refuse(rewritten(n_atoms=np.array([3, 4, 2])), "do not fit")
    refuse(rewritten(n_atoms=np.array([3, 6, -1])), "n_atoms")
    refuse(rewritten(info=np.array(["{", "{}", "{}"])), "not JSON")
    refuse(rewritten(extra=np.array([{}], dtype=object)), "allow_pickle")
    with pytest.raises(LosikoError, match="no such file"):
        read_structures(tmp_path / "missing.npz")
    with pytest.raises(LosikoError, match="no structures"):
        write_structures(tmp_path / "none.npz", [])


def test_order_of_zip_entries_is_fixed(tmp_path, structures):
    write_structures(tmp_path / "a.npz", structures)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        entries = archive.infolist()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("name", ["out.extxyz", "out.xyz", "out.npz"])
def test_any_format_keeps_order_labels_arrays(tmp_path, structures, name):
    write_any(tmp_path / name, structures)
    assert [item.name for item in tmp_path.iterdir()] == [name]
    back = read_any(tmp_path / name)
    assert len(back) == 3
    for a, b in zip(structures, back, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-8)
        np.testing.assert_array_equal(a.arrays["site"], b.arrays["site"])
        np.testing.assert_array_equal(a.arrays["label"], b.arrays["label"])
        assert a.info.get("identifier") == b.info.get("identifier")
        assert [list(c.index) for c in a.constraints] == [list(c.index) for c in b.constraints]
    assert back[0].info["note"] == "ä=1 b"
    assert len(read_any(tmp_path / name, index="1:")) == 2
    assert len(read_any(tmp_path / name, index=-1)[0]) == 1
    with pytest.raises(LosikoError, match="index"):
        read_any(tmp_path / name, index=7)


@pytest.mark.parametrize("name", ["a.xyz.gz", "a.extxyz.gz", "a.extxyz.bz2", "a.xyz.xz", "a.cif.gz"])
def test_compressed_files(tmp_path, structures, name, monkeypatch):
    write_any(tmp_path / name, structures)
    first = digest(tmp_path / name)
    assert [str(atoms.symbols) for atoms in read_any(tmp_path / name)] == [str(atoms.symbols) for atoms in structures]
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_any(tmp_path / name, structures)
    assert digest(tmp_path / name) == first


def test_identifier_is_a_string_and_not_invented(tmp_path):
    (tmp_path / "a.extxyz").write_text(
        "1\nProperties=species:S:1:pos:R:3 identifier=57\nH 0 0 0\n1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n"
    )
    first, second = read_any(tmp_path / "a.extxyz")
    assert first.info["identifier"] == "57"
    assert "identifier" not in second.info


def test_extxyz_keeps_results_and_leaves_input_alone(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5)
    atoms.info["object"] = object()
    with pytest.warns(UserWarning, match="'object'"):
        write_any(tmp_path / "a.extxyz", atoms)
    assert set(atoms.info) == {"object"}
    assert read_any(tmp_path / "a.extxyz")[0].get_potential_energy() == -3.5


def test_formats_of_one_structure(tmp_path, structures):
    write_any(tmp_path / "POSCAR", structures[1])
    assert read_any(tmp_path / "POSCAR")[0].get_chemical_formula() == structures[1].get_chemical_formula()
    with pytest.raises(LosikoError, match=r"holds one structure, not 3; write \.extxyz"):
        write_any(tmp_path / "POSCAR2.vasp", structures)
    with pytest.raises(LosikoError, match="knows no format"):
        write_any(tmp_path / "a.nonsense", structures)
    with pytest.raises(LosikoError, match="does not exist"):
        write_any(tmp_path / "missing" / "a.extxyz", structures)
    with pytest.raises(LosikoError, match="cannot write"):
        write_any(tmp_path / "OUTCAR", structures)
    with pytest.raises(LosikoError, match="no structures to write"):
        write_any(tmp_path / "a.extxyz", [])
    assert [item.name for item in tmp_path.iterdir()] == ["POSCAR"]


def test_a_full_disk_and_a_file_without_permission_are_told_as_such(tmp_path, structures, monkeypatch):
    write_any(tmp_path / "a.extxyz", structures)
    before = (tmp_path / "a.extxyz").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ase.io.extxyz.write_extxyz", full)
    with pytest.raises(LosikoError, match=r"cannot write .*a\.extxyz: No space left on device; make room"):
        write_any(tmp_path / "a.extxyz", structures)
    assert (tmp_path / "a.extxyz").read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.extxyz"]

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("ase.io.read", denied)
    with pytest.raises(LosikoError, match=r"cannot read .*a\.extxyz: Permission denied; check"):
        read_any(tmp_path / "a.extxyz")


def test_failed_ase_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.vasp"
    write_any(path, bulk("Si"))
    before = path.read_bytes()
    with pytest.raises(LosikoError, match="ASE cannot write this as vasp"):
        write_any(path, Atoms("H"))  # VASP wants a cell
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.vasp"]


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("a.extxyz", b"", "empty"),
        ("a.extxyz", b"3\n\nH 0 0 0\n", "cannot read it"),
        ("a.cif", b"\x00\x01 rubbish", "a.cif"),
        ("a.nonsense", b"rubbish", "knows no format"),
        ("a.traj", b"rubbish", "cannot read it"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LosikoError, match=pattern) as excinfo:
        read_any(tmp_path / name)
    assert "\n" not in str(excinfo.value) and name in str(excinfo.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(LosikoError, match="no such file"):
        read_any(tmp_path / "a.xyz")
    with pytest.raises(LosikoError, match="folder"):
        read_any(tmp_path)


CIF = """data_test
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Fe1 Fe 0 0 0 {first}
{second}
O1 O 0.5 0.5 0.5 1.0
"""


@pytest.mark.parametrize(
    ("first", "second", "pattern"), [(0.5, "Co1 Co 0 0 0 0.5", "Fe 0.5, Co 0.5"), (0.75, "", "Fe 0.75")]
)
def test_partial_occupancies_are_refused(tmp_path, first, second, pattern):
    path = tmp_path / "a.cif"
    path.write_text(CIF.format(first=first, second=second).replace("\n\n", "\n"))
    with pytest.raises(LosikoError, match=pattern) as excinfo:
        read_any(path)
    assert "\n" not in str(excinfo.value) and "a.cif" in str(excinfo.value)
    (atoms,) = read_any(path, allow_partial_occupancy=True)
    with pytest.raises(LosikoError, match=pattern):
        check_structure(atoms)


def test_full_occupancies_pass_and_can_be_written(tmp_path):
    path = tmp_path / "a.cif"
    path.write_text(CIF.format(first=1.0, second="").replace("\n\n", "\n"))
    atoms = read_any(path)[0]
    check_structure(atoms, species=["Fe", "O"])
    with pytest.warns(UserWarning, match="spacegroup"):
        write_any(tmp_path / "a.npz", atoms)
    with pytest.warns(UserWarning, match="spacegroup"):
        write_any(tmp_path / "a.extxyz", atoms)
    assert json.dumps(read_any(tmp_path / "a.npz")[0].info["occupancy"])


def cell_atoms(cell, positions, pbc=True, symbols=None) -> Atoms:
    return Atoms(symbols or f"H{len(positions)}", positions=positions, cell=cell, pbc=pbc)


@pytest.mark.parametrize(
    ("atoms", "pattern"),
    [
        (Atoms(), "no atoms"),
        (Atoms("H2", positions=[[0, 0, 0], [np.nan, 0, 0]]), r"atom 1 \(H\).*nan"),
        (Atoms("H2", positions=[[0, 0, 0], [0, np.inf, 0]]), "inf"),
        (cell_atoms(np.diag([4, 4, np.nan]), [[0, 0, 0]]), "cell holds NaN"),
        (Atoms("HX", positions=[[0, 0, 0], [0, 0, 1]]), "dummy"),
        (Atoms("HHe", positions=[[0, 0, 0], [0, 0, 0]]), r"0 \(H\) and 1 \(He\) are 0 Angstrom apart"),
        (cell_atoms([4, 4, 4], [[0.001, 1, 1], [3.999, 1, 1]]), "0.002 Angstrom"),
        (cell_atoms([4, 4, 4], [[0, 0, 0], [4, -8, 12]]), "0 Angstrom"),
        (cell_atoms([4, 4, 4], [[1e-3, 1e-3, 1e-3], [3.999, 3.999, 3.999]]), "0.0035 Angstrom"),
        (cell_atoms([0.005, 4, 4], [[0, 0, 0]]), "repeats after 0.005 Angstrom"),
        (cell_atoms([0.05, 0.05, 0.05], [[0, 0, 0]]), "repeats after 0.05 Angstrom"),
        (Atoms("H2", positions=[[0, 0, 0], [1e160, 0, 0]]), r"1e\+160 Angstrom long; allowed is at most 1e\+06"),
        (cell_atoms([4, 4, 1e200], [[0, 0, 0]]), r"1e\+200 Angstrom"),
        (cell_atoms([4, 4, 0], [[0, 0, 0]]), "no volume"),
        (cell_atoms([0, 0, 0], [[0, 0, 0]]), "no volume"),
        (cell_atoms([[4, 0, 0], [8, 0, 0], [0, 0, 4]], [[0, 0, 0]]), "no volume"),
        (cell_atoms([[4, 0, 0], [4, 1e-9, 0], [0, 0, 4]], [[0, 0, 0]]), "no volume"),
        (cell_atoms([[4, 0, 0], [8, 0, 0], [0, 0, 4]], [[0, 0, 0]], pbc=(1, 1, 0)), "no volume"),
        (cell_atoms([[4, 0, 0], [400, 0.005, 0], [0, 0, 4]], [[0, 0, 0]]), "repeats after 0.005 Angstrom"),
    ],
)
def test_bad_structures_are_refused(atoms, pattern):
    with pytest.raises(LosikoError, match=pattern) as excinfo:
        check_structure(atoms)
    assert "\n" not in str(excinfo.value)


@pytest.mark.parametrize(
    "atoms",
    [
        molecule("CH3CH2OH"),
        Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.05]]),
        cell_atoms([4, 4, 0], [[0, 0, 0]], pbc=(True, True, False)),
        cell_atoms([0, 0, 3], [[0, 0, 0]], pbc=(False, False, True)),
        cell_atoms([[4, 0, 0], [8, 0, 0], [0, 0, 4]], [[0, 0, 0]], pbc=False),
        cell_atoms([[4, 0, 0], [8, 0, 0], [0, 0, 4]], [[0, 0, 0]], pbc=(True, False, True)),
        cell_atoms([[4, 0, 0], [40000, 1, 0], [0, 0, 4]], [[0, 0, 0]]),
        cell_atoms([[4, 0, 0], [0, 4, 0], [0, 0, -4]], [[0, 0, 0], [2, 2, 2]]),
        bulk("Si"),
    ],
)
def test_sound_structures_pass(atoms):
    check_structure(atoms)


def test_coincidence_against_brute_force():
    rng = np.random.default_rng(3)
    for _ in range(60):
        cell = rng.normal(size=(3, 3)) * rng.uniform(0.3, 1.0)
        pbc = rng.random(3) < 0.7
        positions = rng.normal(size=(6, 3))
        # one atom close to an image of another
        positions[5] = positions[0] + (rng.integers(-2, 3, size=3) * pbc) @ cell + 0.006 * rng.normal(size=3)
        shifts = np.array(np.meshgrid(*[range(-12, 13) if p else [0] for p in pbc])).reshape(3, -1).T
        images = (shifts @ cell)[:, None, None] + positions[None, None] - positions[None, :, None]
        distances = np.linalg.norm(images, axis=-1)
        own = (shifts == 0).all(axis=1)
        distances[own] += np.diag(np.full(6, np.inf))
        expected = distances.min()
        atoms = cell_atoms(cell, positions, pbc=pbc)
        if (np.linalg.norm(shifts @ cell, axis=1)[~own] < 0.3).any():
            with pytest.raises(LosikoError, match="repeats"):
                check_structure(atoms)
            continue
        if abs(expected - 0.01) < 1e-6:
            continue
        if expected < 0.01:
            with pytest.raises(LosikoError, match="apart"):
                check_structure(atoms)
        else:
            check_structure(atoms)


def test_species_are_named():
    with pytest.raises(LosikoError, match="species N, O not allowed here; allowed are H, C"):
        check_structure(molecule("CH3NO2"), species=["H", "C"])
    check_structure(molecule("CH4"), species=("H", "C"))


def test_import_stays_light():
    code = (
        "import sys, aiida_losiko.core.structures.set_file; "
        "print([m for m in ('ase.io', 'torch', 'scipy', 'aiida') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
