"""What holds the bonds of a molecule's start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2

from aiida_losiko.core.cohesion import BondsOfStart
from aiida_losiko.core.neighbors import StructureBatch


def evaluate(term: BondsOfStart, batch: StructureBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss per structure and gradient."""
    loss, gradient = torch.zeros(batch.n_structures, dtype=torch.float64), torch.zeros_like(batch.positions)
    term.add(batch, loss, gradient)
    return loss, gradient


def stretched(atoms: Atoms, factor: float) -> Atoms:
    copy = atoms.copy()
    copy.positions *= factor
    return copy


def test_gradient():
    start = [molecule("CH3CH2OH"), molecule("C6H6")]
    batch = StructureBatch.from_atoms(start)
    term = BondsOfStart(5.0, batch)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch.positions.shape, dtype=torch.float64, generator=generator)
    batch.positions = 1.4 * batch.positions + 0.1 * noise
    loss, gradient = evaluate(term, batch)
    assert (loss > 0.1).all()
    step = 1e-6
    for row, axis in [(0, 0), (3, 1), (8, 2), (12, 0), (20, 1)]:
        values = []
        for sign in (1, -1):
            moved = batch.positions.clone()
            moved[row, axis] += sign * step
            displaced = StructureBatch.from_atoms(start)
            displaced.positions = moved
            values.append(float(evaluate(term, displaced)[0].sum()))
        assert float(gradient[row, axis]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-8)


def test_no_molecule_of_g2_pays_for_it():
    organic = [g2[name] for name in g2.names if set(g2[name].symbols) <= set("HCNOF")]
    batch = StructureBatch.from_atoms(organic)
    loss, gradient = evaluate(BondsOfStart(1.0, batch), batch)
    assert float(loss.max()) == 0
    assert float(gradient.abs().max()) == 0


def test_pieces_of_the_start_are_not_bonded():
    two = molecule("H2O") + molecule("H2O")
    two.positions[3:] += [4.0, 0, 0]
    batch = StructureBatch.from_atoms([two])
    term = BondsOfStart(1.0, batch)
    batch.positions = batch.positions.clone()
    batch.positions[3:, 0] += 5.0
    assert float(evaluate(term, batch)[0]) == 0


def test_crystals_have_no_bonds_here():
    crystal = bulk("C", "diamond", 3.57)
    batch = StructureBatch.from_atoms([crystal])
    term = BondsOfStart(1.0, batch)
    batch.positions = 1.5 * batch.positions
    assert float(evaluate(term, batch)[0]) == 0


def test_structures_can_be_dropped():
    start = [molecule("CH4"), molecule("H2O"), molecule("C2H6")]
    term = BondsOfStart(1.0, StructureBatch.from_atoms(start))
    whole, _ = evaluate(term, StructureBatch.from_atoms([stretched(atoms, 1.5) for atoms in start]))
    atoms = np.repeat([True, False, True], [len(a) for a in start])
    term.keep(torch.from_numpy(atoms))
    left, _ = evaluate(term, StructureBatch.from_atoms([stretched(start[k], 1.5) for k in (0, 2)]))
    assert left.tolist() == whole[[0, 2]].tolist()
    assert (left > 0).all()
