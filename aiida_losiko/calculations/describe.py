"""Building an environment database from a set of structures."""

from __future__ import annotations

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec

from aiida_losiko.calculations.common import (
    DATABASE_FILE,
    STRUCTURES_FILE,
    LosikoCalculation,
    options_of,
    parameters_validator,
)
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData

__all__ = ("DescribeCalculation",)


class DescribeCalculation(LosikoCalculation):
    """Describe all environments of a set of structures: `losiko database build`.

    A structure that cannot be described (not finite, coincident atoms, ...) is left out: the job then ends with exit
    status 420 and the database of the others.
    """

    SECTIONS = ("descriptor", "database")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Define the ports."""
        super().define(spec)
        spec.input(
            "structures",
            valid_type=StructureSetData,
            help="Structures known to be stable. Their identifiers become the sources of the environments.",
        )
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            required=False,
            validator=parameters_validator(cls.SECTIONS, lists=("species",)),
            help="Keys, all optional: `protocol` (name, default balanced); `descriptor` and `database` (what differs "
            "from the protocol; lengths in Angstrom); `species` (symbols that the descriptor knows, default: those of "
            "the structures).",
        )
        options_of(spec)["parser_name"].default = "losiko.describe"

        spec.output("database", valid_type=EnvironmentDatabaseData, help="The environments and where they come from.")
        spec.output(
            "report", valid_type=orm.Dict, help="Numbers of environments and sources, reach, descriptor, protocol."
        )
        spec.default_output_node = "report"
        spec.exit_code(
            420,
            "ERROR_SOME_STRUCTURES_FAILED",
            message="{n_failed} of {n_structures} structures were left out of the database: {message}",
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the parameter file and describe the job.

        Parameters
        ----------
        folder
            The sandbox of the job.
        """
        parameters = self._parameters()
        species = parameters.pop("species", None)
        command = ["database", "build", STRUCTURES_FILE, "--output", DATABASE_FILE]
        if species:
            command += ["--species", ",".join(species)]
        structures = self.inputs.structures
        copies = [(structures.uuid, StructureSetData.FILENAME, STRUCTURES_FILE)]
        return self._job(folder, command, parameters, copies, [DATABASE_FILE])
