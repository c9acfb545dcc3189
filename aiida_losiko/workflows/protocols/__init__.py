"""Named inputs of the work chains, one YAML file for each of them.

The numbers of the method (descriptor, optimiser) are in the protocols of `aiida_losiko.core.protocols`; a protocol here
has the same name and refers to it. What the files here add is what AiiDA needs to run: resources, time, restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from aiida_losiko.calculations.common import spell_out
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.protocols import DEFAULT_PROTOCOL, merge

__all__ = ("ProtocolMixin",)


class ProtocolMixin:
    """Work chains whose inputs can be had from a named protocol."""

    #: The YAML file in this folder, without its suffix.
    _protocol_file: str

    @classmethod
    def get_default_protocol(cls) -> str:
        """Return the name of the protocol that is used where none is named."""
        return str(cls._load()["default_protocol"])

    @classmethod
    def get_available_protocols(cls) -> dict[str, str]:
        """Return the descriptions of the protocols by their names."""
        return {name: str(content["description"]) for name, content in cls._load()["protocols"].items()}

    @classmethod
    def get_protocol_inputs(
        cls,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the inputs of a protocol as plain values, all numbers of the method spelled out.

        Parameters
        ----------
        protocol
            Name, see `get_available_protocols`; None for the default.
        overrides
            Nested as the inputs are; these values win.
        options
            Put over the `metadata.options` of the calculation job.

        Raises
        ------
        LosikoError
            For an unknown protocol, or an override that is no input of the work chain.
        """
        content = cls._load()
        name = content["default_protocol"] if protocol is None else protocol
        if name not in content["protocols"]:
            raise LosikoError(f"unknown protocol {name!r}: there are {', '.join(content['protocols'])}")
        own = {key: value for key, value in content["protocols"][name].items() if key != "description"}
        inputs = merge(content["default_inputs"], own)
        cls._check(overrides or {}, inputs, "")
        inputs = merge(inputs, overrides or {})
        job = inputs[content["job"]]
        job["metadata"]["options"] = merge(job["metadata"]["options"], options or {})
        # The numbers are inputs, to be seen in the graph; the job itself would spell them out in its files only.
        job["parameters"] = {"protocol": DEFAULT_PROTOCOL} | spell_out(job["parameters"], content["sections"])
        return inputs

    @classmethod
    def _check(cls, overrides: Mapping[str, Any], inputs: Mapping[str, Any], path: str) -> None:
        """Check names down to the parameters and the metadata, whose own validators know the rest."""
        for key, value in overrides.items():
            if key not in inputs:
                raise LosikoError(
                    f"unknown override {f'{path}{key}'!r}: {path or 'there'} may have {', '.join(inputs)}; give inputs "
                    "that are nodes to the builder instead"
                )
            if key not in ("parameters", "metadata") and isinstance(inputs[key], Mapping):
                if not isinstance(value, Mapping):
                    raise LosikoError(f"override {path}{key} is {value!r}: give a mapping")
                cls._check(value, inputs[key], f"{path}{key}.")

    @classmethod
    def _load(cls) -> dict[str, Any]:
        text = resources.files(__package__).joinpath(f"{cls._protocol_file}.yaml").read_text(encoding="utf-8")
        content: dict[str, Any] = yaml.safe_load(text)
        return content
