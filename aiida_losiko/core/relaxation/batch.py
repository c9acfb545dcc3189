"""Relaxation of a batch of structures with a batched optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aiida_losiko.core.curvature import LARGEST as LARGEST_WITH_CURVATURE
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import Evaluation, LocalSimilarityObjective
from aiida_losiko.core.optimizers import NoiseSchedule, make_optimizer, resolve_optimizer
from aiida_losiko.core.optimizers.preconditioner import Preconditioner
from aiida_losiko.core.relaxation.best import Best
from aiida_losiko.core.relaxation.degrees_of_freedom import DegreesOfFreedom
from aiida_losiko.core.relaxation.hops import atom_limits, hop
from aiida_losiko.core.relaxation.restraint import Restraint
from aiida_losiko.core.relaxation.results import NOT_FINITE, Relaxation
from aiida_losiko.core.relaxation.run import Run, StepReport
from aiida_losiko.core.relaxation.sanity import Sanity
from aiida_losiko.core.relaxation.snapshot import Snapshot
from aiida_losiko.core.structures import fixed_mask

if TYPE_CHECKING:
    from ase import Atoms

# Steps in a row whose loss change must be below the tolerance: one alone may be a cautious step of the line search.
QUIET_STEPS = 2
# The batch is cut down to what is left when less than this part of it is still running.
COMPACTION = 0.75


@dataclass
class Preparation:
    """A batch, its objective and its degrees of freedom, as a relaxation starts with them."""

    batch: StructureBatch
    objective: LocalSimilarityObjective
    dof: DegreesOfFreedom
    free: torch.Tensor
    restraint: Restraint | None

    @classmethod
    def of(
        cls,
        run: Run,
        structures: list[Atoms],
        weights: list[NDArray[np.float64]],
        stage: int = -1,
        own: list[int] | None = None,
        starts: list[Atoms] | None = None,
    ) -> Preparation:
        """Prepare structures with their weights c_i; see `relax_batch`."""
        settings = run.settings
        dtype = getattr(torch, settings.dtype)
        batch = StructureBatch.from_atoms(structures, dtype, settings.device)
        free = torch.as_tensor(np.concatenate([~fixed_mask(atoms) for atoms in structures]), device=settings.device)
        c = torch.as_tensor(np.concatenate(weights), dtype=dtype, device=settings.device)
        hidden = None if own is None else torch.as_tensor(own, device=settings.device)[batch.structure_index]
        origin = batch.positions
        if starts is not None:
            placed = [_in_lattice(start, now) for start, now in zip(starts, structures, strict=True)]
            origin = StructureBatch.from_atoms(placed, dtype, settings.device).positions
        objective = run.objective(batch, c, free, stage, hidden, origin)
        restraint = None
        metric = run.database.metric
        if settings.restraint and metric is not None:
            restraint = Restraint(settings.restraint, batch, origin, free, metric, stage)
        return cls(batch, objective, DegreesOfFreedom(batch, settings.relax_cell), free, restraint)

    def evaluate(self, rows: torch.Tensor, n_probes: int = 0) -> tuple[Evaluation, torch.Tensor]:
        """Losses and what comes with them at the rows, and the gradient in these; with what the restraint adds."""
        evaluation = self.objective.evaluate(*self.dof.unpack(rows), n_probes)
        gradient = self.dof.gradient(rows, evaluation)
        if self.restraint is not None:
            self.restraint.add(rows, evaluation.loss, gradient)
        return evaluation, gradient

    def keep(self, structures: torch.Tensor) -> None:
        """Go on with the structures of a mask."""
        self.free = self.free[structures[self.batch.structure_index]]
        self.objective.keep(structures)
        self.batch = self.objective.batch
        self.dof = self.dof.keep(structures, self.batch)
        if self.restraint is not None:
            self.restraint.keep(structures, self.batch)


def relax_batch(
    run: Run,
    structures: list[Atoms],
    numbers: list[int],
    weights: list[NDArray[np.float64]],
    on_done: Callable[[int], Any],
    stage: int = -1,
    own: list[int] | None = None,
    starts: list[Atoms] | None = None,
) -> list[Relaxation]:
    """Relax structures together, in one stage of a learnt metric; `on_done` is told how many more are finished.

    `own` has for each structure the source of the database that it must not be matched to, for learning; `starts` are
    the structures before the first stage.
    """
    return _BatchRelaxation(run, structures, numbers, weights, stage, own, starts).work(on_done)


class _BatchRelaxation:
    """The state of a batch between evaluations; tensors hold the structures that are still in the batch."""

    def __init__(
        self,
        run: Run,
        structures: list[Atoms],
        numbers: list[int],
        weights: list[NDArray[np.float64]],
        stage: int,
        own: list[int] | None,
        starts: list[Atoms] | None,
    ) -> None:
        self.run, self.settings = run, run.settings
        self.structures, self.numbers = structures, numbers
        self.prepared = Preparation.of(run, structures, weights, stage, own, starts)
        self.noise = NoiseSchedule(self.settings.noise_variance, self.settings.noise_decay)
        self.generators = [torch.Generator().manual_seed(_seed(self.settings.seed, number)) for number in numbers]
        self.results = [Relaxation(atoms=atoms) for atoms in structures]
        n = len(structures)
        device = self.prepared.batch.positions.device
        self.members = np.arange(n)
        self.running = torch.ones(n, dtype=torch.bool, device=device)
        self.steps = torch.zeros(n, dtype=torch.int64, device=device)
        self.quiet = torch.zeros(n, dtype=torch.int64, device=device)
        self.previous = torch.full((n,), torch.inf, dtype=self.prepared.batch.positions.dtype, device=device)
        self.hops_left = torch.full_like(self.steps, self.settings.n_hops)
        self.noisy = torch.full_like(self.running, self.noise.variance > 0)
        self.hop_limit = torch.as_tensor(
            atom_limits(structures, run.database), dtype=self.previous.dtype, device=device
        )
        self.sanity = Sanity(
            self.prepared.batch,
            run.database,
            self.hop_limit,
            (starts or structures) if self.settings.relax_cell else None,
        )
        self.evaluations = 0
        self.optimizer = make_optimizer(
            resolve_optimizer(self.settings.optimizer),
            self.prepared.dof.structure_index,
            n,
            max_step_length=self.settings.max_step_length,
        )

    def work(self, on_done: Callable[[int], Any]) -> list[Relaxation]:
        """Evaluate and step until every structure is finished."""
        rows = self.prepared.dof.start(self.prepared.batch.positions)
        while len(self.members):
            positions, cells = self.prepared.dof.unpack(rows)
            evaluation, gradient = self.prepared.evaluate(rows, self._n_probes())
            self._precondition(evaluation)
            self.evaluations += 1
            given_up = self.optimizer.stalled
            next_rows = self.optimizer.propose(rows, evaluation.loss, gradient)
            self._record(rows, positions, cells, evaluation)
            # One that had given up and was rejected again where it stood has no finite value there.
            converged = self._converged() | (self.running & given_up & ~self.optimizer.accepted)
            self.best.settle(converged, evaluation.loss)
            next_rows = self._hop(converged, self._return_to_best(converged, evaluation.loss, next_rows))
            finished = self._judge(converged)
            if finished:
                on_done(finished)
            rows = self._compact(self._add_noise(next_rows))
        return self.results

    def _n_probes(self) -> int:
        """How many draws the curvature is estimated by, at the first evaluation."""
        largest = max(len(atoms) for atoms in self.structures)
        usable = self.optimizer.preconditioned and not self.settings.relax_cell and largest <= LARGEST_WITH_CURVATURE
        return self.settings.curvature_probes if usable and not self.evaluations else 0

    def _precondition(self, evaluation: Evaluation) -> None:
        """Give the optimiser the curvature, where there is one."""
        if evaluation.curvature is None:
            return
        restraint = self.prepared.restraint
        added = torch.zeros_like(evaluation.loss) if restraint is None else restraint.force_constant
        index = self.prepared.batch.structure_index
        self.optimizer.precondition(Preconditioner(evaluation.curvature, added, index))

    def _record(self, rows: torch.Tensor, positions: torch.Tensor, cells: torch.Tensor, evaluation: Evaluation) -> None:
        """Keep the best structures, count steps, tell the callback."""
        accepted = self.optimizer.accepted & self.running
        verdict = self.sanity.judge(self.prepared.batch, *self.prepared.objective.distances, evaluation.distance)
        now = Snapshot.of(rows, positions, cells, evaluation)
        if self.evaluations == 1:
            self.best = Best(now.copy(), evaluation.loss, verdict)
            for member, loss in zip(self.members, evaluation.loss.tolist(), strict=True):
                self.results[member].initial_loss = loss
        else:
            self.best.compare(self.optimizer.structure_index, now, evaluation.loss, verdict, self.running)
        change = (self.previous - evaluation.loss).abs()
        relative = self.settings.relative_loss_tolerance if self.optimizer.judged_by_loss_change else 0.0
        limit = (relative * self.previous).clamp(min=self.settings.loss_tolerance)
        # The first point has none before it to compare with.
        small = accepted & torch.isfinite(self.previous) & (change <= limit)
        self.quiet = torch.where(accepted, torch.where(small, self.quiet + 1, 0), self.quiet)
        self.previous = torch.where(accepted, evaluation.loss, self.previous)
        if self.evaluations > 1:
            self.steps += accepted
        losses = evaluation.loss.tolist()
        for k in torch.nonzero(accepted)[:, 0].tolist():
            self.results[self.members[k]].loss_history.append(losses[k])
        for k in torch.nonzero(self.running)[:, 0].tolist():
            self.results[self.members[k]].evaluations += 1
        if self.run.callback is not None and bool(accepted.any()):
            self._report(accepted, positions, cells, losses)

    def _report(
        self, accepted: torch.Tensor, positions: torch.Tensor, cells: torch.Tensor, losses: list[float]
    ) -> None:
        assert self.run.callback is not None
        index = self.prepared.batch.structure_index
        chosen = torch.nonzero(accepted)[:, 0].tolist()
        self.run.callback(
            StepReport(
                evaluation=self.evaluations,
                numbers=np.array([self.numbers[self.members[k]] for k in chosen]),
                steps=self.steps[accepted].cpu().numpy(),
                loss=np.array([losses[k] for k in chosen]),
                positions=[positions[index == k].detach().double().cpu().numpy() for k in chosen],
                cells=cells[accepted].detach().double().cpu().numpy(),
            )
        )

    def _converged(self) -> torch.Tensor:
        """Structures whose gradient or loss change is below the limit."""
        row_norm = torch.linalg.vector_norm(self.optimizer.gradient, dim=1)
        largest = torch.zeros_like(self.previous).scatter_reduce_(
            0, self.optimizer.structure_index, row_norm, "amax", include_self=True
        )
        small = (self.quiet >= QUIET_STEPS) | (largest <= self.settings.fmax)
        # Nothing has converged while there is noise still to come.
        settled = self.steps >= self.noise.n_iterations
        return self.running & self.optimizer.accepted & settled & (small | self.optimizer.stalled)

    def _hop(self, converged: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Displace what is out of reach in converged structures that have hops left; these go on."""
        if not self.settings.n_hops:
            return rows
        index = self.prepared.batch.structure_index
        best = self.best.origin(self.optimizer.structure_index)
        lost = (best.distance > self.hop_limit) & self.prepared.free & (converged & (self.hops_left > 0))[index]
        hopping = torch.zeros_like(self.running).index_fill_(0, index[lost], True)
        hopping &= self.steps < self.settings.max_steps
        if not bool(hopping.any()):
            return rows
        rows = torch.where(hopping[self.optimizer.structure_index][:, None], best.rows, rows)
        for k in torch.nonzero(hopping)[:, 0].tolist():
            own = torch.nonzero(index == k)[:, 0]
            moved = hop(
                rows[own].double().cpu(),
                lost[own].cpu(),
                # In a crystal an atom without neighbours in its own cell has some across the border.
                torch.inf if self.structures[self.members[k]].pbc.any() else self.run.database.descriptor.r_cut,
                self.settings.hop_length,
                self.generators[self.members[k]],
            )
            rows[own] = moved.to(rows)
        self.hops_left -= hopping.long()
        self.quiet[hopping] = 0
        converged &= ~hopping
        self.optimizer.forget(hopping)
        self.prepared.objective.search_anew(hopping)
        return rows

    def _return_to_best(self, converged: torch.Tensor, loss: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Take what noise left worse than it had been back, once: the best point that was passed is no minimum yet."""
        behind = converged & self.noisy & (loss > self.best.loss) & (self.steps < self.settings.max_steps)
        if not bool(behind.any()):
            return rows
        self.noisy &= ~behind
        self.quiet[behind] = 0
        converged &= ~behind
        self.optimizer.forget(behind)
        return torch.where(behind[self.optimizer.structure_index][:, None], self.best.state.rows, rows)

    def _judge(self, converged: torch.Tensor) -> int:
        """Finish the structures that have converged or may not go on; returns how many."""
        verdicts = [
            ("converged", converged & ~self.optimizer.stalled),
            ("max_steps", self.steps >= self.settings.max_steps),
            ("stalled", converged & self.optimizer.stalled),
        ]
        reason = self.run.stop_reason()
        if reason is not None:
            verdicts.append((reason, torch.ones_like(self.running)))
        finished = 0
        for status, mask in verdicts:
            for k in torch.nonzero(mask & self.running)[:, 0].tolist():
                self._finish(k, status)
                self.running[k] = False
                finished += 1
        return finished

    def _finish(self, k: int, status: str) -> None:
        member = self.members[k]
        result = self.results[member]
        if not torch.isfinite(self.best.loss[k]):
            self.results[member] = Relaxation(atoms=self.structures[member].copy(), error=NOT_FINITE)
            return
        best, result.loss, result.flags = self.best.outcome(k)
        if result.flags and status in ("converged", "max_steps"):
            status = "stalled"
        result.status, result.converged = status, status == "converged"
        result.steps = int(self.steps[k])
        atoms = self.prepared.batch.structure_index == k
        self.results[member] = self.run.finish(
            self.structures[member],
            best.positions[atoms].double().cpu().numpy(),
            best.cells[k].double().cpu().numpy(),
            best.distance[atoms].double().cpu().numpy(),
            best.environment[atoms].cpu().numpy(),
            result,
        )

    def _add_noise(self, rows: torch.Tensor) -> torch.Tensor:
        """Displace the atoms of structures that stepped, as Eq. 9 says, and let the optimiser start anew there."""
        if not self.noise.variance:
            return rows
        noisy = self.optimizer.accepted & self.running & (self.steps < self.noise.n_iterations)
        index = self.prepared.batch.structure_index
        rows = rows.clone()
        for k in torch.nonzero(noisy)[:, 0].tolist():
            atoms = torch.nonzero((index == k) & self.prepared.free)[:, 0]
            generator = self.generators[self.members[k]]
            sample = self.noise.sample((len(atoms), 3), int(self.steps[k]), generator, dtype=rows.dtype)
            rows[atoms] += sample.to(rows.device)
        if bool(noisy.any()):
            self.optimizer.forget(noisy)
        return rows

    def _compact(self, rows: torch.Tensor) -> torch.Tensor:
        """Leave finished structures out once there are enough of them."""
        n_running = int(self.running.sum())
        if n_running == len(self.members) or n_running > COMPACTION * len(self.members):
            return rows
        keep, atoms = self.running, self.running[self.prepared.batch.structure_index]
        row_mask = keep[self.prepared.dof.structure_index]
        rows = rows[row_mask]
        self.members = self.members[keep.cpu().numpy()]
        if not n_running:
            return rows
        self.optimizer.keep(keep)
        self.prepared.keep(keep)
        self.best.keep(keep, row_mask)
        self.sanity.keep(keep, atoms)
        self.hop_limit, self.hops_left, self.noisy = self.hop_limit[atoms], self.hops_left[keep], self.noisy[keep]
        self.steps, self.quiet, self.previous = self.steps[keep], self.quiet[keep], self.previous[keep]
        self.running = self.running[keep]
        return rows


def _in_lattice(start: Atoms, now: Atoms) -> Atoms:
    """The start in the lattice that it has by now."""
    if not start.pbc.any() or np.array_equal(start.cell.array, now.cell.array):
        return start
    mapped: Atoms = start.copy()
    mapped.set_constraint()
    mapped.set_cell(now.cell, scale_atoms=True)
    return mapped


def _seed(seed: int, number: int) -> int:
    """A seed for one structure, so that its noise does not depend on the others."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
