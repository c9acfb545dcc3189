"""GFN2-xTB: cheap energies and minima of molecules, whole sets in one job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from aiida import orm
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.data import StructureSetData
from aiida_losiko.workflows.validation.base import DOS, RELAX, SINGLE_POINT, Measurement, Request, ValidationEngine
from aiida_losiko.workflows.validation.levels import density_of_levels

__all__ = ("XtbEngine",)


class XtbEngine(ValidationEngine):
    """The job `losiko.xtb`, run by the same code as LOSIKO; tblite has to be installed where that is."""

    name = "xtb"
    description = "GFN2-xTB by tblite, for molecules; whole sets in one job"
    takes_molecules = True
    takes_sets = True
    codes = ("losiko",)
    # No `module`: tblite is needed by the program, which may be on another computer and says so itself.
    extra = "xtb"
    outputs: ClassVar[Mapping[str, str]] = {"report": "report", "structure": "structure", "structures": "structures"}

    def check(self, elements: Any, codes: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Judge the values of the settings."""
        self._settings(SINGLE_POINT, parameters)

    def get_builder(self, request: Request) -> ProcessBuilder:
        """Return a builder of `losiko.xtb`."""
        from aiida_losiko.calculations.xtb import XtbCalculation

        builder: Any = XtbCalculation.get_builder()
        name = "structures" if isinstance(request.structure, StructureSetData) else "structure"
        builder[name] = request.structure
        builder.code = request.codes["losiko"]
        builder.parameters = orm.Dict(self._settings(request.task, request.parameters))
        # One by one: a whole mapping would take the default resources away.
        for key, value in request.options.items():
            builder.metadata.options[key] = value
        return cast("ProcessBuilder", builder)

    def read(self, outputs: Mapping[str, Any]) -> Measurement:
        """Return what the report says of its one molecule."""
        (measurement,) = self.read_set(outputs)
        return measurement

    def read_set(self, outputs: Mapping[str, Any]) -> list[Measurement]:
        """Return what the report says of each molecule."""
        columns = outputs["report"].get_dict()["structures"]
        orbitals = columns.get("orbitals") or [None] * len(columns["status"])
        found = []
        for status, energy, gap, error, own in zip(
            *(columns[name] for name in ("status", "energy", "gap", "error")), orbitals, strict=True
        ):
            dos = own and density_of_levels(own["energies"], own["occupations"], own["shares"])
            reason = error or ("" if energy is not None else f"not computed: {status}")
            found.append(Measurement(energy, gap, dos, status == "converged", reason))
        return found

    def _settings(self, task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        from aiida_losiko.core.xtb import XtbSettings

        values = {key: value for key, value in parameters.items() if key != "protocol"}
        values |= {"task": RELAX if task == RELAX else SINGLE_POINT, "orbitals": task == DOS}
        return XtbSettings.from_dict(values).to_dict()
