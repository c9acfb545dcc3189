"""DScribe is timed on the same loss as ours."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_losiko.core import EnvironmentDatabase, make_descriptor, relax

PARAMETERS = {"r_cut": 3.0, "n_max": 3, "l_max": 2, "sigma": 0.4}
DAMPED = {**PARAMETERS, "weighting": {"function": "pow", "c": 1.0, "d": 1.0, "m": 6.0, "r0": 1.6}}


@pytest.mark.parametrize("parameters", [PARAMETERS, DAMPED])
@pytest.mark.parametrize("all_elements", [True, False])
def test_dscribe_minimises_the_same_loss(script, parameters, all_elements):
    descriptor = make_descriptor({"name": "soap", "species": ["H", "C", "N", "O"], **parameters})
    names = ["CH3OH", "H2O", "CH4", "HCN"]
    known = EnvironmentDatabase.build([molecule(name) for name in names], descriptor, sources=names)
    start = molecule("CH3OH")
    start.rattle(0.05, seed=1)
    (ours,) = relax(start, known, max_steps=30, repulsion=0.0)
    dscribe = script("dscribe_lbfgs")
    loss, n_evaluations, seconds, method = dscribe.relax_with_dscribe(start, known, parameters, ours, all_elements)
    assert loss < 0.2 * ours.initial_loss and n_evaluations > 2 and seconds > 0
    assert method == "numerical" or parameters is PARAMETERS
    evaluate = dscribe.dscribe_loss(start, known, parameters, method, all_elements)
    x = start.positions.ravel()
    first, gradient = evaluate(x)
    assert first == pytest.approx(ours.initial_loss, rel=1e-4)
    step = np.zeros_like(x)
    step[4] = 1e-4
    assert gradient[4] == pytest.approx((evaluate(x + step)[0] - evaluate(x - step)[0]) / 2e-4, rel=1e-4)


def test_what_is_not_the_same_loss_is_not_compared(script):
    descriptor = make_descriptor({"name": "soap", "species": ["H", "O"], **PARAMETERS})
    known = EnvironmentDatabase.build([molecule("H2O")], descriptor, sources=["water"])
    start = molecule("H2O")
    start.rattle(0.05, seed=1)
    (ours,) = relax(start, known, max_steps=3, weights=[[1.0, 2.0, 2.0]])
    with pytest.raises(SystemExit, match="nothing can be compared"):
        script("dscribe_lbfgs").relax_with_dscribe(start, known, PARAMETERS, ours, True)


def test_results_that_differ_end_the_benchmark(script):
    descriptor = make_descriptor({"name": "soap", "species": ["H", "O"], **PARAMETERS})
    known = EnvironmentDatabase.build([molecule("H2O")], descriptor, sources=["water"])
    start = molecule("H2O")
    start.rattle(0.05, seed=1)
    throughput = script("throughput")
    one, other = (relax([start], known, max_steps=steps) for steps in (3, 2))
    throughput.check_same(one, one)
    with pytest.raises(SystemExit, match="another result"):
        throughput.check_same(one, other)
