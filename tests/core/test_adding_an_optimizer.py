"""One file and one line in the registry: `relax` works with an optimiser that the package has never seen."""

from __future__ import annotations

import sys
import types

import torch
from ase.build import molecule

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum, relax
from aiida_losiko.core.optimizers import BATCH_OPTIMIZERS
from aiida_losiko.core.optimizers.base import BatchOptimizer


class Descent(BatchOptimizer):
    """Steepest descent with a step that grows or shrinks: an optimiser as one adds it."""

    def _start(self):
        self._rate = torch.full_like(self._loss, 0.01)

    def _propose(self, x, loss, gradient):
        lower = self._fresh | (loss <= self._loss)
        self._rate = torch.where(lower, 1.2 * self._rate, 0.3 * self._rate)
        self._take(lower, x, loss, gradient)
        step = -self._gradient * self._segments.spread(self._rate)
        longest = self._segments.longest_row(step[None])[0].clamp(min=1e-30)
        return self._x + step * self._segments.spread((self.max_step_length / longest).clamp(max=1.0))

    def _keep(self, structures, rows):
        self._rate = self._rate[structures]


def test_an_optimiser_is_added_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "descent", types.SimpleNamespace(Descent=Descent))
    monkeypatch.setitem(BATCH_OPTIMIZERS, "descent", "descent:Descent")
    soap = SoapPowerSpectrum(["H", "O"], r_cut=4.0, n_max=4, l_max=4, sigma=0.25)
    database = EnvironmentDatabase.build([molecule("H2O")], soap, sources=["water"])
    starts = [molecule("H2O") for _ in range(3)]
    for seed, start in enumerate(starts):
        start.rattle(0.05, seed=seed)
    results = relax(starts, database, optimizer="descent", max_steps=2000)
    assert all(result.converged and result.loss < 1e-6 < result.initial_loss for result in results)
