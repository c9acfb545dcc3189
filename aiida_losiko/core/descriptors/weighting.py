"""Weights of neighbours by distance, as DScribe defines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from aiida_losiko.core.checks import is_real, require
from aiida_losiko.core.errors import LosikoError

FUNCTIONS: dict[str, tuple[str, ...]] = {
    "poly": ("c", "m", "r0"),
    "pow": ("c", "d", "m", "r0"),
    "exp": ("c", "d", "r0"),
}


@dataclass(frozen=True)
class RadialWeighting:
    """Weight w(r) of a neighbour at distance r, and `w0` for the centre itself.

    `poly`: c (1 + 2 (r/r0)^3 - 3 (r/r0)^2)^m up to r0, zero beyond. `pow`: c / (d + (r/r0)^m).
    `exp`: c / (d + exp(-r/r0)), which grows with the distance, as DScribe has it. Distances in Angstrom.
    """

    function: str | None = None
    r0: float | None = None
    c: float | None = None
    d: float | None = None
    m: float | None = None
    w0: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> RadialWeighting:
        """Check the keys and values of a `weighting` mapping (None: every neighbour counts one)."""
        mapping = values is None or isinstance(values, Mapping)
        require("weighting", values, mapping, "a mapping such as {function: pow, c: 1, d: 1, m: 6, r0: 1.6}, or null")
        given = {key: value for key, value in (values or {}).items() if value is not None}
        function = given.get("function")
        if function is not None and function not in FUNCTIONS:
            raise LosikoError(f"weighting function {function!r} does not exist; choose one of: {', '.join(FUNCTIONS)}")
        needed = FUNCTIONS[function] if function is not None else ()
        allowed = {"function", "w0", *needed}
        for key in given:
            if key not in allowed:
                raise LosikoError(f"weighting has no parameter {key!r} here; allowed: {', '.join(sorted(allowed))}")
        for key in needed:
            if key not in given:
                raise LosikoError(f"weighting function {function!r} needs the parameter {key!r}")
        for key, value in given.items():
            if key == "function":
                continue
            wanted = "a positive number" if key == "r0" else "a number, zero or larger"
            enough = is_real(value) and (value > 0 or (value == 0 and key != "r0"))
            require(f"weighting parameter {key}", value, enough, wanted)
        numbers = {key: float(value) for key, value in given.items() if key != "function"}
        return cls(function=function, **numbers)

    def to_dict(self) -> dict[str, Any] | None:
        """The mapping that `from_dict` takes; None without any weighting."""
        return {key: value for key, value in asdict(self).items() if value is not None} or None

    def evaluate(self, squared: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Weights and their slopes by the squared distance.

        Parameters
        ----------
        squared : Tensor, shape (n,)
            Squared distances in Angstrom^2; exactly zero for a centre itself.

        Returns
        -------
        weight : Tensor, shape (n,), or None
            None stands for one everywhere.
        slope : Tensor, shape (n,), or None
            (dw/dr) / r, the factor of the vector in the gradient; zero at the centre, None for zero everywhere.
        """
        if self.function is None and self.w0 is None:
            return None, None
        at_center = squared == 0
        slope: torch.Tensor | None = None
        if self.function is None:
            weight = torch.ones_like(squared)
        else:
            r = torch.sqrt(torch.where(at_center, torch.ones_like(squared), squared))
            weight, derivative = self._function(torch.where(at_center, torch.zeros_like(r), r))
            slope = torch.where(at_center, torch.zeros_like(r), derivative / r)
        if self.w0 is not None:
            weight = torch.where(at_center, torch.full_like(weight, self.w0), weight)
        return weight, slope

    def _function(self, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and derivative at the distances `r`."""
        c, d, m, r0 = (0.0 if v is None else v for v in (self.c, self.d, self.m, self.r0))
        x = r / r0
        if self.function == "poly":
            base = torch.where(x <= 1, 1 + 2 * x**3 - 3 * x**2, torch.zeros_like(x)).clamp(min=0)
            weight = torch.where(x <= 1, c * base**m, torch.zeros_like(x))
            slope = c * m * base ** (m - 1) * 6 * (x**2 - x) / r0 if m else torch.zeros_like(x)
            return weight, torch.where(base > 0, slope, torch.zeros_like(x))
        if self.function == "pow":
            below = d + x**m
            return c / below, -c / below**2 * m * x ** (m - 1) / r0
        decay = torch.exp(-x)
        return c / (d + decay), c / (d + decay) ** 2 * decay / r0
