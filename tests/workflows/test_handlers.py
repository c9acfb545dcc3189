"""What the relaxation does about each way in which a job ends, without running one."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.common import LinkType
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager

from aiida_losiko.calculations.relax import RelaxCalculation
from aiida_losiko.workflows.relax import RelaxWorkChain


@pytest.fixture
def inspect(losiko_code, make_set, database_node, aiida_localhost):
    """Inspect jobs that ended with some status: returns the work chain and the last exit code."""

    def run(label: str, counts: dict[str, int], max_iterations: int = 2, iteration: int = 1, relax=None, arrays=None):
        overrides = {"max_iterations": max_iterations, "relax": {"parameters": {"relax": relax or {}}}}
        builder = RelaxWorkChain.get_builder_from_protocol(
            losiko_code, make_set("H2O", "CH4"), database_node, overrides=overrides
        )
        chain = instantiate_process(get_manager().get_runner(), builder)
        chain.setup()
        node = orm.CalcJobNode(computer=aiida_localhost, process_type="aiida.calculations:losiko.relax").store()
        outputs = {"structures": make_set("H2O", "CH4", noise=0.1), "report": orm.Dict({"status": counts})}
        outputs["matches"] = orm.ArrayData({key: np.array(value) for key, value in (arrays or {"loss": [0]}).items()})
        for name, output in outputs.items():
            output.base.links.add_incoming(node, link_type=LinkType.CREATE, link_label=name)
            output.store()
        node.set_process_state("finished")
        code = getattr(RelaxCalculation.exit_codes, label)
        node.set_exit_status(code.status)
        node.set_exit_message("so it went")
        chain.ctx.children = [node] * iteration
        chain.ctx.iteration = iteration
        return chain, chain.inspect_process(), node

    return run


@pytest.mark.parametrize(
    ("label", "counts"),
    [
        ("ERROR_OUT_OF_TIME", {"max_seconds": 2}),
        ("ERROR_NOT_CONVERGED", {"max_steps": 1, "stalled": 1}),
    ],
)
def test_goes_on_from_the_last_structures(inspect, label, counts):
    chain, code, node = inspect(label, counts)
    assert code.status == 0
    assert chain.should_run_process()
    assert chain.ctx.inputs.structures.uuid == node.outputs.structures.uuid
    assert chain.ctx.inputs.structures.get_identifiers() == chain.inputs.structures.get_identifiers()
    assert chain.ctx.inputs.database.uuid == chain.inputs.database.uuid


@pytest.mark.parametrize(
    ("label", "counts", "iteration", "status"),
    [
        ("ERROR_OUT_OF_TIME", {"max_seconds": 2}, 2, 400),
        ("ERROR_NOT_CONVERGED", {"max_steps": 2}, 2, 410),
        ("ERROR_NOT_CONVERGED", {"stalled": 1, "converged": 1}, 1, 410),
        ("ERROR_SOME_STRUCTURES_FAILED", {"error": 1, "converged": 1}, 1, 420),
    ],
)
def test_gives_the_last_structures_with_a_code(inspect, label, counts, iteration, status):
    chain, code, node = inspect(label, counts, iteration=iteration)
    assert code.status == status
    assert set(chain.outputs) == {"structures", "report", "matches"}
    assert all(chain.outputs[name].uuid == node.outputs[name].uuid for name in ("structures", "matches"))
    # Of several jobs there is one report.
    assert (chain.outputs["report"].uuid == node.outputs.report.uuid) == (iteration == 1)
    assert chain.outputs["report"].get_dict().get("n_jobs", 1) == iteration
    assert chain.outputs["report"]["status"] == counts
    assert "{" not in code.message


@pytest.mark.parametrize(
    ("relax", "status", "expected"),
    [
        (
            {"noise_variance": 0.2, "noise_decay": 0.05},
            "max_seconds",
            {"noise_variance": 0.2 * np.exp(-0.5), "seed": 8},
        ),
        # All but the structure that goes on had reached the end of the noise.
        ({"noise_variance": 0.2, "noise_decay": 5.0}, "max_seconds", {"noise_variance": 0.0, "seed": 8}),
        ({"noise_variance": 0.2, "noise_decay": 0.05}, "converged", {"noise_variance": 0.2, "seed": 8}),
        ({"n_hops": 3}, "max_seconds", {"noise_variance": 0.0, "seed": 8}),
        ({}, "max_seconds", {"noise_variance": 0.0, "seed": 7}),
    ],
)
def test_noise_goes_on_where_it_was(inspect, relax, status, expected):
    arrays = {"steps": [10, 4], "status": [status, "converged"]}
    chain, _, _ = inspect("ERROR_OUT_OF_TIME", {"max_seconds": 1}, relax={"seed": 7, **relax}, arrays=arrays)
    before, after = chain.inputs.relax.parameters.get_dict(), chain.ctx.inputs.parameters.get_dict()
    assert after == before | {"relax": before["relax"] | {key: pytest.approx(x) for key, x in expected.items()}}


def test_anything_else_is_not_mended(inspect):
    chain, code, _ = inspect("ERROR_PROGRAM_CRASHED", {})
    assert code.status == 402
    assert chain.outputs == {}


def test_the_reason_of_a_rejection_is_passed_on(inspect):
    chain, code, _ = inspect("ERROR_INPUT_REJECTED", {}, max_iterations=1)
    assert (code.status, code.message) == (201, "so it went")
    assert chain.outputs == {}


def test_one_of_structure_and_structures(losiko_code, make_set, database_node):
    builder = RelaxWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), database_node)
    builder.structure = make_set("H2O").get_structure(0)
    with pytest.raises(ValueError, match="exactly one"):
        instantiate_process(get_manager().get_runner(), builder)
