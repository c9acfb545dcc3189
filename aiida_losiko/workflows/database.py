"""From sets of structures to a database of their environments."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from aiida import orm
from aiida.engine import ExitCode, ToContext, WorkChain, if_
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.calculations.describe import DescribeCalculation
from aiida_losiko.calculations.functions.merge import merge
from aiida_losiko.calculations.functions.select import select
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData
from aiida_losiko.workflows.protocols import ProtocolMixin

__all__ = ("DatabaseWorkChain",)


def validate_selection(value: orm.Dict | None, _: Any) -> str | None:
    """Return what is wrong with a selection, or None."""
    from aiida_losiko.sources.selection import parse_selection

    try:
        if value is not None:
            parse_selection(value.get_dict(), {})
    except LosikoError as error:
        return str(error)
    return None


def validate_sources(value: Mapping[str, StructureSetData] | None, _: Any) -> str | None:
    """Return what is wrong with the sets, or None."""
    return None if value else "there is no set of structures: give at least one, such as the answer of a losiko.query"


class DatabaseWorkChain(ProtocolMixin, WorkChain):
    """Build an environment database from one or several sets of structures, or from some of them."""

    _protocol_file = "database"

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define the ports and the outline."""
        super().define(spec)
        spec.expose_inputs(DescribeCalculation, namespace="describe", exclude=("structures",))
        spec.input_namespace(
            "sources",
            dynamic=True,
            valid_type=StructureSetData,
            validator=validate_sources,
            help="Structures known to be stable, by labels of your own; all go into one database.",
        )
        spec.input(
            "selection",
            valid_type=orm.Dict,
            required=False,
            validator=validate_selection,
            help="Which of all of them to take: the keys of `losiko.select`. All, if it is not given.",
        )
        spec.input(
            "clean_workdir",
            valid_type=orm.Bool,
            default=lambda: orm.Bool(False),
            serializer=orm.to_aiida_type,
            help="Whether to delete the job's folder on the computer at the end.",
        )
        spec.outline(
            cls.setup,
            if_(cls.should_merge)(  # type: ignore[arg-type]
                cls.run_merge,  # type: ignore[arg-type]
            ),
            if_(cls.should_select)(  # type: ignore[arg-type]
                cls.run_select,  # type: ignore[arg-type]
            ),
            cls.run_describe,
            cls.inspect_describe,
        )
        spec.exit_code(203, "ERROR_SOURCES_REJECTED", message="The sets cannot be put together: {message}")
        spec.exit_code(401, "ERROR_SELECTION_FAILED", message="The structures could not be selected: {message}")
        spec.exit_code(
            402, "ERROR_DESCRIBE_FAILED", message="The description failed with exit status {status}: {message}"
        )
        spec.exit_code(
            420,
            "ERROR_SOME_STRUCTURES_FAILED",
            message="Some structures are not in the database, which is given: {message}",
        )
        spec.expose_outputs(DescribeCalculation, include=("database", "report"))
        spec.output("structures", valid_type=StructureSetData, help="The structures that were described.")

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str,
        sources: StructureSetData | Sequence[StructureSetData] | Mapping[str, StructureSetData],
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        selection: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        Parameters
        ----------
        code
            The `losiko` program, or its label (`losiko@localhost`).
        sources
            Structures known to be stable: a set, several, or several by labels.
        protocol
            Name, see `get_available_protocols`; default balanced.
        overrides
            Nested as the inputs: `{"describe": {"parameters": {"descriptor": {"r_cut": 3.5}}}}`.
        options
            For the scheduler: `{"resources": ..., "max_wallclock_seconds": ..., "queue_name": ...}`.
        selection
            Which structures to take, see `losiko.select`.

        Returns
        -------
        ProcessBuilder

        Raises
        ------
        LosikoError
            For an unknown protocol or override.
        """
        inputs = cls.get_protocol_inputs(protocol, overrides, options)
        builder: Any = cls.get_builder()
        builder.sources = _labelled(sources)
        if selection is not None:
            builder.selection = orm.Dict(dict(selection))
        builder.describe["code"] = orm.load_code(code) if isinstance(code, str) else code
        builder.describe["parameters"] = orm.Dict(inputs["describe"]["parameters"])
        builder.describe["metadata"] = inputs["describe"]["metadata"]
        builder.clean_workdir = orm.Bool(inputs["clean_workdir"])
        return cast("ProcessBuilder", builder)

    def setup(self) -> None:
        """Start from the first set, which is all where there is one."""
        self.ctx.structures = next(iter(self.inputs.sources.values()))

    def should_merge(self) -> bool:
        """Return whether there are several sets."""
        return len(self.inputs.sources) > 1

    def run_merge(self) -> ExitCode | None:
        """Put the sets together."""
        function: Any = merge
        result, node = function.run_get_node(**self.inputs.sources, metadata={"call_link_label": "merge"})
        if not node.is_finished_ok:
            return self._failure("ERROR_SOURCES_REJECTED", message=node.exit_message)
        self.ctx.structures = result
        self.report(f"put {len(self.inputs.sources)} sets together: {len(result)} structures")
        return None

    def should_select(self) -> bool:
        """Return whether only some structures are wanted."""
        return "selection" in self.inputs

    def run_select(self) -> ExitCode | None:
        """Choose the structures."""
        function: Any = select
        result, node = function.run_get_node(
            source=self.ctx.structures, selection=self.inputs.selection, metadata={"call_link_label": "select"}
        )
        if not node.is_finished_ok:
            return self._failure("ERROR_SELECTION_FAILED", message=node.exit_message)
        self.report(f"selected {len(result)} of {len(self.ctx.structures)} structures")
        self.ctx.structures = result
        return None

    def run_describe(self) -> Any:
        """Submit the description of the structures."""
        inputs = self.exposed_inputs(DescribeCalculation, "describe")
        inputs.structures = self.ctx.structures
        inputs.metadata.call_link_label = "describe"
        node = self.submit(DescribeCalculation, **inputs)
        self.report(f"launching DescribeCalculation<{node.pk}> for {len(self.ctx.structures)} structures")
        return ToContext(describe=node)

    def inspect_describe(self) -> ExitCode | None:
        """Attach the outputs, also those of a description that left some structures out."""
        node = self.ctx.describe
        if "database" not in node.outputs:
            return self._failure("ERROR_DESCRIBE_FAILED", status=node.exit_status, message=node.exit_message)
        self.out("structures", self.ctx.structures)
        self.out_many(self.exposed_outputs(node, DescribeCalculation))
        if node.is_failed:
            return self._failure("ERROR_SOME_STRUCTURES_FAILED", message=node.exit_message)
        return None

    def _failure(self, label: str, **values: Any) -> ExitCode:
        exit_code: ExitCode = self.exit_codes[label]
        return exit_code.format(**values)

    def on_terminated(self) -> None:
        """Delete the job's folder where that was asked for."""
        super().on_terminated()
        if self.inputs.clean_workdir.value:
            for node in self.node.called_descendants:
                if isinstance(node, orm.CalcJobNode) and "remote_folder" in node.outputs:
                    with contextlib.suppress(OSError):
                        node.outputs.remote_folder._clean()


def _labelled(
    sources: StructureSetData | Sequence[StructureSetData] | Mapping[str, StructureSetData],
) -> dict[str, StructureSetData]:
    """Return sets with labels: those that were given, else `set_1`, `set_2`, ..."""
    if isinstance(sources, Mapping):
        return dict(sources)
    sets = [sources] if isinstance(sources, StructureSetData) else list(sources)
    return {f"set_{number}": node for number, node in enumerate(sets, start=1)}
