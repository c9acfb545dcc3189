"""Optimisers that are given second derivatives to begin with, on functions that have these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aiida_losiko.core.optimizers import make_optimizer
from aiida_losiko.core.optimizers.base import BatchOptimizer
from aiida_losiko.core.optimizers.preconditioner import Preconditioner

SIZES = [4, 1, 6]


def positive(n_atoms: int, condition: float, seed: int, frozen: tuple[int, ...] = ()) -> Tensor:
    """A positive definite matrix (3n, 3n) whose eigenvalues go from one to the condition number."""
    rows = [3 * k + axis for k in range(n_atoms) if k not in frozen for axis in range(3)]
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(rows), len(rows))))
    matrix = np.zeros((3 * n_atoms, 3 * n_atoms))
    matrix[np.ix_(rows, rows)] = axes @ np.diag(np.geomspace(1, condition, len(rows))) @ axes.T
    return torch.as_tensor(matrix)


class Valleys:
    """Quadratic functions x -> x^T H x / 2 around a point each."""

    def __init__(self, sizes: list[int], condition: float, frozen: tuple[int, ...] = (), dtype=torch.float64) -> None:
        self.sizes, self.dtype = sizes, dtype
        self.matrices = [positive(n, condition, seed, frozen).to(dtype) for seed, n in enumerate(sizes)]
        self.index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        rng = np.random.default_rng(9)
        self.centre, away = (torch.as_tensor(rng.normal(size=(sum(sizes), 3))).to(dtype) for _ in range(2))
        self.start = self.centre + 0.5 * away

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradients = [], []
        for matrix, moved in zip(self.matrices, (x - self.centre).split(self.sizes), strict=True):
            slope = matrix @ moved.flatten()
            losses.append(0.5 * moved.flatten() @ slope)
            gradients.append(slope.view(-1, 3))
        return torch.stack(losses), torch.cat(gradients)

    def padded(self) -> Tensor:
        """The matrices side by side, those of smaller structures filled up with zeros."""
        size = 3 * max(self.sizes)
        stack = torch.zeros((len(self.sizes), size, size), dtype=self.dtype)
        for whole, matrix in zip(stack, self.matrices, strict=True):
            whole[: len(matrix), : len(matrix)] = matrix
        return stack

    def preconditioner(self, added: float = 0.0) -> Preconditioner:
        return Preconditioner(self.padded(), torch.full((len(self.sizes),), added, dtype=self.dtype), self.index)

    def optimizer(self, name: str = "lbfgs", conditioned: bool = True, max_step_length: float = 3.0) -> BatchOptimizer:
        optimizer = make_optimizer(name, self.index, len(self.sizes), max_step_length=max_step_length)
        if conditioned:
            optimizer.precondition(self.preconditioner())
        return optimizer

    def evaluations(self, optimizer: BatchOptimizer, most: int, tolerance: float = 1e-6) -> Tensor:
        """Evaluations until the gradient of each structure is below the tolerance; zero where it is not."""
        x, done = self.start, torch.zeros(len(self.sizes), dtype=torch.int64)
        for evaluation in range(1, most + 1):
            x = optimizer.propose(x, *self.evaluate(x))
            largest = torch.stack([g.norm(dim=1).max() for g in optimizer.gradient.split(self.sizes)])
            done = torch.where((done == 0) & (largest < tolerance), evaluation, done)
        return done


# The inverse


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_apply_is_the_product_with_the_inverse(dtype: torch.dtype) -> None:
    """Of each structure's own matrix, whatever the sizes of the others; what is added counts."""
    valleys = Valleys(SIZES, 30.0, dtype=dtype)
    added = torch.tensor([0.0, 2.0, 5.0], dtype=dtype)
    preconditioner = Preconditioner(valleys.padded(), added, valleys.index)
    rows = torch.as_tensor(np.random.default_rng(1).normal(size=(3, sum(SIZES)))).to(dtype)
    product = preconditioner.apply(rows)
    assert product.shape == rows.shape and product.dtype == dtype
    for number, own in enumerate(rows.T.split(SIZES)):
        matrix = valleys.matrices[number].double()
        mean = float(matrix.diagonal().mean())
        matrix = matrix + max(float(added[number]), 1e-4 * mean) * torch.eye(len(matrix))
        expected = torch.linalg.solve(matrix, own.double().flatten())
        found = product.T.split(SIZES)[number].double().flatten()
        assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)


def test_keep_goes_on_with_some_structures() -> None:
    valleys = Valleys(SIZES, 30.0)
    preconditioner = valleys.preconditioner(1.0)
    rows = torch.as_tensor(np.random.default_rng(1).normal(size=(3, sum(SIZES))))
    before = preconditioner.apply(rows)
    for kept in (torch.tensor([True, True, False]), torch.tensor([False, True])):
        atoms = kept[valleys.index]
        index = (torch.cumsum(kept.long(), 0) - 1)[valleys.index[atoms]]
        preconditioner.keep(kept, index)
        rows, before, valleys.index = rows[:, atoms], before[:, atoms], index
        assert torch.equal(preconditioner.apply(rows), before)
    assert rows.shape == (3, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_directions_and_structures_have_an_inverse(dtype: torch.dtype) -> None:
    """Directions that were never drawn, atoms that see nothing, and rounding that makes variances negative."""
    few = torch.as_tensor(np.random.default_rng(0).normal(size=(2, 12))).to(dtype)
    curvature = torch.stack([few.T @ few, torch.zeros(12, 12, dtype=dtype), -1e-7 * torch.eye(12, dtype=dtype)])
    curvature[2, 0, 0] = 1.0
    index = torch.arange(3).repeat_interleave(4)
    preconditioner = Preconditioner(curvature, torch.zeros(3, dtype=dtype), index)
    gradient = torch.ones((3, 12), dtype=dtype)
    gradient[:, 4:8] = 0.0
    product = preconditioner.apply(gradient)
    assert product.isfinite().all() and not product[:, 4:8].any()
    assert float((product * gradient)[:, :4].sum()) > 0


def test_numbers_that_are_not_finite_harm_nothing_else() -> None:
    valleys = Valleys(SIZES, 30.0)
    curvature = valleys.padded()
    curvature[0, 0, 0] = torch.nan
    rows = torch.ones((3, sum(SIZES)), dtype=torch.float64)
    found = Preconditioner(curvature, torch.ones(3), valleys.index).apply(rows)
    expected = valleys.preconditioner(1.0).apply(rows)
    assert torch.allclose(found[:, 4:], expected[:, 4:])


# L-BFGS with it


@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_lbfgs_with_the_inverse_needs_few_evaluations(condition: float) -> None:
    """Whatever the condition number; one step, but for what flat directions are taken for."""
    valleys = Valleys([4, 7], condition)
    with_it = valleys.evaluations(valleys.optimizer(), 100)
    without = valleys.evaluations(valleys.optimizer(conditioned=False), 100)
    assert (with_it > 0).all() and (with_it <= 12).all(), with_it
    assert ((without == 0) | (without > 3 * with_it)).all(), (with_it, without)


def test_an_estimate_of_the_curvature_helps_as_well() -> None:
    """As many draws as the estimate is made from in a relaxation."""
    valleys = Valleys([5] * 6, 1e3)
    rng = np.random.default_rng(0)
    estimates = []
    for matrix in valleys.matrices:
        root = np.linalg.cholesky(matrix.numpy())
        draws = root @ rng.normal(size=(15, 30))
        estimates.append(torch.as_tensor(draws @ draws.T / 30))
    optimizer = valleys.optimizer(conditioned=False)
    optimizer.precondition(Preconditioner(torch.stack(estimates), torch.zeros(6), valleys.index))
    with_it = valleys.evaluations(optimizer, 200)
    without = valleys.evaluations(valleys.optimizer(conditioned=False), 200)
    assert (with_it > 0).all() and (without > 0).all()
    assert (with_it < 0.7 * without).all(), (with_it, without)


def test_the_first_step_is_newton_s_and_no_longer_than_allowed() -> None:
    valleys = Valleys([4, 7], 50.0)
    first = valleys.optimizer().propose(valleys.start, *valleys.evaluate(valleys.start))
    assert (first - valleys.centre).norm() < 0.02 * (valleys.start - valleys.centre).norm()
    short = valleys.optimizer(max_step_length=0.1).propose(valleys.start, *valleys.evaluate(valleys.start))
    for moved, step in zip((short - valleys.start).split([4, 7]), (first - valleys.start).split([4, 7]), strict=True):
        assert float(moved.norm(dim=1).max()) == pytest.approx(0.1)
        # The whole structure's step is shortened, not each row's.
        assert torch.nn.functional.cosine_similarity(moved.flatten(), step.flatten(), 0) == pytest.approx(1)


def test_frozen_rows_stay_exactly() -> None:
    valleys = Valleys([4, 7], 1e3, frozen=(0, 2))
    optimizer, x = valleys.optimizer(), valleys.start
    frozen = [0, 2, 4, 6]
    for _ in range(15):
        x = optimizer.propose(x, *valleys.evaluate(x))
        assert torch.equal(x[frozen], valleys.start[frozen])
    others = [k for k in range(11) if k not in frozen]
    assert (x - valleys.centre)[others].abs().max() < 1e-5


def test_keep_changes_nothing_for_those_that_stay() -> None:
    whole, part = Valleys(SIZES, 1e3), Valleys(SIZES, 1e3)
    runs = [valleys.optimizer(max_step_length=0.3) for valleys in (whole, part)]
    x = [whole.start, part.start]
    for step in range(12):
        if step == 4:
            kept = torch.tensor([True, False, True])
            atoms = kept[part.index]
            runs[1].keep(kept)
            part.sizes, part.matrices = [4, 6], [part.matrices[0], part.matrices[2]]
            part.centre, x[1] = part.centre[atoms], x[1][atoms]
        x = [run.propose(at, *valleys.evaluate(at)) for run, at, valleys in zip(runs, x, (whole, part), strict=True)]
    assert torch.allclose(x[1], x[0][atoms], rtol=0, atol=1e-12)


def test_a_wrong_estimate_is_overcome() -> None:
    """Far too flat: steps that are rejected are shortened; of the wrong shape: the memory mends it."""
    for factor in (1e-4, 1.0):
        valleys = Valleys([4, 4], 100.0)
        optimizer = valleys.optimizer(conditioned=False)
        wrong = torch.stack([factor * positive(4, 100.0, seed) for seed in (7, 8)])
        optimizer.precondition(Preconditioner(wrong, torch.zeros(2), valleys.index))
        x, rejected = valleys.start, 0
        for _ in range(120):
            x = optimizer.propose(x, *valleys.evaluate(x))
            rejected += int((~optimizer.accepted).sum())
        assert (optimizer.x - valleys.centre).abs().max() < 1e-6
        assert not optimizer.stalled.any() or float(optimizer.loss.max()) < 1e-12
        assert rejected > 0


def test_a_step_that_is_not_finite_is_taken_back() -> None:
    valleys = Valleys([4, 7], 100.0)
    optimizer = valleys.optimizer()
    trial = optimizer.propose(valleys.start, *valleys.evaluate(valleys.start))
    loss, gradient = valleys.evaluate(trial)
    loss[0] = torch.nan
    again = optimizer.propose(trial, loss, gradient)
    assert optimizer.accepted.tolist() == [False, True]
    assert torch.equal(optimizer.x[:4], valleys.start[:4])
    assert torch.allclose((again - valleys.start)[:4], 0.25 * (trial - valleys.start)[:4])
    x = again
    for _ in range(15):
        x = optimizer.propose(x, *valleys.evaluate(x))
    assert (x - valleys.centre).abs().max() < 1e-5


def test_forget_begins_again_with_the_inverse() -> None:
    valleys = Valleys([4, 7], 100.0)
    optimizer = valleys.optimizer()
    x = valleys.start
    for _ in range(3):
        x = optimizer.propose(x, *valleys.evaluate(x))
    moved = x.clone()
    moved[:4] = valleys.start[:4] + 1.0
    optimizer.forget(torch.tensor([True, False]))
    after = optimizer.propose(moved, *valleys.evaluate(moved))
    assert optimizer.accepted.all()
    fresh = valleys.optimizer().propose(moved, *valleys.evaluate(moved))
    assert torch.allclose(after[:4], fresh[:4], rtol=0, atol=1e-12)
    assert (after - valleys.centre)[:4].norm() < 0.02 * (moved - valleys.centre)[:4].norm()


def test_fire_goes_its_own_way() -> None:
    """It is told, and makes no use of it."""
    valleys = Valleys([4, 7], 10.0)
    ends = []
    for conditioned in (True, False):
        optimizer, x = valleys.optimizer("fire", conditioned), valleys.start
        assert not optimizer.preconditioned
        for _ in range(20):
            x = optimizer.propose(x, *valleys.evaluate(x))
        ends.append(x)
    assert torch.equal(*ends)
