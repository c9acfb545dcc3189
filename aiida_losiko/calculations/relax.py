"""Relaxing one structure or a whole set with the environments of a database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec

from aiida_losiko.calculations.common import (
    DATABASE_FILE,
    STRUCTURES_FILE,
    LosikoCalculation,
    known_protocol,
    options_of,
    parameters_validator,
)
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.structures.weights import WEIGHTS, set_weights
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData, structure_to_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("RelaxCalculation", "validate_structures")

RELAXED_FILE = "relaxed.npz"
REPORT_FILE = "report.json"

#: Part of the wallclock time that the program may use; the rest is for writing and for the scheduler.
WALLCLOCK_PART = 0.9


def validate_structures(inputs: Mapping[str, Any] | None, ports: Any) -> str | None:
    """Return what is wrong with `structure`, `structures`, `fixed_atoms` and `weights` together, or None."""
    names = ("structure", "structures", "fixed_atoms", "weights")
    if not inputs or any(name not in ports for name in names):
        # Exposed in a work chain that fills these ports itself.
        return None
    structure, structures, fixed, weights = (inputs.get(name) for name in names)
    if (structure is None) == (structures is None):
        return "give exactly one of `structure` (one StructureData) and `structures` (a StructureSetData)"
    if fixed is not None and structure is None:
        return "`fixed_atoms` goes with `structure`; in a set, give the structures a FixAtoms constraint instead"
    if weights is not None and structure is None:
        return f"`weights` goes with `structure`; in a set, give all structures the array {WEIGHTS!r} instead"
    if structure is not None:
        try:
            atoms = _start(structure, fixed, weights)
        except LosikoError as error:
            return str(error)
        database = inputs.get("database")
        known = [symbol for symbol, count in database.n_environments.items() if count] if database is not None else None
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(known)) if known is not None else []
        if unknown:
            return (
                f"the database has no environment of {unknown[0]}, only of {', '.join(known or ())}: use a database "
                "that was built with structures that hold it"
            )
    return None


def _start(structure: orm.StructureData, fixed: orm.List | None, weights: orm.List | None) -> Atoms:
    """Return a single structure with what belongs to its atoms."""
    atoms = structure_to_atoms(structure, None if fixed is None else fixed.get_list())
    if weights is not None:
        set_weights(atoms, weights.get_list())
    return atoms


class RelaxCalculation(LosikoCalculation):
    """Move atoms until each environment looks like one in the database: `losiko relax`.

    Whatever happened to some structures of a set, the last positions of all are given, with an exit status that says
    what is not as asked for: out of time (400) before not converged (410) before single failures (420). A structure
    that failed is in the set unchanged, with `losiko_status` "error" in its `info`.
    """

    SECTIONS = ("relax",)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:  # type: ignore[override]
        """Define the ports."""
        super().define(spec)
        spec.input(
            "structures", valid_type=StructureSetData, required=False, help="Structures to relax (or `structure`)."
        )
        spec.input("structure", valid_type=orm.StructureData, required=False, help="One structure to relax.")
        spec.input(
            "fixed_atoms",
            valid_type=orm.List,
            required=False,
            help="Indices (from 0) of the atoms of `structure` that must not move. A set holds its own constraints.",
        )
        spec.input(
            "weights",
            valid_type=orm.List,
            required=False,
            serializer=orm.to_aiida_type,
            help="How much each atom of `structure` counts in the loss (c_i of Eq. 8), one number from 0 for each, on "
            "top of `weights` by species in the parameters. The structures of a set hold their own in the array "
            f"`{WEIGHTS}`.",
        )
        spec.input("database", valid_type=EnvironmentDatabaseData, help="The environments to steer towards.")
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            required=False,
            validator=parameters_validator(cls.SECTIONS, lists=("exclude",)),
            help="Keys, all optional: `protocol` (name, default: the one that the database was built with); `relax` "
            "(what differs from the protocol: `max_steps`, `fmax` in loss/Angstrom, ...); `exclude` (identifiers of "
            "sources that are left out of the database for this run).",
        )
        spec.inputs.validator = validate_structures
        options_of(spec)["parser_name"].default = "losiko.relax"

        spec.output("structures", valid_type=StructureSetData, required=False, help="Last structures, in order.")
        spec.output("structure", valid_type=orm.StructureData, required=False, help="Last structure.")
        spec.output(
            "report",
            valid_type=orm.Dict,
            help="Counts per status, flags, errors, losses; per structure as well up to 1,000 structures.",
        )
        spec.output(
            "matches",
            valid_type=orm.ArrayData,
            help="Per atom: distance to the matched environment, the source structure and atom it comes from, whether "
            "it is out of reach; per structure: loss, steps, evaluations, status. See `aiida_losiko.data.matches`.",
        )
        spec.default_output_node = "report"
        spec.exit_code(
            400,
            "ERROR_OUT_OF_TIME",
            invalidates_cache=True,
            message="{n_stopped} of {n_structures} structures were stopped by the time limit or a signal; the last "
            "structures are given.",
        )
        spec.exit_code(
            410,
            "ERROR_NOT_CONVERGED",
            message="{n_unconverged} of {n_structures} structures did not converge within max_steps, or no step "
            "lowers their loss any more; the last structures are given.",
        )
        spec.exit_code(
            420,
            "ERROR_SOME_STRUCTURES_FAILED",
            message="{n_failed} of {n_structures} structures failed and are given unchanged: {message}",
        )

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the input files and describe the job.

        Parameters
        ----------
        folder
            The sandbox of the job.
        """
        parameters = self._parameters()
        exclude = parameters.pop("exclude", [])
        command = ["relax", STRUCTURES_FILE, "--database", DATABASE_FILE]
        command += ["--output", RELAXED_FILE, "--report", REPORT_FILE]
        wallclock = self.options.get("max_wallclock_seconds")
        if wallclock:
            command += ["--max-seconds", f"{WALLCLOCK_PART * wallclock:g}"]
        cores = self._cores()
        if cores is not None:
            # Not among the parameters: it decides on the time, not on the results. Without it the program looks itself.
            command += ["--processes", str(cores)]
        for identifier in exclude:
            command += ["--exclude", identifier]

        database = self.inputs.database
        copies = [(database.uuid, EnvironmentDatabaseData.FILENAME, DATABASE_FILE)]
        if "structures" in self.inputs:
            copies.append((self.inputs.structures.uuid, StructureSetData.FILENAME, STRUCTURES_FILE))
        else:
            self._write_structure(Path(folder.get_abs_path(STRUCTURES_FILE)))
        return self._job(folder, command, parameters, copies, [RELAXED_FILE, REPORT_FILE])

    def _default_protocol(self) -> str | None:
        return known_protocol(self.inputs.database)

    def _write_structure(self, path: Path) -> None:
        from aiida_losiko.core.structures import write_structures

        atoms = _start(self.inputs.structure, self.inputs.get("fixed_atoms"), self.inputs.get("weights"))
        write_structures(path, [atoms])
