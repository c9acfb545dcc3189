"""Relaxation of molecules and crystals with SciPy's L-BFGS-B on DScribe's SOAP and its derivatives.

Scripts beside it use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_losiko.core import EnvironmentDatabase, Relaxation

STRAIN = 1e-4  # of the central differences that stand for derivatives which DScribe does not have


def relax_with_dscribe(
    start: Atoms, known: EnvironmentDatabase, parameters: dict[str, Any], ours: Relaxation, all_elements: bool
) -> tuple[float, int, float, str]:
    """Relax one molecule with SciPy on DScribe's derivatives, in as many evaluations as ours took.

    Returns
    -------
    loss, n_evaluations, seconds, method
        At the end; of processor time; the method of the derivatives.
    """
    from scipy.optimize import minimize

    method, evaluate = quickest_method(start, known, parameters, all_elements)
    first, _ = evaluate(start.positions.ravel())
    if abs(first - ours.initial_loss) > 1e-4 * ours.initial_loss:
        raise SystemExit(f"DScribe's loss {first} is not ours {ours.initial_loss}: nothing can be compared")
    options = {"maxfun": ours.evaluations, "maxiter": ours.evaluations, "ftol": 0.0, "gtol": 1e-4}
    begin = time.process_time()
    found = minimize(evaluate, start.positions.ravel(), jac=True, method="L-BFGS-B", options=options)
    return float(found.fun), int(found.nfev), time.process_time() - begin, method


def quickest_method(
    start: Atoms, known: EnvironmentDatabase, parameters: dict[str, Any], all_elements: bool
) -> tuple[str, Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]]:
    """The method of DScribe's derivatives that takes the least time for one loss and gradient, and these."""
    methods = ("numerical",) if "weighting" in parameters else ("analytical", "numerical")
    timed = {}
    for method in methods:
        evaluate = dscribe_loss(start, known, parameters, method, all_elements)
        evaluate(start.positions.ravel())
        begin = time.process_time()
        evaluate(start.positions.ravel())
        timed[method] = (time.process_time() - begin, evaluate)
    best = min(timed, key=lambda method: timed[method][0])
    return best, timed[best][1]


def dscribe_loss(
    start: Atoms, known: EnvironmentDatabase, parameters: dict[str, Any], method: str, all_elements: bool
) -> Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]:
    """Eq. 8 of one molecule and its gradient by DScribe, (3 n_atoms,) both ways."""
    atoms, loss = start.copy(), DScribeLoss(start, known, parameters, all_elements)

    def evaluate(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        atoms.positions = x.reshape(-1, 3)
        value, gradient = loss.with_gradient(atoms, method)
        return value, gradient.ravel()

    return evaluate


def relax_cell_with_dscribe(
    start: Atoms, known: EnvironmentDatabase, parameters: dict[str, Any], ours: Relaxation
) -> tuple[float, int, float]:
    """Relax one crystal and its cell with SciPy on DScribe's derivatives, in as many evaluations as ours took.

    What moves are the same rows as ours (`DegreesOfFreedom`). The derivatives in the strain are central differences.

    Returns
    -------
    loss, n_evaluations, seconds
        At the end; of processor time.
    """
    import torch
    from scipy.optimize import minimize

    from aiida_losiko.core.neighbors import StructureBatch
    from aiida_losiko.core.objective import Evaluation
    from aiida_losiko.core.relaxation.degrees_of_freedom import DegreesOfFreedom

    batch, loss, atoms = StructureBatch.from_atoms([start]), DScribeLoss(start, known, parameters, False), start.copy()
    freedom = DegreesOfFreedom(batch, True)
    first = freedom.start(batch.positions).numpy().ravel()

    def evaluate(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        rows = torch.as_tensor(x.reshape(-1, 3))
        positions, cells = freedom.unpack(rows)
        atoms.set_cell(cells[0].numpy())
        atoms.positions = positions.numpy()
        value, gradient = loss.with_gradient(atoms, "numerical")
        strain = torch.as_tensor(loss.strain_gradient(atoms))[None]
        nothing = torch.empty(0)
        evaluation = Evaluation(nothing, torch.as_tensor(gradient), strain, nothing, nothing, nothing)
        return value, freedom.gradient(rows, evaluation).numpy().ravel()

    value, _ = evaluate(first)
    if abs(value - ours.initial_loss) > 1e-4 * ours.initial_loss:
        raise SystemExit(f"DScribe's loss {value} is not ours {ours.initial_loss}: nothing can be compared")
    options = {"maxfun": ours.evaluations, "maxiter": ours.evaluations, "ftol": 0.0, "gtol": 1e-4}
    begin = time.process_time()
    found = minimize(evaluate, first, jac=True, method="L-BFGS-B", options=options)
    return float(found.fun), int(found.nfev), time.process_time() - begin


class DScribeLoss:
    """Eq. 8 of one structure by DScribe."""

    def __init__(
        self, start: Atoms, known: EnvironmentDatabase, parameters: dict[str, Any], all_elements: bool
    ) -> None:
        from dscribe.descriptors import SOAP

        self.numbers = start.numbers
        self.present = sorted(set(start.numbers.tolist()))
        elements = [atomic_numbers[symbol] for symbol in known.species] if all_elements else self.present
        columns = known.descriptor.columns(elements)
        part = slice(None) if columns is None else np.asarray(columns)
        # It changes its parameters.
        own = deepcopy(parameters)
        self.soap = SOAP(rbf="gto", periodic=bool(start.pbc.any()), species=elements, dtype="float64", **own)
        # In the columns of these elements: the others are zero in the structure's vectors.
        self.targets = {
            z: known.vectors(symbol).numpy()[:, part].astype(float) for symbol, z in _blocks(known) if z in self.present
        }

    def with_gradient(self, atoms: Atoms, method: str) -> tuple[float, NDArray[np.float64]]:
        """Loss and its gradient in the positions, (n_atoms, 3)."""
        # (n_centres, n_atoms, 3, n_features)
        derivatives, features = self.soap.derivatives(atoms, method=method, attach=True, return_descriptor=True)
        loss, slopes = self._of(features)
        return loss, np.tensordot(slopes, derivatives.transpose(0, 3, 1, 2), axes=2)

    def strain_gradient(self, atoms: Atoms) -> NDArray[np.float64]:
        """Derivatives (3, 3) in a strain, of which the loss sees the symmetric part alone."""
        gradient = np.zeros((3, 3))
        for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
            values = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += 0.5 * sign * STRAIN
                strain[j, i] += 0.5 * sign * STRAIN
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                values.append(self._of(self.soap.create(strained))[0])
            gradient[i, j] = gradient[j, i] = (values[0] - values[1]) / (2 * STRAIN)
        return gradient

    def _of(self, features: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Loss, and its slope in the features."""
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / norms
        pull = np.empty_like(unit)
        for z in self.present:
            centres = np.flatnonzero(self.numbers == z)
            pull[centres] = self.targets[z][(unit[centres] @ self.targets[z].T).argmax(axis=1)]
        # |p - t|^2 = 2 - 2 p.t of unit vectors
        cosine = (unit * pull).sum(1, keepdims=True)
        return float((2 - 2 * cosine).sum()), -2 * (pull - cosine * unit) / norms


def _blocks(known: EnvironmentDatabase) -> list[tuple[str, int]]:
    return [(symbol, atomic_numbers[symbol]) for symbol in known.n_environments]
