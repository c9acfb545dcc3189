"""What a relaxation gives back: the structure, how it went, and where every atom's place came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.environments.database import EnvironmentDatabase


@dataclass
class Matches:
    """Which environment of the database each atom was matched to.

    Attributes
    ----------
    distance : ndarray, shape (n_atoms,)
        L2 distance of the normalised feature vectors; with a learnt metric the distance from the target in the metric
        of the last stage that was begun, in units of what is usual for an atom that is where it belongs.
    source : list of str
        Identifier of the structure that the environment was taken from, that of the nearest one where a target is an
        average.
    atom_index : ndarray of int, shape (n_atoms,)
        The atom in that structure.
    environment : ndarray of int, shape (n_atoms,)
        Position of the environment among those of the species in the database.
    out_of_reach : list of bool or None
        Whether the distance is larger than those that the database's own environments have when their structure is
        left out (`EnvironmentDatabase.reach`); None where the database is too small to tell.
    """

    distance: NDArray[np.float64]
    source: list[str]
    atom_index: NDArray[np.int64]
    environment: NDArray[np.int64]
    out_of_reach: list[bool | None]

    @classmethod
    def of(
        cls,
        symbols: list[str],
        distance: NDArray[np.float64],
        environment: NDArray[np.int64],
        database: EnvironmentDatabase,
    ) -> Matches:
        """Look up sources and reach of the environments that atoms of the given species were matched to."""
        reach = database.reach
        origins = [database.origins(symbol, int(index))[0] for symbol, index in zip(symbols, environment, strict=True)]
        limits = [reach.get(symbol) for symbol in symbols]
        return cls(
            distance=distance,
            source=[origin[0] for origin in origins],
            atom_index=np.array([origin[1] for origin in origins], dtype=np.int64),
            environment=environment,
            out_of_reach=[None if r is None else bool(d > r) for d, r in zip(distance, limits, strict=True)],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists by name."""
        return {
            "distance": self.distance.tolist(),
            "source": self.source,
            "atom_index": self.atom_index.tolist(),
            "environment": self.environment.tolist(),
            "out_of_reach": self.out_of_reach,
        }


NOT_FINITE = "the loss or its gradient is not finite at the start; check coordinates, cell and weights"


@dataclass
class Relaxation:
    """Result of one structure.

    Attributes
    ----------
    atoms : Atoms
        The structure of the lowest loss that was found, among the sane ones if there was one; as given where `status`
        is `error`.
    loss, initial_loss : float
        Eq. 8 (or its counterpart for the polynomial kernel); NaN where it was not evaluated,
        because of an error or because the time was over. With a learnt metric both are of the last stage that was
        begun, each of which has a loss of its own; that starts where the one before ended.
    converged : bool
        Whether the limits on gradient or loss change were reached, in the last stage of a learnt metric.
    status : str
        `converged`, `max_steps`, `stalled` (no step lowers the loss, or those that do lead to what is not sane),
        `max_seconds`, `interrupted` or `error`.
    steps, evaluations : int
        Steps that were taken, and evaluations of loss and gradient, in all stages.
    seconds : float
        Wall time of its batch, shared equally between the structures of the batch.
    flags : tuple of str
        Warnings on the structure: `collapsed` (atoms far closer than any pair in the database), `exploded_cell`
        (volume changed more than threefold), `lost_atoms` (an atom without neighbours within r_cut), `fragmented` (a
        molecule in more pieces than at the start; the pieces alone may match well). Where lower losses had one of the
        first three, the structure is the last sane one, and the flag is that of what lies beyond; a changed volume is
        no reason where every atom has found its match.
    error : str, optional
        Why the structure could not be done.
    loss_history : list of float
        Loss after each step, from the start on; with a learnt metric in the last stage that was begun.
    matches : Matches, optional
        The matched environment of each atom; None where nothing was evaluated.
    """

    atoms: Atoms
    loss: float = math.nan
    initial_loss: float = math.nan
    converged: bool = False
    status: str = "error"
    steps: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    flags: tuple[str, ...] = ()
    error: str | None = None
    loss_history: list[float] = field(default_factory=list)
    matches: Matches | None = None

    @property
    def n_out_of_reach(self) -> int:
        """Number of atoms whose environment is outside what the database knows."""
        return 0 if self.matches is None else sum(flag is True for flag in self.matches.out_of_reach)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the structure, as plain values that JSON can hold."""
        return {
            "loss": _finite(self.loss),
            "initial_loss": _finite(self.initial_loss),
            "converged": self.converged,
            "status": self.status,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "flags": list(self.flags),
            "error": self.error,
            "n_atoms": len(self.atoms),
            "n_out_of_reach": self.n_out_of_reach,
            "loss_history": [_finite(value) for value in self.loss_history],
            "matches": None if self.matches is None else self.matches.to_dict(),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
