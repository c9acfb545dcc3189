"""Relaxing structures, going on where a job stopped, and validating what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ExitCode, ProcessHandlerReport, if_, process_handler, while_
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.calculations.common import known_protocol, spell_out
from aiida_losiko.calculations.functions.join_reports import join_reports
from aiida_losiko.calculations.relax import RelaxCalculation, validate_structures
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData, StructureSetData
from aiida_losiko.groups import find_release
from aiida_losiko.workflows.protocols import ProtocolMixin
from aiida_losiko.workflows.validation.step import ValidationStep, fill_validation, validate_validation

__all__ = ("RelaxWorkChain",)

#: Inputs of the job that are inputs of the work chain itself, not of its namespace `relax`.
OWN_INPUTS = ("structure", "structures", "fixed_atoms", "weights", "database")

#: What `max_steps` of a restart is not raised beyond.
MOST_STEPS = 1_000_000


def validate_relaxation(inputs: Mapping[str, Any] | None, ports: Any) -> str | None:
    """Return what is wrong with the structures, for LOSIKO or for the engine that validates, or None."""
    return validate_structures(inputs, ports) or validate_validation(inputs, ports)


class RelaxWorkChain(ProtocolMixin, ValidationStep, BaseRestartWorkChain):
    """Relax one structure or a set; when a job ran out of steps or time, go on from its last structures.

    A restart begins with the last structures of all of a set: order and identifiers stay, and converged structures are
    recognised as such within a few steps (with a learnt metric they go through its stages again, to a place nearby).
    Decaying noise goes on where it was for the structure that had come least
    far. The report is that of all jobs together, the matches (and the steps and losses among them) are of the last.

    With an engine in `validate`, `losiko.validate` follows, of the best of a set.
    """

    _process_class = RelaxCalculation
    _protocol_file = "relax"

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define the ports and the outline."""
        super().define(spec)
        spec.expose_inputs(RelaxCalculation, namespace="relax", exclude=OWN_INPUTS)
        spec.expose_inputs(RelaxCalculation, include=OWN_INPUTS)
        spec.inputs.validator = validate_relaxation
        spec.outline(
            cls.setup,
            while_(cls.should_run_process)(  # type: ignore[arg-type]
                cls.run_process,  # type: ignore[arg-type]
                cls.inspect_process,  # type: ignore[arg-type]
            ),
            cls.results,
            if_(cls.should_validate)(  # type: ignore[arg-type]
                cls.run_validation,  # type: ignore[arg-type]
                cls.inspect_validation,  # type: ignore[arg-type]
            ),
            cls.finish,
        )
        spec.exit_code(201, "ERROR_INPUT_REJECTED", message="{message}")
        spec.exit_code(
            400,
            "ERROR_OUT_OF_TIME",
            message="The time of {iterations} jobs did not suffice; the last structures are given. Raise "
            "max_wallclock_seconds or max_iterations.",
        )
        spec.exit_code(
            410,
            "ERROR_NOT_CONVERGED",
            message="Not converged after {iterations} jobs; the last structures are given. {message}",
        )
        spec.exit_code(
            420,
            "ERROR_SOME_STRUCTURES_FAILED",
            message="Some structures failed and are given unchanged, the others are done: {message}",
        )
        cls.define_validation(spec)
        spec.expose_outputs(RelaxCalculation, include=("structure", "structures", "report", "matches"))
        outputs: Any = spec.outputs
        outputs["report"].help = (
            "Counts per status, flags, errors, losses; steps, evaluations and seconds of all jobs together, the "
            "initial loss of the first; per structure as well up to 1,000 structures."
        )
        outputs["matches"].help = f"Of the last job. {outputs['matches'].help}"

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode | str,
        structures: StructureSetData | orm.StructureData,
        database: EnvironmentDatabaseData | str | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        validate: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs of a protocol.

        Parameters
        ----------
        code
            The `losiko` program, or its label (`losiko@localhost`).
        structures
            A set or one structure.
        database
            The environments to steer towards, or the name of a release of them (`Si-O@2026-11-20/0.3eV`); default the
            release that the protocol or the overrides name (`database_release`).
        protocol
            Name, see `get_available_protocols`; default: the one that the database was built with, else balanced.
        overrides
            Nested as the inputs: `{"relax": {"parameters": {"relax": {"max_steps": 100}}}, "max_iterations": 2}`.
        options
            For the scheduler: `{"resources": ..., "max_wallclock_seconds": ..., "queue_name": ...}`.
        validate
            Who validates the result, and how: `{"engine": "xtb"}`, or with `codes`, `protocol`, `overrides`, `options`,
            `compute`, `dos`, `max_structures`, ..., see `ValidateWorkChain.get_builder_from_protocol`.

        Returns
        -------
        ProcessBuilder

        Raises
        ------
        LosikoError
            For an unknown protocol, override or release, for none of them, for structures of another type, and for a
            validation that cannot be.
        """
        database = cls.find_database(database, protocol, overrides)
        if protocol is None and database.protocol in cls.get_available_protocols():
            protocol = database.protocol
        inputs = cls.get_protocol_inputs(protocol, overrides, options)
        builder: Any = cls.get_builder()
        if isinstance(structures, StructureSetData):
            builder.structures = structures
        elif isinstance(structures, orm.StructureData):
            builder.structure = structures
        else:
            raise LosikoError(
                f"structures is a {type(structures).__name__}: give a StructureSetData or a StructureData"
            )
        builder.database = database
        builder.relax["code"] = orm.load_code(code) if isinstance(code, str) else code
        builder.relax["parameters"] = orm.Dict(inputs["relax"]["parameters"])
        builder.relax["metadata"] = inputs["relax"]["metadata"]
        builder.max_iterations = orm.Int(inputs["max_iterations"])
        builder.clean_workdir = orm.Bool(inputs["clean_workdir"])
        if validate is not None:
            fill_validation(builder, validate, builder.relax["code"])
            if message := validate_validation({**builder}, cls.spec().inputs):
                raise LosikoError(message)
        return cast("ProcessBuilder", builder)

    @classmethod
    def find_database(
        cls, database: EnvironmentDatabaseData | str | None, protocol: str | None, overrides: Mapping[str, Any] | None
    ) -> EnvironmentDatabaseData:
        """Return the database that is meant: the one given, or the release that the overrides or the protocol name.

        Raises
        ------
        LosikoError
            For none, for two, and for a release that is not there.
        """
        asked = (overrides or {}).get("database_release")
        if database is not None and asked is not None:
            raise LosikoError(f"a database is given, and the overrides name the release {asked!r}: give one of them")
        if database is None:
            database = asked or cls.get_protocol_inputs(protocol)["database_release"]
        if database is None:
            raise LosikoError(
                f"there is no database, and the protocol {protocol or cls.get_default_protocol()!r} names no release: "
                "give a node, the name of a release, or the override database_release"
            )
        return find_release(database) if isinstance(database, str) else database

    def setup(self) -> None:
        """Prepare the inputs of the first job."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(RelaxCalculation, "relax"))
        for name in OWN_INPUTS:
            if name in self.inputs:
                self.ctx.inputs[name] = self.inputs[name]

    @process_handler(priority=410, exit_codes=[RelaxCalculation.exit_codes.ERROR_OUT_OF_TIME])
    def handle_out_of_time(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on from the last structures, or give them when there were enough jobs."""
        return self._restart_or_give_up(
            node, self.exit_codes.ERROR_OUT_OF_TIME.format(iterations=self.ctx.iteration), worthwhile=True
        )

    @process_handler(priority=400, exit_codes=[RelaxCalculation.exit_codes.ERROR_NOT_CONVERGED])
    def handle_not_converged(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on from the last structures, or give them when there were enough jobs or more steps would not help.

        With a learnt metric, whose stages a job begins anew, each job may take twice as many steps as the one before.
        """
        code = self.exit_codes.ERROR_NOT_CONVERGED
        code = code.format(iterations=self.ctx.iteration, message=node.exit_message)
        # Where no step lowers the loss, a new start from the same place ends there again.
        worthwhile = "max_steps" in node.outputs.report["status"]
        if worthwhile and self.inputs.database.summary.get("metric"):
            # The next job goes through the stages from the first on, and would need as many steps again.
            given, numbers = self._relax_parameters()
            steps = numbers["max_steps"]
            changes = {"max_steps": max(steps, min(2 * max(steps, 1), MOST_STEPS))}
            self.ctx.inputs.parameters = orm.Dict({**given, "relax": {**(given.get("relax") or {}), **changes}})
        return self._restart_or_give_up(node, code, worthwhile)

    @process_handler(priority=390, exit_codes=[RelaxCalculation.exit_codes.ERROR_SOME_STRUCTURES_FAILED])
    def handle_some_failed(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Give what there is: a structure that cannot be relaxed will not be relaxed by another job either."""
        code = self.exit_codes.ERROR_SOME_STRUCTURES_FAILED.format(message=node.exit_message)
        return self._restart_or_give_up(node, code, worthwhile=False)

    @process_handler(priority=200, exit_codes=[RelaxCalculation.exit_codes.ERROR_INPUT_REJECTED])
    def handle_input_rejected(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """End with the reason that the program gave: it would give it again."""
        self.ctx.is_finished = True
        return ProcessHandlerReport(
            do_break=True, exit_code=self.exit_codes.ERROR_INPUT_REJECTED.format(message=node.exit_message)
        )

    def _restart_or_give_up(self, node: orm.CalcJobNode, code: ExitCode, worthwhile: bool) -> ProcessHandlerReport:
        if worthwhile and self.ctx.iteration < self.inputs.max_iterations.value:
            name = "structure" if "structure" in self.inputs else "structures"
            self.ctx.inputs[name] = node.outputs[name]
            self._change_randomness(node)
            self.report(f"RelaxCalculation<{node.pk}>: {node.exit_message} Restarting from there.")
            return ProcessHandlerReport(do_break=True)
        # The base class ends without outputs when the iterations are used up; here the last structures are given.
        self.ctx.is_finished = True
        if self.should_validate():
            self.keep_verdict(code)
            return ProcessHandlerReport(do_break=True)
        self.results()
        return ProcessHandlerReport(do_break=True, exit_code=code)

    def _relax_parameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parameters of the last job as they were given, and all numbers of the relaxation."""
        given = self.ctx.inputs.parameters.get_dict() if "parameters" in self.ctx.inputs else {}
        numbers = spell_out(given, RelaxCalculation.SECTIONS, known_protocol(self.inputs.database))["relax"]
        return given, numbers

    def _change_randomness(self, node: orm.CalcJobNode) -> None:
        """Let the noise of the next job go on where this one stopped, with other random numbers.

        Begun anew, noise that a job has no time to finish would never end; with the same seed, hops would go where they
        have been.
        """
        from aiida_losiko.core.optimizers.noise import NoiseSchedule

        given, numbers = self._relax_parameters()
        if not numbers["noise_variance"] and not numbers["n_hops"]:
            return
        steps, status = (node.outputs.matches.get_array(name) for name in ("steps", "status"))
        unfinished = steps[np.isin(status, ("max_seconds", "interrupted", "max_steps"))]
        done = int(unfinished.min()) if unfinished.size else 0
        noise = NoiseSchedule(numbers["noise_variance"], numbers["noise_decay"])
        variance = noise.standard_deviation(done) ** 2 if noise.active(done) else 0.0
        changes = {"noise_variance": variance, "seed": numbers["seed"] + 1}
        self.ctx.inputs.parameters = orm.Dict({**given, "relax": {**(given.get("relax") or {}), **changes}})

    def get_outputs(self, node: orm.CalcJobNode) -> Mapping[str, orm.Node]:
        """Return the outputs of the last job, with the report of all."""
        outputs = dict(super().get_outputs(node))
        jobs = [child for child in self.ctx.children if "report" in child.outputs]
        if len(jobs) > 1 and "report" in outputs:
            function: Any = join_reports
            reports = {f"job_{number:03d}": job.outputs.report for number, job in enumerate(jobs, start=1)}
            joined, called = function.run_get_node(**reports, metadata={"call_link_label": "join_reports"})
            if called.is_finished_ok:
                outputs["report"] = joined
        return outputs
