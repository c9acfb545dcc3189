"""GFN2-xTB energies and minima of molecules, by tblite (the extra `xtb`).

C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019). For molecules only: with three-dimensional
periodicity, silicon came out 10 % too large.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.units import Bohr, Hartree, kB
from numpy.typing import NDArray

from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.core.xtb_electrons import check_electrons

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["METHOD", "RELAX", "SINGLE_POINT", "XtbResult", "XtbSettings", "run_xtb"]

METHOD = "GFN2-xTB"
SINGLE_POINT, RELAX = TASKS = ("single_point", "relax")
_OPTIMIZERS = {"bfgs": "BFGS", "lbfgs": "LBFGS", "fire": "FIRE"}


@dataclass(frozen=True)
class XtbSettings:
    """What is computed, and how.

    Attributes
    ----------
    task : str
        `relax` or `single_point`.
    charge : int
        Of each molecule, in e.
    multiplicity : int, optional
        2S+1 of each molecule; None for the lowest one, 1 or 2.
    accuracy : float
        Factor on the thresholds of tblite.
    max_iterations : int
        Of the electrons at each geometry.
    electronic_temperature : float
        K.
    optimizer : str
        `bfgs`, `lbfgs` or `fire`, of ASE.
    fmax : float
        A geometry is converged when no force is larger, in eV/Angstrom.
    max_steps : int
        Steps after which a molecule is given back unconverged.
    orbitals : bool
        Whether to give the orbitals of the last geometry, with the share of each element.
    """

    task: str = RELAX
    charge: int = 0
    multiplicity: int | None = None
    accuracy: float = 1.0
    max_iterations: int = 250
    electronic_temperature: float = 300.0
    optimizer: str = "bfgs"
    fmax: float = 0.01
    max_steps: int = 500
    orbitals: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        require("task", self.task, self.task in TASKS, " or ".join(TASKS))
        whole = isinstance(self.charge, int) and not isinstance(self.charge, bool) and abs(self.charge) <= 100
        require("charge", self.charge, whole, "a whole number from -100 to 100")
        allowed = self.multiplicity is None or is_whole(self.multiplicity, 1)
        require("multiplicity", self.multiplicity, allowed, "a whole number of 1 or larger, or none for the lowest one")
        require("max_iterations", self.max_iterations, is_whole(self.max_iterations, 1), "a whole number from 1")
        require("max_steps", self.max_steps, is_whole(self.max_steps), "a whole number, zero or larger")
        for name in ("accuracy", "electronic_temperature", "fmax"):
            value = getattr(self, name)
            require(name, value, is_real(value) and value > 0, "a positive number")
        require("optimizer", self.optimizer, self.optimizer in _OPTIMIZERS, f"one of {', '.join(_OPTIMIZERS)}")
        require("orbitals", self.orbitals, isinstance(self.orbitals, bool), "true or false")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> XtbSettings:
        """Make settings of plain values; an unknown name is a `LosikoError`, a missing one takes its default."""
        names = [each.name for each in fields(cls)]
        for key in values:
            if key not in names:
                hint = did_you_mean(key, names)
                raise LosikoError(f"xtb setting {key!r} does not exist{hint}; allowed are: {', '.join(names)}")
        return cls(**dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


@dataclass
class XtbResult:
    """Where one molecule ended.

    Attributes
    ----------
    atoms : ase.Atoms
        The last geometry (Angstrom); the start where nothing was computed.
    status : str
        `converged`, `max_steps`, `max_seconds`, `interrupted` or `error`.
    energy : float, optional
        Total energy at that geometry, eV; None where there is none.
    gap : float, optional
        Between the highest occupied and the lowest empty orbital, eV; None for molecules with unpaired electrons.
    largest_force : float, optional
        eV/Angstrom.
    steps : int
        Steps of the relaxation.
    error : str, optional
        Why there is no energy.
    orbitals : dict, optional
        `energies` (n,) in eV, `occupations` (n,), `shares` by element (n,), which add up to one.
    """

    atoms: Atoms
    status: str
    energy: float | None = None
    gap: float | None = None
    largest_force: float | None = None
    steps: int = 0
    error: str | None = None
    orbitals: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, without the geometry."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "atoms"}


def run_xtb(
    structures: Sequence[Atoms],
    settings: XtbSettings | None = None,
    *,
    max_seconds: float | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[XtbResult]:
    """Compute energies, or minima, of molecules with GFN2-xTB.

    Parameters
    ----------
    structures
        Molecules. They are not changed.
    settings
        Default: a relaxation.
    max_seconds
        After which what is not done is given back as it is then, with the status `max_seconds`.
    should_stop
        Asked at each step; likewise, with the status `interrupted`.

    Returns
    -------
    list of XtbResult
        In order. What goes wrong with a molecule is its `error`, the others are done.

    Raises
    ------
    LosikoError
        If tblite is not installed.
    """
    try:
        import tblite.interface  # noqa: F401
    except ImportError as error:
        raise LosikoError(
            f"{METHOD} needs the package tblite ({error}): pip install 'aiida-losiko[xtb]' where this runs"
        ) from None
    settings = settings or XtbSettings()
    end = None if max_seconds is None else time.monotonic() + max_seconds

    def stopped() -> str | None:
        if should_stop is not None and should_stop():
            return "interrupted"
        return "max_seconds" if end is not None and time.monotonic() > end else None

    return [_run_one(atoms, settings, stopped) for atoms in structures]


def _run_one(start: Atoms, settings: XtbSettings, stopped: Callable[[], str | None]) -> XtbResult:
    atoms = start.copy()
    if (status := stopped()) is not None:
        return XtbResult(atoms, status)
    try:
        if atoms.pbc.any():
            raise LosikoError(f"{atoms.get_chemical_formula()} is periodic: {METHOD} is offered for molecules only")
        return _minimise(atoms, settings, stopped)
    except Exception as error:  # whatever the program of others raises is a molecule that it could not do
        lines = (str(error).strip() or type(error).__name__).split("\n")
        return XtbResult(start.copy(), "error", error=" ".join(lines[-1].split())[:300])


def _minimise(atoms: Atoms, settings: XtbSettings, stopped: Callable[[], str | None]) -> XtbResult:
    _check_electrons(atoms, settings)
    atoms.calc = _calculator(settings)
    status, steps = _walk(atoms, settings, stopped) if settings.task == RELAX else ("converged", 0)
    energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
    wave = atoms.calc._res
    gap = _gap(wave.get("orbital-energies") * Hartree, wave.get("orbital-occupations"))
    atoms.calc = None
    largest = float(np.linalg.norm(forces, axis=1).max())
    orbitals = _orbitals(atoms, settings) if settings.orbitals else None
    return XtbResult(atoms, status, energy, gap, largest, steps, orbitals=orbitals)


def _walk(atoms: Atoms, settings: XtbSettings, stopped: Callable[[], str | None]) -> tuple[str, int]:
    """Move the atoms to the minimum; return the status and the number of steps."""
    import ase.optimize

    optimizer = getattr(ase.optimize, _OPTIMIZERS[settings.optimizer])(atoms, logfile=None)
    converged = False
    for converged in optimizer.irun(fmax=settings.fmax, steps=settings.max_steps):
        if not converged and (reason := stopped()) is not None:
            return reason, int(optimizer.nsteps)
    return "converged" if converged else "max_steps", int(optimizer.nsteps)


def _calculator(settings: XtbSettings) -> Any:
    from tblite.ase import TBLite

    return TBLite(
        method=METHOD,
        charge=settings.charge,
        multiplicity=settings.multiplicity,
        accuracy=settings.accuracy,
        max_iterations=settings.max_iterations,
        electronic_temperature=settings.electronic_temperature,
        verbosity=0,
    )


def _check_electrons(atoms: Atoms, settings: XtbSettings) -> None:
    """Refuse a number of electrons that cannot be, before tblite is given it."""
    from tblite.interface import Calculator

    if settings.charge == 0 and settings.multiplicity is None:
        return
    orbitals = len(Calculator(METHOD, atoms.numbers, atoms.positions / Bohr).get("orbital-map"))
    check_electrons(atoms, settings.charge, settings.multiplicity, orbitals)


def _gap(energies: NDArray[np.float64], occupations: NDArray[np.float64]) -> float | None:
    """Return the gap in the unit of the energies; None for unpaired electrons and where no orbital is empty."""
    order = np.argsort(energies)
    filled, levels = occupations[order] > 1.0, energies[order]
    unpaired = (np.abs(occupations - 1.0) < 0.5).any()
    if unpaired or filled.all() or not filled.any():
        return None
    return max(float(levels[~filled].min() - levels[filled].max()), 0.0)


def _orbitals(atoms: Atoms, settings: XtbSettings) -> dict[str, Any]:
    """Return orbitals with Mulliken's share of each element, from a calculation that keeps the overlap matrix."""
    from tblite.interface import Calculator

    uhf = None if settings.multiplicity is None else settings.multiplicity - 1
    calculator = Calculator(METHOD, atoms.numbers, atoms.positions / Bohr, settings.charge, uhf)
    values = {
        "verbosity": 0,
        "save-integrals": 1,
        "accuracy": settings.accuracy,
        "max-iter": settings.max_iterations,
        "temperature": settings.electronic_temperature * kB / Hartree,
    }
    for name, value in values.items():
        calculator.set(name, value)
    wave = calculator.singlepoint()
    coefficients, overlap = wave.get("orbital-coefficients"), wave.get("overlap-matrix")
    # tblite's matrices are those of Fortran: which index is the orbital is told by what they are normalised to.
    if not np.allclose(np.einsum("mi,mn,ni->i", coefficients, overlap, coefficients), 1.0, atol=1e-4):
        coefficients = coefficients.T
    populations = coefficients * (overlap @ coefficients)
    owner = atoms.numbers[calculator.get("shell-map")[calculator.get("orbital-map")]]
    symbols = dict(zip(atoms.numbers.tolist(), atoms.get_chemical_symbols(), strict=True))
    return {
        "energies": (wave.get("orbital-energies") * Hartree).tolist(),
        "occupations": wave.get("orbital-occupations").tolist(),
        "shares": {symbols[z]: populations[owner == z].sum(axis=0).tolist() for z in sorted(symbols)},
    }
