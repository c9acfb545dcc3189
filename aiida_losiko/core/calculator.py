"""The loss as an ASE calculator, so that ASE's optimisers, filters, constraints and dynamics work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective
from aiida_losiko.core.settings import RelaxSettings
from aiida_losiko.core.structures import check_structure

if TYPE_CHECKING:
    from ase import Atoms


class LosikoCalculator(Calculator):
    """ASE calculator whose energy is the loss of Eq. 8.

    With a learnt metric it is the loss of the last stage, whose targets are looked up anew at every calculation. The
    forces are those at held targets: where these are averages of several environments, which change with the
    structure, they are not the exact derivatives of the energy. Use `relax` for all stages.

    The energy has no unit; the forces are -d loss / d r in 1/Angstrom, the stress is d loss / d strain over the volume
    in 1/Angstrom^3. `results` also has `distances` and `environments`: how far the environment of each atom is from
    its match (of a learnt metric: from its target), and which one that is.

    Parameters
    ----------
    database : EnvironmentDatabase
        What is known.
    kernel, kernel_degree
        As in `RelaxSettings`.
    weights : dict, optional
        The c_i by species; others count one.
    repulsion : float
        As in `RelaxSettings`, whose default is 1; here zero, so that the energy is Eq. 8 and nothing else.
    device : str
        As torch names it.

    Raises
    ------
    LosikoError
        For a setting that is not allowed, and when it is asked about a structure that cannot be used.

    Examples
    --------
    >>> atoms.calc = LosikoCalculator(database)  # doctest: +SKIP
    >>> BFGS(atoms).run(fmax=1e-3)  # doctest: +SKIP
    """

    implemented_properties = [  # noqa: RUF012 (as ASE declares it)
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
    ]

    def __init__(
        self,
        database: EnvironmentDatabase,
        kernel: str = "distance",
        kernel_degree: float = 2,
        weights: dict[str, float] | None = None,
        repulsion: float = 0.0,
        device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        RelaxSettings(
            kernel=kernel, kernel_degree=kernel_degree, weights=weights, repulsion=repulsion, device=device
        ).check_device()
        self.database = database
        self._kernel, self._kernel_degree = kernel, kernel_degree
        self._weights = dict(weights or {})
        self._repulsion = repulsion
        self._device = device
        self._objective: LocalSimilarityObjective | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate loss and gradients; all properties come at once."""
        super().calculate(atoms, properties or ["energy"], system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        structure = self.atoms
        if self._objective is None or {"numbers", "pbc"} & set(system_changes):
            check_structure(structure, self.database.n_environments)
            self._objective = self._make_objective(structure)
        self._objective.search_anew(torch.ones(1, dtype=torch.bool, device=self._device))
        batch = StructureBatch.from_atoms([structure], device=self._device)
        evaluation = self._objective.evaluate(batch.positions, batch.cells)
        self.results = {
            "energy": float(evaluation.loss[0]),
            "free_energy": float(evaluation.loss[0]),
            "energies": evaluation.atom_loss.cpu().numpy(),
            "forces": -evaluation.gradient.cpu().numpy(),
            "distances": evaluation.distance.cpu().numpy(),
            "environments": evaluation.environment.cpu().numpy(),
        }
        if structure.cell.rank == 3 and structure.pbc.any():
            stress = evaluation.strain_gradient[0].cpu().numpy() / structure.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _make_objective(self, structure: Atoms) -> LocalSimilarityObjective:
        batch = StructureBatch.from_atoms([structure], device=self._device)
        weights = torch.tensor([float(self._weights.get(symbol, 1.0)) for symbol in structure.symbols])
        return LocalSimilarityObjective(
            batch,
            self.database,
            weights=weights.to(batch.positions),
            kernel=self._kernel,
            kernel_degree=self._kernel_degree,
            repulsion=self._repulsion,
        )
