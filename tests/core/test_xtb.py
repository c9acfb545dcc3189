"""GFN2-xTB of molecules, with the real tblite."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.core.xtb import XtbSettings, run_xtb
from aiida_losiko.core.xtb_electrons import check_electrons, valence_electrons

pytest.importorskip("tblite", reason="the extra xtb")


def single(atoms, **settings):
    (result,) = run_xtb([atoms], XtbSettings(**settings))
    return result


def test_energy_is_that_of_tblite():
    from tblite.ase import TBLite

    atoms = molecule("CH3OH")
    result = single(atoms, task="single_point")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert result.largest_force == pytest.approx(np.linalg.norm(atoms.get_forces(), axis=1).max(), abs=1e-5)
    assert (result.status, result.steps) == ("converged", 0)
    np.testing.assert_array_equal(result.atoms.positions, atoms.positions)


def test_displaced_copies_find_the_same_minimum():
    ends = []
    for seed in (1, 2):
        start = molecule("H2CO")
        start.rattle(0.05, seed=seed)
        before = start.positions.copy()
        ends.append(single(start, fmax=0.001))
        np.testing.assert_array_equal(start.positions, before)
    assert [end.status for end in ends] == ["converged", "converged"]
    assert ends[0].energy == pytest.approx(ends[1].energy, abs=1e-4)
    assert rmsd(ends[0].atoms, ends[1].atoms) < 0.002
    assert all(end.largest_force < 0.001 and end.steps > 2 for end in ends)


def test_gap_and_orbitals():
    water = single(molecule("H2O"), task="single_point", orbitals=True)
    levels, occupations = (np.array(water.orbitals[name]) for name in ("energies", "occupations"))
    assert water.gap == pytest.approx(levels[4] - levels[3])
    assert occupations[:4].tolist() == pytest.approx([2.0] * 4)
    shares = water.orbitals["shares"]
    assert sorted(shares) == ["H", "O"]
    np.testing.assert_allclose(np.add(shares["H"], shares["O"]), 1.0, atol=1e-6)
    # The highest occupied one is oxygen's lone pair, out of the plane of the hydrogen atoms.
    assert shares["O"][3] == pytest.approx(1.0, abs=1e-3)
    # Mulliken's charges are those of tblite's own account of the same orbitals.
    assert 6 - np.dot(shares["O"], occupations) < -0.4
    assert single(molecule("CH3"), task="single_point").gap is None


def test_limits_and_interruptions():
    start = molecule("CH3OH")
    start.rattle(0.1, seed=1)
    few = single(start, max_steps=1)
    assert (few.status, few.steps) == ("max_steps", 1)
    assert rmsd(few.atoms, start) > 1e-4
    late, never = run_xtb([start, start], max_seconds=1e-9)
    assert (late.status, late.energy, never.status) == ("max_seconds", None, "max_seconds")
    asked = iter([False, False, False, True, True])
    stopped, after = run_xtb([start, start], should_stop=lambda: next(asked))
    assert (stopped.status, after.status) == ("interrupted", "interrupted")
    assert stopped.energy is not None and after.energy is None


@pytest.mark.parametrize(
    ("atoms", "settings", "message"),
    [
        (molecule("H2O"), {"charge": 20}, "charge 20 with multiplicity lowest cannot be"),
        (molecule("H2O"), {"multiplicity": 21}, "charge 0 with multiplicity 21 cannot be"),
        (molecule("H2O"), {"multiplicity": 2}, "not compatible"),
        (molecule("H2O"), {"max_iterations": 1}, "SCF not converged in 1 cycles"),
        (bulk("Si"), {}, "Si2 is periodic: GFN2-xTB is offered for molecules only"),
        (Atoms("H2"), {}, "Too close interatomic distances found"),
    ],
)
def test_one_that_cannot_be_computed_does_not_stop_the_others(atoms, settings, message):
    bad, good = run_xtb([atoms, molecule("CH4")], XtbSettings(**settings))
    assert bad.status == "error" and bad.energy is None
    assert message in bad.error and "\n" not in bad.error
    np.testing.assert_array_equal(bad.atoms.positions, atoms.positions)
    assert settings or good.status == "converged"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "dynamics"}, "task='dynamics'"),
        ({"charge": 0.5}, "charge=0.5"),
        ({"multiplicity": 0}, "multiplicity=0"),
        ({"fmax": 0}, "fmax=0"),
        ({"max_steps": -1}, "max_steps=-1"),
        ({"optimizer": "newton"}, "one of bfgs, lbfgs, fire"),
        ({"orbitals": 1}, "orbitals=1"),
        ({"fmx": 0.1}, "did you mean 'fmax'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(LosikoError, match=message):
        XtbSettings.from_dict(settings)


def test_without_tblite(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(LosikoError, match=r"pip install 'aiida-losiko\[xtb\]'"):
        run_xtb([molecule("H2O")])


@pytest.mark.parametrize("number", [1, 2, 6, 11, 29, 30, 35, 47, 48, 56, 64, 72, 79, 80, 86])
def test_valence_electrons_are_tblites(number):
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", np.array([number]), np.zeros((1, 3)))
    calculator.set("verbosity", 0)
    assert calculator.singlepoint().get("orbital-occupations").sum() == pytest.approx(valence_electrons(number))


@pytest.mark.parametrize(
    ("charge", "multiplicity", "possible"),
    [(0, None, True), (-4, None, True), (-5, None, False), (7, 2, True), (8, None, False), (0, 5, True), (0, 7, False)],
)
def test_electrons_of_water(charge, multiplicity, possible):
    """Eight electrons, in six orbitals: never more than tblite has places for, and not none."""
    if possible:
        check_electrons(molecule("H2O"), charge, multiplicity, 6)
    else:
        with pytest.raises(LosikoError, match=rf"would have {8 - charge} valence electrons in 6 orbitals"):
            check_electrons(molecule("H2O"), charge, multiplicity, 6)
