"""Pictures of defects: what is drawn, and that the defect is seen."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools import defect_figures
from aiida_losiko.tools.defect_figures import surroundings


@pytest.fixture
def salt() -> Atoms:
    """Lithium hydroxide on a grid: metals 2 Angstrom from each other, and from oxygen."""
    grid = np.array([(x, y, z) for x in range(4) for y in range(4) for z in range(4)])
    symbols = ["O" if sum(place) % 2 else "Li" for place in grid.tolist()]
    atoms = Atoms(symbols, positions=2.0 * grid, cell=[8, 8, 8], pbc=True)
    atoms.symbols[0] = "H"
    return atoms


def test_picture_of_a_defect(tmp_path, salt):
    moved = salt.copy()
    # Across the border of the cell.
    moved.positions[0] -= [0.0, 0.0, 0.9]
    path = surroundings(
        [("before", salt, "2.00"), ("after", moved, "1.10")], 0, path=tmp_path / "new" / "defect.png", title="defect"
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in path.parent.iterdir()] == ["defect.png"]


def test_atoms_around_are_found_across_the_border(salt):
    index, places = defect_figures._around(salt, 0, 2.1)
    assert 0 in index and len(index) == 7
    assert np.linalg.norm(places, axis=1).max() == pytest.approx(2.0)


def test_sticks_end_at_the_partner(salt):
    index, places = defect_figures._around(salt, 0, 3.0)
    sticks = defect_figures._sticks(salt.numbers[index], places, "O")
    assert sticks
    for i, j in sticks:
        assert (salt.numbers[index[i]] == 8) != (salt.numbers[index[j]] == 8)


def test_nothing_is_in_front_of_the_defect(salt):
    index, places = defect_figures._around(salt, 0, 4.1)
    defect = int(np.flatnonzero(index == 0)[0])
    view = defect_figures._clearest_view([places], defect)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    seen = places @ view.T
    in_front = seen[:, 2] > seen[defect, 2] + 1e-3
    assert np.linalg.norm(seen[in_front, :2] - seen[defect, :2], axis=1).min() > 0.5


def test_other_atoms_are_an_error(tmp_path, salt):
    with pytest.raises(LosikoError, match="same atoms in the same order"):
        surroundings([("a", salt, ""), ("b", salt[1:], "")], 0, path=tmp_path / "x.png")
    with pytest.raises(LosikoError, match="0 structures"):
        surroundings([], 0, path=tmp_path / "x.png")
