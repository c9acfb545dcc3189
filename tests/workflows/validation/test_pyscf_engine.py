"""The engine `pyscf`: its builders, what it reads, and what goes wrong. A shell script stands in for PySCF."""

from __future__ import annotations

import json
from uuid import uuid4

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import atoms_to_structure
from aiida_losiko.workflows.validate import ValidateWorkChain
from aiida_losiko.workflows.validation import Request, load_engine

HARTREE = 27.211386
LEVELS = {"energies": [-20.0, -10.0, 2.0], "occupations": [2.0, 2.0, 0.0], "labels": ["a", "b", "c"]}


@pytest.fixture
def engine():
    pytest.importorskip("aiida_pyscf", reason="the extra pyscf")
    return load_engine("pyscf")


@pytest.fixture
def pyscf_that(engine, aiida_profile, aiida_code_installed, tmp_path_factory):
    """A code that runs these lines of bash in the place of PySCF."""

    def make(*lines: str):
        program = tmp_path_factory.mktemp("bin") / "pyscf"
        program.write_text("\n".join(["#!/bin/bash", *lines, ""]))
        program.chmod(0o755)
        # A label of its own: the code of a known label would be taken, whatever it runs.
        return aiida_code_installed(
            label=f"pyscf-{uuid4()}", filepath_executable=str(program), default_calc_job_plugin="pyscf.base"
        )

    return make


@pytest.fixture
def build(engine, pyscf_that):
    """The builder of a task, with a code that does nothing."""

    def get(task, options=None, name="CH3CH2OH", **parameters):
        structure = atoms_to_structure(molecule(name)).store()
        request = Request(structure, task, {"pyscf": pyscf_that("exit 0")}, engine.spell_out(parameters), options or {})
        return engine.get_builder(request)

    return get


@pytest.fixture
def run(build):
    """Run a task with these lines of bash in the place of PySCF; the node and its outputs as the engine sees them."""

    def go(code, task, name="H2O", **parameters):
        builder = build(task, name=name, **parameters)
        builder.pyscf.code = code
        _, node = run_get_node(builder)
        return node, load_engine("pyscf").outputs_of(node)

    return go


def leave(name: str, content: dict | str) -> str:
    """The line of bash that leaves a file."""
    return f"cat > {name} << 'END'\n{content if isinstance(content, str) else json.dumps(content)}\nEND"


def electrons(converged: bool = True, energy: float = -76.0, levels: dict | None = None) -> dict:
    found = {"is_converged": converged, "total_energy": energy, "forces": [[0.0] * 3] * 3}
    return {**found, "molecular_orbitals": levels} if levels else found


def finished_relaxation(*energies: float) -> list[str]:
    """What a relaxation leaves whose energies are these, in Hartree."""
    frames = "".join(
        f"3\nIteration {step} Energy {energy:.8f}\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.4{step}\n"
        for step, energy in enumerate(energies)
    )
    coordinates = (np.array([[0, 0, 0.12], [0, 0.75, -0.48], [0, -0.75, -0.48]]) / 0.529177).tolist()
    results = {
        "timings": {},
        "mean_field": electrons(levels=LEVELS),
        "optimizer": {"is_converged": True, "optimized_coordinates": coordinates},
    }
    return [leave("results.json", results), leave("relax_optim.xyz", frames.rstrip("\n")), "touch checkpoint.chk"]


# What is asked for


def test_inputs_of_each_task(build):
    """Every number of the default protocol, once."""
    point, relaxation, dos = (build(task) for task in ("single_point", "relax", "dos"))
    assert point.pyscf.parameters.get_dict() == {
        "structure": {"basis": "6-31g(2df,p)", "cart": False, "charge": 0, "spin": 0, "max_memory": 4000},
        "mean_field": {"method": "RKS", "xc": "b3lypg", "grids.level": 3, "conv_tol": 1e-9, "max_cycle": 100},
        "results": {"pickle_model": False},
    }
    asked = relaxation.pyscf.parameters.get_dict()
    criteria = asked.pop("optimizer")["convergence_parameters"]
    assert asked == point.pyscf.parameters.get_dict()
    assert (criteria.pop("prefix"), criteria.pop("maxiter"), criteria.pop("converge")) == ("relax", 99, ["maxiter"])
    assert criteria == pytest.approx(
        {
            "convergence_energy": 1e-6,
            "convergence_gmax": 1.9447e-4,
            "convergence_grms": 1.2965e-4,
            "convergence_dmax": 7.7788e-4,
            "convergence_drms": 5.1859e-4,
        },
        rel=1e-4,
    )
    assert dos.pyscf.parameters["results"] == {"pickle_model": False, "density_of_states": True}
    assert relaxation.max_iterations == 2


@pytest.mark.parametrize(
    ("protocol", "functional", "basis", "cartesian", "grid"),
    [
        ("b3lyp", "b3lypg", "6-31g(2df,p)", False, 3),
        ("m06-2x", "m06-2x", "6-31g(2df,p)", False, 4),
        ("wb97x-d", "wb97x-d", "6-31g(2df,p)", False, 3),
        ("b3lyp-6-31gd", "b3lypg", "6-31g(d)", True, 3),
        ("m06-2x-6-31gd", "m06-2x", "6-31g(d)", True, 4),
        ("wb97x-d-6-31gd", "wb97x-d", "6-31g(d)", True, 3),
    ],
)
def test_protocols(build, engine, protocol, functional, basis, cartesian, grid):
    asked = build("single_point", protocol=protocol).pyscf.parameters.get_dict()
    assert asked["mean_field"]["xc"] == functional and asked["mean_field"]["grids.level"] == grid
    assert asked["structure"]["basis"] == basis and asked["structure"]["cart"] is cartesian
    engine.check(["H", "C", "N", "O", "F"], {}, engine.spell_out({"protocol": protocol}))


def test_open_shells_and_charges(build):
    radical = build("single_point", name="OH").pyscf.parameters
    assert radical["mean_field"]["method"] == "UKS" and radical["structure"]["spin"] == 1
    oxygen = build("single_point", name="O2", multiplicity=3).pyscf.parameters
    assert oxygen["structure"]["spin"] == 2
    assert build("single_point", name="OH", charge=-1).pyscf.parameters["mean_field"]["method"] == "RKS"
    with pytest.raises(LosikoError, match="multiplicity=2 is not allowed; H2O of charge 0 has 10 electrons: give 1, 3"):
        build("single_point", name="H2O", multiplicity=2)


def test_options_and_the_log_of_geometric(build):
    options = {"max_wallclock_seconds": 60, "additional_retrieve_list": ["*.chk"]}
    asked = build("relax", options).pyscf.metadata.options
    assert asked.max_wallclock_seconds == 60 and asked.additional_retrieve_list == ["*.chk", "relax.log"]
    assert build("single_point", options).pyscf.metadata.options.additional_retrieve_list == ["*.chk"]


def test_program_that_aiida_pyscf_writes(build, prepare_job):
    """Its templates take our inputs as Python."""
    inputs = dict(build("relax", mean_field={"level_shift": 0.2, "init_guess": "atom"}).pyscf)
    inputs.pop("metadata")
    _, folder = prepare_job("pyscf.base", {**inputs, "metadata": {"options": {}}})
    with folder.open("script.py") as file:
        program = file.read()
    compile(program, "script.py", "exec")
    for line in ("xc = 'b3lypg'", "grids.level = 3", "level_shift = 0.2", "init_guess = 'atom'"):
        assert f"mean_field.{line}\n" in program
    assert "convergence_parameters['converge'] = ['maxiter']\n" in program
    assert "dill.dump" not in program


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"functional": "b3lypx"}, "PySCF has no functional 'b3lypx'"),
        ({"functional": ""}, "PySCF has no functional ''"),
        ({"basis": "6-31gx"}, "PySCF has no basis '6-31gx' for H"),
        ({"max_steps": 100}, "max_steps=100 is not allowed; it must be 99 at most"),
        ({"fmax": 0}, "fmax=0 "),
        ({"grid_level": 10}, "grid_level=10 "),
        ({"charge": 0.5}, r"charge=0\.5 "),
        ({"multiplicity": 0}, "multiplicity=0 "),
        ({"cartesian": 1}, "cartesian=1 "),
        ({"mean_field": {"x = 1; import os": 1}}, "mean_field has the key 'x = 1; import os'"),
        ({"mean_field": {"init_guess": "a'; import os; b = '"}}, "mean_field.init_guess is"),
    ],
)
def test_wrong_values_are_told_before(engine, parameters, message):
    with pytest.raises(LosikoError, match=message):
        engine.check(["H", "O"], {}, engine.spell_out(parameters))


def test_an_element_without_a_basis(engine):
    with pytest.raises(LosikoError, match=r"PySCF has no basis '6-31g\(2df,p\)' for Br: give another one"):
        engine.check(["C", "Br"], {}, engine.spell_out())


def test_crystals_are_sent_away(engine):
    water = molecule("H2O", vacuum=3.0, pbc=True)
    with pytest.raises(LosikoError, match="is periodic, and pyscf is for molecules"):
        engine.check_structure(water)


def test_without_the_package(monkeypatch):
    monkeypatch.setattr("aiida_losiko.workflows.validation.base.find_spec", lambda name: None)
    with pytest.raises(LosikoError, match=r"needs the module aiida_pyscf: pip install 'aiida-losiko\[pyscf\]'"):
        load_engine("pyscf").require()


# What is read


def test_energy_gap_and_density(run, pyscf_that, engine):
    code = pyscf_that(leave("results.json", {"timings": {}, "mean_field": electrons(levels=LEVELS)}))
    node, outputs = run(code, "single_point")
    found = engine.read(outputs)
    assert node.is_finished_ok and found.converged and found.dos is None
    assert found.energy == pytest.approx(-76 * HARTREE, abs=1e-3)
    assert found.gap == pytest.approx(12 * HARTREE, abs=1e-3)
    _, outputs = run(code, "dos")
    dos = engine.read(outputs).dos
    step = dos.energies[1] - dos.energies[0]
    assert dos.zero == "middle of the gap" and not dos.projected
    assert dos.total[dos.energies < 0].sum() * step == pytest.approx(4, abs=1e-6)


def test_gap_and_density_of_two_spins(engine):
    levels = {"energies": [[-9.0, -3.0, 1.0], [-8.0, 2.0, 3.0]], "occupations": [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]}
    parameters = orm.Dict({"mean_field": {**electrons(levels=levels)}})
    asked = orm.Dict({"results": {"density_of_states": True}})
    found = engine.read({"parameters": parameters, "inputs": asked})
    assert found.gap == pytest.approx(4.0)
    step = found.dos.energies[1] - found.dos.energies[0]
    assert found.dos.total[found.dos.energies < 0].sum() * step == pytest.approx(3, abs=1e-6)


def test_relaxation_has_the_energy_of_its_last_structure(run, pyscf_that, engine):
    code = pyscf_that(*finished_relaxation(-76.0, -76.1, -76.2), leave("relax.log", "Step 2\nConverged! =D"))
    node, outputs = run(code, "relax")
    found = engine.read(outputs)
    assert node.is_finished_ok and found.converged
    assert found.energy == pytest.approx(-76.2 * HARTREE, abs=1e-3)
    assert found.gap is None, "the orbitals in the outputs are those of the first structure"
    assert outputs["structure"].get_ase().positions[1] == pytest.approx([0, 0.75, -0.48], abs=1e-4)


# What goes wrong


def test_steps_that_do_not_suffice(run, pyscf_that, engine):
    """PySCF and aiida-pyscf call that converged."""
    code = pyscf_that(*finished_relaxation(-76.0, -76.1), leave("relax.log", "Maximum iterations reached (1)"))
    node, outputs = run(code, "relax", max_steps=1)
    found = engine.read(outputs)
    assert node.is_finished_ok and not found.converged and found.energy == pytest.approx(-76.1 * HARTREE, abs=1e-3)
    assert "structure" in outputs


def test_electrons_that_do_not_converge(run, pyscf_that, engine):
    """They get a second chance; what there is in the end is given as not converged."""
    left = leave("results.json", {"timings": {}, "mean_field": electrons(converged=False)})
    node, outputs = run(pyscf_that(left, "echo density > checkpoint.chk"), "single_point")
    assert node.exit_status == 401
    first, second = node.called
    assert (first.exit_status, second.exit_status) == (410, 410)
    assert "checkpoint" not in first.inputs and "checkpoint" in second.inputs
    found = engine.read(outputs)
    assert not found.converged and found.gap is None and found.energy == pytest.approx(-76 * HARTREE, abs=1e-3)


def test_crash(run, pyscf_that, engine):
    node, outputs = run(pyscf_that("echo Traceback >&2; exit 1"), "single_point")
    assert not node.is_finished_ok
    with pytest.raises(LosikoError, match="PySCF left no results"):
        engine.read(outputs)


def test_garbage(run, pyscf_that, engine):
    node, outputs = run(pyscf_that(leave("results.json", '{"mean_field": {"total_en')), "single_point")
    assert not node.is_finished_ok
    with pytest.raises(LosikoError, match="PySCF left no results"):
        engine.read(outputs)


def test_no_energy_and_no_number(engine):
    with pytest.raises(LosikoError, match="has no total_energy"):
        engine.read({"parameters": orm.Dict({"mean_field": {"is_converged": True}})})
    with pytest.raises(LosikoError, match="the energy in the outputs is 'nan'"):
        engine.read({"parameters": orm.Dict({"mean_field": electrons(energy="nan")})})


def test_out_of_walltime(run, pyscf_that, engine, monkeypatch):
    """aiida-pyscf does not begin anew: its handler of that is never reached."""
    from aiida_pyscf.calculations.base import PyscfCalculation

    def killed(self, retrieved):
        return self.exit_codes.ERROR_SCHEDULER_OUT_OF_WALLTIME

    monkeypatch.setattr(PyscfCalculation, "parse_scheduler_output", killed)
    node, outputs = run(pyscf_that("echo density > checkpoint.chk"), "relax")
    assert node.exit_status == 300
    assert [each.exit_status for each in node.called] == [120]
    with pytest.raises(LosikoError, match="PySCF left no results"):
        engine.read(outputs)


def test_a_crash_loses_nothing_else(pyscf_that):
    """Single points work, the relaxation crashes: the table has the energies, the exit code names the child."""
    results = json.dumps({"timings": {}, "mean_field": electrons(levels=LEVELS)})
    code = pyscf_that("grep -q optimizer.kernel $1 && exit 1", leave("results.json", results))
    structure = atoms_to_structure(molecule("H2O"))
    builder = ValidateWorkChain.get_builder_from_protocol("pyscf", structure, code, compute=["losiko", "minimum"])
    outputs, node = run_get_node(builder)
    assert node.exit_status == 410
    assert "PyscfBaseWorkChain<" in node.exit_message and "minimum_relax_structure_0" in node.exit_message
    assert outputs["table"]["rows"]["energy_losiko"] == pytest.approx([-76 * HARTREE], abs=1e-3)
    assert outputs["table"]["rows"]["energy_minimum"] == [None]
