"""The inputs of `losiko.validate`: from plain values to nodes, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiida import orm

from aiida_losiko.calculations.functions.tabulate_validation import STAGES
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.data import StructureSetData, structure_to_atoms
from aiida_losiko.workflows.validation.base import DOS, RELAX, SINGLE_POINT, ValidationEngine
from aiida_losiko.workflows.validation.registry import load_engine

if TYPE_CHECKING:
    from ase import Atoms

__all__ = (
    "STRUCTURE_INPUTS",
    "check_structures",
    "complete_inputs",
    "validate_compute",
    "validate_inputs",
    "validate_tolerance",
)

#: Inputs that a work chain around `losiko.validate` fills itself.
STRUCTURE_INPUTS = ("structure", "structures", "start", "starts", "matches")
_ENDS, _STARTS = STRUCTURE_INPUTS[:2], STRUCTURE_INPUTS[2:4]

#: What a person says of a validation, in Python or YAML.
KEYS = (
    "engine",
    "codes",
    "protocol",
    "overrides",
    "options",
    "compute",
    "dos",
    "max_structures",
    "duplicate_tolerance",
)


def complete_inputs(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of `losiko.validate`, but for the structures, of what a person says.

    Parameters
    ----------
    request
        `engine`, and optionally the other `KEYS`; see `ValidateWorkChain.get_builder_from_protocol`.

    Returns
    -------
    dict
        By the names of the ports, nodes or plain values. All numbers of the engine's protocol are spelled out.

    Raises
    ------
    LosikoError
        For unknown keys, and for an engine, protocol, override or code that is not there.
    """
    for key in request:
        if key not in KEYS:
            raise LosikoError(f"unknown key {key!r} of validate{did_you_mean(key, KEYS)}; there are: {', '.join(KEYS)}")
    if not request.get("engine"):
        raise LosikoError("validate names no engine: give {'engine': 'xtb', ...}")
    engine = load_engine(request["engine"])
    overrides = request.get("overrides") or {}
    if not isinstance(overrides, Mapping):
        raise LosikoError(f"overrides of {engine.name} are {overrides!r}: give a mapping")
    name = {"protocol": request["protocol"]} if request.get("protocol") else {}
    values: dict[str, Any] = {
        "engine": orm.Str(engine.name),
        "codes": _load_codes(engine, request.get("codes") or {}),
        "parameters": orm.Dict(engine.spell_out({**overrides, **name})),
        "dos": orm.Bool(bool(request.get("dos"))),
    }
    if request.get("options"):
        values["options"] = orm.Dict(dict(request["options"]))
    if request.get("compute") is not None:
        values["compute"] = orm.List(list(request["compute"]))
    if request.get("max_structures") is not None:
        values["max_structures"] = orm.Int(request["max_structures"])
    if request.get("duplicate_tolerance") is not None:
        values["duplicate_tolerance"] = orm.Float(request["duplicate_tolerance"])
    return values


def _load_codes(engine: ValidationEngine, codes: Any) -> dict[str, orm.AbstractCode]:
    """Return the nodes of codes given by label; one alone is that of an engine that needs one."""
    if not isinstance(codes, Mapping):
        if len(engine.codes) != 1:
            raise LosikoError(f"the engine {engine.name} needs the codes {', '.join(engine.codes)}: give a mapping")
        codes = {engine.codes[0]: codes}
    found = {}
    for name, code in codes.items():
        try:
            found[name] = orm.load_code(code) if isinstance(code, str) else code
        except Exception as error:  # NotExistent, MultipleObjectsError, and ValueError of AiiDA's own
            raise LosikoError(f"the code {name} of {engine.name} is {code!r}: {error}; see verdi code list") from None
    return found


def validate_compute(value: orm.List | None, _: Any) -> str | None:
    """Return what is wrong with the list of what is to be computed, or None."""
    asked = [] if value is None else value.get_list()
    wrong = [each for each in asked if each not in STAGES]
    if wrong or (value is not None and not asked):
        return f"compute is {asked}: give some of {', '.join(STAGES)}"
    return None


def validate_tolerance(value: orm.Float | None, _: Any) -> str | None:
    """Return what is wrong with the distance of duplicates, or None."""
    return "duplicate_tolerance must be 0 or larger, in Angstrom" if value is not None and value.value < 0 else None


def validate_inputs(inputs: Mapping[str, Any] | None, ports: Any) -> str | None:
    """Return what is wrong with the inputs together, or None; without the ports of structures, but for these."""
    if not inputs or "engine" not in inputs:
        return None
    try:
        _check_engine(inputs)
        if all(name in ports for name in STRUCTURE_INPUTS):
            check_structures(inputs, inputs)
    except LosikoError as error:
        return str(error)
    return None


def _check_engine(inputs: Mapping[str, Any]) -> None:
    engine = load_engine(inputs["engine"].value)
    engine.require()
    dos = "dos" in inputs and inputs["dos"].value
    compute = inputs["compute"].get_list() if "compute" in inputs else list(STAGES)
    tasks = {SINGLE_POINT, *([DOS] if dos else []), *([RELAX] if "minimum" in compute else [])}
    for task in sorted(tasks):
        engine.check_task(task)
    engine.check_codes(inputs.get("codes") or {}, dos=dos)
    engine.spell_out(_parameters(inputs))


def check_structures(inputs: Mapping[str, Any], structures: Mapping[str, Any]) -> None:
    """Check that an engine takes the structures.

    Parameters
    ----------
    inputs
        Of `losiko.validate`.
    structures
        Some of the inputs `STRUCTURE_INPUTS`.

    Raises
    ------
    LosikoError
        For none or two, starts that do not go with them, and what the engine does not take.
    """
    given = {name: structures[name] for name in STRUCTURE_INPUTS if structures.get(name) is not None}
    if ("structure" in given) == ("structures" in given):
        raise LosikoError("give exactly one of `structure` (one StructureData) and `structures` (a StructureSetData)")
    wrong = ("starts", "matches") if "structure" in given else ("start",)
    if any(name in given for name in wrong):
        goes = "`start` goes with `structure`, `starts` and `matches` go with `structures`"
        raise LosikoError(f"{goes}; there are {', '.join(given)}")
    engine = load_engine(inputs["engine"].value)
    atoms = {name: _atoms_of(node) for name, node in given.items() if name != "matches"}
    for every in atoms.values():
        for label, each in every.items():
            engine.check_structure(each, label)
    starts = next((atoms[name] for name in _STARTS if name in atoms), None)
    if starts is not None:
        _check_starts(starts, next(atoms[name] for name in _ENDS if name in atoms))
    elements = sorted({str(symbol) for every in atoms.values() for each in every.values() for symbol in each.symbols})
    engine.check(elements, inputs.get("codes") or {}, engine.spell_out(_parameters(inputs)))


def _atoms_of(node: orm.StructureData | StructureSetData) -> dict[str, Atoms]:
    """Return structures by their identifiers."""
    if isinstance(node, orm.StructureData):
        return {"the structure": structure_to_atoms(node)}
    return {atoms.info["identifier"]: atoms for atoms in node.get_atoms()}


def _check_starts(starts: Mapping[str, Atoms], structures: Mapping[str, Atoms]) -> None:
    for label, atoms in structures.items():
        if label not in starts:
            raise LosikoError(f"{label!r} is not among the {len(starts)} starts: give those that were relaxed")
        if atoms.get_chemical_symbols() != starts[label].get_chemical_symbols():
            formulas = f"{starts[label].get_chemical_formula()}, not {atoms.get_chemical_formula()}"
            raise LosikoError(f"the start of {label} is {formulas} with its atoms in the same order")


def _parameters(inputs: Mapping[str, Any]) -> dict[str, Any]:
    parameters: dict[str, Any] = inputs["parameters"].get_dict() if "parameters" in inputs else {}
    return parameters
