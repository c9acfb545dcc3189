"""What the carbon search is compared with: DScribe gives the same loss and gradients, and minimises it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_losiko.builders import random_cells
from aiida_losiko.core import EnvironmentDatabase, Relaxation, SoapPowerSpectrum, relax
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective
from aiida_losiko.sources import load_source

pytest.importorskip("dscribe", reason="DScribe is not installed: pip install 'aiida-losiko[benchmarks]'")

PARAMETERS = {"r_cut": 3.0, "n_max": 4, "l_max": 3, "sigma": 0.3}


@pytest.fixture(scope="module")
def diamond() -> EnvironmentDatabase:
    (record,) = load_source("reference_crystals", None, {"ids": ["crystal:diamond"]})[1]
    return EnvironmentDatabase.build([record.atoms], SoapPowerSpectrum(["C"], **PARAMETERS))


@pytest.mark.parametrize("n_atoms", [1, 3])
def test_dscribe_gives_the_same(n_atoms: int, diamond: EnvironmentDatabase, script) -> None:
    (cell,) = random_cells("C", density=(3.7, 4.2), formula_units=n_atoms)
    theirs = script("dscribe_lbfgs").DScribeLoss(cell, diamond, PARAMETERS, False)
    loss, gradient = theirs.with_gradient(cell, "numerical")
    batch = StructureBatch.from_atoms([cell])
    ours = LocalSimilarityObjective(batch, diamond).evaluate(batch.positions)
    assert loss == pytest.approx(float(ours.loss[0]), abs=1e-6)
    assert np.allclose(gradient, ours.gradient.numpy(), atol=1e-5)
    assert np.allclose(theirs.strain_gradient(cell), ours.strain_gradient[0].numpy(), atol=1e-5)
    assert np.abs(theirs.strain_gradient(cell)).max() > 0.05


def test_a_cell_is_relaxed_as_far(diamond: EnvironmentDatabase, script) -> None:
    (cell,) = random_cells("C", density=(3.7, 4.2), formula_units=2)
    (ours,) = relax(cell, diamond, relax_cell=True, repulsion=0.0, max_steps=60)
    loss, evaluations, seconds = script("dscribe_lbfgs").relax_cell_with_dscribe(cell, diamond, PARAMETERS, ours)
    assert 0 < evaluations <= ours.evaluations + 20 and seconds > 0  # SciPy ends the line search that it is in
    assert loss < 0.1 * ours.initial_loss and ours.loss < 0.1 * ours.initial_loss


def test_cells_that_end_alike_are_counted(script) -> None:
    search = script("carbon_search")
    some, others = ([Relaxation(Atoms(), loss=x) for x in losses] for losses in ((0.0, 0.5, 0.1), (2e-4, 0.6, 0.1)))
    assert search.agreement(some, others).endswith("2 of 3 cells")
    made = search.row("search", "one at a time", 6.0, [10, 30, 20], [0.0, 0.5, 0.1])
    assert (made["n"], made["evaluations"], made["each"], made["seconds"], made["rate"], made["loss"]) == (
        3, 20.0, pytest.approx(100.0), 2.0, 0.5, 0.1
    )  # fmt: skip
