"""PySCF through aiida-pyscf: energies, gaps and minima of molecules by density functional theory."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from aiida import orm
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.workflows.validation.base import DOS, RELAX, Measurement, Request, ValidationEngine
from aiida_losiko.workflows.validation.levels import density_of_levels, gap_of_levels

__all__ = ("PyscfEngine",)

#: PySCF stops geomeTRIC after 100 gradients and calls the result converged; geomeTRIC itself has to stop before.
MOST_STEPS = 99
#: Of the files of geomeTRIC. Without it they lie in a temporary folder, and are lost.
PREFIX = "relax"
#: What geomeTRIC writes into its log when all five criteria are met, and only then.
CONVERGED = "Converged! =D"
#: Hartree, change of the energy in the last step; geomeTRIC's default.
ENERGY_CHANGE = 1.0e-6


class PyscfEngine(ValidationEngine):
    """The work chain `pyscf.base` of aiida-pyscf, which begins anew where the electrons do not converge."""

    name = "pyscf"
    description = "PySCF by aiida-pyscf, for molecules: B3LYP, M06-2X, wB97X-D and others"
    takes_molecules = True
    codes = ("pyscf",)
    module, extra = "aiida_pyscf", "pyscf"
    outputs: ClassVar[Mapping[str, str]] = {
        "parameters": "parameters",
        "trajectory": "trajectory",
        "retrieved": "retrieved",
        "structure": "structure",
    }

    def check(self, elements: Sequence[str], codes: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Judge the values of the settings, and look for functional and basis sets."""
        _check_numbers(parameters)
        _check_attributes(parameters["mean_field"])
        _check_functional(parameters["functional"])
        for element in elements:
            _check_basis(parameters["basis"], element)

    def get_builder(self, request: Request) -> ProcessBuilder:
        """Return a builder of `pyscf.base`."""
        from aiida.plugins import WorkflowFactory

        workchain: Any = WorkflowFactory("pyscf.base")
        builder: Any = workchain.get_builder()
        builder.pyscf.code = request.codes["pyscf"]
        builder.pyscf.structure = request.structure
        builder.pyscf.parameters = orm.Dict(_inputs(request))
        builder.max_iterations = orm.Int(1 + request.parameters["max_restarts"])
        for key, value in request.options.items():
            builder.pyscf.metadata.options[key] = value
        if request.task == RELAX:
            wanted = [*(request.options.get("additional_retrieve_list") or []), f"{PREFIX}.log"]
            builder.pyscf.metadata.options["additional_retrieve_list"] = wanted
        return cast("ProcessBuilder", builder)

    def outputs_of(self, node: orm.ProcessNode) -> dict[str, orm.Data]:
        """Return the outputs, and `inputs`, which say what was asked for.

        A work chain that failed has no outputs, but its last calculation may have some.
        """
        found = super().outputs_of(node)
        called = getattr(node, "called", [])
        if "parameters" not in found and called:
            found = super().outputs_of(max(called, key=lambda child: child.pk or 0)) or found
        if found and "pyscf__parameters" in node.base.links.get_incoming().all_link_labels():
            found["inputs"] = node.inputs.pyscf.parameters
        return found

    def read(self, outputs: Mapping[str, Any]) -> Measurement:
        """Return energy and gap; of a relaxation the energy of the last structure."""
        if "parameters" not in outputs:
            raise LosikoError("PySCF left no results.json: see aiida.out and _scheduler-stderr.txt of the calculation")
        results = outputs["parameters"].get_dict()
        electrons = results.get("mean_field") or {}
        converged = bool(electrons.get("is_converged"))
        if "optimizer" in results:
            # All that stands under mean_field is that of the first structure.
            if "trajectory" not in outputs:
                raise LosikoError(f"PySCF left no {PREFIX}_optim.xyz, the energies of the relaxation")
            energies = outputs["trajectory"].get_array("energies")
            finished = bool(results["optimizer"].get("is_converged")) and _log_says_converged(outputs.get("retrieved"))
            return Measurement(float(energies[-1]), converged=converged and finished)
        if "total_energy" not in electrons:
            raise LosikoError("results.json of PySCF has no total_energy")
        orbitals = electrons.get("molecular_orbitals")
        if orbitals is None:
            return Measurement(electrons["total_energy"], converged=converged)
        levels, occupations = orbitals["energies"], orbitals["occupations"]
        dos = None
        if "inputs" in outputs and outputs["inputs"]["results"].get("density_of_states"):
            each = 1 if isinstance(levels[0], list) else 2
            dos = density_of_levels(levels, occupations, states_per_level=each)
        return Measurement(electrons["total_energy"], gap_of_levels(levels, occupations), dos, converged)


def _inputs(request: Request) -> dict[str, Any]:
    """Return the parameters of aiida-pyscf."""
    parameters = request.parameters
    multiplicity = _multiplicity(request)
    inputs: dict[str, Any] = {
        "structure": {
            "basis": parameters["basis"],
            "cart": parameters["cartesian"],
            "charge": parameters["charge"],
            "spin": multiplicity - 1,
            "max_memory": parameters["max_memory"],
        },
        "mean_field": {
            **parameters["mean_field"],
            "method": "RKS" if multiplicity == 1 else "UKS",
            "xc": parameters["functional"],
            "grids.level": parameters["grid_level"],
            "conv_tol": parameters["scf_tolerance"],
            "max_cycle": parameters["max_iterations"],
        },
        # Nothing is pickled: a stored pickle could run code wherever an archive is opened.
        "results": {"pickle_model": False},
    }
    if request.task == DOS:
        inputs["results"]["density_of_states"] = True  # for `read`; PySCF does nothing with it
    if request.task == RELAX:
        inputs["optimizer"] = {"solver": "geometric", "convergence_parameters": _criteria(parameters)}
    return inputs


def _criteria(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return geomeTRIC's criteria: in its sets, too, steps (Angstrom) are four times gradients (Hartree/Bohr)."""
    from ase.units import Bohr, Hartree

    largest = parameters["fmax"] * Bohr / Hartree
    return {
        "prefix": PREFIX,
        "maxiter": parameters["max_steps"],
        # The last structure is kept where the steps do not suffice; the log tells the one from the other.
        "converge": ["maxiter"],
        "convergence_energy": ENERGY_CHANGE,
        "convergence_gmax": largest,
        "convergence_grms": largest * 2 / 3,
        "convergence_dmax": largest * 4,
        "convergence_drms": largest * 8 / 3,
    }


def _multiplicity(request: Request) -> int:
    """Return the multiplicity asked for or the lowest one; a `LosikoError` where the electrons do not allow it."""
    atoms = cast("orm.StructureData", request.structure).get_ase()
    charge, asked = request.parameters["charge"], request.parameters["multiplicity"]
    electrons = int(atoms.numbers.sum()) - int(charge)
    lowest = 1 + electrons % 2
    if asked is None:
        return lowest
    if electrons < asked - 1 or (asked - lowest) % 2:
        raise LosikoError(
            f"multiplicity={asked} is not allowed; {atoms.get_chemical_formula()} of charge {charge} has {electrons} "
            f"electrons: give {lowest}, {lowest + 2}, ... or null"
        )
    return int(asked)


def _log_says_converged(retrieved: Any) -> bool:
    """Return whether geomeTRIC's log does: PySCF and aiida-pyscf say so also where the steps did not suffice."""
    name = f"{PREFIX}.log"
    if retrieved is None or name not in retrieved.base.repository.list_object_names():
        return False
    return CONVERGED in retrieved.base.repository.get_object_content(name, mode="rb").decode(errors="replace")


def _check_numbers(parameters: Mapping[str, Any]) -> None:
    for name in ("scf_tolerance", "fmax", "max_memory"):
        require(name, parameters[name], is_real(parameters[name]) and parameters[name] > 0, "a number above zero")
    for name, least in (("max_iterations", 1), ("max_restarts", 0), ("max_steps", 1), ("grid_level", 0)):
        require(name, parameters[name], is_whole(parameters[name], least), f"a whole number from {least}")
    steps, level = parameters["max_steps"], parameters["grid_level"]
    require("max_steps", steps, steps <= MOST_STEPS, f"{MOST_STEPS} at most, relax the last structure for more")
    require("grid_level", level, level <= 9, "from 0 to 9")
    charge, multiplicity = parameters["charge"], parameters["multiplicity"]
    require("charge", charge, is_whole(abs(charge) if is_real(charge) else charge), "a whole number of electrons")
    require("multiplicity", multiplicity, multiplicity is None or is_whole(multiplicity, 1), "1, 2, 3, ... or null")
    require("cartesian", parameters["cartesian"], isinstance(parameters["cartesian"], bool), "true or false")


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    """Allow only what is an attribute and a plain value: aiida-pyscf writes both into a program as they are."""
    for name, value in attributes.items():
        if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", name) or name in ("chkfile", "checkpoint"):
            raise LosikoError(f"mean_field has the key {name!r}; it must be an attribute of PySCF, such as level_shift")
        plain = (
            isinstance(value, bool)
            or is_real(value)
            or (isinstance(value, str) and re.fullmatch(r"[\w ,.+*-]*", value))
        )
        if not plain:
            raise LosikoError(f"mean_field.{name} is {value!r}; it must be a number, true, false or a plain word")


def _check_functional(name: Any) -> None:
    """Ask PySCF for the functional."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its change of what b3lyp means, on import
        from pyscf.dft import libxc

        try:
            (hybrid, *_), parts = libxc.parse_xc(name)
        except (AttributeError, KeyError, TypeError, ValueError):
            hybrid, parts = 0, ()
    if not isinstance(name, str) or '"' in name or "'" in name or not (hybrid or parts):
        raise LosikoError(
            f"PySCF has no functional {name!r}: there are b3lypg, m06-2x, wb97x-d, pbe0 and what Libxc has"
        )


def _check_basis(name: Any, element: str) -> None:
    """Ask PySCF for the basis set of an element."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyscf import gto

        try:
            found = bool(gto.basis.load(name, element))
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError):
            found = False
    if not found:
        raise LosikoError(f"PySCF has no basis {name!r} for {element}: give another one, such as basis=def2-svp")
