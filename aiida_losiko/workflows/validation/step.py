"""Validation as the last step of a work chain that relaxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ToContext

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.workflows.validate import ValidateWorkChain
from aiida_losiko.workflows.validation.inputs import STRUCTURE_INPUTS, check_structures, complete_inputs
from aiida_losiko.workflows.validation.registry import load_engine

__all__ = ("NAMESPACE", "ValidationStep", "fill_validation", "validate_validation")

NAMESPACE = "validate"


def validate_validation(inputs: Mapping[str, Any] | None, ports: Any) -> str | None:
    """Return why the engine of the namespace `validate` does not take the structures to relax, or None."""
    asked = (inputs or {}).get(NAMESPACE)
    if not asked or "engine" not in asked or any(name not in ports for name in ("structure", "structures")):
        return None
    try:
        check_structures(asked, {name: (inputs or {}).get(name) for name in ("structure", "structures")})
    except LosikoError as error:
        return str(error)
    return None


def fill_validation(builder: Any, request: Mapping[str, Any], code: orm.AbstractCode) -> None:
    """Put what a person says of a validation into a builder.

    Parameters
    ----------
    builder
        Of a work chain with the inputs of `ValidationStep`.
    request
        See `complete_inputs`.
    code
        The `losiko` program, for engines that need it and nothing else, where `codes` names none.

    Raises
    ------
    LosikoError
        See `complete_inputs`.
    """
    request = dict(request)
    if request.get("engine") and not request.get("codes") and load_engine(request["engine"]).codes == ("losiko",):
        request["codes"] = {"losiko": code}
    for name, value in complete_inputs(request).items():
        builder[NAMESPACE][name] = value


class ValidationStep:
    """Inputs, outputs and steps of a work chain that validates what it relaxed, if `validate` names an engine.

    Whatever becomes of it, the outputs of the relaxation are attached before it begins.
    """

    ctx: Any
    inputs: Any
    outputs: Any
    exit_codes: Any
    submit: Any
    out: Any
    report: Any

    @classmethod
    def define_validation(cls, spec: Any) -> None:
        """Define the ports and the exit code."""
        options = {
            "required": False,
            "populate_defaults": False,
            "help": "Validation of the result, the best of a set: an `engine` and more inputs of losiko.validate. None "
            "where no engine is named.",
        }
        spec.expose_inputs(ValidateWorkChain, NAMESPACE, exclude=STRUCTURE_INPUTS, namespace_options=options)
        spec.expose_outputs(ValidateWorkChain, NAMESPACE, namespace_options={"required": False})
        spec.exit_code(
            430,
            "ERROR_VALIDATION_FAILED",
            message="The relaxation is given, its validation is not all that was asked for: {message}",
        )

    def should_validate(self) -> bool:
        """Return whether an engine is named."""
        return bool("engine" in self.inputs.get(NAMESPACE, {}))

    def keep_verdict(self, exit_code: ExitCode) -> None:
        """Remember how the relaxation ended, for `finish`."""
        self.ctx.verdict = {"status": exit_code.status, "message": exit_code.message}

    def run_validation(self) -> Any:
        """Submit the validation of the outputs that there are."""
        inputs, relaxed = AttributeDict(dict(self.inputs[NAMESPACE])), self.outputs
        if "structure" in relaxed:
            inputs.structure, inputs.start = relaxed["structure"], self.inputs.structure
        else:
            inputs.structures, inputs.starts = relaxed["structures"], self.inputs.structures
            inputs.matches = relaxed["matches"]
        inputs.metadata = {"call_link_label": NAMESPACE}
        try:
            node = self.submit(ValidateWorkChain, **inputs)
        except ValueError as error:
            self.ctx.validation_failure = " ".join(str(error).split())
            return None
        self.report(f"launching ValidateWorkChain<{node.pk}> with the engine {inputs.engine.value}")
        return ToContext(validation=node)

    def inspect_validation(self) -> None:
        """Attach what the validation gave."""
        node = self.ctx.get("validation")
        if node is None:
            return
        for name, output in _flat(node.outputs).items():
            self.out(f"{NAMESPACE}.{name}", output)
        if not node.is_finished_ok:
            self.ctx.validation_failure = (
                f"ValidateWorkChain<{node.pk}> ended with exit status {node.exit_status}: "
                f"{node.exit_message or node.process_state.value}"
            )

    def finish(self) -> ExitCode | None:
        """Say what is not as asked, of the validation and of the relaxation before it."""
        verdict = self.ctx.get("verdict")
        failure = self.ctx.get("validation_failure")
        if failure is not None:
            told = f"{verdict['message']} " if verdict else ""
            exit_code: ExitCode = self.exit_codes.ERROR_VALIDATION_FAILED
            return exit_code.format(message=f"{told}{failure}")
        return ExitCode(verdict["status"], verdict["message"]) if verdict else None


def _flat(outputs: Any, prefix: str = "") -> dict[str, orm.Node]:
    """Return nested outputs by their dotted names."""
    found: dict[str, orm.Node] = {}
    for name in outputs:
        value = outputs[name]
        if isinstance(value, orm.Node):
            found[f"{prefix}{name}"] = value
        else:
            found |= _flat(value, f"{prefix}{name}.")
    return found
