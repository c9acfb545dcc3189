"""The job that builds a database: its input files and validators."""

from __future__ import annotations

import json

import pytest
from aiida.orm import Dict
from aiida.plugins import CalculationFactory

from aiida_losiko.calculations.describe import DescribeCalculation
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.data import StructureSetData


def test_input_files(prepare_job, losiko_code, make_set):
    structures = make_set("H2O", "CH4").store()
    parameters = {"protocol": "qm9", "descriptor": {"r_cut": 3.5}, "species": ["H", "C", "O"]}
    job, folder = prepare_job(
        "losiko.describe", {"code": losiko_code, "structures": structures, "parameters": Dict(parameters)}
    )
    code = job.codes_info[0]
    command = "database build structures.npz --output database.safetensors --species H,C,O"
    assert code.cmdline_params == [*command.split(), "--parameters", "parameters.json", "--quiet"]
    assert (code.stdout_name, code.stderr_name) == ("losiko.out", "losiko.err")
    assert job.local_copy_list == [(structures.uuid, "structures.npz", "structures.npz")]
    assert job.retrieve_temporary_list == ["database.safetensors"]
    assert sorted(job.retrieve_list) == ["losiko.err", "losiko.out"]
    assert folder.get_content_list() == ["parameters.json"]
    with folder.open("parameters.json") as handle:
        written = json.load(handle)
    protocol = load_protocol("qm9")
    assert written == {
        "protocol": "qm9",
        "descriptor": {**protocol.descriptor, "r_cut": 3.5},
        "database": protocol.database,
    }


def test_parameters_are_optional(prepare_job, losiko_code, make_set):
    job, folder = prepare_job("losiko.describe", {"code": losiko_code, "structures": make_set("H2O").store()})
    assert "--species" not in job.codes_info[0].cmdline_params
    with folder.open("parameters.json") as handle:
        protocol = load_protocol()
        assert json.load(handle) == {"descriptor": protocol.descriptor, "database": protocol.database}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_cores_per_mpiproc": 3}, "export OMP_NUM_THREADS=3"),
        ({}, None),
    ],
)
def test_threads_follow_the_cores_that_are_asked_for(prepare_job, losiko_code, make_set, options, text):
    resources = {"num_machines": 1, "num_mpiprocs_per_machine": 1, **options}
    inputs = {"code": losiko_code, "structures": make_set("H2O").store()}
    metadata = {"options": {"resources": resources}}
    assert prepare_job("losiko.describe", {**inputs, "metadata": metadata})[0].prepend_text == text
    metadata["options"]["environment_variables"] = {"OMP_NUM_THREADS": "2"}
    assert prepare_job("losiko.describe", {**inputs, "metadata": metadata})[0].prepend_text is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"protocol": "qm8"}, "unknown protocol 'qm8'"),
        ({"descriptor": {"rcut": 4}}, "unknown key 'descriptor.rcut'"),
        ({"relax": {"max_steps": 5}}, "unknown key 'relax' in parameters"),
        ({"species": "HCO"}, "give a list of texts"),
    ],
)
def test_wrong_parameters_are_told_when_they_are_set(aiida_profile, parameters, message):
    builder = DescribeCalculation.get_builder()
    with pytest.raises(ValueError, match=message):
        builder.parameters = Dict(parameters)


def test_entry_point_and_defaults(aiida_profile):
    assert CalculationFactory("losiko.describe") is DescribeCalculation
    options = DescribeCalculation.spec().inputs["metadata"]["options"]
    assert options["parser_name"].default == "losiko.describe"
    assert options["withmpi"].default is False
    assert DescribeCalculation.spec().inputs["structures"].valid_type is StructureSetData
