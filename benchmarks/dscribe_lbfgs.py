"""Relaxation of a molecule with SciPy's L-BFGS-B on DScribe's SOAP and its derivatives (scripts beside it use it)."""

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
    from dscribe.descriptors import SOAP

    atoms = start.copy()
    present = sorted(set(atoms.numbers.tolist()))
    elements = [atomic_numbers[symbol] for symbol in known.species] if all_elements else present
    columns = known.descriptor.columns(elements)
    part = slice(None) if columns is None else np.asarray(columns)
    soap = SOAP(rbf="gto", periodic=False, species=elements, dtype="float64", **deepcopy(parameters))  # it changes them
    # In the columns of these elements: the others are zero in the molecule's vectors.
    targets = {z: known.vectors(symbol).numpy()[:, part].astype(float) for symbol, z in _blocks(known) if z in present}

    def evaluate(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        atoms.positions = x.reshape(-1, 3)
        # (n_centres, n_atoms, 3, n_features)
        derivatives, features = soap.derivatives(atoms, method=method, attach=True, return_descriptor=True)
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / norms
        pull = np.empty_like(unit)
        for z in present:
            centres = np.flatnonzero(atoms.numbers == z)
            pull[centres] = targets[z][(unit[centres] @ targets[z].T).argmax(axis=1)]
        # |p - t|^2 = 2 - 2 p.t of unit vectors
        cosine = (unit * pull).sum(1, keepdims=True)
        slopes = -2 * (pull - cosine * unit) / norms
        gradient = np.tensordot(slopes, derivatives.transpose(0, 3, 1, 2), axes=2)
        return float((2 - 2 * cosine).sum()), gradient.ravel()

    return evaluate


def _blocks(known: EnvironmentDatabase) -> list[tuple[str, int]]:
    return [(symbol, atomic_numbers[symbol]) for symbol in known.n_environments]
