"""Parser of `losiko xtb`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.engine import ExitCode

from aiida_losiko.calculations.relax import REPORT_FILE
from aiida_losiko.calculations.xtb import COMPUTED_FILE
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, atoms_to_structure
from aiida_losiko.parsers.common import LosikoParser

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("XtbParser",)

REPORT_FORMAT = "losiko-xtb/1"
HEAD = ("version", "method", "tblite", "settings", "seconds", "signal")
COLUMNS = ("status", "energy", "gap", "largest_force", "steps", "error")


class XtbParser(LosikoParser):
    """Make nodes of the energies and, of a relaxation, of the structures."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Parse the files.

        Parameters
        ----------
        **kwargs
            `retrieved_temporary_folder`: where structures and report lie.

        Returns
        -------
        ExitCode or None
        """
        from aiida_losiko.core.structures import read_structures

        folder = Path(kwargs["retrieved_temporary_folder"])
        if exit_code := self.missing(folder, COMPUTED_FILE, REPORT_FILE):
            return exit_code
        try:
            computed = read_structures(folder / COMPUTED_FILE)
        except LosikoError as error:
            return self.failure("ERROR_OUTPUT_UNREADABLE", name=COMPUTED_FILE, message=error)
        try:
            report = _read_report(folder / REPORT_FILE, len(computed))
            self._give_nodes(computed, report)
        except (LosikoError, KeyError, TypeError, ValueError) as error:
            message = str(error) if isinstance(error, LosikoError) else f"{type(error).__name__} {error}"
            return self.failure("ERROR_OUTPUT_UNREADABLE", name=REPORT_FILE, message=message)
        return self._verdict(report)

    def _give_nodes(self, computed: Sequence[Atoms], report: Mapping[str, Any]) -> None:
        rows, relaxed = report["structures"], report["settings"]["task"] == "relax"
        columns = {"identifier": [row["label"] for row in rows]}
        columns |= {name: [row.get(name) for row in rows] for name in COLUMNS}
        if report["settings"]["orbitals"]:
            columns["orbitals"] = [row.get("orbitals") for row in rows]
        summary = {key: report[key] for key in HEAD if key in report}
        summary |= {"units": {"energy": "eV", "gap": "eV", "largest_force": "eV/Angstrom"}}
        summary |= {"n_structures": len(rows), "n_status": dict(Counter(columns["status"])), "structures": columns}
        if relaxed and "structure" in self.node.inputs:
            self.out("structure", atoms_to_structure(computed[0], like=self.node.inputs.structure))
        elif relaxed:
            self.out("structures", StructureSetData.from_atoms(computed, columns["identifier"]))
        self.out("report", orm.Dict(summary))

    def _verdict(self, report: Mapping[str, Any]) -> ExitCode | None:
        """Return the exit code of what is not as asked for; what more time can mend comes first."""
        rows = report["structures"]
        stopped = sum(row["status"] in ("max_seconds", "interrupted") for row in rows)
        if stopped:
            return self.failure("ERROR_OUT_OF_TIME", n_stopped=stopped, n_structures=len(rows))
        unconverged = sum(row["status"] == "max_steps" for row in rows)
        if unconverged:
            most = report["settings"]["max_steps"]
            values = {"n_unconverged": unconverged, "n_structures": len(rows), "max_steps": most}
            return self.failure("ERROR_NOT_CONVERGED", **values)
        failed = [f"{row['label']} ({row.get('error')})" for row in rows if row["status"] == "error"]
        if failed:
            shown = "; ".join(failed[:5]) + ("; ..." if len(failed) > 5 else "")
            values = {"n_failed": len(failed), "n_structures": len(rows), "message": shown}
            return self.failure("ERROR_SOME_STRUCTURES_FAILED", **values)
        return None


def _read_report(path: Path, n_structures: int) -> dict[str, Any]:
    report = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(report, dict) or report.get("format") != REPORT_FORMAT:
        raise LosikoError(f"it is not of the format {REPORT_FORMAT!r}: install the same aiida-losiko on both sides")
    if len(report["structures"]) != n_structures:
        raise LosikoError(f"it tells of {len(report['structures'])} structures, {COMPUTED_FILE} has {n_structures}")
    for row in report["structures"]:
        label, status, energy = row["label"], row["status"], row.get("energy")
        if status == "converged" and energy is None:
            raise LosikoError(f"{label} is converged and has no energy")
        if energy is not None and not (isinstance(energy, float) and math.isfinite(energy)):
            raise LosikoError(f"the energy of {label} is {energy!r}, no number of eV")
    return report
