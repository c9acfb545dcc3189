"""SciPy's minimisers by name for one structure, among them the Nelder-Mead simplex of the LOSIKO paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError

Array = NDArray[np.float64]

_X_TOLERANCE = 1e-6
"""Change of coordinates (Angstrom) below which methods without gradients may stop."""

_DERIVATIVE_FREE = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
_WITH_GRADIENT = ("BFGS", "L-BFGS-B", "CG", "TNC", "SLSQP", "Newton-CG", "trust-constr")
SCIPY_METHODS = (*_DERIVATIVE_FREE, *_WITH_GRADIENT)
"""Methods of `scipy.optimize.minimize` that need no second derivatives."""


@dataclass
class ScipyResult:
    """What a SciPy method found.

    Attributes
    ----------
    x : ndarray, shape (n,)
        The best coordinates seen, not only the last (Angstrom).
    loss : float
        Loss there.
    n_iterations, n_evaluations : int
        Iterations of the method, evaluations of the loss.
    converged : bool
        Whether the method met its criteria, or the gradient at `x` is below ``fmax``.
    stopped : bool
        Whether ``should_stop`` ended it.
    message : str
        SciPy's words for why it ended.
    """

    x: Array
    loss: float
    n_iterations: int
    n_evaluations: int
    converged: bool
    stopped: bool
    message: str


class _StopError(Exception):
    """Leaves SciPy's loop; the best point is kept by `_Recorder`."""


class _Recorder:
    """The function that SciPy sees: counts, remembers the best point, asks whether to stop, hides infinities."""

    def __init__(
        self,
        evaluate: Callable[[Array], tuple[float, Array]],
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._evaluate, self._should_stop = evaluate, should_stop
        self.n_evaluations = 0
        self.n_iterations = 0
        self.x: Array | None = None
        self.loss = math.inf
        self.gradient: Array | None = None
        self._worst = -math.inf

    def __call__(self, x: Array) -> tuple[float, Array]:
        if self.x is not None and self._should_stop is not None and self._should_stop():
            raise _StopError
        self.n_evaluations += 1
        value, slopes = self._evaluate(x)
        loss, gradient = float(value), np.asarray(slopes, dtype=np.float64)
        if not math.isfinite(loss) or not np.all(np.isfinite(gradient)):
            if self.x is None:
                raise LosikoError(f"the loss is {loss} at the start or its gradient is not finite; check the structure")
            # Line searches interpolate: a high finite value sends them back, nan or inf would end them.
            return self._worst + 10.0 * abs(self._worst) + 1.0, np.zeros_like(x)
        self._worst = max(self._worst, loss)
        if loss < self.loss:
            self.x, self.loss, self.gradient = x.copy(), loss, gradient
        return loss, gradient


def minimize_scipy(
    method: str,
    evaluate: Callable[[Array], tuple[float, Array]],
    x0: Array,
    *,
    max_steps: int,
    fmax: float,
    loss_tolerance: float,
    callback: Callable[[int, Array, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ScipyResult:
    """Minimise the loss of one structure with a method of `scipy.optimize.minimize`.

    The settings mean to each method:

    ==================  ==================  ====================================  ==================================
    method              ``max_steps``       ``fmax``                              ``loss_tolerance``
    ==================  ==================  ====================================  ==================================
    Nelder-Mead         maxiter             (no gradient)                         fatol, with xatol 1e-6 Angstrom
    Powell              maxiter             (no gradient)                         ftol (relative), xtol 1e-6
    COBYLA, COBYQA      maxiter (COBYLA:    (no gradient)                         none; final trust radius 1e-6
                        evaluations, n + 2
                        at least)
    BFGS, CG            maxiter             gtol                                  none
    L-BFGS-B            maxiter             gtol                                  ftol (relative above loss 1)
    TNC                 maxfun              gtol                                  ftol
    SLSQP               maxiter             (checked at the end)                  ftol
    Newton-CG           maxiter             (checked at the end)                  none; xtol 1e-6
    trust-constr        maxiter             gtol                                  none; xtol 1e-8
    ==================  ==================  ====================================  ==================================

    SciPy's ``gtol`` bounds the largest component; it is given fmax / sqrt(3), which bounds the length of each row.

    Parameters
    ----------
    method : str
        One of `SCIPY_METHODS`, in any case.
    evaluate : callable
        Coordinates (n,) to loss and gradient (n,).
    x0 : ndarray, shape (n,)
        Start (Angstrom).
    max_steps : int
        Largest number of iterations.
    fmax : float
        Largest gradient of a row at convergence (loss / Angstrom).
    loss_tolerance : float
        Change of the loss per step at convergence.
    callback : callable, optional
        Called after each iteration with its number from 1, the best coordinates and the best loss until then.
    should_stop : callable, optional
        Asked before each evaluation; True ends the search, and the best point is returned.

    Raises
    ------
    LosikoError
        If the method is unknown, or the start has no finite loss.
    """
    resolved = next((known for known in SCIPY_METHODS if known.lower() == str(method).lower()), None)
    if resolved is None:
        raise LosikoError(f"unknown SciPy method {method!r}; choose one of {', '.join(SCIPY_METHODS)}")
    derivative_free = resolved in _DERIVATIVE_FREE
    recorder = _Recorder(evaluate, should_stop)
    options = _options(resolved, len(x0), max_steps, fmax, loss_tolerance)
    success, message, stopped = _run(resolved, recorder, x0, options, callback)
    if recorder.x is None:
        raise LosikoError(f"{resolved} made no evaluation in max_steps {max_steps}; allow at least one step")
    small = False
    if recorder.gradient is not None and not derivative_free:
        rows = recorder.gradient.reshape(-1, 3) if recorder.gradient.size % 3 == 0 else recorder.gradient[:, None]
        small = bool(np.linalg.norm(rows, axis=1).max() <= fmax)
    return ScipyResult(
        x=recorder.x,
        loss=recorder.loss,
        n_iterations=recorder.n_iterations,
        n_evaluations=recorder.n_evaluations,
        converged=small or (success and not stopped),
        stopped=stopped,
        message=message,
    )


def _run(
    method: str,
    recorder: _Recorder,
    x0: Array,
    options: dict[str, Any],
    callback: Callable[[int, Array, float], None] | None,
) -> tuple[bool, str, bool]:
    """Run SciPy; whether it succeeded, its message, and whether it was stopped."""
    from scipy.optimize import minimize

    def on_iteration(x: Array, *_: object) -> None:
        recorder.n_iterations += 1
        if callback is not None and recorder.x is not None:
            callback(recorder.n_iterations, recorder.x, recorder.loss)

    derivative_free = method in _DERIVATIVE_FREE
    function = (lambda x: recorder(x)[0]) if derivative_free else recorder
    start = np.array(x0, dtype=np.float64)
    try:
        result = minimize(
            function, start, jac=not derivative_free, method=method, callback=on_iteration, options=options
        )
    except _StopError:
        return False, "stopped by the caller", True
    recorder.n_iterations = int(result.get("nit", recorder.n_iterations))
    return bool(result.success), str(result.message), False


def _options(method: str, n: int, max_steps: int, fmax: float, loss_tolerance: float) -> dict[str, Any]:
    """SciPy's options for the settings and `n` coordinates; the table is in `minimize_scipy`."""
    gtol = fmax / math.sqrt(3.0)
    by_method: dict[str, dict[str, Any]] = {
        "Nelder-Mead": {"maxiter": max_steps, "fatol": loss_tolerance, "xatol": _X_TOLERANCE},
        "Powell": {"maxiter": max_steps, "ftol": loss_tolerance, "xtol": _X_TOLERANCE},
        "COBYLA": {"maxiter": max(max_steps, n + 2), "tol": _X_TOLERANCE, "rhobeg": 0.1},
        "COBYQA": {"maxiter": max_steps, "final_tr_radius": _X_TOLERANCE, "initial_tr_radius": 0.1},
        "BFGS": {"maxiter": max_steps, "gtol": gtol},
        "CG": {"maxiter": max_steps, "gtol": gtol},
        "L-BFGS-B": {"maxiter": max_steps, "maxfun": 20 * max_steps + 20, "gtol": gtol, "ftol": loss_tolerance},
        "TNC": {"maxfun": max_steps, "gtol": gtol, "ftol": loss_tolerance},
        "SLSQP": {"maxiter": max_steps, "ftol": loss_tolerance},
        "Newton-CG": {"maxiter": max_steps, "xtol": _X_TOLERANCE},
        "trust-constr": {"maxiter": max_steps, "gtol": gtol, "xtol": 1e-8},
    }
    return by_method[method]
