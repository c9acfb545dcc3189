"""The engine `vasp`: its builders, what it refuses, and what it reads. Nothing is run; see `test_vasp_chain.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from aiida import orm
from ase.build import bulk

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import atoms_to_structure
from aiida_losiko.workflows.validation import Request, load_engine

OXIDE = bulk("CoO", "rocksalt", a=4.2)


@pytest.fixture
def engine():
    return load_engine("vasp")


@pytest.fixture
def build(engine, vasp_code, vasp_family):
    """Return the inputs of the builder of a task, values in the place of nodes."""

    def convert(value):
        if isinstance(value, orm.Dict):
            return value.get_dict()
        if hasattr(value, "items"):
            return {key: convert(item) for key, item in value.items()}
        if hasattr(value, "value"):
            return value.value
        return type(value).__name__ if hasattr(value, "pk") else value

    def make(task="single_point", atoms=OXIDE, options=None, **parameters):
        values = engine.spell_out({"potential_family": vasp_family, **parameters})
        structure = atoms_to_structure(atoms).store()
        engine.check(sorted(structure.get_symbols_set()), {"vasp": vasp_code}, values)
        request = Request(structure, task, {"vasp": vasp_code}, values, options or {})
        return convert(engine.get_builder(request)._inputs(prune=True))

    return make


@pytest.mark.parametrize("task", ["single_point", "relax", "dos"])
def test_builders_of_the_papers_settings(build, data_regression, task):
    inputs = build(task, protocol="paper", hubbard="materials_project", relax_cell=True)
    inner = inputs["vasp"] if task == "relax" else inputs
    # aiida-vasp's own choice, which is long and not ours.
    assert inner.pop("magmom_mapping")["Co"] == 5
    data_regression.check(inputs)


def test_the_spacing_of_k_points_counts_as_the_paper_has_it(build, vasp_family):
    """0.04 x 2 pi/Angstrom: 8 points along the reciprocal vectors of silicon, which are 2.0/Angstrom long."""
    spacing = build(atoms=bulk("Si"), protocol="paper")["kpoints_spacing"]
    assert spacing == pytest.approx(0.04, abs=1e-6)
    kpoints = orm.KpointsData()
    kpoints.set_cell_from_structure(atoms_to_structure(bulk("Si")))
    kpoints.set_kpoints_mesh_from_density(spacing * 2 * math.pi)
    assert kpoints.get_kpoints_mesh()[0] == [8, 8, 8]


def test_forces_or_energies_decide(build):
    relax = build("relax")
    assert relax["relax_settings"]["force_cutoff"] == 0.02
    assert "ediffg" not in relax["vasp"]["parameters"]["incar"]
    relax = build("relax", fmax=None, energy_tolerance=5e-4)
    assert relax["vasp"]["parameters"]["incar"]["ediffg"] == pytest.approx(1e-3)
    assert not relax["relax_settings"]["residual_forces_check"]
    # aiida-vasp asks for both otherwise, and its own limit would count.
    assert relax["relax_settings"]["force_cutoff"] > 100
    assert "ediffg" not in build("single_point", fmax=None)["parameters"]["incar"]


def test_what_the_user_says_is_passed_on(build):
    inputs = build(
        functional="r2SCAN",
        spin=False,
        hubbard={"Co": ["d", 2.5]},
        incar={"ALGO": "all", "ivdw": 12},
        options={"max_wallclock_seconds": 60, "queue_name": "short"},
    )
    incar = inputs["parameters"]["incar"]
    assert (incar["metagga"], incar["gga"], incar["ispin"]) == ("R2SCAN", None, 1)
    assert (incar["algo"], incar["ivdw"], incar["nelm"]) == ("all", 12, 200)
    assert inputs["ldau_mapping"] == {"mapping": {"Co": ["d", 2.5]}}
    assert "magmom_mapping" not in inputs
    options = inputs["calc"]["metadata"]["options"]
    assert (options["max_wallclock_seconds"], options["queue_name"]) == (60, "short")
    assert options["resources"]["num_machines"] == 1


def test_hubbard_only_where_the_materials_project_has_it(build):
    """Of oxides and fluorides, not of the metal."""
    u = {"hubbard": "materials_project"}
    assert build(**u)["ldau_mapping"]["mapping"] == {"Co": ["d", 3.32]}
    assert "ldau_mapping" not in build(atoms=bulk("Co"), **u)
    assert "ldau_mapping" not in build(atoms=bulk("SiO", "rocksalt", a=4.5), **u)
    assert "ldau_mapping" not in build()


def test_no_projection_of_f_elements(build):
    """aiida-vasp 5.1 cannot read files with f orbitals: it would lose the energy as well."""
    assert build("dos", protocol="rough")["parameters"]["incar"]["lorbit"] == 11
    assert build("dos", atoms=bulk("CeO", "rocksalt", a=5.0))["parameters"]["incar"]["lorbit"] is None


def test_missing_potentials_are_told_with_the_command(engine, vasp_code, vasp_family):
    codes = {"vasp": vasp_code}
    upload = "aiida-vasp potcar uploadfamily --path FOLDER --name "
    with pytest.raises(LosikoError) as error:
        engine.check(["Li", "O"], codes, engine.spell_out())
    assert "no potentials for Li, O: the family 'PBE.54' is not in this profile" in str(error.value)
    assert "there are: stand-in" in str(error.value) and f"{upload}PBE.54 --description" in str(error.value)
    values = engine.spell_out({"potential_family": vasp_family})
    engine.check(["O", "Li"], codes, values)
    with pytest.raises(LosikoError, match="no potential 'W_sv' for W in the family 'stand-in'") as error:
        engine.check(["O", "W"], codes, values)
    assert f"{upload}stand-in" in str(error.value) and "\n" not in str(error.value)
    values = engine.spell_out({"potential_family": vasp_family, "potential_mapping": {"Li": "Li"}})
    with pytest.raises(LosikoError, match=r"no potential 'Li' for Li .* \(of Li there are: Li_sv\)"):
        engine.check(["Li"], codes, values)
    with pytest.raises(LosikoError, match="no potential is chosen for Po"):
        engine.check(["Po"], codes, values)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"functional": "PBE0"}, "unknown functional 'PBE0' .did you mean 'PBE'.*there are: PBE, PBEsol, RPBE, r2SCAN"),
        ({"encut": -520}, "encut=-520 is not allowed"),
        ({"encut": None}, "encut=None is not allowed"),
        ({"fmax": math.nan}, "fmax=nan is not allowed"),
        ({"max_steps": 1.5}, "max_steps=1.5 is not allowed: give a whole number"),
        ({"relax_cell": "yes"}, "relax_cell='yes' is not allowed: give true or false"),
        ({"hubbard": "mp"}, "hubbard='mp' is not allowed: give materials_project or"),
        ({"hubbard": {"Co": 3.3}}, "hubbard={'Co': 3.3} is not allowed"),
        ({"incar": {"encutt": 500}}, "encutt is not a support VASP parameter"),
        ({"incar": {"NSW": 5}}, "incar sets nsw: the task does"),
    ],
)
def test_wrong_values_are_told_before(engine, vasp_code, vasp_family, parameters, message):
    values = engine.spell_out({"potential_family": vasp_family, **parameters})
    with pytest.raises(LosikoError, match=message):
        engine.check(["Si"], {"vasp": vasp_code}, values)


def test_a_code_of_another_program(engine, losiko_code):
    with pytest.raises(LosikoError, match=r"the code for vasp runs 'losiko\.relax'"):
        engine.check(["Si"], {"vasp": losiko_code}, engine.spell_out())


# Reading


def misc(energy=-10.0, **status):
    run_status = {"finished": True, "electronic_converged": True, "ionic_converged": None, **status}
    return orm.Dict({"total_energies": {"energy_extrapolated": energy}, "run_status": run_status, "fermi_level": 0.7})


def bands(levels, occupations):
    node = orm.BandsData()
    node.set_kpoints(np.zeros((np.shape(levels)[-2], 3)))
    node.set_bands(np.array(levels), occupations=np.array(occupations))
    return node


@pytest.mark.parametrize(
    ("status", "converged"),
    [
        ({}, True),
        ({"ionic_converged": True}, True),
        ({"ionic_converged": False}, False),
        ({"electronic_converged": False}, False),
        ({"finished": False}, False),
    ],
)
def test_convergence(engine, aiida_profile, status, converged):
    found = engine.read({"misc": misc(**status)})
    assert (found.energy, found.converged, found.gap, found.dos) == (-10.0, converged, None, None)


@pytest.mark.parametrize(("levels", "occupations", "gap"), [
    # k by band; a smeared edge does not close a gap of 0.3.
    ([[-1.0, 1.0], [-0.1, 0.2]], [[1.0, 0.0], [0.97, 0.03]], 0.3),
    # The first band crosses the Fermi level: a metal, whatever lies between levels of the coarse mesh.
    ([[-1.0, 1.0], [0.3, 2.0]], [[1.0, 0.0], [0.0, 0.0]], 0.0),
    # Two spins of a magnet: empty states of one below the filled ones of the other.
    ([[[-2.0, 0.5]], [[-2.0, 0.1]]], [[[1.0, 1.0]], [[1.0, 0.0]]], 0.0),
    ([[[-2.0, -0.5]], [[-2.0, 0.1]]], [[[1.0, 1.0]], [[1.0, 0.0]]], 0.6),
])  # fmt: skip
def test_gaps(engine, aiida_profile, levels, occupations, gap):
    found = engine.read({"misc": misc(), "bands": bands(levels, occupations)})
    assert found.gap == pytest.approx(gap)


@pytest.mark.parametrize("n_spins", [1, 2])
def test_density_of_states_by_element(engine, aiida_profile, n_spins):
    structure = atoms_to_structure(bulk("SiO", "rocksalt", a=4.5) * (2, 1, 1))
    energies = np.linspace(-2.0, 2.0, 5)
    # Atom number + 1 in each of nine orbitals, in each spin.
    partial = np.ones((n_spins, 4, 5, 9)) * np.arange(1, 5)[None, :, None, None]
    total = np.tile(energies**2, (n_spins, 1))
    arrays = {"energy": energies, "tdos": total, "pdos": partial}
    if n_spins == 1:
        arrays |= {"tdos": total[0], "pdos": partial[0]}
    outputs = {"misc": misc(), "dos": orm.ArrayData(arrays), "structure": structure}
    dos = engine.read(outputs).dos
    np.testing.assert_allclose(dos.energies, energies - 0.7)
    np.testing.assert_allclose(dos.total, n_spins * energies**2)
    assert {name: values.tolist() for name, values in dos.projected.items()} == {
        "Si": [n_spins * 9.0 * (1 + 3)] * 5,
        "O": [n_spins * 9.0 * (2 + 4)] * 5,
    }
    assert engine.read({**outputs, "dos": orm.ArrayData({"energy": energies, "tdos": total})}).dos.projected == {}


def test_nothing_to_read(engine, aiida_profile):
    found = engine.read({"misc": orm.Dict({"total_energies": None, "run_status": {"finished": False}})})
    assert (found.energy, found.converged) == (None, False)
    assert found.error == "VASP wrote no total energy: it did not come to its end"
    with pytest.raises(KeyError):
        engine.read({})
    with pytest.raises(LosikoError, match="all filled or all empty"):
        engine.read({"misc": misc(), "bands": bands([[0.0, 1.0]], [[1.0, 1.0]])})
