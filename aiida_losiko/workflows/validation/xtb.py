"""GFN2-xTB: cheap energies and minima of molecules, whole sets in one job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import numpy as np
from aiida import orm
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.data import StructureSetData
from aiida_losiko.data.density_of_states import MIDDLE_OF_GAP, DensityOfStates
from aiida_losiko.workflows.validation.base import DOS, RELAX, SINGLE_POINT, Measurement, Request, ValidationEngine

__all__ = ("XtbEngine",)

#: eV: standard deviation of the Gaussians that stand for the orbitals, and the grid of the densities of states.
DOS_WIDTH, DOS_STEP = 0.2, 0.05


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
            dos = None if own is None else _density_of_states(own)
            reason = error or ("" if energy is not None else f"not computed: {status}")
            found.append(Measurement(energy, gap, dos, status == "converged", reason))
        return found

    def _settings(self, task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        from aiida_losiko.core.xtb import XtbSettings

        values = {key: value for key, value in parameters.items() if key != "protocol"}
        values |= {"task": RELAX if task == RELAX else SINGLE_POINT, "orbitals": task == DOS}
        return XtbSettings.from_dict(values).to_dict()


def _density_of_states(orbitals: Mapping[str, Any]) -> DensityOfStates:
    """Return Gaussians in the place of the orbitals, relative to the middle between the last full and first empty."""
    levels, occupations = np.array(orbitals["energies"]), np.array(orbitals["occupations"])
    filled = occupations > 0.5
    edges = (levels[filled].max(initial=-np.inf), levels[~filled].min(initial=np.inf))
    levels = levels - np.mean([edge for edge in edges if np.isfinite(edge)])
    grid = np.arange(levels.min() - 5 * DOS_WIDTH, levels.max() + 5 * DOS_WIDTH + DOS_STEP, DOS_STEP)
    gaussians = np.exp(-((grid - levels[:, None]) ** 2) / (2 * DOS_WIDTH**2)) / (DOS_WIDTH * np.sqrt(2 * np.pi))
    # Two electrons, one of each spin, have a place in each orbital.
    projected = {symbol: 2 * np.array(share) @ gaussians for symbol, share in orbitals["shares"].items()}
    return DensityOfStates(grid, 2 * gaussians.sum(axis=0), projected, MIDDLE_OF_GAP)
