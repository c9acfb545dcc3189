"""How good LOSIKO's structures are, by a program that computes energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.calculations.functions.extract import extract
from aiida_losiko.calculations.functions.rank import rank
from aiida_losiko.calculations.functions.tabulate_validation import tabulate_validation
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData
from aiida_losiko.workflows.validation.base import DOS, RELAX, SINGLE_POINT, Request, ValidationEngine
from aiida_losiko.workflows.validation.inputs import STRUCTURE_INPUTS, complete_inputs, validate_inputs
from aiida_losiko.workflows.validation.measure import measure
from aiida_losiko.workflows.validation.ports import define_inputs, define_outputs
from aiida_losiko.workflows.validation.registry import load_engine

__all__ = ("ValidateWorkChain",)

#: Label of the structures of a set that one process works through.
WHOLE_SET = "all"


class ValidateWorkChain(WorkChain):
    """Compute start, LOSIKO's structure and the minimum behind it, for one structure or the best of a set.

    An engine that fails somewhere does not lose the rest: what could be computed is given with exit status 410.
    """

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define the ports and the outline."""
        super().define(spec)
        define_inputs(spec)
        spec.inputs.validator = validate_inputs
        spec.outline(
            cls.setup,
            if_(cls.has_set)(  # type: ignore[arg-type]
                cls.run_rank,  # type: ignore[arg-type]
            ),
            cls.run_engine,
            cls.inspect_engine,
            if_(cls.should_run_minima)(  # type: ignore[arg-type]
                cls.run_minima,  # type: ignore[arg-type]
                cls.inspect_engine,  # type: ignore[arg-type]
            ),
            cls.run_table,
            cls.finish,
        )
        spec.exit_code(201, "ERROR_INPUT_REJECTED", message="{message}")
        spec.exit_code(
            410,
            "ERROR_ENGINE_FAILED",
            message="The engine {engine} did not give all that was asked for, what there is is given: {message}",
        )
        define_outputs(spec)

    @classmethod
    def get_builder_from_protocol(
        cls,
        engine: str,
        structures: StructureSetData | orm.StructureData,
        codes: Mapping[str, orm.AbstractCode | str] | orm.AbstractCode | str,
        *,
        starts: StructureSetData | orm.StructureData | None = None,
        matches: orm.ArrayData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        compute: Sequence[str] | None = None,
        dos: bool = False,
        max_structures: int | None = None,
        duplicate_tolerance: float | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol of an engine.

        Parameters
        ----------
        engine
            Its name, see `aiida_losiko.workflows.validation.engine_names`.
        structures
            LOSIKO's structure, or a set of them.
        codes
            The codes that the engine needs, or their labels; one alone where it needs one.
        starts
            What they were relaxed from, a structure or a set.
        matches
            Of the relaxation, to rank a set by.
        protocol
            Of the engine, see `ValidationEngine.protocols`.
        overrides
            Inputs of the engine that differ from its protocol: `{"fmax": 0.02}`.
        options
            For the scheduler: `{"resources": ..., "max_wallclock_seconds": ..., "queue_name": ...}`.
        compute
            Some of `start`, `losiko`, `minimum`; default all for which there are structures.
        dos
            Whether to compute densities of states.
        max_structures, duplicate_tolerance
            Of a set, see the inputs.

        Returns
        -------
        ProcessBuilder

        Raises
        ------
        LosikoError
            For an unknown engine, protocol, override or code, and for structures that the engine does not take.
        """
        name = "structures" if isinstance(structures, StructureSetData) else "structure"
        values: dict[str, Any] = {name: structures}
        if starts is not None:
            values["starts" if isinstance(starts, StructureSetData) else "start"] = starts
        if matches is not None:
            values["matches"] = matches
        values |= complete_inputs(
            {
                "engine": engine,
                "codes": codes,
                "protocol": protocol,
                "overrides": overrides,
                "options": options,
                "compute": compute,
                "dos": dos,
                "max_structures": max_structures,
                "duplicate_tolerance": duplicate_tolerance,
            }
        )
        builder: Any = cls.get_builder()
        if message := validate_inputs(values, dict.fromkeys(STRUCTURE_INPUTS)):
            raise LosikoError(message)
        for key, value in values.items():
            builder[key] = value
        return cast("ProcessBuilder", builder)

    def setup(self) -> None:
        """Begin with what is given: one structure, or the whole set."""
        self.ctx.failures = {}
        self.ctx.pending = []
        self.ctx.measured = {}
        self.ctx.minima = {}
        self.ctx.groups = {}
        if not self.has_set():
            group = AttributeDict({"losiko": self.inputs.structure})
            if "start" in self.inputs:
                group.start = self.inputs.start
            self.ctx.groups["structure_0"] = group

    def has_set(self) -> bool:
        """Return whether there are several structures to choose from."""
        return "structures" in self.inputs

    def run_rank(self) -> ExitCode | None:
        """Choose the best structures of the set, and take them out of it for engines that know nothing of sets."""
        tolerance = self.inputs.duplicate_tolerance.value
        parameters = {"max_structures": self.inputs.max_structures.value, "duplicate_tolerance": tolerance or None}
        inputs = {name: self.inputs[name] for name in ("structures", "matches", "starts") if name in self.inputs}
        function: Any = rank
        outputs, node = function.run_get_node(
            **inputs, parameters=orm.Dict(parameters), metadata={"call_link_label": "rank"}
        )
        if not node.is_finished_ok:
            exit_code: ExitCode = self.exit_codes.ERROR_INPUT_REJECTED
            return exit_code.format(message=node.exit_message)
        self.out("ranking", outputs["ranking"])
        self.out("structures", outputs["structures"])
        chosen = {"losiko": outputs["structures"]}
        if "starts" in outputs:
            chosen["start"] = outputs["starts"]
        names = chosen["losiko"].get_identifiers()
        self.report(f"validating {len(names)} of {len(self.inputs.structures)} structures: {', '.join(names[:10])}")
        if self._engine().takes_sets:
            self.ctx.groups[WHOLE_SET] = AttributeDict(chosen)
            return None
        take: Any = extract
        for index in range(len(names)):
            label = f"structure_{index}"
            taken = {
                stage: take(nodes, orm.Int(index), metadata={"call_link_label": f"extract_{stage}_{index}"})[
                    "structure"
                ]
                for stage, nodes in chosen.items()
            }
            self.ctx.groups[label] = AttributeDict(taken)
        return None

    def run_engine(self) -> Any:
        """Submit single points of start and LOSIKO's structure, and relaxations from there."""
        asked = self.inputs.compute.get_list()
        wanted = []
        for label, group in self.ctx.groups.items():
            for stage in ("start", "losiko"):
                if stage in asked and stage in group:
                    wanted += [(label, stage, task, group[stage]) for task in self._tasks_of_a_point()]
            if "minimum" in asked:
                wanted.append((label, "minimum", RELAX, group.losiko))
        return self._submit(wanted)

    def should_run_minima(self) -> bool:
        """Return whether there are minima whose density of states is asked for."""
        return bool(self.inputs.dos.value and self.ctx.minima)

    def run_minima(self) -> Any:
        """Submit densities of states of the minima."""
        return self._submit([(label, "minimum", DOS, node) for label, node in self.ctx.minima.items()])

    def inspect_engine(self) -> None:
        """Read what the engine found out, also where a process did not end well."""
        engine = self._engine()
        for key, label, stage, task in self.ctx.pending:
            node = self.ctx[key]
            outputs = engine.outputs_of(node)
            if not node.is_finished_ok:
                self.ctx.failures[key] = (
                    f"{node.process_label}<{node.pk}> ended with exit status {node.exit_status}: "
                    f"{node.exit_message or node.process_state.value}"
                )
            structure = outputs.get("structures", outputs.get("structure"))
            if task == RELAX and structure is not None:
                self.ctx.minima[label] = structure
                self.out(f"minima.{label}", structure)
            elif task == RELAX and node.is_finished_ok:
                self.ctx.failures[key] = f"{node.process_label}<{node.pk}> gave no structure"
            self._measure(key, label, stage, task, outputs)
        self.ctx.pending = []

    def run_table(self) -> None:
        """Put everything into one table."""
        groups: dict[str, Any] = {}
        for label, group in self.ctx.groups.items():
            structures = {**group, **({"minimum": self.ctx.minima[label]} if label in self.ctx.minima else {})}
            groups[label] = {
                stage: {"structure": node, **self.ctx.measured.get(label, {}).get(stage, {})}
                for stage, node in structures.items()
            }
        function: Any = tabulate_validation
        table, node = function.run_get_node(
            compute=self.inputs.compute, **groups, metadata={"call_link_label": "tabulate"}
        )
        if node.is_finished_ok:
            self.out("table", table)
        else:
            self.ctx.failures["table"] = str(node.exit_message)

    def finish(self) -> ExitCode | None:
        """Say what the engine did not give."""
        if not self.ctx.failures:
            return None
        told = "; ".join(f"{key}: {text}" for key, text in self.ctx.failures.items())
        exit_code: ExitCode = self.exit_codes.ERROR_ENGINE_FAILED
        return exit_code.format(engine=self.inputs.engine.value, message=told)

    def _engine(self) -> ValidationEngine:
        return load_engine(self.inputs.engine.value)

    def _tasks_of_a_point(self) -> tuple[str, ...]:
        """Return what is run for a structure as it is."""
        if not self.inputs.dos.value:
            return (SINGLE_POINT,)
        return (DOS,) if self._engine().dos_has_energy else (SINGLE_POINT, DOS)

    def _submit(self, wanted: Sequence[tuple[str, str, str, Any]]) -> Any:
        """Submit processes; one that cannot be is a failure, and the others go on."""
        engine = self._engine()
        parameters = engine.spell_out(self.inputs.parameters.get_dict() if "parameters" in self.inputs else {})
        options = self.inputs.options.get_dict() if "options" in self.inputs else {}
        nodes = {}
        for label, stage, task, structure in wanted:
            key = f"{stage}_{task}_{label}"
            try:
                builder: Any = engine.get_builder(Request(structure, task, self.inputs.codes, parameters, options))
                builder.metadata.call_link_label = key
                nodes[key] = self.submit(builder)
            except Exception as error:  # whatever the plugin of somebody else says to these inputs
                self.ctx.failures[key] = f"not submitted: {' '.join(str(error).split()) or type(error).__name__}"
                continue
            self.ctx.pending.append((key, label, stage, task))
        told = ", ".join(f"{key}<{node.pk}>" for key, node in nodes.items())
        self.report(f"launching {len(nodes)} processes of {engine.name}: {told}")
        return ToContext(**nodes)

    def _measure(self, key: str, label: str, stage: str, task: str, outputs: Mapping[str, orm.Data]) -> None:
        """Keep what a process says of a stage of a group."""
        if not outputs:
            self.ctx.failures.setdefault(
                key, f"{self.ctx[key].process_label}<{self.ctx[key].pk}> has no outputs to read"
            )
            return
        function: Any = measure
        metadata = {"call_link_label": f"measure_{key}"}
        found, node = function.run_get_node(engine=self.inputs.engine, **outputs, metadata=metadata)
        if not node.is_finished_ok:
            text = f"{self.ctx[key].process_label}<{self.ctx[key].pk}>: {node.exit_message}"
            self.ctx.failures.setdefault(key, text)
            return
        own = self.ctx.measured.setdefault(label, AttributeDict()).setdefault(stage, AttributeDict())
        own["dos" if task == DOS else "measurement"] = found["measurement"]
        bad = [text or "not converged" for text, fine in zip(*_columns(found["measurement"]), strict=True) if not fine]
        if bad:
            self.ctx.failures.setdefault(key, f"{self.ctx[key].process_label}<{self.ctx[key].pk}>: {bad[0]}")
        for name, density in found.items():
            if name.startswith("dos_"):
                place = label if label != WHOLE_SET else f"structure_{name.removeprefix('dos_')}"
                self.out(f"dos.{place}.{stage}", density)


def _columns(measurement: orm.Dict) -> tuple[list[str], list[bool]]:
    return measurement["error"], measurement["converged"]
