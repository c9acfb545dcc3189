"""What the calculation jobs that run the `losiko` program share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.common.hashing import make_hash
from aiida.engine import CalcJob, CalcJobProcessSpec

from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from aiida_losiko.data import EnvironmentDatabaseData

__all__ = (
    "LosikoCalculation",
    "check_parameters",
    "known_protocol",
    "options_of",
    "parameters_validator",
    "spell_out",
)

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
    from aiida_losiko.core.settings import RelaxSettings

    allowed = ("protocol", *sections, *lists)
    for key in parameters:
        if key not in allowed:
            raise LosikoError(f"unknown key {key!r} in parameters: allowed are {', '.join(allowed)}")
    for key in lists:
        value = parameters.get(key, [])
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise LosikoError(f"{key} is {value!r}: give a list of texts")
    numbers = spell_out(parameters, sections)
    if "relax" in sections:
        # Without a name the protocol is the database's, which is not known here and may be what makes noise decay.
        decay = {} if "protocol" in parameters else {"noise_decay": 1.0}
        RelaxSettings.from_dict(numbers["relax"] | decay | (parameters.get("relax") or {}))


def spell_out(parameters: Mapping[str, Any], sections: Sequence[str], protocol: str | None = None) -> dict[str, Any]:
    """Return parameters with all the numbers behind the name of their protocol.

    A name alone may stand for other numbers in another version of the package: the graph would not say what was done,
    and a calculation with the old numbers would be taken from the cache for the new ones.

    Parameters
    ----------
    parameters
        As of `check_parameters`.
    sections
        Sections of the protocol to spell out.
    protocol
        Which one, where `parameters` names none; default balanced.

    Returns
    -------
    dict
        `parameters` with complete `sections`; spelling it out again changes nothing.

    Raises
    ------
    LosikoError
        For an unknown protocol or parameter.
    """
    from aiida_losiko.core.protocols import DEFAULT_PROTOCOL, load_protocol

    overrides = {key: parameters[key] for key in sections if key in parameters}
    core = load_protocol(parameters.get("protocol", protocol or DEFAULT_PROTOCOL), overrides)
    return {**parameters, **{section: getattr(core, section) for section in sections}}


def known_protocol(database: EnvironmentDatabaseData) -> str | None:
    """Return the name of the protocol that a database was built with, None where there is none of that name (here)."""
    from aiida_losiko.core.protocols import protocol_names

    return database.protocol if database.protocol in protocol_names() else None


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

    Subclasses define ports and outputs, and call `_job` from `prepare_for_submission`. What the program gets are the
    numbers behind the name of a protocol, those that this side knows; they are part of the hash of the job, so that it
    is not taken from the cache when the name has come to stand for others.
    """

    #: Sections of the protocols that the command uses.
    SECTIONS: ClassVar[tuple[str, ...]] = ()

    #: Raise this when equal inputs no longer give equal results, so that older jobs are not taken from the cache.
    CACHE_VERSION = 5

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

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the job, all numbers spelled out."""
        given: dict[str, Any] = self.inputs.parameters.get_dict() if "parameters" in self.inputs else {}
        return spell_out(given, self.SECTIONS, self._default_protocol())

    def _default_protocol(self) -> str | None:
        """Return the protocol where the parameters name none; None for the default one."""
        return None

    def _setup_version_info(self) -> dict[str, Any]:
        """Add the numbers to what AiiDA hashes; called before the node of the job is stored."""
        information = super()._setup_version_info()
        versions = self.node.base.attributes.get(self.KEY_CACHE_VERSION, {})
        versions = {**versions, "parameters": make_hash(self._parameters())}
        self.node.base.attributes.set(self.KEY_CACHE_VERSION, versions)
        return information

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
        cores = self._cores()
        if cores is not None and "OMP_NUM_THREADS" not in self.options.environment_variables:
            # torch would otherwise start as many threads as the machine has cores, whatever the scheduler gave.
            job.prepend_text = f"export OMP_NUM_THREADS={cores}"
        return job

    def _cores(self) -> int | None:
        """Return how many cores of one machine were asked for; None where nothing but the defaults was said."""
        resources = self.options.resources
        per_process = resources.get("num_cores_per_mpiproc")
        cores = int(resources.get("num_mpiprocs_per_machine") or 1) * int(per_process or 1)
        return cores if per_process or cores > 1 else None
