"""Several processes give what one gives, stop as one does, and can be lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from aiida_losiko.core import EnvironmentDatabase, LosikoError, RelaxSettings, SoapPowerSpectrum, relax
from aiida_losiko.core.relaxation import workers
from aiida_losiko.core.relaxation.jobs import cut_into_jobs
from aiida_losiko.core.relaxation.run import StepReport

from ..descriptors.radial_distribution import RadialDistribution

KNOWN = ["CH4", "CH3OH", "H2O", "CH3CHO", "C2H6", "CH3CH2OH"]
ENDLESS = {"max_steps": 10**6, "noise_variance": 0.01, "noise_decay": 1e-6}


def rough(*names: str) -> list[Atoms]:
    structures = []
    for seed, name in enumerate(names):
        atoms = molecule(name)
        atoms.rattle(0.05, seed=seed)
        atoms.info["identifier"] = f"start {seed}"
        structures.append(atoms)
    return structures


@pytest.fixture(scope="module")
def database() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["H", "C", "O"], r_cut=4.0, n_max=3, l_max=2, sigma=0.35)
    return EnvironmentDatabase.build([molecule(name) for name in KNOWN], soap, sources=KNOWN)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers of the processes that were started; all of them have to be gone in the end."""
    numbers: list[int] = []

    class Noted(workers._Worker):
        def __init__(self, options: dict[str, Any]) -> None:
            super().__init__(options)
            numbers.append(self.process.pid)

    monkeypatch.setattr(workers, "_Worker", Noted)
    yield numbers
    assert numbers
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def told(result: Any) -> dict[str, Any]:
    """All of a result but how long it took."""
    values = {**result.to_dict(), "positions": result.atoms.positions.tolist(), "cell": result.atoms.cell.tolist()}
    del values["seconds"]
    return values


def test_two_processes_give_the_same_as_one(database: EnvironmentDatabase, started: list[int]) -> None:
    starts = rough("CH3CH2OH", "CH3OH", "H2O", "NH3", "CH4", "C2H6", "CH3CHO")
    starts[1].set_constraint(FixAtoms([0, 3]))
    starts[4].set_array("mark", np.arange(5))
    crystal = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], cell=[4, 4, 5], pbc=True)
    weights = [np.linspace(1, 2, len(atoms)) for atoms in [*starts, crystal]]
    settings = RelaxSettings(batch_size=2, dtype="float32", max_steps=20, relax_cell=True, n_hops=1, seed=3)

    def run(**more: Any) -> list[Any]:
        return relax([*starts, crystal], database, settings=settings, weights=weights, **more)

    alone = run()
    assert {result.status for result in alone} > {"error"} and alone[3].status == "error"
    shared = run(processes=2)
    assert [told(result) for result in shared] == [told(result) for result in alone]
    assert [result.atoms.info for result in shared[:7]] == [atoms.info for atoms in starts]
    assert shared[1].atoms.constraints[0].index.tolist() == [0, 3]
    assert shared[4].atoms.arrays["mark"].tolist() == [0, 1, 2, 3, 4]
    assert all(result.seconds > 0 for result in shared if result.status != "error")
    assert len(started) == 2


def test_a_callback_is_called_here_and_can_stop_at_once(database: EnvironmentDatabase, started: list[int]) -> None:
    starts = rough("CH3OH", "H2O", "CH3CHO")
    here, seen = os.getpid(), []

    def callback(report: StepReport) -> None:
        assert os.getpid() == here
        seen.extend((int(k), int(step)) for k, step in zip(report.numbers, report.steps, strict=True))
        assert all(p.shape == (len(starts[k]), 3) for k, p in zip(report.numbers, report.positions, strict=True))

    few = {"batch_size": 1, "max_steps": 3, "fmax": 0.0, "loss_tolerance": 0.0}
    alone = relax(starts, database, callback=callback, **few)
    expected, seen = sorted(seen), []
    shared = relax(starts, database, callback=callback, processes=2, **few)
    assert sorted(seen) == expected == [(k, step) for k in range(3) for step in range(4)]
    assert [told(result) for result in shared] == [told(result) for result in alone]

    seen = []
    stopped = relax(
        starts,
        database,
        callback=callback,
        should_stop=lambda: (2, 4) in seen,
        processes=2,
        batch_size=1,
        **ENDLESS,
    )
    assert [result.status for result in stopped] == ["interrupted"] * 3
    assert stopped[2].steps == 4 and stopped[2].evaluations == 5


def test_an_error_in_a_callback_ends_the_processes(database: EnvironmentDatabase, started: list[int]) -> None:
    def callback(report: StepReport) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        relax(rough("CH3OH", "H2O"), database, callback=callback, processes=2, batch_size=1)


def test_the_first_batch_is_begun_whatever_the_time(database: EnvironmentDatabase, started: list[int]) -> None:
    starts = rough("CH3OH", "H2O", "CH3CHO", "CH4")
    results = relax(starts, database, max_seconds=0.0, processes=2, batch_size=1)
    assert [result.status for result in results] == ["max_seconds"] * 4
    assert [result.evaluations for result in results] == [0, 0, 1, 0]
    assert results[2].matches is not None


def test_a_process_that_dies_takes_its_batch_only(database: EnvironmentDatabase, started: list[int]) -> None:
    starts = rough("CH3CH2OH", "C2H6", "CH3OH", "H2O", "CH4")
    alone = relax(starts, database, batch_size=1)
    killed: list[int] = []

    def callback(report: StepReport) -> None:
        if not killed:
            killed.append(int(report.numbers[0]))
            for number in started:
                os.kill(number, signal.SIGKILL)

    shared = relax(starts, database, callback=callback, processes=2, batch_size=1)
    failed = [k for k, result in enumerate(shared) if result.status == "error"]
    # Whether the other one had begun by then is a matter of chance.
    assert killed[0] in failed and 1 <= len(failed) <= 2 and len(started) > 2
    for k in range(5):
        if k in failed:
            assert "its batch of 1 was ended by SIGKILL" in shared[k].error and "\n" not in shared[k].error
            assert (shared[k].atoms.positions == starts[k].positions).all()
        else:
            assert told(shared[k]) == told(alone[k])


def test_processes_that_cannot_start(monkeypatch, database: EnvironmentDatabase, started: list[int]) -> None:
    starts = rough("CH3OH", "H2O")
    foreign = EnvironmentDatabase.build(starts, RadialDistribution(["O", "H", "C"], r_cut=4.0))
    with pytest.raises(LosikoError, match=r"cannot start: descriptor 'radial' does not exist.*; use processes=1"):
        relax(starts, foreign, processes=2, batch_size=1)
    monkeypatch.setattr(workers, "_PROGRAM", "raise SystemExit(7)")
    with pytest.raises(LosikoError, match="cannot start: it ended with status 7; use processes=1"):
        relax(starts, database, processes=2, batch_size=1)


def test_warnings_and_errors_of_processes_come_back(monkeypatch, database: EnvironmentDatabase) -> None:
    code = (
        "import warnings, aiida_losiko.core.relaxation.jobs as jobs\n"
        "def do_job(run, job, on_done):\n"
        "    warnings.warn('odd', RuntimeWarning)\n"
        "    raise ZeroDivisionError('a bug')\n"
        "jobs.do_job = do_job\n"
    )
    first, last = workers._PROGRAM.rsplit("; ", 1)
    monkeypatch.setattr(workers, "_PROGRAM", f"{first}\n{code}{last}")
    with (
        pytest.warns(RuntimeWarning, match="odd"),
        pytest.raises(RuntimeError, match=r"(?s)failed:.*in do_job.*ZeroDivisionError: a bug"),
    ):
        relax(rough("CH3OH", "H2O"), database, processes=2, batch_size=1)


@pytest.mark.parametrize("processes", [0, -1, 1.5, True, "2"])
def test_wrong_numbers_of_processes(processes: Any, database: EnvironmentDatabase) -> None:
    with pytest.raises(LosikoError, match=r"processes=.*a whole number, 1 or larger"):
        relax(rough("H2O"), database, processes=processes)


def test_sensible_numbers_of_processes(monkeypatch) -> None:
    def sensible(n_molecules: int, cores: int, **settings: Any) -> int:
        monkeypatch.setattr(workers, "usable_cores", lambda: cores)
        chosen = RelaxSettings(**settings)
        structures = [molecule("CH3CH2OH")] * n_molecules
        weights = [np.ones(9)] * n_molecules
        jobs = cut_into_jobs(structures, weights, range(n_molecules), chosen)
        return workers.sensible_processes(jobs, chosen)

    assert sensible(10, 8) == 1
    assert sensible(10_000, 8) == 8
    assert sensible(10_000, 1) == 1
    assert sensible(300, 8) == 2
    assert sensible(300, 8, batch_size=300) == 1
    assert sensible(10_000, 8, device="cuda") == 1
    assert sensible(0, 8) == 1


def test_a_file_that_has_changed_is_not_taken_for_the_database(database: EnvironmentDatabase, tmp_path) -> None:
    path = tmp_path / "known.db"
    database.save(path)
    loaded = EnvironmentDatabase.load(path)
    assert database.file is None and loaded.file == path and loaded.without(["CH4"]).file is None
    database.without(["H2O"]).save(path)
    assert loaded.file is None
    path.unlink()
    assert loaded.file is None
