"""When a bond stands, and what the starts are."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms


@pytest.fixture
def water() -> Atoms:
    """A hydrogen, an oxygen and another one further off."""
    return Atoms("HOO", positions=[[0, 0, 0], [1.5, 0, 0], [0, 3, 0]], cell=[8, 8, 8], pbc=True)


def at(atoms: Atoms, length: float) -> np.ndarray:
    positions = atoms.positions.copy()
    positions[1, 0] = length
    return positions


def test_the_bond_stands_from_where_it_no_longer_breaks(script, water):
    proton = script("chgnet_proton")
    lengths = (1.5, 1.0, 1.1, 1.02, 0.98)
    path = proton.Path([1.0] * 5, [1, 2, 3, 4, 5], [at(water, length) for length in lengths])
    assert proton.standing_from(water, path, at(water, 0.97)) == 3
    assert proton.standing_from(water, path, at(water, 1.06)) is None
    always = proton.Path([1.0], [1], [at(water, 0.97)])
    assert proton.standing_from(water, always, at(water, 0.97)) == 0


def test_between_two_oxygens_there_is_no_bond(script, water):
    proton = script("chgnet_proton")
    assert proton.bonded(proton.lengths_to_oxygen(water, at(water, 1.0)))
    both = at(water, 1.0)
    both[2] = [0, 1.1, 0]
    assert not proton.bonded(proton.lengths_to_oxygen(water, both))


def test_starts(script):
    made = script("chgnet_proton").starts(2)
    assert list(made) == ["lithium site", "proton displaced", "displaced 0", "displaced 1"]
    site = made["lithium site"]
    assert site.get_chemical_formula() == "HCo27Li26O54"
    moved = {name: (np.abs(atoms.positions - site.positions).max(1) > 0).sum() for name, atoms in made.items()}
    assert list(moved.values()) == [0, 1, 108, 108]


def test_bars(script, capsys):
    rows = [
        {"start": "a", "who": "LOSIKO", "bond_seconds": 1.0, "above": 0.02},
        {"start": "a", "who": "CHGNet", "bond_seconds": 30.0, "above": 0.0},
        {"start": "b", "who": "LOSIKO", "bond_seconds": 1.0, "above": 0.06},
        {"start": "b", "who": "CHGNet", "bond_seconds": None, "above": 0.01},
    ]
    assert script("chgnet_proton").verdicts(rows) == [True, True, True, False]
    assert "found no bond" in capsys.readouterr().out
