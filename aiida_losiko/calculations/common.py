"""What the calculation jobs that run the `losiko` program share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec

from aiida_losiko.core.errors import LosikoError

__all__ = ("LosikoCalculation", "check_parameters", "options_of", "parameters_validator")

PARAMETERS_FILE = "parameters.json"
STRUCTURES_FILE = "structures.npz"
DATABASE_FILE = "database.safetensors"


def check_parameters(parameters: Mapping[str, Any], sections: Sequence[str], lists: Sequence[str] = ()) -> None:
    """Check the parameters of a process before anything is started.

    Parameters
    ----------
    parameters
        `protocol` (a name), some of `sections` (parameters that differ from the protocol's), some of `lists`.
    sections
        Sections of `aiida_losiko.core.protocols` that the process uses.
    lists
        Further keys, whose values are lists of texts.

    Raises
    ------
    LosikoError
        For unknown keys, protocols or parameters, and for lists that are none.
    """
    from aiida_losiko.core.protocols import DEFAULT_PROTOCOL, load_protocol
    from aiida_losiko.core.settings import RelaxSettings

    allowed = ("protocol", *sections, *lists)
    for key in parameters:
        if key not in allowed:
            raise LosikoError(f"unknown key {key!r} in parameters: allowed are {', '.join(allowed)}")
    for key in lists:
        value = parameters.get(key, [])
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise LosikoError(f"{key} is {value!r}: give a list of texts")
    name = parameters.get("protocol", DEFAULT_PROTOCOL)
    load_protocol(name, {key: parameters[key] for key in sections if key in parameters})
    if "relax" in parameters:
        RelaxSettings.from_dict(parameters["relax"])


def parameters_validator(sections: Sequence[str], lists: Sequence[str] = ()) -> Callable[[Any, Any], str | None]:
    """Return a port validator for a `Dict` with the keys of `check_parameters`."""

    def validate(value: Any, _: Any) -> str | None:
        """Return what is wrong with the parameters, or None."""
        if value is None:
            return None
        try:
            check_parameters(value.get_dict(), sections, lists)
        except LosikoError as error:
            return str(error)
        return None

    return validate


def options_of(spec: CalcJobProcessSpec) -> Any:
    """Return the port namespace `metadata.options` of a job, to change its defaults."""
    inputs: Any = spec.inputs
    return inputs["metadata"]["options"]


class LosikoCalculation(CalcJob):
    """A job that runs one command of the `losiko` program in its own folder.

    Subclasses define ports and outputs, and call `_job` from `prepare_for_submission`.
    """

    #: Raise this when equal inputs no longer give equal results, so that older jobs are not taken from the cache.
    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Set the options and exit codes that all jobs of the program have."""
        super().define(spec)
        options = options_of(spec)
        options["resources"].default = lambda: {"num_machines": 1, "num_mpiprocs_per_machine": 1}
        options["withmpi"].default = False
        options["input_filename"].default = PARAMETERS_FILE
        options["output_filename"].default = "losiko.out"
        spec.input("metadata.options.error_filename", valid_type=str, default="losiko.err", help="File for stderr.")

        spec.exit_code(
            201,
            "ERROR_INPUT_REJECTED",
            invalidates_cache=True,
            message="The program rejected its input: {message}",
        )
        spec.exit_code(
            301,
            "ERROR_OUTPUT_MISSING",
            invalidates_cache=True,
            message="The program left no {missing} and no error message: {tail}",
        )
        spec.exit_code(
            302,
            "ERROR_OUTPUT_UNREADABLE",
            invalidates_cache=True,
            message="The output {name} cannot be read: {message}",
        )
        spec.exit_code(
            310,
            "ERROR_PROGRAM_CRASHED",
            invalidates_cache=True,
            message="The program crashed; the last lines of its stderr: {tail}",
        )

    def _job(
        self,
        folder: Folder,
        command: Sequence[str],
        parameters: Mapping[str, Any],
        copies: Sequence[tuple[str, str, str]],
        outputs: Sequence[str],
    ) -> CalcInfo:
        """Write the parameter file and describe the job.

        Parameters
        ----------
        folder
            The sandbox of the job.
        command
            Command and options of `losiko`; the parameter file is added.
        parameters
            What goes into the parameter file.
        copies
            `(node uuid, file in its repository, file in the job)` of the inputs.
        outputs
            Files to take home. They go to nodes of their own and are not kept with the retrieved files as well.
        """
        with folder.open(self.options.input_filename, "w", encoding="utf8") as handle:
            json.dump(parameters, handle, indent=1, sort_keys=True)

        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = [*command, "--parameters", self.options.input_filename, "--quiet"]
        code.stdout_name = self.options.output_filename
        code.stderr_name = self.options.error_filename

        job = CalcInfo()
        job.codes_info = [code]
        job.local_copy_list = list(copies)
        job.retrieve_list = [self.options.output_filename, self.options.error_filename]
        job.retrieve_temporary_list = list(outputs)
        cores = self.options.resources.get("num_cores_per_mpiproc")
        if cores and "OMP_NUM_THREADS" not in self.options.environment_variables:
            # torch would otherwise start as many threads as the machine has cores, whatever the scheduler gave.
            job.prepend_text = f"export OMP_NUM_THREADS={int(cores)}"
        return job
