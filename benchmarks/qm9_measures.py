"""What is measured of the structures that a contestant ended with, as one row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from aiida_losiko.core.metrics import angle_errors, bond_length_errors, rmsd, torsion_errors
from aiida_losiko.tools.tables import Column

#: Angstrom: RMSD of a wrong molecule, which a flag should tell, and of a right one, which it should not.
WRONG, RIGHT = 0.3, 0.1

COLUMNS = [
    Column("who", "structures"),
    Column("n", "n"),
    Column("mean", "RMSD", "mean, Å", ".4f"),
    Column("median", "", "median", ".4f"),
    Column("p95", "", "95 %", ".3f"),
    Column("far", "", "% > 0.5", ".1f"),
    Column("bond", "bonds", "MAE, Å", ".4f"),
    Column("angle", "angles", "MAE, °", ".2f"),
    Column("torsion", "torsions", "MAE, °", ".1f"),
    Column("seconds", "time", "s each", ".4f"),
    Column("unconverged", "unfinished", "%", ".1f"),
    Column("flagged", "flagged", "%", ".0f"),
    Column("caught", "of those", f"> {WRONG}", ".0f"),
    Column("alarmed", "", f"< {RIGHT}", ".0f"),
]


@dataclass(frozen=True)
class Row:
    """One contestant on one kind of start with one database.

    Attributes
    ----------
    start
        Letter of the start.
    database
        Number of molecules asked for; None where there is no database.
    who, role
        Name of the contestant, and what it is: start, peer, paper or losiko.
    identifiers
        Of the molecules, those that it could not do left out.
    rmsd, flagged
        By molecule: Angstrom, and whether it is doubtful by its own account (None for peers).
    values
        What the columns of the table show.
    """

    start: str
    database: int | None
    who: str
    role: str
    identifiers: list[str]
    rmsd: NDArray[np.float64]
    flagged: NDArray[np.bool_] | None
    values: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single molecules, JSON-able."""
        own = {"start": self.start, "database": self.database, "who": self.who, "role": self.role}
        return own | self.values


def measure(
    start: str, database: int | None, who: str, role: str, structures: list[Atoms], true: Mapping[str, Atoms]
) -> Row:
    """Compare structures with the truth.

    Parameters
    ----------
    start, database, who, role
        See `Row`.
    structures
        With ``info["identifier"]`` and, but for starts, what `qm9_study` and `qm9_losiko` keep.
    true
        The true molecules by identifier.
    """
    done = [atoms for atoms in structures if role in ("start", "losiko", "paper") or not atoms.info["error"]]
    pairs = [(atoms, true[atoms.info["identifier"]]) for atoms in done]
    error = np.array([rmsd(*pair) for pair in pairs])
    values: dict[str, Any] = {
        "n": len(done) if len(done) == len(structures) else f"{len(done)} of {len(structures)}",
        "mean": mean(error),
        "median": float(np.median(error)) if len(error) else None,
        "p95": float(np.percentile(error, 95)) if len(error) else None,
        "far": share(error > 0.5),
        "bond": mean(np.concatenate([bond_length_errors(*pair) for pair in pairs] or [[]])),
        "angle": mean(np.concatenate([angle_errors(*pair) for pair in pairs] or [[]])),
        "torsion": mean(np.concatenate([torsion_errors(*pair) for pair in pairs] or [[]])),
    }
    if role != "start":
        values["seconds"] = mean(np.array([atoms.info["seconds"] for atoms in done]))
        values["unconverged"] = share(np.array([not atoms.info["converged"] for atoms in done]))
    flags = None
    if role in ("paper", "losiko"):
        flags = np.array([atoms.info["flagged"] for atoms in done], dtype=bool)
        values |= {
            "flagged": share(flags),
            "caught": share(flags[error > WRONG]),
            "alarmed": share(flags[error < RIGHT]),
        }
    return Row(start, database, who, role, [a.info["identifier"] for a in done], error, flags, values)


def mean(values: NDArray[Any]) -> float | None:
    """Return the mean, None of nothing."""
    return float(values.mean()) if len(values) else None


def share(mask: NDArray[Any]) -> float | None:
    """Percent that are true, None of nothing."""
    return 100 * float(mask.mean()) if len(mask) else None
