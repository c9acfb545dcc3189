"""The work chains through a real daemon and the built-in ZeroMQ broker."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from aiida.engine import submit
from aiida.engine.daemon import get_daemon_client
from aiida.orm import Computer, InstalledCode

from aiida_losiko.data import StructureSetData
from aiida_losiko.tools.provenance import trace
from aiida_losiko.workflows.database import DatabaseWorkChain
from aiida_losiko.workflows.relax import RelaxWorkChain
from aiida_losiko.workflows.validate import ValidateWorkChain

pytestmark = pytest.mark.slow
NAMES = ("CH3OH", "H2O", "CH4", "C2H6")
SMALL = {"describe": {"parameters": {"descriptor": {"n_max": 3, "l_max": 2, "r_cut": 3.0}}}}


@pytest.fixture(scope="module")
def daemon(aiida_config, aiida_profile, aiida_profile_factory):
    """A profile of its own with a broker, and its running daemon."""
    # The environment need not be active for its tests to run.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("aiida.engine.daemon.client.VERDI_BIN", str(Path(sys.executable).parent / "verdi"))
    # On a busy machine the broker takes longer to start than the default of 10 s allows.
    monkeypatch.setattr("aiida.brokers.zeromq.broker.BROKER_READY_TIMEOUT", 120.0)
    previous = aiida_config.default_profile_name
    with aiida_profile_factory(aiida_config, broker_backend="core.zeromq") as profile:
        client = get_daemon_client(profile.name)
        client.start_daemon()
        try:
            yield client
        finally:
            # On a busy machine the workers take longer to stop than the default of 2 s allows.
            client.stop_daemon(wait=True, timeout=60)
            deadline = time.monotonic() + 20
            while client.is_daemon_running and time.monotonic() < deadline:
                time.sleep(0.1)
            monkeypatch.undo()
    aiida_config.set_default_profile(previous, overwrite=True)
    aiida_config.store()


@pytest.fixture(scope="module")
def code(daemon, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("work"))
    computer = Computer(
        label="localhost",
        hostname="localhost",
        workdir=workdir,
        transport_type="core.local",
        scheduler_type="core.direct",
    )
    computer.store().configure(safe_interval=0.0)
    computer.set_minimum_job_poll_interval(0.5)
    return InstalledCode(
        label="losiko",
        computer=computer,
        filepath_executable=str(Path(sys.executable).parent / "losiko"),
        default_calc_job_plugin="losiko.relax",
        prepend_text="export OMP_NUM_THREADS=1",
    ).store()


def wait(daemon, builder, seconds=240):
    """Submit and wait until it is finished; show the daemon's log where it is not."""
    node = submit(builder)
    deadline = time.monotonic() + seconds
    while not node.is_terminated and time.monotonic() < deadline:
        time.sleep(0.2)
    if not node.is_terminated:
        pytest.fail(f"still {node.process_state} after {seconds} s:\n{Path(daemon.daemon_log_file).read_text()}")
    return node


def test_build_and_relax(daemon, code, make_molecules):
    source = StructureSetData(make_molecules(*NAMES), source={"name": "G2"}).store()
    built = wait(daemon, DatabaseWorkChain.get_builder_from_protocol(code, source, overrides=SMALL))
    assert built.is_finished_ok, built.exit_message
    start = StructureSetData(make_molecules("CH4", "H2O", noise=0.05)).store()
    relaxed = wait(daemon, RelaxWorkChain.get_builder_from_protocol(code, start, built.outputs.database))
    assert relaxed.is_finished_ok, relaxed.exit_message
    rows = trace(relaxed, structure="g2:CH4")
    assert {row["source"] for row in rows} == {"g2:CH4"}
    assert rows[0]["source_info"] == {"name": "G2"}


def test_validate(daemon, code, make_molecules):
    """What the work chain keeps between its steps comes back from the database."""
    pytest.importorskip("tblite", reason="the extra xtb")
    atoms = make_molecules("CH3OH", "H2O", noise=0.03)
    builder = ValidateWorkChain.get_builder_from_protocol(
        "xtb", StructureSetData(atoms), code, starts=StructureSetData(atoms), dos=True
    )
    node = wait(daemon, builder, 600)
    assert node.is_finished_ok, node.exit_message
    table = node.outputs.table["rows"]
    assert all(e > m for e, m in zip(table["energy_losiko"], table["energy_minimum"], strict=True))
    assert all(gap > 5 for gap in table["gap_minimum"])
    assert sorted(node.outputs.dos.structure_1) == ["losiko", "minimum", "start"]
