"""The job that relaxes: its input files and validators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from aiida.orm import Dict, List
from ase.build import molecule

from aiida_losiko.calculations.relax import RelaxCalculation, validate_structures
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.core.structures import read_structures
from aiida_losiko.data import EnvironmentDatabaseData, atoms_to_structure


@pytest.fixture
def methanol(aiida_profile):
    return atoms_to_structure(molecule("CH3OH")).store()


def test_input_files_of_a_set(prepare_job, losiko_code, make_set, database_node):
    structures = make_set("CH3OH", "H2O").store()
    parameters = {"protocol": "balanced", "relax": {"max_steps": 7}, "exclude": ["g2:H2O", "it's; rm -r"]}
    job, folder = prepare_job(
        "losiko.relax",
        {
            "code": losiko_code,
            "structures": structures,
            "database": database_node,
            "parameters": Dict(parameters),
            "metadata": {"options": {"max_wallclock_seconds": 100}},
        },
    )
    command = job.codes_info[0].cmdline_params
    assert command[:2] == ["relax", "structures.npz"]
    options = dict(zip(command[2:-1:2], command[3:-1:2], strict=True))
    assert options["--database"] == "database.safetensors"
    assert options["--output"] == "relaxed.npz"
    assert options["--report"] == "report.json"
    assert options["--max-seconds"] == "90"
    assert [command[i + 1] for i, word in enumerate(command) if word == "--exclude"] == parameters["exclude"]
    assert sorted(job.local_copy_list) == sorted(
        [
            (structures.uuid, "structures.npz", "structures.npz"),
            (database_node.uuid, "database.safetensors", "database.safetensors"),
        ]
    )
    assert job.retrieve_temporary_list == ["relaxed.npz", "report.json"]
    with folder.open("parameters.json") as handle:
        written = json.load(handle)
    assert written == {"protocol": "balanced", "relax": {**load_protocol("balanced").relax, "max_steps": 7}}


def test_input_files_of_one_structure(prepare_job, losiko_code, methanol, database_node):
    job, folder = prepare_job(
        "losiko.relax",
        {"code": losiko_code, "structure": methanol, "database": database_node, "fixed_atoms": List([0, 2])},
    )
    assert "--max-seconds" not in job.codes_info[0].cmdline_params
    assert job.local_copy_list == [(database_node.uuid, "database.safetensors", "database.safetensors")]
    atoms = read_structures(Path(folder.get_abs_path("structures.npz")))[0]
    np.testing.assert_allclose(atoms.positions, molecule("CH3OH").positions)
    assert atoms.constraints[0].index.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        ({"num_machines": 1}, None),
        ({"num_machines": 1, "num_mpiprocs_per_machine": 1}, None),
        ({"num_machines": 1, "num_mpiprocs_per_machine": 1, "num_cores_per_mpiproc": 1}, "1"),
        ({"num_machines": 1, "num_mpiprocs_per_machine": 1, "num_cores_per_mpiproc": 8}, "8"),
        ({"num_machines": 1, "num_mpiprocs_per_machine": 4}, "4"),
        ({"num_machines": 1, "num_mpiprocs_per_machine": 2, "num_cores_per_mpiproc": 3}, "6"),
    ],
)
def test_the_cores_of_a_job_share_the_work(
    prepare_job, losiko_code, methanol, database_node, aiida_localhost, resources, processes
):
    aiida_localhost.set_default_mpiprocs_per_machine(1)
    inputs = {"code": losiko_code, "structure": methanol, "database": database_node}
    job, folder = prepare_job("losiko.relax", {**inputs, "metadata": {"options": {"resources": resources}}})
    command = job.codes_info[0].cmdline_params
    if processes is None:
        assert "--processes" not in command and not job.prepend_text
    else:
        assert command[command.index("--processes") + 1] == processes
        assert job.prepend_text == f"export OMP_NUM_THREADS={processes}"
    # What decides on the results, and on what is taken from the cache, does not know of it.
    with folder.open("parameters.json") as handle:
        assert json.load(handle) == {"relax": load_protocol("balanced").relax}


def test_no_path_of_this_machine_is_sent(prepare_job, losiko_code, methanol, database_node):
    job, folder = prepare_job("losiko.relax", {"code": losiko_code, "structure": methanol, "database": database_node})
    assert not any("/" in word for word in job.codes_info[0].cmdline_params)
    with folder.open("parameters.json") as handle:
        assert "/" not in handle.read()


def test_exactly_one_of_structure_and_structures(make_set, methanol, database_node):
    ports = RelaxCalculation.spec().inputs
    both = {"structure": methanol, "structures": make_set("H2O"), "database": database_node}
    assert "exactly one" in validate_structures(both, ports)
    assert "exactly one" in validate_structures({"database": database_node}, ports)
    assert "FixAtoms" in validate_structures({"structures": make_set("H2O"), "fixed_atoms": List([0])}, ports)
    assert validate_structures({"structure": methanol, "database": database_node}, ports) is None
    # Without these ports (exposed elsewhere) there is nothing to say.
    assert validate_structures(both, {"database": None}) is None


def test_atoms_and_species_of_one_structure(methanol, database_node):
    ports = RelaxCalculation.spec().inputs
    wrong = {"structure": methanol, "database": database_node, "fixed_atoms": List([6])}
    assert "fixed atom 6" in validate_structures(wrong, ports)
    ammonia = atoms_to_structure(molecule("NH3"))
    message = validate_structures({"structure": ammonia, "database": database_node}, ports)
    assert "no environment of N" in message
    assert "H, C, O" in message


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"protocol": "none"}, "unknown protocol 'none'"),
        ({"relax": {"maxsteps": 5}}, "maxsteps"),
        ({"relax": {"max_steps": -5}}, "max_steps=-5"),
        ({"relax": {"weights": {"Xx": 1.0}}}, "mapping of chemical symbols"),
        ({"relax": {"n_hops": 1.5}}, "n_hops=1.5"),
        ({"protocol": "balanced", "relax": {"noise_variance": 0.1}}, "noise_decay=0.0"),
        ({"descriptor": {"r_cut": 5}}, "unknown key 'descriptor' in parameters"),
        ({"exclude": "g2:H2O"}, "give a list of texts"),
    ],
)
def test_wrong_parameters_are_told_when_they_are_set(aiida_profile, parameters, message):
    builder = RelaxCalculation.get_builder()
    with pytest.raises(ValueError, match=message):
        builder.parameters = Dict(parameters)


def test_noise_may_decay_as_the_protocol_says(aiida_profile):
    builder = RelaxCalculation.get_builder()
    builder.parameters = Dict({"protocol": "silica-interface", "relax": {"noise_variance": 0.1}})
    # No name: the protocol of the database is meant, which this port cannot know.
    builder.parameters = Dict({"relax": {"noise_variance": 0.1}})
    assert builder.parameters.get_dict() == {"relax": {"noise_variance": 0.1}}


def test_the_numbers_are_those_of_the_protocol_of_the_database(prepare_job, losiko_code, methanol, small_database):
    def sent(protocol):
        metadata, small_database.metadata = small_database.metadata, {"protocol": protocol}
        try:
            node = EnvironmentDatabaseData(small_database).store()
        finally:
            small_database.metadata = metadata
        inputs = {"code": losiko_code, "structure": methanol, "database": node}
        _, folder = prepare_job("losiko.relax", inputs)
        with folder.open("parameters.json") as handle:
            return json.load(handle)

    # The name itself is not sent: the program would compare the descriptors.
    assert sent("water") == {"relax": load_protocol("water").relax}
    assert sent("of somebody else") == {"relax": load_protocol("balanced").relax}


def test_exit_codes_follow_the_house_numbers(aiida_profile):
    codes = {code.status: code for code in RelaxCalculation.exit_codes.values()}
    assert {201, 301, 302, 310, 400, 410, 420} <= set(codes)
    # What may go otherwise next time must not be taken from the cache.
    assert all(codes[status].invalidates_cache for status in (201, 301, 302, 310, 400))
    assert not codes[410].invalidates_cache
