"""Settings of a relaxation, checked when they are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ase.data import chemical_symbols

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.core.files import to_jsonable
from aiida_losiko.core.optimizers import is_batched

_SYMBOLS = frozenset(chemical_symbols[1:])
# Beyond these, numbers overflow or a run never ends; nothing sensible is near them.
LARGEST = 1e6
_MOST = 10**9
_MOST_PROBES = 1000
_SLOWEST_DECAY = 1e-6


@dataclass(frozen=True)
class RelaxSettings:
    """How structures are relaxed.

    Attributes
    ----------
    optimizer : str
        `lbfgs` (batched, the default), `fire` (batched), or the name of a SciPy minimiser such as `Nelder-Mead`.
        To those of SciPy, which have a step control of their own, `relative_loss_tolerance`, `max_step_length`,
        `n_hops` and `batch_size` mean nothing, and noise is refused.
    max_steps : int
        Steps after which a structure is given back unconverged. In each stage of a learnt metric; one that was not done
        goes on to the next.
    fmax : float
        Converged when no gradient row of the loss is longer than this, in 1/Angstrom.
    loss_tolerance : float
        Converged when two steps in a row change the loss by less than this.
    relative_loss_tolerance : float
        Converged also when two steps in a row change the loss by less than this part of it: where a match is not exact,
        the last digits of the loss follow the differences between molecules, not the structure that is sought. Not
        for `fire`, whose steps are small for other reasons.
    max_step_length : float
        No atom moves further in one step, in Angstrom.
    kernel : str
        `distance` (Eq. 7, 8) or `polynomial` (Eq. 2, 6); with a learnt metric `distance` only.
    kernel_degree : float
        Degree d of the polynomial kernel.
    repulsion : float
        Strength of the repulsion between atoms that are closer than 0.8 of the shortest distance that the database has
        for their elements; it adds nothing to the loss of any other structure. Zero for Eq. 8 alone.
    cohesion : float
        Strength of what holds the bonds of a molecule's start when they are stretched beyond 1.25 times the sum of the
        covalent radii; it adds nothing to the loss of any other structure. Zero for Eq. 8 alone.
    restraint : float
        Strength of what holds atoms at their start, in units of the loss: an atom that is displaced by what is usual
        adds half of it for each coordinate; see `core.relaxation.restraint`. With a learnt metric only. Zero for none.
    parsimony : float
        Strength of the preference for few compounds: an environment of a source that hardly any other atom of the
        structure is like counts as further away; see `core.parsimony`. The structure is relaxed in three stages then:
        roughly and with the noise, roughly with the sources that it is like by then, and with the noise and without
        parsimony. With the kernel `distance` and without a learnt metric. Zero for none.
    curvature_probes : int
        With how many random draws `lbfgs` estimates the second derivatives of a structure that it begins with, in
        each stage; each costs about half an evaluation. Zero for none. Not where the cell is relaxed, nor for more
        than 200 atoms.
    weights : dict, optional
        The c_i of Eq. 8 by species, `{"H": 2.0}`; other species count one.
    relax_cell : bool
        Whether the lattice is relaxed with the positions, in its periodic directions.
    n_hops : int
        Basin hopping: how often a structure that converged with environments out of reach is displaced at random from
        the best one found, there alone, and relaxed again. In the last stage of a learnt metric.
    hop_length : float
        Standard deviation of those displacements, in Angstrom.
    noise_variance : float
        sigma_0^2 of Eq. 9, in Angstrom^2; zero for none.
    noise_decay : float
        alpha of Eq. 9, per step.
    seed : int
        Seed of all randomness.
    batch_size : int
        Structures that are worked on together.
    dtype : str
        `float64` or `float32`.
    device : str
        Where the work is done, as torch names it: `cpu`, `cuda`.
    """

    optimizer: str = "lbfgs"
    max_steps: int = 500
    fmax: float = 1e-4
    loss_tolerance: float = 1e-10
    relative_loss_tolerance: float = 0.0
    max_step_length: float = 0.1
    kernel: str = "distance"
    kernel_degree: float = 2.0
    repulsion: float = 1.0
    cohesion: float = 0.0
    restraint: float = 0.0
    parsimony: float = 0.0
    curvature_probes: int = 0
    weights: dict[str, float] | None = None
    relax_cell: bool = False
    n_hops: int = 0
    hop_length: float = 0.5
    noise_variance: float = 0.0
    noise_decay: float = 0.0
    seed: int = 0
    batch_size: int = 64
    dtype: str = "float64"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("max_steps", "n_hops", "seed", "batch_size", "curvature_probes"):
            self._check(name, is_whole(getattr(self, name)), "a whole number, zero or larger")
        for name in ("max_steps", "n_hops"):
            self._check(name, getattr(self, name) <= _MOST, f"at most {_MOST}")
        self._check("batch_size", self.batch_size >= 1, "1 or larger")
        self._check("curvature_probes", self.curvature_probes <= _MOST_PROBES, f"at most {_MOST_PROBES}")
        for name in (
            "fmax",
            "loss_tolerance",
            "relative_loss_tolerance",
            "repulsion",
            "cohesion",
            "restraint",
            "parsimony",
            "noise_variance",
            "noise_decay",
        ):
            self._check(name, is_real(getattr(self, name)) and getattr(self, name) >= 0, "a number, zero or larger")
        for name in ("max_step_length", "kernel_degree", "hop_length"):
            self._check(name, is_real(getattr(self, name)) and getattr(self, name) > 0, "a positive number")
        for name in (
            "repulsion",
            "cohesion",
            "restraint",
            "parsimony",
            "kernel_degree",
            "hop_length",
            "noise_variance",
        ):
            self._check(name, getattr(self, name) <= LARGEST, f"at most {LARGEST:g}")
        sound = self.noise_decay >= _SLOWEST_DECAY or not self.noise_variance
        self._check("noise_decay", sound, f"at least {_SLOWEST_DECAY:g} where there is noise, which would not end")
        weights = {} if self.weights is None else self.weights
        allowed = isinstance(weights, dict) and all(is_real(w) and 0 <= w <= LARGEST for w in weights.values())
        self._check("weights", allowed, f"a mapping of species to numbers from 0 to {LARGEST:g}, such as {{H: 2.0}}")
        unknown = [symbol for symbol in weights if symbol not in _SYMBOLS] if allowed else []
        self._check("weights", not unknown, f"a mapping of chemical symbols, which {unknown} is not")
        self._check("relax_cell", isinstance(self.relax_cell, bool), "true or false")
        self._check("dtype", self.dtype in ("float32", "float64"), "float32 or float64")
        self._check("kernel", self.kernel in ("distance", "polynomial"), "distance or polynomial")
        if not is_batched(self.optimizer) and self.noise_variance:
            raise LosikoError(
                f"noise_variance={self.noise_variance} cannot be used with the optimizer {self.optimizer}; "
                "choose lbfgs or fire, or set it to 0"
            )
        named = isinstance(self.device, str) and re.fullmatch(r"cpu|cuda(:\d{1,2})?", self.device) is not None
        self._check("device", named, "cpu, cuda or a numbered one such as cuda:1")

    def _check(self, name: str, allowed: bool, what: str) -> None:
        require(name, getattr(self, name), allowed, what)

    def check_device(self) -> None:
        """Raise a `LosikoError` unless torch finds the device on this machine."""
        import torch

        device = torch.device(self.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            found = torch.cuda.device_count() or "no"
            raise LosikoError(
                f"device={self.device!r} is not there: torch finds {found} CUDA devices; use device='cpu'"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        values: dict[str, Any] = to_jsonable(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RelaxSettings:
        """Make settings of plain values; an unknown name is a `LosikoError`, a missing one takes its default."""
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                hint = did_you_mean(key, names)
                raise LosikoError(f"relax setting {key!r} does not exist{hint}; allowed are: {', '.join(names)}")
        return cls(**dict(values))
