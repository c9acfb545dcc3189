"""Gaps and densities of levels."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_losiko.workflows.validation.levels import DOS_STEP, density_of_levels, gap_of_levels


def test_gap():
    assert gap_of_levels([-5.0, -1.0, 2.0], [2, 2, 0]) == pytest.approx(3.0)
    assert gap_of_levels([[-5.0, -1.0], [-4.0, 3.0]], [[1, 0], [1, 0]]) == pytest.approx(3.0)
    # The empty level of one spin below the full one of the other.
    assert gap_of_levels([[-5.0, -1.0], [-4.0, -2.0]], [[1, 1], [0, 0]]) == 0.0
    assert gap_of_levels([-1.0], [2]) is None and gap_of_levels([1.0], [0]) is None


def test_density_counts_states_and_shares():
    levels, shares = [-5.0, -1.0, 2.0], {"C": [0.25, 1.0, 0.5], "O": [0.75, 0.0, 0.5]}
    dos = density_of_levels(levels, [2, 2, 0], shares)
    assert dos.total.sum() * DOS_STEP == pytest.approx(6, abs=1e-3)
    assert dos.projected["C"].sum() * DOS_STEP == pytest.approx(3.5, abs=1e-3)
    np.testing.assert_allclose(sum(dos.projected.values()), dos.total, atol=1e-12)
    # Zero is halfway between -1 and 2.
    assert np.abs(dos.energies[dos.total.argmax()] - [-5.5, -1.5, 1.5]).min() < DOS_STEP
    alone = density_of_levels([[-1.0], [2.0]], [[1], [0]], states_per_level=1)
    assert alone.total.sum() * DOS_STEP == pytest.approx(2, abs=1e-3) and not alone.projected
