"""Basin hopping: what moves, where it is put, and that it gets stuck atoms home."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum, relax
from aiida_losiko.core.relaxation.hops import NO_MATCH, atom_limits, hop

R_CUT = 4.0
FAR = Atoms("OHH", positions=[[0, 0, 0], [0.96, 0, 0], [30, 0, 0]])


@pytest.fixture(scope="module")
def water() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["H", "O"], r_cut=R_CUT, n_max=4, l_max=4, sigma=0.25)
    return EnvironmentDatabase.build([molecule("H2O")], soap, sources=["water"])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_only_the_chosen_move_and_by_the_length_asked_for() -> None:
    positions = torch.as_tensor(np.random.default_rng(0).uniform(-1, 1, (2000, 3)))
    chosen = torch.arange(2000) % 2 == 0
    moved = hop(positions, chosen, R_CUT, 0.3, generator()) - positions
    assert (moved[~chosen] == 0).all()
    assert float(moved[chosen].std()) == pytest.approx(0.3, rel=0.05)


def test_an_atom_without_neighbours_is_put_beside_another() -> None:
    positions = torch.as_tensor(FAR.positions)
    lost = torch.tensor([False, False, True])
    near = hop(positions, lost, R_CUT, 0.1, generator())
    assert float(torch.cdist(near[2:], near[:2]).min()) < 1.0
    # In a crystal (no radius) it has neighbours across the border, and is displaced where it is.
    assert float((hop(positions, lost, math.inf, 0.1, generator())[2] - positions[2]).norm()) < 1.0


def test_a_single_atom_has_nowhere_to_go() -> None:
    moved = hop(torch.zeros(1, 3), torch.tensor([True]), R_CUT, 0.1, generator())
    assert 0 < float(moved.norm()) < 1.0


def test_limits_are_the_reach_or_a_match(water: EnvironmentDatabase) -> None:
    assert water.reach == {"H": None, "O": None}
    assert atom_limits([FAR], water) == [NO_MATCH] * 3
    soap = water.descriptor
    two = EnvironmentDatabase.build([molecule("H2O"), molecule("H2O2"), molecule("H2")], soap, sources=["1", "2", "3"])
    limits = atom_limits([Atoms("O"), Atoms("H")], two)
    assert limits == [two.reach["O"], two.reach["H"]] and min(limits) > NO_MATCH


def test_a_lost_atom_comes_home(water: EnvironmentDatabase) -> None:
    tight = {"fmax": 1e-7, "loss_tolerance": 1e-15}
    stuck, home = relax(FAR, water, **tight)[0], relax(FAR, water, n_hops=10, **tight)[0]
    assert stuck.flags == ("lost_atoms",) and stuck.loss > 0.1
    assert home.flags == () and home.loss < 1e-8
    angle = molecule("H2O").get_angle(1, 0, 2)
    assert home.atoms.get_angle(1, 0, 2) == pytest.approx(angle, abs=0.1)
    # Seeded, and the same whoever else is in the batch.
    (again, _) = relax([FAR, molecule("H2O")], water, n_hops=10, **tight)
    assert np.abs(again.atoms.positions - home.atoms.positions).max() < 1e-7
    other = relax(FAR, water, n_hops=10, seed=1, **tight)[0]
    assert np.abs(other.atoms.positions - home.atoms.positions).max() > 1e-3


def test_hops_stay_within_the_steps_and_leave_frozen_atoms(water: EnvironmentDatabase) -> None:
    limited = relax(FAR, water, n_hops=50, max_steps=12)[0]
    assert limited.steps <= 12
    start = FAR.copy()
    start.set_constraint(FixAtoms([2]))
    frozen = relax(start, water, n_hops=3)[0]
    assert (frozen.atoms.positions[2] == FAR.positions[2]).all()
    assert frozen.status == "converged"
