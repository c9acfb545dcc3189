"""What holds for all jobs and work chains: ports say what they are, exit codes are told apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aiida.engine import Process
from aiida.plugins import CalculationFactory, WorkflowFactory

PROCESSES = [CalculationFactory(f"losiko.{name}") for name in ("describe", "relax", "xtb")]
PROCESSES += [WorkflowFactory(f"losiko.{name}") for name in ("biased_search", "database", "relax", "validate")]


def ports(namespace, path: str = "") -> Iterator[tuple[str, object]]:
    """Walk through the ports; those of `metadata` are AiiDA's."""
    for name, port in namespace.items():
        if name == "metadata":
            continue
        if hasattr(port, "items"):
            yield from ports(port, f"{path}{name}.")
        else:
            yield f"{path}{name}", port


@pytest.mark.parametrize("process", PROCESSES)
def test_every_port_has_a_help(process: type[Process]):
    spec = process.spec()
    found = {**dict(ports(spec.inputs)), **dict(ports(spec.outputs))}
    assert "parameters" in " ".join(found)
    assert [name for name, port in found.items() if not port.help] == []


@pytest.mark.parametrize("process", PROCESSES)
def test_exit_codes_are_unique_and_say_something(process: type[Process]):
    codes = list(process.exit_codes.values())
    statuses = [code.status for code in codes]
    assert len(set(statuses)) == len(statuses)
    # 2xx: input, 3xx: fatal, 4xx: not as asked; what is below is AiiDA's.
    assert {status // 100 for status in statuses if status >= 200} <= {2, 3, 4}
    assert [code for code in codes if not code.message] == []
