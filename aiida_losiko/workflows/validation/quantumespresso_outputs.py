"""What the outputs of aiida-quantumespresso say of convergence, gap and density of states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.density_of_states import DensityOfStates

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ("converged", "density_of_states", "gap_of")

#: How far a number of electrons of one spin may be from a whole one.
WHOLE = 0.05


def converged(parameters: Mapping[str, Any]) -> bool:
    """Return whether the electrons and, where they were relaxed, the atoms are converged."""
    said = parameters.get("convergence_info") or {}
    return bool(said.get("scf_conv", {}).get("convergence_achieved")) and bool(
        said.get("opt_conv", {"convergence_achieved": True}).get("convergence_achieved")
    )


def gap_of(bands: NDArray[np.float64], parameters: Mapping[str, Any]) -> float | None:
    """Return the gap over the k points of a run.

    Parameters
    ----------
    bands
        (n_k, n_bands), or (2, n_k, n_bands) with spin, in eV.
    parameters
        `output_parameters` of pw.x.

    Returns
    -------
    float or None
        In eV, 0 where bands overlap or are half filled. None where no empty band was computed.
    """
    bands = np.asarray(bands, dtype=np.float64)
    electrons = float(parameters["number_of_electrons"])
    moment = float(parameters.get("total_magnetization") or 0.0)
    filled = [electrons / 2] if bands.ndim == 2 else [(electrons + moment) / 2, (electrons - moment) / 2]
    if any(abs(count - round(count)) > WHOLE for count in filled):
        return 0.0
    top, bottom = [], []
    for count, own in zip(
        (round(count) for count in filled), bands.reshape(len(filled), *bands.shape[-2:]), strict=True
    ):
        top += [own[:, :count].max()] if count else []
        bottom += [own[:, count:].min()] if count < own.shape[1] else []
    if not top or not bottom:
        return None
    return max(0.0, float(min(bottom) - max(top)))


def density_of_states(outputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> DensityOfStates:
    """Return the density of states of dos.x, projected by element by projwfc.x.

    Parameters
    ----------
    outputs
        `dos` (XyData) and `projections` or `projections_up` and `projections_down` (ProjectionData), by these names.
    parameters
        `output_parameters` of the nscf run, for the Fermi level.

    Raises
    ------
    LosikoError
        For an orbital of no element.
    """
    energies = np.asarray(outputs["dos"].get_x()[1], dtype=np.float64)
    total = np.zeros_like(energies)
    for name, values, _ in outputs["dos"].get_y():
        total += values if name.startswith("dos") else 0.0
    projected: dict[str, NDArray[np.float64]] = {}
    for key in ("projections", "projections_up", "projections_down"):
        if key not in outputs:
            continue
        # Both programs are asked for the same grid, but round its ends differently.
        for orbital, density, grid in outputs[key].get_pdos():
            symbol = _element(orbital.get_orbital_dict()["kind_name"])
            own = np.interp(energies, grid, density, left=0.0, right=0.0)
            projected[symbol] = projected.get(symbol, np.zeros_like(energies)) + own
    return DensityOfStates(energies - _fermi_level(parameters), total, projected)


def _fermi_level(parameters: Mapping[str, Any]) -> float:
    if "fermi_energy" in parameters:
        return float(parameters["fermi_energy"])
    return max(float(parameters["fermi_energy_up"]), float(parameters["fermi_energy_down"]))


def _element(kind_name: str) -> str:
    """Return the element of a kind such as `Fe2`."""
    from ase.data import atomic_numbers

    for pattern in ("[A-Z][a-z]", "[A-Z]"):
        match = re.match(pattern, kind_name)
        if match and match.group() in atomic_numbers:
            return match.group()
    raise LosikoError(f"the density of states has an orbital of {kind_name!r}, which is no element")
