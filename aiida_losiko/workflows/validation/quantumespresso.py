"""Quantum ESPRESSO: energies, minima and densities of states of crystals by plane waves and pseudopotentials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from aiida import orm
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.core.checks import is_real
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.workflows.validation.base import DOS, RELAX, SINGLE_POINT, Measurement, Request, ValidationEngine
from aiida_losiko.workflows.validation.quantumespresso_outputs import converged, density_of_states, gap_of

__all__ = ("QuantumEspressoEngine",)

#: eV, and eV/Angstrom in Ry/bohr.
RYDBERG = 13.605693122994
RYDBERG_PER_BOHR = RYDBERG / 0.529177210903

NAMELISTS = ("CONTROL", "SYSTEM", "ELECTRONS", "IONS", "CELL")
POSITIVE = (
    *("k_spacing", "electronic_tolerance", "fmax", "energy_tolerance", "pressure_tolerance"),
    *("max_steps", "max_iterations", "dos_k_spacing", "dos_step"),
)
#: Where resources are counted in machines and processes; the others know their own defaults or have none.
NODE_SCHEDULERS = ("core.direct", "core.slurm", "core.pbspro", "core.torque")


class QuantumEspressoEngine(ValidationEngine):
    """`pw.base`, `pw.relax` and `pdos` of aiida-quantumespresso.

    The energy is pw.x's total energy; with smearing that is the free energy, which for cold smearing is close to that
    without smearing.
    """

    name = "quantumespresso"
    description = "pw.x, dos.x and projwfc.x of Quantum ESPRESSO, for crystals, slabs and molecules in a box"
    takes_crystals = True
    # The bands of `pdos` are of an nscf run, which has no total energy.
    dos_has_energy = False
    codes = ("pw",)
    dos_codes = ("dos", "projwfc")
    module = "aiida_quantumespresso"
    extra = "qe"
    outputs: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "parameters": ("output_parameters", "nscf.output_parameters"),
        "bands": ("output_band", "nscf.output_band"),
        "structure": "output_structure",
        "dos": "dos.output_dos",
        "projections": "projwfc.projections",
        "projections_up": "projwfc.projections_up",
        "projections_down": "projwfc.projections_down",
    }

    def check(self, elements: Sequence[str], codes: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """Look for pseudopotentials and cutoffs of all elements, and at the values of the settings."""
        _check_values(parameters)
        for name, code in codes.items():
            plugin = getattr(code, "default_calc_job_plugin", None)
            if plugin not in (None, f"quantumespresso.{name}"):
                raise LosikoError(
                    f"the code {name} is {code.full_label}, of the plugin {plugin}: give one of quantumespresso.{name}"
                )
        family = _load_family(parameters["pseudo_family"])
        known = family.elements
        missing = [element for element in elements if element not in known]
        if missing:
            raise LosikoError(
                f"the family {family.label} has no pseudopotential of {', '.join(missing)}, but of "
                f"{', '.join(sorted(known))}: name another one as pseudo_family (aiida-pseudo list), or "
                f"{_command(family.label)}"
            )
        if None in (parameters["ecutwfc"], parameters["ecutrho"]):
            _check_cutoffs(family, elements)

    def get_builder(self, request: Request) -> ProcessBuilder:
        """Return a builder of `quantumespresso.pw.base`, `.pw.relax` or `.pdos`."""
        make = {SINGLE_POINT: _single_point, RELAX: _relaxation, DOS: _densities}[request.task]
        try:
            return make(request)
        except LosikoError:
            raise
        except Exception as error:  # ValueError of aiida-quantumespresso and whatever else it says to these inputs
            raise LosikoError(
                f"no inputs of Quantum ESPRESSO for this structure: {' '.join(str(error).split())}"
            ) from (error)

    def outputs_of(self, node: orm.ProcessNode) -> dict[str, orm.Data]:
        """Return the outputs; of a work chain that failed, those of the last run of pw.x that it keeps to itself."""
        found = super().outputs_of(node)
        if found or node.is_finished_ok:
            return found
        runs = [each for each in node.called_descendants if isinstance(each, orm.CalcJobNode)]
        for run in sorted(runs, key=lambda each: -cast("int", each.pk)):
            outputs = super().outputs_of(run)
            if "parameters" in outputs and "energy" in cast("orm.Dict", outputs["parameters"]).get_dict():
                return outputs
        return {}

    def read(self, outputs: Mapping[str, Any]) -> Measurement:
        """Return the energy of pw.x, or the gap and density of states of `pdos`."""
        parameters = outputs["parameters"].get_dict()
        gap = gap_of(outputs["bands"].get_bands(), parameters) if "bands" in outputs else None
        if "dos" in outputs:
            return Measurement(None, gap, density_of_states(outputs, parameters))
        return Measurement(parameters["energy"], gap, converged=converged(parameters))


# -- what is asked of aiida-quantumespresso ----------------------------------------------------------------------------


def _single_point(request: Request) -> ProcessBuilder:
    from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

    return cast(
        "ProcessBuilder",
        PwBaseWorkChain.get_builder_from_protocol(
            request.codes["pw"], request.structure, overrides=_pw_inputs(request), **_common(request)
        ),
    )


def _relaxation(request: Request) -> ProcessBuilder:
    from aiida_quantumespresso.common.types import RelaxType
    from aiida_quantumespresso.workflows.pw.relax import PwRelaxWorkChain

    own = _pw_inputs(request)
    steps = own["pw"]["parameters"]
    steps["CONTROL"] = {"nstep": request.parameters["max_steps"], **steps.get("CONTROL", {})}
    steps["CELL"] = {"press_conv_thr": request.parameters["pressure_tolerance"], **steps.get("CELL", {})}
    builder: Any = PwRelaxWorkChain.get_builder_from_protocol(
        request.codes["pw"],
        request.structure,
        overrides={"base_relax": own, "base_init_relax": own},
        relax_type=RelaxType.POSITIONS_CELL if request.parameters["relax_cell"] else RelaxType.POSITIONS,
        **_common(request),
    )
    # A first relaxation with rough settings: not worth its time so near to the minimum.
    builder.pop("base_init_relax")
    builder.max_meta_convergence_iterations = orm.Int(request.parameters["max_iterations"])
    return cast("ProcessBuilder", builder)


def _densities(request: Request) -> ProcessBuilder:
    from aiida_quantumespresso.workflows.pdos import PdosWorkChain

    step = {"deltae": request.parameters["dos_step"]}
    nscf = _pw_inputs(request, request.parameters["dos_k_spacing"])
    nscf["pw"]["parameters"]["CONTROL"] = {**nscf["pw"]["parameters"].get("CONTROL", {}), "calculation": "nscf"}
    nscf["pw"]["parameters"]["SYSTEM"] |= {"occupations": "tetrahedra_opt", "nosym": True}
    builder: Any = PdosWorkChain.get_builder_from_protocol(
        request.codes["pw"],
        request.codes["dos"],
        request.codes["projwfc"],
        request.structure,
        overrides={
            "scf": _pw_inputs(request),
            "nscf": nscf,
            "dos": {"parameters": {"DOS": step}},
            "projwfc": {"parameters": {"PROJWFC": step}},
        },
        **_common(request),
    )
    builder.energy_range_vs_fermi = orm.List(list(request.parameters["dos_range"]))
    return cast("ProcessBuilder", builder)


def _common(request: Request) -> dict[str, Any]:
    """Return the arguments that all builders have; every number of the protocol named here is overridden."""
    from aiida_quantumespresso.common.types import ElectronicType, SpinType

    wanted = request.parameters
    options = dict(request.options)
    computer = cast("orm.Computer", request.codes["pw"].computer)
    if "resources" not in options and computer.scheduler_type in NODE_SCHEDULERS:
        processes = computer.get_default_mpiprocs_per_machine() or 1
        options["resources"] = {"num_machines": 1, "num_mpiprocs_per_machine": processes}
    common = {"protocol": "balanced", "options": options}
    common["electronic_type"] = ElectronicType.METAL if wanted["smearing_width"] else ElectronicType.INSULATOR
    if wanted["spin"]:
        common["spin_type"] = SpinType.COLLINEAR
        if wanted["magnetic_moments"]:
            kinds = cast("orm.StructureData", request.structure).kinds
            moments = {kind.name: float(wanted["magnetic_moments"].get(kind.symbol, 0.0)) for kind in kinds}
            common["initial_magnetic_moments"] = moments
    return common


def _pw_inputs(request: Request, k_spacing: float | None = None) -> dict[str, Any]:
    """Return what differs from the protocol of aiida-quantumespresso, which is everything that has a number."""
    from aiida_quantumespresso.workflows.protocols.utils import recursive_merge

    wanted = request.parameters
    system: dict[str, Any] = {name: wanted[name] for name in ("ecutwfc", "ecutrho") if wanted[name] is not None}
    if wanted["smearing_width"]:
        system |= {"smearing": wanted["smearing"], "degauss": wanted["smearing_width"] / RYDBERG}
    if wanted["functional"] is not None:
        system["input_dft"] = wanted["functional"]
    if wanted["charge"]:
        system["tot_charge"] = wanted["charge"]
    control = {"forc_conv_thr": wanted["fmax"] / RYDBERG_PER_BOHR}
    parameters = recursive_merge({"CONTROL": control, "SYSTEM": system}, dict(wanted["namelists"]))
    return {
        "pseudo_family": wanted["pseudo_family"],
        "kpoints_distance": k_spacing or wanted["k_spacing"],
        "max_iterations": wanted["max_iterations"],
        "meta_parameters": {
            "conv_thr_per_atom": wanted["electronic_tolerance"] / RYDBERG,
            "etot_conv_thr_per_atom": wanted["energy_tolerance"] / RYDBERG,
        },
        "pw": {"parameters": parameters},
    }


# -- what can be seen before -------------------------------------------------------------------------------------------


def _check_values(parameters: Mapping[str, Any]) -> None:
    for name in POSITIVE:
        if not is_real(parameters[name]) or parameters[name] <= 0:
            raise LosikoError(f"{name} of the engine quantumespresso is {parameters[name]!r}: give a number above 0")
    for name in ("ecutwfc", "ecutrho", "smearing_width"):
        value = parameters[name]
        if value is not None and (not is_real(value) or value <= 0):
            raise LosikoError(f"{name} of the engine quantumespresso is {value!r}: give a number above 0, or null")
    ends = parameters["dos_range"]
    if len(ends) != 2 or not all(is_real(end) for end in ends) or ends[0] >= ends[1]:
        raise LosikoError(f"dos_range of the engine quantumespresso is {ends!r}: give two energies in eV, [-20, 10]")
    for name, content in parameters["namelists"].items():
        if name not in NAMELISTS or not isinstance(content, Mapping):
            known = ", ".join(NAMELISTS)
            raise LosikoError(f"namelists of the engine quantumespresso has {name!r}: give mappings named {known}")


def _load_family(label: str) -> Any:
    """Return a family of pseudopotentials."""
    from aiida_pseudo.groups.family import PseudoPotentialFamily

    labels = orm.QueryBuilder().append(PseudoPotentialFamily, project="label").all(flat=True)
    if label not in labels:
        there = f"there are: {', '.join(sorted(labels))}" if labels else "there is none"
        raise LosikoError(
            f"no family of pseudopotentials {label!r}{did_you_mean(label, labels)}; {there}; {_command(label)}"
        )
    return orm.QueryBuilder().append(PseudoPotentialFamily, filters={"label": label}).first(flat=True)


def _command(label: str) -> str:
    """Return what brings a family."""
    parts = label.split("/")
    if parts[0] == "SSSP" and len(parts) == 4:
        return f"aiida-pseudo install sssp -v {parts[1]} -x {parts[2]} -p {parts[3]}"
    if parts[0] == "PseudoDojo" and len(parts) == 6:
        version, functional, relativistic, protocol, kind = parts[1:]
        return (
            f"aiida-pseudo install pseudo-dojo -v {version} -x {functional} -r {relativistic} -p {protocol} -f {kind}"
        )
    if label == "debian-mixed":
        return "bash setup_profiles/quantumespresso.sh"
    return f"aiida-pseudo install family FOLDER {label} -F pseudo.family.cutoffs -P pseudo.upf"


def _check_cutoffs(family: Any, elements: Sequence[str]) -> None:
    recommend: Callable[..., Any] | None = getattr(family, "get_recommended_cutoffs", None)
    try:
        if recommend is None:
            raise ValueError("it is not of a type that has some")
        recommend(elements=tuple(elements))
    except Exception as error:  # ValueError, and KeyError where an element has none
        raise LosikoError(
            f"the family {family.label} recommends no cutoffs for {', '.join(elements)} "
            f"({' '.join(str(error).split())}): give ecutwfc and ecutrho in Ry, or aiida-pseudo family cutoffs set "
            f"{family.label} FILE"
        ) from error
