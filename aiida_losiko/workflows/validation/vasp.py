"""VASP through aiida-vasp: energies, minima and densities of states of crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
from aiida import orm
from aiida.engine.processes.builder import ProcessBuilder
from ase.data import chemical_symbols

from aiida_losiko.core.checks import is_real
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.workflows.validation.base import DOS, RELAX, Measurement, Request, ValidationEngine

__all__ = ("MATERIALS_PROJECT", "VaspEngine")

#: Tags of the functionals; the potentials are those of the family in all cases.
FUNCTIONALS = {
    "PBE": {"gga": "PE"},
    "PBEsol": {"gga": "PS"},
    "RPBE": {"gga": "RP"},
    "r2SCAN": {"metagga": "R2SCAN"},
}
#: Value of `hubbard` that stands for what the Materials Project does.
MATERIALS_PROJECT = "materials_project"
#: The protocol of aiida-vasp that ours differ from: its potentials and magnetic moments are taken over.
BASE_PROTOCOL = "balanced"
#: eV/Angstrom that no force reaches, for aiida-vasp looks at forces also where energies decide.
ANY_FORCE = 1000.0
#: Elements whose potentials may have f projectors, which aiida-vasp 5.1 cannot read.
F_BLOCK = frozenset(chemical_symbols[57:72] + chemical_symbols[89:104])

#: INCAR tags that are not the user's.
MOVING_TAGS = frozenset({"ibrion", "isif", "nsw"})
POSITIVE = ("encut", "k_spacing", "smearing_width", "electronic_tolerance", "energy_tolerance", "fmax", "dos_k_spacing")
COUNTS = ("max_steps", "max_iterations", "dos_points")
OPTIONAL = ("fmax", "dos_k_spacing")


class VaspEngine(ValidationEngine):
    """The work chains `vasp.vasp` and `vasp.relax`; potentials come from a family that the user has uploaded."""

    name = "vasp"
    description = "VASP by aiida-vasp, for crystals; needs a licence of VASP and its potentials"
    takes_crystals = True
    codes = ("vasp",)
    outputs: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "misc": "misc",
        "structure": ("relax.structure", "structure"),
        "dos": "dos",
        "bands": "bands",
    }

    def check(self, elements: Sequence[str], codes: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Judge the values, the code and whether there is a potential for each element."""
        _check_values(parameters)
        _check_tags(parameters["incar"])
        plugin = getattr(codes.get("vasp"), "default_calc_job_plugin", None)
        if plugin not in (None, "vasp.vasp"):
            raise LosikoError(f"the code for vasp runs {plugin!r}: give one whose plugin is vasp.vasp")
        _check_potentials(elements, parameters)

    def get_builder(self, request: Request) -> ProcessBuilder:
        """Return a builder of `vasp.relax`, or of `vasp.vasp` for structures as they are."""
        from aiida.plugins import WorkflowFactory

        relaxes = request.task == RELAX
        own = _inputs(request)
        overrides = {"vasp": own, "relax_settings": _relax_settings(request.parameters)} if relaxes else own
        chain: Any = WorkflowFactory("vasp.relax" if relaxes else "vasp.vasp")
        try:
            builder = chain.get_builder_from_protocol(
                code=request.codes["vasp"],
                structure=request.structure,
                protocol=BASE_PROTOCOL,
                overrides=overrides,
                options=dict(request.options),
            )
        except Exception as error:  # what aiida-vasp raises for a wrong tag, family or code is of many classes
            raise LosikoError(f"aiida-vasp does not take these inputs: {' '.join(str(error).split())}") from error
        inner = builder.vasp if relaxes else builder
        if not request.parameters["spin"]:
            # aiida-vasp always starts with moments, and they switch spin on.
            inner.pop("magmom_mapping", None)
        if relaxes:
            # Empty ones, not left out: they would take the place of the settings in the last run.
            for name in ("static_calc_settings", "static_calc_options", "static_calc_parameters"):
                builder.pop(name, None)
        return cast("ProcessBuilder", builder)

    def outputs_of(self, node: orm.ProcessNode) -> dict[str, orm.Data]:
        """Return the outputs, of a work chain that failed without any those of the last run of VASP."""
        found = super().outputs_of(node)
        if found or node.is_finished_ok:
            return found
        runs = [called for called in node.called_descendants if isinstance(called, orm.CalcJobNode)]
        return super().outputs_of(max(runs, key=lambda run: run.ctime)) if runs else found

    def read(self, outputs: Mapping[str, Any]) -> Measurement:
        """Return the energy for zero smearing; gap and density of states where bands and `dos` are there."""
        misc = outputs["misc"].get_dict()
        # Of files that stop in the middle they are None.
        energy = (misc.get("total_energies") or {}).get("energy_extrapolated")
        status = misc.get("run_status") or {}
        if energy is None:
            reason = "see its OUTCAR and vasp_output" if status.get("finished") else "it did not come to its end"
            return Measurement(None, converged=False, error=f"VASP wrote no total energy: {reason}")
        # `ionic_converged` is None where nothing moves.
        converged = bool(status.get("finished") and status.get("electronic_converged"))
        converged = converged and status.get("ionic_converged") is not False
        gap = _gap(outputs["bands"]) if "bands" in outputs else None
        dos = None
        if "dos" in outputs and misc.get("fermi_level") is not None:
            dos = _density_of_states(outputs["dos"], misc["fermi_level"], outputs.get("structure"))
        return Measurement(energy, gap, dos, converged)


def _inputs(request: Request) -> dict[str, Any]:
    """Return what goes into `vasp.vasp` in the place of aiida-vasp's own choice."""
    values, structure = request.parameters, cast("orm.StructureData", request.structure)
    kinds = {kind.name: kind.symbol for kind in structure.kinds}
    has_f = any(symbol in F_BLOCK for symbol in kinds.values())
    incar = {
        **{"gga": None, **FUNCTIONALS[values["functional"]]},
        "encut": values["encut"],
        "ediff": values["electronic_tolerance"] * len(structure.sites),
        "ismear": 0,
        "sigma": values["smearing_width"],
        "ispin": 2 if values["spin"] else 1,
    }
    settings: dict[str, Any] = {"parser_settings": {}}
    spacing = values["k_spacing"]
    tags = {key.lower(): value for key, value in values["incar"].items()}
    if request.task == DOS:
        incar |= {"nedos": values["dos_points"], "lorbit": None if has_f else 11}
        tags = {key: value for key, value in tags.items() if key not in ("nedos", "lorbit") or value is not None}
        # Bands for the gap, the structure to tell which atom is which.
        settings["parser_settings"] = {"include_node": ["dos", "bands"], "omit_structure": False}
        spacing = values["dos_k_spacing"] or spacing
    elif request.task == RELAX and values["fmax"] is None:
        incar["ediffg"] = values["energy_tolerance"] * len(structure.sites)
    return {
        "potential_family": values["potential_family"],
        "potential_mapping": {name: _potential(symbol, values) for name, symbol in kinds.items()},
        "magmom_mapping": dict(values["magnetic_moments"]),
        "ldau_mapping": _hubbard(values["hubbard"], structure),
        # aiida-vasp's has the 2 pi outside.
        "kpoints_spacing": spacing / (2 * np.pi),
        "max_iterations": values["max_iterations"],
        "settings": settings,
        "parameters": {"incar": {**incar, **tags}},
    }


def _relax_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `vasp.relax`."""
    cell = values["relax_cell"]
    by_force = values["fmax"] is not None
    return {
        "positions": True,
        "shape": cell,
        "volume": cell,
        "steps": values["max_steps"],
        "force_cutoff": values["fmax"] if by_force else ANY_FORCE,
        "residual_forces_check": by_force,
        "convergence_max_iterations": values["max_iterations"],
    }


def _potential(symbol: str, values: Mapping[str, Any]) -> str:
    """Return the name of the potential of an element."""
    from aiida.plugins import WorkflowFactory

    own = values["potential_mapping"]
    chain: Any = WorkflowFactory("vasp.vasp")
    mapping = {**chain.get_protocol_inputs(BASE_PROTOCOL)["potential_mapping"], **own}
    if symbol not in mapping:
        raise LosikoError(
            f"no potential is chosen for {symbol}: name one of the family {values['potential_family']!r} with "
            f"overrides={{'potential_mapping': {{{symbol!r}: ...}}}}"
        )
    return str(mapping[symbol])


def _hubbard(asked: Any, structure: orm.StructureData) -> dict[str, Any] | None:
    """Return aiida-vasp's mapping of DFT+U, or None.

    The Materials Project adds U to some transition metals of oxides and fluorides; values and elements are those of
    pymatgen's MPRelaxSet.
    """
    if asked is None:
        return None
    mapping = dict(asked) if isinstance(asked, Mapping) else {}
    if asked == MATERIALS_PROJECT:
        from pymatgen.core.periodic_table import Element
        from pymatgen.io.vasp.sets import MPRelaxSet

        incar = MPRelaxSet.CONFIG["INCAR"]
        symbols = sorted(structure.get_symbols_set(), key=lambda symbol: float(Element(symbol).X))
        values = incar["LDAUU"].get(symbols[-1], {})
        orbitals = incar["LDAUL"].get(symbols[-1], {})
        mapping = {name: ["spdf"[orbitals[name]], float(values[name])] for name in symbols if values.get(name)}
    names = {kind.name: mapping[kind.symbol] for kind in structure.kinds if kind.symbol in mapping}
    return {"mapping": names} if names else None


def _check_values(values: Mapping[str, Any]) -> None:
    """Raise a `LosikoError` for what VASP would only say later."""
    if values["functional"] not in FUNCTIONALS:
        hint = did_you_mean(values["functional"], FUNCTIONALS)
        raise LosikoError(f"unknown functional {values['functional']!r}{hint}; there are: {', '.join(FUNCTIONALS)}")
    for name in (*POSITIVE, *COUNTS):
        value = values[name]
        if value is None and name in OPTIONAL:
            continue
        if not is_real(value) or value <= 0 or (name in COUNTS and not isinstance(value, int)):
            kind = "a whole number of 1 or more" if name in COUNTS else "a number above zero"
            raise LosikoError(f"{name}={value!r} is not allowed: give {kind}")
    for name in ("spin", "relax_cell"):
        if not isinstance(values[name], bool):
            raise LosikoError(f"{name}={values[name]!r} is not allowed: give true or false")
    asked = values["hubbard"]
    if asked is None or asked == MATERIALS_PROJECT:
        return
    pairs = asked.values() if isinstance(asked, Mapping) else [None]
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] in ("p", "d", "f") and is_real(pair[1])):
            raise LosikoError(f"hubbard={asked!r} is not allowed: give {MATERIALS_PROJECT} or {{'Co': ['d', 3.32]}}")


def _check_tags(tags: Mapping[str, Any]) -> None:
    """Raise a `LosikoError` for tags that VASP does not know, and for those that say whether atoms move."""
    from aiida_vasp.assistant.parameters import ParametersMassage

    names = {str(tag).lower() for tag in tags}
    if moving := sorted(names & MOVING_TAGS):
        raise LosikoError(f"incar sets {', '.join(moving)}: the task does, with relax_cell and max_steps")
    try:
        ParametersMassage({"incar": dict.fromkeys(names, 0)})
    except ValueError as error:
        raise LosikoError(f"incar={dict(tags)!r} is not allowed: {error}") from error


def _check_potentials(elements: Sequence[str], values: Mapping[str, Any]) -> None:
    """Raise a `LosikoError` with the command that uploads potentials, unless those of the elements are there."""
    from aiida.common.exceptions import NotExistent
    from aiida_vasp.data.potcar import PotcarData

    family = values["potential_family"]
    upload = f"aiida-vasp potcar uploadfamily --path FOLDER --name {family} --description TEXT"
    if PotcarData.get_potcar_group(family) is None:
        there = ", ".join(sorted(group.label for group in PotcarData.get_potcar_groups())) or "none"
        raise LosikoError(
            f"no potentials for {', '.join(elements)}: the family {family!r} is not in this profile (there are: {there}"
            f"); upload the ones of your licence with `{upload}`, or name another potential_family"
        )
    for element in elements:
        name = _potential(element, values)
        try:
            PotcarData.get_potcars_dict([element], family, mapping={element: name})
        except NotExistent:
            others = ", ".join(sorted(PotcarData.get_full_names(family, element))) or "none"
            raise LosikoError(
                f"no potential {name!r} for {element} in the family {family!r} (of {element} there are: {others}); "
                f"upload it with `{upload}`, or choose with overrides={{'potential_mapping': {{{element!r}: ...}}}}"
            ) from None


def _gap(bands: orm.BandsData) -> float:
    """Return the gap in eV: zero where a band is filled in some places and empty in others.

    Counting bands, not occupations, so that smearing does not close a small gap.
    """
    levels, occupations = bands.get_bands(also_occupations=True)
    shape = (-1, *np.shape(levels)[-2:])
    levels, filled = np.reshape(levels, shape), np.reshape(occupations, shape) > 0.5
    if (filled.any(axis=1) != filled.all(axis=1)).any():
        return 0.0
    if filled.all() or not filled.any():
        raise LosikoError("the bands are all filled or all empty: there is no gap to read, raise NBANDS")
    return float(max(0.0, levels[~filled].min() - levels[filled].max()))


def _density_of_states(node: orm.ArrayData, fermi_level: float, structure: orm.StructureData | None) -> DensityOfStates:
    """Return the sum of the spins, and of atoms and orbitals for each element."""
    energies, total = node.get_array("energy"), node.get_array("tdos")
    total = total.reshape(-1, len(energies)).sum(axis=0)
    projected: dict[str, Any] = {}
    if "pdos" in node.get_arraynames() and structure is not None:
        symbols = np.array([structure.get_kind(site.kind_name).symbol for site in structure.sites])
        partial = node.get_array("pdos")
        # (spin, atom, energy, orbital), the spin left out where there is one.
        of_atoms = partial.reshape(-1, len(symbols), *partial.shape[-2:]).sum(axis=(0, 3))
        projected = {str(symbol): of_atoms[symbols == symbol].sum(axis=0) for symbol in np.unique(symbols)}
    return DensityOfStates(energies - fermi_level, total, projected)
