"""Parser of `losiko relax`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.engine import ExitCode

from aiida_losiko.calculations.relax import RELAXED_FILE, REPORT_FILE
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, atoms_to_structure
from aiida_losiko.data.matches import matches_to_node, summarise
from aiida_losiko.parsers.common import LosikoParser

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("RelaxParser",)

REPORT_FORMAT = "losiko-report/1"

#: Entries of the program's report that go to the report node as they are.
REPORT_KEYS = ("version", "protocol", "settings", "excluded", "seconds", "signal")


class RelaxParser(LosikoParser):
    """Make nodes of the relaxed structures, of the report and of the matches."""

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
        if exit_code := self.missing(folder, RELAXED_FILE, REPORT_FILE):
            return exit_code
        try:
            relaxed = read_structures(folder / RELAXED_FILE)
        except LosikoError as error:
            return self.failure("ERROR_OUTPUT_UNREADABLE", name=RELAXED_FILE, message=error)
        try:
            report = self._read_report(folder / REPORT_FILE, len(relaxed))
            self._give_nodes(relaxed, report)
        except (LosikoError, KeyError, TypeError, ValueError) as error:
            message = str(error) if isinstance(error, LosikoError) else f"{type(error).__name__} {error}"
            return self.failure("ERROR_OUTPUT_UNREADABLE", name=REPORT_FILE, message=message)
        return self._verdict(report["structures"])

    def _read_report(self, path: Path, n_structures: int) -> dict[str, Any]:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict) or report.get("format") != REPORT_FORMAT:
            raise LosikoError(f"it is not of the format {REPORT_FORMAT!r}: install the same aiida-losiko on both sides")
        if len(report["structures"]) != n_structures:
            raise LosikoError(f"it tells of {len(report['structures'])} structures, {RELAXED_FILE} has {n_structures}")
        return report

    def _give_nodes(self, relaxed: Sequence[Atoms], report: Mapping[str, Any]) -> None:
        """Add the output nodes."""
        rows = report["structures"]
        identifiers = [str(row["label"]) for row in rows]
        matches = matches_to_node(rows, [len(atoms) for atoms in relaxed], identifiers)
        summary = {key: report[key] for key in REPORT_KEYS if key in report} | summarise(rows, identifiers)
        if "structure" in self.node.inputs:
            self.out("structure", atoms_to_structure(relaxed[0], like=self.node.inputs.structure))
        else:
            self.out("structures", StructureSetData.from_atoms(relaxed, identifiers))
        self.out("report", orm.Dict(summary))
        self.out("matches", matches)
        for flag, names in summary["flags"].items():
            self.logger.warning(f"flag {flag!r} for {len(names)} structures: {', '.join(names[:5])}")

    def _verdict(self, rows: Sequence[Mapping[str, Any]]) -> ExitCode | None:
        """Return the exit code of what is not as asked for; what a restart can mend comes first."""
        n_structures = len(rows)
        stopped = sum(row["status"] in ("max_seconds", "interrupted") for row in rows)
        if stopped:
            return self.failure("ERROR_OUT_OF_TIME", n_stopped=stopped, n_structures=n_structures)
        unconverged = sum(row["status"] in ("max_steps", "stalled") for row in rows)
        if unconverged:
            return self.failure("ERROR_NOT_CONVERGED", n_unconverged=unconverged, n_structures=n_structures)
        failed = [f"{row['label']} ({row.get('error')})" for row in rows if row["status"] == "error"]
        if failed:
            shown = "; ".join(failed[:5]) + ("; ..." if len(failed) > 5 else "")
            return self.failure(
                "ERROR_SOME_STRUCTURES_FAILED", n_failed=len(failed), n_structures=n_structures, message=shown
            )
        return None
