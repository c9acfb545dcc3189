"""The same starts with several databases, each of which draws them to what it knows (the paper's Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext, WorkChain
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.calculations.functions.tabulate_search import tabulate_search
from aiida_losiko.calculations.relax import validate_structures
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData
from aiida_losiko.groups import find_release
from aiida_losiko.workflows.relax import OWN_INPUTS, RelaxWorkChain

__all__ = ("BiasedSearchWorkChain",)

STARTS = tuple(name for name in OWN_INPUTS if name != "database")


def validate_databases(value: Mapping[str, EnvironmentDatabaseData] | None, _: Any) -> str | None:
    """Return what is wrong with the databases or their labels, or None."""
    if not value:
        return "there is no database: give at least one, by a label of your own"
    wrong = [label for label in value if not label.isidentifier() or label.strip("_") != label or "__" in label]
    if wrong:
        return f"the label {wrong[0]!r} cannot be one of a link: give letters, digits and single underscores inside"
    return None


class BiasedSearchWorkChain(WorkChain):
    """Relax the same starts with each of several databases, and tabulate what comes out.

    There is one `losiko.relax` for each database, all at the same time. One that fails does not lose the others.
    """

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define the ports and the outline."""
        super().define(spec)
        spec.expose_inputs(RelaxWorkChain, namespace="relax", exclude=(*OWN_INPUTS, "validate"))
        spec.expose_inputs(RelaxWorkChain, include=STARTS)
        spec.input_namespace(
            "databases",
            dynamic=True,
            valid_type=EnvironmentDatabaseData,
            validator=validate_databases,
            help="The environments to steer towards, by labels of your own: `graphite`, `diamond`.",
        )
        spec.inputs.validator = validate_structures
        spec.outline(cls.run_relaxations, cls.inspect_relaxations, cls.run_table, cls.finish)
        spec.exit_code(310, "ERROR_ALL_FAILED", message="No database gave relaxed structures: {message}")
        spec.exit_code(
            420,
            "ERROR_SOME_NOT_AS_ASKED",
            message="Not with every database as asked; what there is is given: {message}",
        )
        spec.output_namespace(
            "relaxed",
            dynamic=True,
            help="By label: `structures` (or `structure`), `report` and `matches` of losiko.relax.",
        )
        spec.output(
            "table",
            valid_type=orm.Dict,
            help="Loss and density (g/cm3) per structure and database, and their means, see `losiko.tabulate_search`.",
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str,
        structures: StructureSetData | orm.StructureData,
        databases: Mapping[str, EnvironmentDatabaseData | str],
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        Parameters
        ----------
        code
            The `losiko` program, or its label (`losiko@localhost`).
        structures
            A set or one structure.
        databases
            Label to database, or to the name of a release.
        protocol
            Name, see `RelaxWorkChain.get_available_protocols`; default: the one that all the databases were built with.
        overrides, options
            As of `RelaxWorkChain.get_builder_from_protocol`; the same for all databases.

        Returns
        -------
        ProcessBuilder

        Raises
        ------
        LosikoError
            For an unknown protocol, override or release, for databases of different protocols where none is named, and
            for structures of another type.
        """
        found = {k: find_release(node) if isinstance(node, str) else node for k, node in databases.items()}
        if not found:
            raise LosikoError("there is no database: give at least one, by a label of your own")
        built_with = {k: str(node.protocol) for k, node in found.items()}
        if protocol is None and len(set(built_with.values())) > 1:
            told = ", ".join(f"{label}: {name}" for label, name in built_with.items())
            raise LosikoError(f"the databases were built with different protocols ({told}): name the one to relax with")
        single: Any = RelaxWorkChain.get_builder_from_protocol(
            code, structures, next(iter(found.values())), protocol, overrides, options
        )
        builder: Any = cls.get_builder()
        for name in STARTS:
            if name in single:
                builder[name] = single[name]
        for name in ("relax", "max_iterations", "clean_workdir"):
            builder.relax[name] = single[name]
        builder.databases = found
        return cast("ProcessBuilder", builder)

    def run_relaxations(self) -> Any:
        """Submit a relaxation for each database."""
        self.ctx.failures = {}
        nodes = {}
        for label, database in self.inputs.databases.items():
            inputs = AttributeDict(self.exposed_inputs(RelaxWorkChain, "relax"))
            inputs.update({name: self.inputs[name] for name in STARTS if name in self.inputs})
            inputs.database = database
            inputs.metadata = {"call_link_label": label}
            try:
                nodes[f"relax_{label}"] = self.submit(RelaxWorkChain, **inputs)
            except ValueError as error:
                # The validators refuse it, such as an element that this database lacks: the others go on.
                self.ctx.failures[label] = " ".join(str(error).split())
        self.report(f"launching {len(nodes)} relaxations: {', '.join(f'{k}<{node.pk}>' for k, node in nodes.items())}")
        return ToContext(**nodes)

    def inspect_relaxations(self) -> ExitCode | None:
        """Attach what each gave, also the last structures of one that is not as asked."""
        self.ctx.relaxed = {}
        for label in self.inputs.databases:
            node = self.ctx.get(f"relax_{label}")
            if node is None:
                continue
            if not node.is_finished_ok:
                self.ctx.failures[label] = f"exit status {node.exit_status} of RelaxWorkChain<{node.pk}>: " + str(
                    node.exit_message or node.process_state
                )
            outputs = {name: node.outputs[name] for name in node.outputs}
            if "matches" in outputs:
                self.ctx.relaxed[label] = outputs
                for name, output in outputs.items():
                    self.out(f"relaxed.{label}.{name}", output)
        if not self.ctx.relaxed:
            return self._failure("ERROR_ALL_FAILED")
        return None

    def run_table(self) -> None:
        """Tabulate what there is."""
        function: Any = tabulate_search
        wanted = ("structures", "structure", "matches")
        inputs = {
            label: {name: outputs[name] for name in wanted if name in outputs}
            for label, outputs in self.ctx.relaxed.items()
        }
        table, node = function.run_get_node(**inputs, metadata={"call_link_label": "tabulate"})
        if node.is_finished_ok:
            self.out("table", table)
        else:
            self.ctx.failures["table"] = str(node.exit_message)

    def finish(self) -> ExitCode | None:
        """Say which databases did not give what was asked."""
        return self._failure("ERROR_SOME_NOT_AS_ASKED") if self.ctx.failures else None

    def _failure(self, label: str) -> ExitCode:
        message = "; ".join(f"{name}: {text}" for name, text in sorted(self.ctx.failures.items()))
        exit_code: ExitCode = self.exit_codes[label]
        return exit_code.format(message=message)
