"""How structures are cut into jobs."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule

from aiida_losiko.core import RelaxSettings
from aiida_losiko.core.relaxation.jobs import Job, cut_into_jobs, not_begun

NAMES = ["CH3OH", "C2H6", "H2O", "CH4", "CH3CH2OH", "HCN", "CH3CHO", "NH3", "C3H8", "H2CO"]


def cut(structures: list[Atoms], numbers: list[int] | None = None, **settings: object) -> list[Job]:
    weights = [np.full(len(atoms), k) for k, atoms in enumerate(structures)]
    chosen = RelaxSettings.from_dict(settings)
    return cut_into_jobs(structures, weights, list(range(len(structures))) if numbers is None else numbers, chosen)


def test_every_structure_is_in_one_job_with_its_weights() -> None:
    structures = [molecule(name) for name in NAMES]
    jobs = cut(structures, [0, 1, 3, 4, 5, 6, 8, 9], batch_size=3)
    assert sorted(number for job in jobs for number in job.numbers) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert [len(job.numbers) for job in jobs].count(3) == 2 and len(jobs) == 3
    for job in jobs:
        for number, atoms, weights in zip(job.numbers, job.structures, job.weights, strict=True):
            assert atoms is structures[number]
            assert (weights == number).all() and len(weights) == len(atoms)


def test_like_elements_and_then_like_sizes_go_together() -> None:
    structures = [molecule(name) for name in ("C3H8", "H2O", "CH4", "H2O2", "C2H6", "CH3OH", "CH3CH2OH")]
    jobs = cut(structures, batch_size=2)
    together = {tuple(job.numbers) for job in jobs}
    assert together == {(2, 4), (0, 5), (6, 1), (3,)}
    assert [job.n_atoms for job in jobs] == sorted((job.n_atoms for job in jobs), reverse=True)


def test_jobs_do_not_depend_on_the_order_of_the_input() -> None:
    structures = [molecule(name) for name in NAMES]
    backwards = cut(structures[::-1], batch_size=4)
    last = len(structures) - 1
    assert [{last - k for k in job.numbers} for job in backwards] == [
        set(job.numbers) for job in cut(structures, batch_size=4)
    ]


def test_scipy_takes_one_structure_at_a_time() -> None:
    jobs = cut([molecule(name) for name in NAMES], optimizer="Nelder-Mead")
    assert [len(job.numbers) for job in jobs] == [1] * len(NAMES)


def test_what_is_not_begun_is_a_copy_of_the_start() -> None:
    (job,) = cut([molecule("H2O"), molecule("CH4")])
    for atoms, result in zip(job.structures, not_begun(job, "max_seconds"), strict=True):
        assert result.status == "max_seconds" and result.atoms == atoms and result.atoms is not atoms
