"""The ports of `losiko.validate`."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_losiko.calculations.functions.tabulate_validation import STAGES
from aiida_losiko.data import StructureSetData
from aiida_losiko.workflows.validation.inputs import validate_compute, validate_tolerance

__all__ = ("define_inputs", "define_outputs")


def define_inputs(spec: Any) -> None:
    """Define the inputs: structures, who computes them, and what."""
    spec.input("structure", valid_type=orm.StructureData, required=False, help="LOSIKO's structure.")
    spec.input(
        "structures",
        valid_type=StructureSetData,
        required=False,
        help="LOSIKO's structures (or `structure`), of which the best `max_structures` are computed.",
    )
    spec.input("start", valid_type=orm.StructureData, required=False, help="What `structure` was relaxed from.")
    spec.input(
        "starts",
        valid_type=StructureSetData,
        required=False,
        help="What `structures` were relaxed from, by the same identifiers; the set may hold more.",
    )
    spec.input(
        "matches",
        valid_type=orm.ArrayData,
        required=False,
        help="Of the losiko.relax that gave `structures`: the lowest loss per atom comes first. Without them the "
        "order is that of the set.",
    )
    spec.input(
        "max_structures",
        valid_type=orm.Int,
        default=lambda: orm.Int(10),
        serializer=orm.to_aiida_type,
        validator=lambda node, _: "max_structures must be 1 or more" if node and node.value < 1 else None,
        help="How many structures of a set are computed.",
    )
    spec.input(
        "duplicate_tolerance",
        valid_type=orm.Float,
        default=lambda: orm.Float(0.05),
        serializer=orm.to_aiida_type,
        validator=validate_tolerance,
        help="Angstrom: of two structures of a set that are closer, the better one is computed. 0: all are.",
    )
    spec.input(
        "engine",
        valid_type=orm.Str,
        serializer=orm.to_aiida_type,
        help="Who computes: the name of an entry point of the group losiko.validation, such as xtb.",
    )
    spec.input_namespace(
        "codes", dynamic=True, valid_type=orm.AbstractCode, help="The codes of the engine, by its names for them."
    )
    spec.input(
        "parameters",
        valid_type=orm.Dict,
        required=False,
        serializer=orm.to_aiida_type,
        help="Of the engine: `protocol` (a name) and what differs from it. `get_builder_from_protocol` spells all "
        "numbers out.",
    )
    spec.input(
        "options",
        valid_type=orm.Dict,
        required=False,
        serializer=orm.to_aiida_type,
        help="For the scheduler: `resources`, `max_wallclock_seconds`, `queue_name`, ...",
    )
    spec.input(
        "compute",
        valid_type=orm.List,
        default=lambda: orm.List(list(STAGES)),
        serializer=orm.to_aiida_type,
        validator=validate_compute,
        help="Which of start, losiko (single points) and minimum (a relaxation from LOSIKO's structure).",
    )
    spec.input(
        "dos",
        valid_type=orm.Bool,
        default=lambda: orm.Bool(False),
        serializer=orm.to_aiida_type,
        help="Whether to compute densities of states and gaps of them.",
    )


def define_outputs(spec: Any) -> None:
    """Define the outputs; each is there as far as the engine came."""
    spec.output("table", valid_type=orm.Dict, required=False, help="See `losiko.tabulate_validation`.")
    spec.output("ranking", valid_type=orm.Dict, required=False, help="Of a set: all structures by loss per atom.")
    spec.output("structures", valid_type=StructureSetData, required=False, help="Of a set: those computed, best first.")
    spec.output_namespace(
        "minima",
        dynamic=True,
        valid_type=(orm.StructureData, StructureSetData),
        help="What the engine relaxed them to: `structure_0`, ... in the order of the table, or a set, `all`.",
    )
    spec.output_namespace(
        "dos",
        dynamic=True,
        help="Densities of states: `structure_0.start`, `structure_0.losiko`, `structure_0.minimum`, ...; see "
        "`aiida_losiko.data.density_of_states`.",
    )
