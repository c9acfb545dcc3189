"""What all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# The import of aiida makes its folder, ~/.aiida unless told otherwise: keep the tests away from what a person has.
# Set before the plugin below imports aiida; workers of pytest-xdist inherit it.
if "LOSIKO_TEST_AIIDA_PATH" not in os.environ:
    os.environ["LOSIKO_TEST_AIIDA_PATH"] = tempfile.mkdtemp(prefix="losiko-tests-")
    atexit.register(shutil.rmtree, os.environ["LOSIKO_TEST_AIIDA_PATH"], ignore_errors=True)
os.environ["AIIDA_PATH"] = os.environ["LOSIKO_TEST_AIIDA_PATH"]

pytest_plugins = "aiida.tools.pytest_fixtures"


# AiiDA: inputs without running, and the program itself.


@pytest.fixture
def losiko_code(aiida_code_installed):
    """The `losiko` program of the environment that runs the tests."""
    return aiida_code_installed(
        label="losiko",
        filepath_executable=str(Path(sys.executable).parent / "losiko"),
        default_calc_job_plugin="losiko.relax",
        prepend_text="export OMP_NUM_THREADS=1",
    )


@pytest.fixture(scope="session")
def make_molecules():
    """Make molecules of ASE by name, `g2:<name>` their identifiers; `noise` in Angstrom per coordinate."""
    from ase.build import molecule

    def make(*names: str, noise: float = 0.0):
        made = []
        for place, name in enumerate(names):
            atoms = molecule(name)
            atoms.info["identifier"] = f"g2:{name}"
            atoms.rattle(noise, seed=place)
            made.append(atoms)
        return made

    return make


@pytest.fixture
def make_set(aiida_profile, make_molecules):
    """Make an unstored set of such molecules."""

    def make(*names: str, noise: float = 0.0, source: dict | None = None):
        from aiida_losiko.data import StructureSetData

        return StructureSetData.from_atoms(make_molecules(*names, noise=noise), source=source)

    return make


@pytest.fixture(scope="session")
def small_database(make_molecules):
    """A database of seven molecules with a small descriptor, and the protocol `balanced` written into it."""
    from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum

    soap = SoapPowerSpectrum(species=["H", "C", "O"], r_cut=3.0, n_max=3, l_max=2, sigma=0.3)
    known = make_molecules("CH3CH2OH", "CH3OH", "H2O", "CH4", "C2H6", "CH3OCH3", "H2CO")
    return EnvironmentDatabase.build(known, soap, metadata={"protocol": "balanced"})


@pytest.fixture
def database_node(aiida_profile, small_database):
    """The small database as a stored node."""
    from aiida_losiko.data import EnvironmentDatabaseData

    return EnvironmentDatabaseData(small_database).store()


@pytest.fixture
def prepare_job(aiida_profile):
    """Prepare a calculation job without running it: returns its `CalcInfo` and the folder with its files."""

    def prepare(entry_point: str, inputs: dict):
        from aiida.common.folders import SandboxFolder
        from aiida.engine.utils import instantiate_process
        from aiida.manage import get_manager
        from aiida.plugins import CalculationFactory

        process = instantiate_process(get_manager().get_runner(), CalculationFactory(entry_point), **inputs)
        folder = SandboxFolder()
        return process.prepare_for_submission(folder), folder

    return prepare


@pytest.fixture
def parse_job(aiida_profile, aiida_localhost):
    """Parse a job that never ran: its inputs, what it left on stderr, and a folder with its files.

    Returns the outputs and the process node of the parse.
    """

    def parse(entry_point: str, inputs: dict, folder: Path, stderr: str = "", scheduler: tuple | None = None):
        from aiida import orm
        from aiida.common import LinkType
        from aiida.plugins import ParserFactory
        from aiida.plugins.entry_point import format_entry_point_string

        process_type = format_entry_point_string("aiida.calculations", entry_point)
        node = orm.CalcJobNode(computer=aiida_localhost, process_type=process_type)
        node.set_option("error_filename", "losiko.err")
        node.set_option("resources", {"num_machines": 1, "num_mpiprocs_per_machine": 1})
        for name, value in inputs.items():
            node.base.links.add_incoming(value.store(), link_type=LinkType.INPUT_CALC, link_label=name)
        node.store()
        if scheduler is not None:
            node.set_exit_status(scheduler[0])
            node.set_exit_message(scheduler[1])
        retrieved = orm.FolderData()
        retrieved.base.repository.put_object_from_bytes(stderr.encode(), "losiko.err")
        retrieved.base.links.add_incoming(node, link_type=LinkType.CREATE, link_label="retrieved")
        retrieved.store()
        return ParserFactory(entry_point).parse_from_node(
            node, store_provenance=False, retrieved_temporary_folder=str(folder)
        )

    return parse


# Services on this machine, for the sources and for what asks them.


@pytest.fixture
def materials_project_key(monkeypatch):
    """The key of the local service in the environment, and nothing else of the kind."""
    from .servers.materials_project import KEY
    from .sources.materials_project_service import KEY_VARIABLES

    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("MP_API_KEY", KEY)
    return KEY


@pytest.fixture
def materials_project(materials_project_key):
    """The local Materials Project with the committed table, and its key in the environment."""
    from .servers.materials_project import running

    with running() as server:
        yield server


@pytest.fixture(scope="session")
def optimade(tmp_path_factory):
    """The reference OPTIMADE server; its address, to which the prefix of a provider is added."""
    from .servers.optimade_process import serving

    with serving(tmp_path_factory.mktemp("optimade")) as address:
        yield address
