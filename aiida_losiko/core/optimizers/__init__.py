"""Optimisers: each in one file, found by name in a registry.

Batched optimisers (``lbfgs``, ``fire``) are an init/update pair that knows nothing of what it minimises, see
`base.BatchOptimizer`. Every other name is a method of SciPy for one structure, see `scipy_methods.minimize_scipy`.
Nothing heavy is imported until an optimiser is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.optimizers.noise import NoiseSchedule
from aiida_losiko.core.optimizers.scipy_methods import SCIPY_METHODS, ScipyResult, minimize_scipy

if TYPE_CHECKING:
    from torch import Tensor

    from aiida_losiko.core.optimizers.base import BatchOptimizer

__all__ = [
    "BATCH_OPTIMIZERS",
    "SCIPY_METHODS",
    "NoiseSchedule",
    "ScipyResult",
    "is_batched",
    "make_optimizer",
    "minimize_scipy",
    "optimizer_names",
    "resolve_optimizer",
]

BATCH_OPTIMIZERS = {
    "lbfgs": "aiida_losiko.core.optimizers.lbfgs:LBFGS",
    "fire": "aiida_losiko.core.optimizers.fire:FIRE",
}
"""Where the batched optimisers are; a new one is a file and a line here."""


def optimizer_names() -> tuple[str, ...]:
    """All names that settings may give: the batched optimisers, then SciPy's methods."""
    return (*BATCH_OPTIMIZERS, *SCIPY_METHODS)


def resolve_optimizer(name: str) -> str:
    """Spelling in the registry of an optimiser's name, whatever its case.

    Raises
    ------
    LosikoError
        If there is no such optimiser; lists those that there are.
    """
    for known in optimizer_names():
        if isinstance(name, str) and known.lower() == name.lower():
            return known
    raise LosikoError(f"unknown optimizer {name!r}; choose one of {', '.join(optimizer_names())}")


def is_batched(name: str) -> bool:
    """Whether `make_optimizer` makes this optimiser; otherwise it is one for `minimize_scipy`."""
    return resolve_optimizer(name) in BATCH_OPTIMIZERS


def make_optimizer(
    name: str, structure_index: Tensor, n_structures: int, *, max_step_length: float, **options: Any
) -> BatchOptimizer:
    """Make a batched optimiser by name.

    Parameters
    ----------
    name : str
        A key of `BATCH_OPTIMIZERS`.
    structure_index, n_structures, max_step_length
        See `base.BatchOptimizer`.
    **options
        Further arguments of that optimiser.

    Raises
    ------
    LosikoError
        If the name or an option is unknown, or the name is that of a SciPy method.
    """
    resolved = resolve_optimizer(name)
    if resolved not in BATCH_OPTIMIZERS:
        raise LosikoError(
            f"optimizer {name!r} is a SciPy method for one structure, use minimize_scipy for it; "
            f"batched ones are {', '.join(BATCH_OPTIMIZERS)}"
        )
    module, _, attribute = BATCH_OPTIMIZERS[resolved].partition(":")
    optimizer_class: type[BatchOptimizer] = getattr(import_module(module), attribute)
    try:
        return optimizer_class(structure_index, n_structures, max_step_length=max_step_length, **options)
    except TypeError as error:
        raise LosikoError(f"optimizer {resolved!r} does not take these options: {error}") from error
