"""GFN2-xTB energies and minima of one molecule or of a whole set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec

from aiida_losiko.calculations.common import STRUCTURES_FILE, LosikoCalculation, options_of
from aiida_losiko.calculations.relax import REPORT_FILE, WALLCLOCK_PART
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, structure_to_atoms

__all__ = ("XtbCalculation",)

COMPUTED_FILE = "computed.npz"


def validate_parameters(value: orm.Dict | None, _: Any) -> str | None:
    """Return what is wrong with the settings, or None."""
    from aiida_losiko.core.xtb import XtbSettings

    try:
        if value is not None:
            XtbSettings.from_dict(value.get_dict())
    except LosikoError as error:
        return str(error)
    return None


def validate_molecules(inputs: Mapping[str, Any] | None, ports: Any) -> str | None:
    """Return what is wrong with `structure` and `structures` together, or None."""
    if not inputs or any(name not in ports for name in ("structure", "structures")):
        return None
    structure, structures = inputs.get("structure"), inputs.get("structures")
    if (structure is None) == (structures is None):
        return "give exactly one of `structure` (one StructureData) and `structures` (a StructureSetData)"
    if structure is not None and any(structure.pbc):
        return f"{structure.get_formula()} is periodic: GFN2-xTB is offered for molecules only, choose another engine"
    return None


class XtbCalculation(LosikoCalculation):
    """Compute energies or minima of molecules with GFN2-xTB: `losiko xtb`, which needs tblite where the code runs.

    What there is is given with an exit status that says what is not as asked for: out of time (400) before not
    converged (410) before single failures (420).
    """

    CACHE_VERSION = 1

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Define the ports."""
        super().define(spec)
        spec.input("structures", valid_type=StructureSetData, required=False, help="Molecules (or `structure`).")
        spec.input("structure", valid_type=orm.StructureData, required=False, help="One molecule.")
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            required=False,
            serializer=orm.to_aiida_type,
            validator=validate_parameters,
            help="Fields of `aiida_losiko.core.xtb.XtbSettings` that differ from its defaults: `task` (relax or "
            "single_point), `charge` (e), `multiplicity`, `fmax` (eV/Angstrom), `max_steps`, `orbitals`, ...",
        )
        spec.inputs.validator = validate_molecules
        options_of(spec)["parser_name"].default = "losiko.xtb"

        spec.output("structures", valid_type=StructureSetData, required=False, help="Last structures of a relaxation.")
        spec.output("structure", valid_type=orm.StructureData, required=False, help="Last structure of a relaxation.")
        spec.output(
            "report",
            valid_type=orm.Dict,
            help="Method, versions, settings, counts per `status`, and in `structures` the columns `identifier`, "
            "`status`, `energy` and `gap` (eV), `largest_force` (eV/Angstrom), `steps`, `error`, `orbitals`.",
        )
        spec.default_output_node = "report"
        spec.exit_code(
            400,
            "ERROR_OUT_OF_TIME",
            invalidates_cache=True,
            message="{n_stopped} of {n_structures} molecules were stopped by the time limit or a signal; what there is "
            "is given.",
        )
        spec.exit_code(
            410,
            "ERROR_NOT_CONVERGED",
            message="{n_unconverged} of {n_structures} molecules did not converge within max_steps={max_steps}; the "
            "last structures are given.",
        )
        spec.exit_code(
            420, "ERROR_SOME_STRUCTURES_FAILED", message="{n_failed} of {n_structures} molecules failed: {message}"
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the input files and describe the job.

        Parameters
        ----------
        folder
            The sandbox of the job.
        """
        command = ["xtb", STRUCTURES_FILE, "--output", COMPUTED_FILE, "--report", REPORT_FILE]
        wallclock = self.options.get("max_wallclock_seconds")
        if wallclock:
            command += ["--max-seconds", f"{WALLCLOCK_PART * wallclock:g}"]
        copies = []
        if "structures" in self.inputs:
            copies.append((self.inputs.structures.uuid, StructureSetData.FILENAME, STRUCTURES_FILE))
        else:
            self._write_structure(Path(folder.get_abs_path(STRUCTURES_FILE)))
        return self._job(folder, command, self._parameters(), copies, [COMPUTED_FILE, REPORT_FILE])

    def _parameters(self) -> dict[str, Any]:
        from aiida_losiko.core.xtb import XtbSettings

        given = self.inputs.parameters.get_dict() if "parameters" in self.inputs else {}
        return XtbSettings.from_dict(given).to_dict()

    def _write_structure(self, path: Path) -> None:
        from aiida_losiko.core.structures import write_structures

        write_structures(path, [structure_to_atoms(self.inputs.structure)])
