"""`losiko.validate` with Quantum ESPRESSO: the real pw.x on silicon, and programs that fail.

The pseudopotential and the cutoffs are those of setup_profiles/quantumespresso.yaml or lower: fit to see whether
everything works together, not for results.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import atoms_to_structure
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.workflows.database import DatabaseWorkChain
from aiida_losiko.workflows.relax import RelaxWorkChain
from aiida_losiko.workflows.validate import ValidateWorkChain
from aiida_losiko.workflows.validation import load_engine

pytest.importorskip("aiida_quantumespresso", reason="the extra qe")

#: On a busy machine every job waits long for its turn.
pytestmark = pytest.mark.timeout(1800)

SCRIPT = Path(__file__).resolve().parents[3] / "setup_profiles" / "quantumespresso.py"
POTENTIALS = Path("/usr/share/espresso/pseudo")

needs_potentials = pytest.mark.skipif(
    not POTENTIALS.is_dir(), reason="no pseudopotentials: bash setup_profiles/quantumespresso.sh --packages"
)
needs_pw = pytest.mark.skipif(
    not POTENTIALS.is_dir() or shutil.which("pw.x") is None,
    reason="no pw.x: bash setup_profiles/quantumespresso.sh --packages",
)

#: Of one process, for the few seconds that a test may take.
CHEAP = {"ecutwfc": 16.0, "ecutrho": 64.0, "k_spacing": 1.0, "dos_k_spacing": 0.9, "max_iterations": 1}
OPTIONS = {"withmpi": False}
FAILING = {
    "crash": "#!/bin/sh\necho 'Program PWSCF starts'\nkill -SEGV $$\n",
    "garbage": "#!/bin/sh\nmkdir -p out/aiida.save\necho garbage | tee out/aiida.save/data-file-schema.xml\n",
}


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("setup_quantumespresso", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def family(aiida_profile, script):
    return script.ensure_family(script.read_specification(), ["Si"])


@pytest.fixture
def make_code(aiida_code_installed, script):
    def make(name, path=None):
        return aiida_code_installed(
            label=name if path is None else Path(path).stem,
            filepath_executable=str(path or shutil.which(f"{name}.x")),
            default_calc_job_plugin=f"quantumespresso.{name}",
            prepend_text=script.read_specification()["prepend_text"],
        )

    return make


def silicon(noise=0.15, seed=3):
    atoms = bulk("Si")
    atoms.rattle(noise, seed=seed)
    return atoms_to_structure(atoms)


def validate(codes, structure=None, overrides=None, **kwargs):
    builder = ValidateWorkChain.get_builder_from_protocol(
        "quantumespresso",
        structure or silicon(),
        codes,
        protocol="debian",
        overrides={**CHEAP, **(overrides or {})},
        options={**OPTIONS, **kwargs.pop("options", {})},
        **kwargs,
    )
    return run_get_node(builder)


@pytest.mark.slow
@needs_pw
def test_silicon_displaced_relaxed_and_validated(losiko_code, make_code, family):
    """The whole chain: known crystals, LOSIKO, and pw.x on start, result and the minimum behind it."""
    from aiida_losiko.calculations.functions.query import reference_crystals

    known = reference_crystals(orm.Dict({"selection": {"elements": ["Si"]}}))["structures"]
    building = DatabaseWorkChain.get_builder_from_protocol(losiko_code, known, protocol="crystals")
    database = run_get_node(building)[0]["database"]
    start = silicon()
    request = {
        "engine": "quantumespresso",
        "codes": {"pw": make_code("pw")},
        "protocol": "debian",
        "overrides": CHEAP,
        "options": OPTIONS,
    }
    builder = RelaxWorkChain.get_builder_from_protocol(
        losiko_code, start, database, protocol="crystals", validate=request
    )
    outputs, chain = run_get_node(builder)
    assert chain.is_finished_ok, chain.exit_message
    row = {name: column[0] for name, column in outputs["validate"]["table"]["rows"].items()}
    assert row["converged"] and row["n_atoms"] == 2
    assert row["energy_start"] > row["energy_losiko"] >= row["energy_minimum"] - 1e-3
    assert row["recovered"] > 0.9
    assert row["rmsd_losiko"] < row["rmsd_start"]
    assert 0 < row["gap_minimum"] < 2


@pytest.mark.slow
@needs_pw
def test_density_of_states(make_code, family):
    codes = {name: make_code(name) for name in ("pw", "dos", "projwfc")}
    outputs, chain = validate(codes, silicon(noise=0.0), compute=["losiko"], dos=True)
    assert chain.is_finished_ok, chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    assert -250 < row["energy_losiko"] < -180 and 0 < row["gap_losiko"] < 2
    dos = DensityOfStates.from_node(outputs["dos"]["structure_0"]["losiko"])
    assert list(dos.projected) == ["Si"]
    # Eight valence electrons below the Fermi level, as well as so few k points give them, and most of them in the
    # orbitals of the atoms.
    below = dos.energies <= 0
    step = np.diff(dos.energies)[0]
    assert dos.total[below].sum() * step == pytest.approx(8, abs=0.6)
    assert 0.9 < dos.projected["Si"][below].sum() / dos.total[below].sum() <= 1.01


@needs_pw
def test_electrons_that_do_not_converge(make_code, family):
    few = {"namelists": {"ELECTRONS": {"electron_maxstep": 2}}}
    outputs, chain = validate({"pw": make_code("pw")}, overrides=few, compute=["losiko"])
    assert chain.exit_status == 410
    assert "losiko_single_point_structure_0: PwBaseWorkChain<" in chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    assert not row["converged"] and row["problems"] == "losiko: not converged"
    assert row["energy_losiko"] < -100


@needs_pw
def test_atoms_that_do_not_converge(make_code, family):
    outputs, chain = validate({"pw": make_code("pw")}, overrides={"max_steps": 2}, compute=["minimum"])
    assert chain.exit_status == 410
    assert "minimum_relax_structure_0: PwRelaxWorkChain<" in chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    # The last step's energy and structure are given, said to be unconverged.
    assert row["energy_minimum"] < -100 and row["rmsd_losiko"] > 0
    assert row["problems"] == "minimum: not converged"
    assert outputs["minima"]["structure_0"].creator.process_type.endswith("quantumespresso.pw")


@needs_pw
def test_out_of_walltime(make_code, family):
    long = {"k_spacing": 0.3, "ecutwfc": 40.0, "ecutrho": 320.0}
    outputs, chain = validate(
        {"pw": make_code("pw")}, overrides=long, compute=["minimum"], options={"max_wallclock_seconds": 2}
    )
    assert chain.exit_status == 410
    assert "minimum_relax_structure_0: PwRelaxWorkChain<" in chain.exit_message
    (run,) = [called for called in chain.called_descendants if isinstance(called, orm.CalcJobNode)]
    assert run.exit_status == 400, run.exit_message
    assert "walltime" in run.exit_message
    assert outputs["table"]["rows"]["energy_minimum"] == [None] and "minima" not in outputs


@needs_potentials
@pytest.mark.parametrize("how", FAILING)
def test_programs_that_fail(make_code, family, tmp_path, how):
    program = tmp_path / f"{how}.x"
    program.write_text(FAILING[how])
    program.chmod(0o755)
    outputs, chain = validate({"pw": make_code("pw", program)}, compute=["losiko"])
    assert chain.exit_status == 410
    assert "losiko_single_point_structure_0: PwBaseWorkChain<" in chain.exit_message
    assert outputs["table"]["rows"]["energy_losiko"] == [None]


@needs_potentials
def test_elements_without_a_potential(family):
    engine = load_engine("quantumespresso")
    with pytest.raises(LosikoError, match=r"no pseudopotential of Se, .*or bash setup_profiles/quantumespresso.sh"):
        engine.check(["Se", "Si"], {}, engine.spell_out({"protocol": "debian"}))
