"""Optimisers on functions whose minima are known; nothing here knows of descriptors."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.optimizers import (
    SCIPY_METHODS,
    NoiseSchedule,
    is_batched,
    make_optimizer,
    minimize_scipy,
    optimizer_names,
    resolve_optimizer,
)
from aiida_losiko.core.optimizers.base import Segments

BATCHED = ("lbfgs", "fire")


class Problem:
    """One function per structure, on rows that a structure index gives out."""

    def __init__(self, functions, starts, frozen=None):
        self.functions = list(functions)
        self.starts = [torch.as_tensor(start) for start in starts]
        self.sizes = [len(start) for start in self.starts]
        self.frozen = frozen or [None] * len(self.starts)

    def select(self, chosen):
        return Problem(*([values[i] for i in chosen] for values in (self.functions, self.starts, self.frozen)))

    @property
    def index(self):
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))

    def evaluate(self, x):
        losses, gradients = [], []
        for function, part, frozen in zip(self.functions, x.split(self.sizes), self.frozen, strict=True):
            part = part.detach().clone().requires_grad_(True)
            loss = function(part)
            (gradient,) = torch.autograd.grad(loss, part)
            if frozen is not None:
                gradient[frozen] = 0.0
            losses.append(loss.detach())
            gradients.append(gradient)
        return torch.stack(losses), torch.cat(gradients)

    def optimizer(self, name="lbfgs", max_step_length=0.2, **options):
        return make_optimizer(name, self.index, len(self.sizes), max_step_length=max_step_length, **options)

    def run(self, optimizer, n_evaluations, x=None):
        """Trials of all evaluations, and the evaluation at which each structure's gradient fell below 1e-6."""
        x = torch.cat(self.starts) if x is None else x
        trials, done = [x], torch.zeros(len(self.sizes), dtype=torch.int64)
        for evaluation in range(1, n_evaluations + 1):
            x = optimizer.propose(x, *self.evaluate(x))
            trials.append(x)
            largest = torch.stack([g.norm(dim=1).max() for g in optimizer.gradient.split(self.sizes)])
            done = torch.where((done == 0) & (largest < 1e-6), evaluation, done)
        return trials, done


def quadratic(n_atoms, condition, seed):
    """A convex quadratic around a point, with eigenvalues from 1 to the condition number."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(3 * n_atoms, 3 * n_atoms)))
    matrix = torch.as_tensor(vectors @ np.diag(np.geomspace(1, condition, 3 * n_atoms)) @ vectors.T)
    centre = torch.as_tensor(rng.normal(size=(n_atoms, 3)))
    start = centre + torch.as_tensor(rng.normal(size=(n_atoms, 3))) * 0.3

    def function(x):
        matrix_, centre_ = matrix.to(x.dtype), centre.to(x.dtype)
        return 0.5 * (x - centre_).flatten() @ matrix_ @ (x - centre_).flatten()

    function.centre = centre
    return function, start


def rosenbrock(x):
    x = x.flatten()
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def nearest_of(targets):
    """A minimum over targets, like a loss with matching: smooth pieces, gradients that jump."""
    widths = torch.linspace(1.0, 5.0, len(targets), dtype=torch.float64)

    def function(x):
        return (widths[:, None] * ((x - targets) ** 2).sum(-1)).amin(0).sum()

    return function


@pytest.fixture
def mixed():
    """Quadratics of several condition numbers and sizes, Rosenbrock's valley, and a piecewise function."""
    pairs = [quadratic(4, condition, seed) for seed, condition in enumerate((1.0, 10.0, 1e2, 1e3))]
    rng = np.random.default_rng(5)
    pairs.append((rosenbrock, torch.as_tensor(rng.uniform(-1, 1, size=(3, 3)))))
    pairs.append((nearest_of(torch.as_tensor(rng.normal(size=(6, 1, 3)))), torch.as_tensor(rng.normal(size=(7, 3)))))
    pairs.append(quadratic(1, 30.0, 9))
    return Problem(*zip(*pairs, strict=True))


def test_lbfgs_finds_the_minima_in_few_evaluations(mixed):
    optimizer = mixed.optimizer(max_step_length=0.5)
    _, done = mixed.run(optimizer, 130)
    assert (done > 0).all(), done
    assert (done <= torch.tensor([6, 30, 70, 130, 110, 40, 20])).all(), done
    for number in (0, 1, 2, 3, 6):
        x = optimizer.x[mixed.index == number]
        assert torch.allclose(x, mixed.functions[number].centre, atol=1e-6)
    assert optimizer.loss[[0, 1, 2, 3, 4, 6]].max() < 1e-11


def test_fire_converges():
    problem = Problem(
        *zip(*[quadratic(4, condition, seed) for seed, condition in enumerate((1.0, 10.0, 50.0))], strict=True)
    )
    optimizer = problem.optimizer("fire")
    problem.run(optimizer, 600)
    assert optimizer.gradient.norm(dim=1).max() < 1e-5
    assert optimizer.accepted.all()
    assert not optimizer.stalled.any()


@pytest.mark.parametrize("name", BATCHED)
def test_a_structure_goes_the_same_way_alone_and_in_a_batch(mixed, name):
    together, _ = mixed.run(mixed.optimizer(name), 80)
    for number in range(len(mixed.sizes)):
        alone_problem = mixed.select([number])
        alone, _ = alone_problem.run(alone_problem.optimizer(name), 80)
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[mixed.index == number], b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BATCHED)
def test_dropping_structures_changes_no_other(mixed, name):
    kept = [0, 3, 4, 5]
    mask = torch.tensor([number in kept for number in range(len(mixed.sizes))])
    rows = mask[mixed.index]
    reference, _ = mixed.run(mixed.optimizer(name), 60)
    optimizer = mixed.optimizer(name)
    first, _ = mixed.run(optimizer, 25)
    optimizer.keep(mask)
    smaller = mixed.select(kept)
    assert optimizer.n_structures == len(kept)
    assert torch.equal(optimizer.structure_index, smaller.index)
    rest, _ = smaller.run(optimizer, 35, x=first[-1][rows])
    assert torch.allclose(rest[-1], reference[-1][rows], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BATCHED)
def test_rows_of_a_structure_may_lie_anywhere(mixed, name):
    order = torch.randperm(len(mixed.index), generator=torch.Generator().manual_seed(0))
    order = order[torch.argsort(mixed.index[order] % 2, stable=True)]
    x = torch.cat(mixed.starts)
    sorted_optimizer = mixed.optimizer(name)
    shuffled = make_optimizer(name, mixed.index[order], len(mixed.sizes), max_step_length=0.2)
    y = x[order]
    for _ in range(15):
        loss, gradient = mixed.evaluate(x)
        x = sorted_optimizer.propose(x, loss, gradient)
        y = shuffled.propose(y, loss, gradient[order])
    assert torch.allclose(x[order], y, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("max_step_length", [0.02, 0.3])
def test_no_row_moves_further_than_the_limit(mixed, name, max_step_length):
    optimizer = mixed.optimizer(name, max_step_length=max_step_length)
    x, longest = torch.cat(mixed.starts), 0.0
    for _ in range(60):
        trial = optimizer.propose(x, *mixed.evaluate(x))
        longest = max(longest, float((trial - optimizer.x).norm(dim=1).max()))
        x = trial
    assert 0.9 * max_step_length < longest <= max_step_length * (1 + 1e-12)


@pytest.mark.parametrize("name", BATCHED)
def test_frozen_rows_stay_exactly_where_they_are(name):
    pairs = [quadratic(4, 50.0, seed) for seed in range(3)]
    frozen = [torch.tensor([1]), torch.tensor([0, 1, 2, 3]), None]
    problem = Problem(*zip(*pairs, strict=True), frozen)
    optimizer = problem.optimizer(name)
    trials, _ = problem.run(optimizer, 60)
    for trial in trials:
        assert torch.equal(trial[1], trials[0][1])
        assert torch.equal(trial[4:8], trials[0][4:8])
    assert not torch.equal(trials[-1][0], trials[0][0])
    assert torch.isfinite(optimizer.x).all()


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_stepped_back_from(name, bad):
    function, start = quadratic(3, 10.0, 0)

    def with_wall(x):
        # Beyond a plane that lies between the steps and the minimum only in passing: some trials fall behind it.
        return torch.where((x - function.centre).norm() > 1.05 * (start - function.centre).norm(), bad, function(x))

    problem = Problem([with_wall, function], [start, start])
    optimizer = problem.optimizer(name)
    x, rejected = torch.cat(problem.starts), 0
    for evaluation in range(400):
        loss, gradient = problem.evaluate(x)
        if evaluation in (1, 2, 7):
            loss[0] = bad
            gradient[0, 0] = bad
        x = optimizer.propose(x, loss, gradient)
        rejected += int(not optimizer.accepted[0])
        assert torch.isfinite(x).all()
    assert rejected >= 3
    assert optimizer.gradient.norm(dim=1).max() < 1e-4
    assert not optimizer.stalled[1]


@pytest.mark.parametrize("name", BATCHED)
def test_a_start_that_is_not_finite_stalls_that_structure_only(name):
    problem = Problem([lambda x: (x * math.nan).sum(), lambda x: (x**2).sum()], [torch.ones(2, 3).double()] * 2)
    optimizer = problem.optimizer(name)
    trials, _ = problem.run(optimizer, 100)
    assert optimizer.stalled.tolist() == [True, False]
    assert torch.equal(trials[-1][:2], trials[0][:2])
    assert optimizer.loss[1] < 1e-6


def test_a_minimum_over_targets_converges():
    rng = np.random.default_rng(3)
    functions, starts = [], []
    for _ in range(12):
        functions.append(nearest_of(torch.as_tensor(rng.normal(size=(8, 1, 3)))))
        starts.append(torch.as_tensor(rng.normal(size=(5, 3)) * 1.5))
    problem = Problem(functions, starts)
    optimizer = problem.optimizer(max_step_length=0.3)
    _, done = problem.run(optimizer, 80)
    assert (done > 0).all(), done
    assert optimizer.loss.max() < 1e-10


def test_losses_fall_step_by_step(mixed):
    optimizer = mixed.optimizer()
    x, before = torch.cat(mixed.starts), None
    for _ in range(60):
        x = optimizer.propose(x, *mixed.evaluate(x))
        if before is not None:
            assert (optimizer.loss <= before * (1 + 1e-14)).all()
            assert ((optimizer.loss < before) | ~optimizer.accepted | (before < 1e-20)).all()
        before = optimizer.loss


def test_a_wrong_gradient_stalls():
    function, start = quadratic(3, 10.0, 0)
    optimizer = make_optimizer("lbfgs", torch.tensor([0, 0, 0, 1, 1, 1]), 2, max_step_length=0.1)
    x = torch.cat((start, start))
    problem = Problem([function, function], [start, start])
    sign = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])[:, None]
    for _ in range(40):
        loss, gradient = problem.evaluate(x)
        x = optimizer.propose(x, loss, sign * gradient)
    assert optimizer.stalled.tolist() == [True, False]
    assert torch.equal(x[:3], start)
    assert optimizer.loss[1] < 1e-8


def test_a_forgotten_structure_starts_again_from_anywhere(mixed):
    optimizer, untouched = mixed.optimizer(), mixed.optimizer()
    first, _ = mixed.run(optimizer, 20)
    reference, _ = mixed.run(untouched, 30)
    mask = torch.zeros(len(mixed.sizes), dtype=torch.bool)
    mask[2] = True
    rows = mask[mixed.index]
    moved = first[-1].clone()
    moved[rows] += 1.0
    optimizer.forget(mask)
    x = optimizer.propose(moved, *mixed.evaluate(moved))
    assert optimizer.accepted[2]
    assert torch.equal(optimizer.x[rows], moved[rows])
    rest, _ = mixed.run(optimizer, 9, x=x)
    assert torch.allclose(rest[-1][~rows], reference[-1][~rows], rtol=0, atol=1e-10)
    restarted = mixed.select([2])
    alone, _ = restarted.run(restarted.optimizer(), 10, x=moved[rows])
    assert torch.allclose(rest[-1][rows], alone[-1], rtol=0, atol=1e-10)


def test_forget_replaces_what_is_reported():
    function, start = quadratic(2, 3.0, 0)
    problem = Problem([function, function], [start, start])
    optimizer = problem.optimizer()
    problem.run(optimizer, 3)
    optimizer.forget(torch.tensor([True, False]), x=torch.zeros(4, 3).double(), loss=torch.tensor([7.0, 7.0]).double())
    assert optimizer.loss[0] == 7.0
    assert optimizer.loss[1] != 7.0
    assert torch.equal(optimizer.x[:2], torch.zeros(2, 3).double())
    assert not torch.equal(optimizer.x[2:], torch.zeros(2, 3).double())


@pytest.mark.parametrize("name", BATCHED)
def test_float32(name):
    pairs = [quadratic(4, condition, seed) for seed, condition in enumerate((1.0, 30.0))]
    problem = Problem([f for f, _ in pairs], [start.float() for _, start in pairs])
    optimizer = problem.optimizer(name)
    trials, _ = problem.run(optimizer, 300)
    assert trials[-1].dtype == torch.float32
    assert optimizer.gradient.norm(dim=1).max() < 1e-3


def test_options_and_names():
    index = torch.zeros(3, dtype=torch.int64)
    assert optimizer_names()[:2] == BATCHED
    assert "Nelder-Mead" in optimizer_names()
    assert resolve_optimizer("nelder-mead") == "Nelder-Mead"
    assert is_batched("LBFGS")
    assert not is_batched("Powell")
    for arguments in (
        {"name": "adamw", "max_step_length": 0.1},
        {"name": "Powell", "max_step_length": 0.1},
        {"name": "lbfgs", "max_step_length": 0.0},
        {"name": "lbfgs", "max_step_length": 0.1, "momentum": 3},
    ):
        with pytest.raises(LosikoError) as caught:
            make_optimizer(structure_index=index, n_structures=1, **arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(LosikoError, match=r"adamw.*lbfgs.*Nelder-Mead"):
        resolve_optimizer("adamw")
    with pytest.raises(LosikoError, match="at least one row"):
        make_optimizer("lbfgs", index, 2, max_step_length=0.1)


def flat(function, shape):
    """As SciPy wants it: flat arrays."""

    def evaluate(x):
        x = torch.as_tensor(x).view(shape).clone().requires_grad_(True)
        loss = function(x)
        (gradient,) = torch.autograd.grad(loss, x)
        return loss.item(), gradient.numpy().ravel()

    return evaluate


CRITERIA = {"max_steps": 2000, "fmax": 1e-5, "loss_tolerance": 1e-12}


@pytest.mark.parametrize("method", SCIPY_METHODS)
def test_scipy_methods_return_the_best_point_seen(method):
    function, start = quadratic(1, 5.0, 0)
    evaluate, seen, steps = flat(function, (1, 3)), [], []

    def record(x):
        loss, gradient = evaluate(x)
        seen.append((loss, x.copy()))
        return loss, gradient

    result = minimize_scipy(
        method.upper(), record, start.numpy().ravel(), callback=lambda n, x, loss: steps.append((n, loss)), **CRITERIA
    )
    best = min(seen, key=lambda pair: pair[0])
    assert result.loss == best[0]
    assert np.array_equal(result.x, best[1])
    assert result.n_evaluations == len(seen)
    assert result.converged
    assert result.loss < 1e-8
    assert [n for n, _ in steps] == list(range(1, len(steps) + 1))
    assert all(b <= a for (_, a), (_, b) in pairwise(steps))


def test_nelder_mead_uses_no_gradient_and_stops_after_its_steps():
    def rosen(x):
        # Of the wrong sign: whoever used it would go uphill.
        gradient = np.array([400 * x[0] * (x[1] - x[0] ** 2) + 2 * (1 - x[0]), -200 * (x[1] - x[0] ** 2)])
        return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2), gradient

    result = minimize_scipy("Nelder-Mead", rosen, np.array([-1.0, 1.0]), **CRITERIA)
    assert result.converged
    assert np.allclose(result.x, 1.0, atol=1e-5)
    short = minimize_scipy("Nelder-Mead", rosen, np.array([-1.0, 1.0]), max_steps=5, fmax=1e-5, loss_tolerance=1e-12)
    assert not short.converged
    assert short.n_iterations == 5


@pytest.mark.parametrize("method", ["Nelder-Mead", "L-BFGS-B", "TNC", "COBYLA"])
def test_a_scipy_method_can_be_stopped(method):
    evaluate, calls = flat(rosenbrock, (2, 3)), []

    def record(x):
        calls.append(evaluate(x)[0])
        return evaluate(x)

    result = minimize_scipy(method, record, np.full(6, -0.5), should_stop=lambda: len(calls) >= 7, **CRITERIA)
    assert result.stopped
    assert not result.converged
    assert result.n_evaluations == len(calls) == 7
    assert result.loss == min(calls)


@pytest.mark.parametrize("method", ["Nelder-Mead", "BFGS", "L-BFGS-B"])
def test_scipy_methods_survive_values_that_are_not_finite(method):
    def evaluate(x):
        if x[0] > 0.5:
            return math.nan, np.full(3, math.nan)
        return float(((x - [0.4, 1.0, 1.0]) ** 2).sum()), 2 * (x - [0.4, 1.0, 1.0])

    result = minimize_scipy(method, evaluate, np.array([-3.0, 0.0, 0.0]), **CRITERIA)
    assert result.loss < 1e-4
    assert np.isfinite(result.x).all()


def test_scipy_errors_are_one_line():
    start, evaluate = np.zeros(3), flat(lambda x: (x**2).sum(), (1, 3))
    with pytest.raises(LosikoError, match="Nelder-Mead") as caught:
        minimize_scipy("simulated-annealing", evaluate, start, **CRITERIA)
    assert "\n" not in str(caught.value)
    with pytest.raises(LosikoError, match="not finite"):
        minimize_scipy("BFGS", lambda x: (math.nan, x), start, **CRITERIA)


def test_noise_follows_equation_9():
    schedule = NoiseSchedule(variance=0.2, decay=0.05)
    for iteration in (0, 1, 17):
        expected = math.sqrt(0.2 * math.exp(-0.05 * iteration))
        assert schedule.standard_deviation(iteration) == pytest.approx(expected, rel=1e-14)
        generator = torch.Generator().manual_seed(1)
        sample = schedule.sample((20000, 3), iteration, generator)
        assert sample.std().item() == pytest.approx(expected, rel=0.02)
        assert abs(sample.mean().item()) < 0.02 * expected
    assert schedule.active(schedule.n_iterations - 1)
    assert not schedule.active(schedule.n_iterations)
    assert schedule.n_iterations == 245  # ln(0.2 / 1e-6) / 0.05 = 244.1


def test_noise_is_the_same_for_the_same_seed():
    schedule = NoiseSchedule(variance=0.01, decay=0.1)
    first, second, other = (schedule.sample((4, 3), 2, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    single = schedule.sample((4, 3), 2, torch.Generator().manual_seed(7), dtype=torch.float32)
    assert torch.equal(single, first.float())


def test_no_noise():
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert not schedule.active(0)
    assert schedule.n_iterations == 0
    assert not schedule.sample((2, 3), 0, generator).any()
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize(
    "values",
    [
        {"variance": -0.1},
        {"variance": math.nan},
        {"variance": 0.1, "decay": 0.0},
        {"variance": 0.1, "decay": -1.0},
        {"decay": math.inf},
        {"floor": 0.0},
    ],
)
def test_noise_that_makes_no_sense(values):
    with pytest.raises(LosikoError) as caught:
        NoiseSchedule(**values)
    assert "\n" not in str(caught.value)


def test_padded_sums_of_other_devices_are_the_same():
    segments = Segments(torch.tensor([2, 0, 1, 0, 0, 2]), 3)
    values = torch.randn((4, 3, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    in_order = segments.sum(values)
    segments._on_cpu = False
    assert torch.allclose(segments.sum(values), in_order, rtol=0, atol=1e-14)
    assert torch.allclose(in_order[:, 1], values[:, :, 2].sum(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", BATCHED)
def test_a_point_without_a_gradient_stays(name):
    """A long step over the smallest number that there is would be infinite, and infinity times zero no number."""
    optimizer = make_optimizer(name, torch.zeros(2, dtype=torch.int64), 1, max_step_length=10.0)
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float32)
    for loss in (0.0, 1.0):
        after = optimizer.propose(x, torch.tensor([loss]), torch.zeros_like(x))
        torch.testing.assert_close(after, x, rtol=0, atol=0)
