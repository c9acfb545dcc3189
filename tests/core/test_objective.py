"""The loss and its gradients in positions, strain and degrees of freedom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from aiida_losiko.core import EnvironmentDatabase, LosikoError, SoapPowerSpectrum
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective
from aiida_losiko.core.relaxation.degrees_of_freedom import DegreesOfFreedom


def rattled(atoms: Atoms, size: float = 0.15, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def molecules() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["H", "C", "O"], r_cut=4.0, n_max=4, l_max=3, sigma=0.35)
    return EnvironmentDatabase.build([molecule(n) for n in ("CH3OH", "H2O", "CH3CHO")], soap, dtype="float64")


@pytest.fixture(scope="module")
def crystals() -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["Al", "Si"], r_cut=3.6, n_max=4, l_max=3, sigma=0.4)
    return EnvironmentDatabase.build([bulk("Si"), bulk("Al"), bulk("Si", "bct", a=4.9, c=2.6)], soap, dtype="float64")


def objective_of(structures: list[Atoms], database: EnvironmentDatabase, **options: object) -> LocalSimilarityObjective:
    return LocalSimilarityObjective(StructureBatch.from_atoms(structures), database, **options)  # type: ignore[arg-type]


def by_hand(atoms: Atoms, database: EnvironmentDatabase) -> np.ndarray:
    """Eq. 7 from DScribe's vectors and all environments, without any of the code under test."""
    from dscribe.descriptors import SOAP

    settings = {k: v for k, v in database.descriptor.parameters.items() if k not in ("name", "weighting")}
    vectors = SOAP(periodic=bool(atoms.pbc.any()), **settings).create(atoms)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.array(
        [
            ((database.vectors(symbol).numpy() - vector) ** 2).sum(1).min()
            for symbol, vector in zip(atoms.symbols, vectors, strict=True)
        ]
    )


def test_loss_is_eq_8(molecules: EnvironmentDatabase, crystals: EnvironmentDatabase) -> None:
    structures = [rattled(molecule("CH3OH")), rattled(molecule("H2O")), rattled(molecule("CH3CH2OH"))]
    objective = objective_of(structures, molecules)
    evaluation = objective.evaluate(objective.batch.positions)
    expected = [by_hand(atoms, molecules) for atoms in structures]
    assert evaluation.loss.numpy() == pytest.approx([e.sum() for e in expected], rel=1e-9)
    assert evaluation.atom_loss.numpy() == pytest.approx(np.concatenate(expected), rel=1e-8)
    assert evaluation.distance.numpy() ** 2 == pytest.approx(np.concatenate(expected), rel=1e-8)
    cell = rattled(bulk("Si", cubic=True))
    periodic = objective_of([cell], crystals)
    loss = periodic.evaluate(periodic.batch.positions).loss
    assert float(loss[0]) == pytest.approx(by_hand(cell, crystals).sum(), rel=1e-9)


def test_loss_of_a_known_structure_is_zero(molecules: EnvironmentDatabase) -> None:
    water = molecule("H2O")
    water.rotate(35, (1, 2, 3))
    objective = objective_of([water], molecules)
    evaluation = objective.evaluate(objective.batch.positions)
    assert float(evaluation.loss[0]) < 1e-20
    assert evaluation.gradient.abs().max() < 1e-9


def test_weights_and_polynomial_kernel(molecules: EnvironmentDatabase) -> None:
    atoms = rattled(molecule("CH3OH"))
    distances = by_hand(atoms, molecules)
    weights = np.array([0.0, 2.0, 1.0, 0.5, 3.0, 1.0])
    weighted = objective_of([atoms], molecules, weights=torch.as_tensor(weights))
    assert float(weighted.evaluate(weighted.batch.positions).loss[0]) == pytest.approx(weights @ distances, rel=1e-9)
    kernel = objective_of([atoms], molecules, weights=torch.as_tensor(weights), kernel="polynomial", kernel_degree=3)
    # Eq. 6 with p.t = 1 - D/2; the loss is what the similarity of Eq. 2 lacks to its largest value.
    expected = weights @ (1 - (1 - distances / 2) ** 3)
    assert float(kernel.evaluate(kernel.batch.positions).loss[0]) == pytest.approx(expected, rel=1e-9)


CASES = {
    "distance": {},
    "polynomial": {"kernel": "polynomial", "kernel_degree": 2.5},
    "weights": {"weights": "random"},
    "repulsion": {"repulsion": 2.0},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_gradients_equal_finite_differences(kind: str, options: dict, request: pytest.FixtureRequest) -> None:
    database = request.getfixturevalue(kind)
    if kind == "molecules":
        structures = [rattled(molecule("CH3OH"), 0.1), rattled(molecule("CH3CH2OH"), 0.1, 1)]
    else:
        slab = fcc111("Al", (1, 2, 2), vacuum=5.0)
        slab.pbc = (True, True, False)
        structures = [rattled(bulk("Si"), 0.1), rattled(slab, 0.1, 1), rattled(bulk("Si", cubic=True), 0.1, 2)]
    if "repulsion" in options:
        structures[0].positions[1] = structures[0].positions[0] + [0.2, 0.3, 0.4]
    options = dict(options)
    if options.get("weights") == "random":
        n_atoms = sum(len(atoms) for atoms in structures)
        options["weights"] = torch.as_tensor(np.random.default_rng(3).uniform(0, 2, n_atoms))
    objective = objective_of(structures, database, **options)
    positions, cells = objective.batch.positions.clone(), objective.batch.cells.clone()
    index = objective.batch.structure_index
    evaluation = objective.evaluate(positions, cells)
    assert evaluation.loss.min() > 1e-7
    rng = np.random.default_rng(4)
    step = 1e-5
    for _ in range(3):
        shift = torch.as_tensor(rng.normal(size=positions.shape))
        plus = objective.evaluate(positions + step * shift, cells).loss
        minus = objective.evaluate(positions - step * shift, cells).loss
        analytic = torch.zeros(len(structures), dtype=torch.float64)
        analytic.index_add_(0, index, (evaluation.gradient * shift).sum(1))
        assert analytic.numpy() == pytest.approx(((plus - minus) / 2 / step).numpy(), rel=1e-5, abs=1e-7)
        # A strain moves atoms and cell together; directions without periodicity have nothing to strain but atoms.
        strain = torch.as_tensor(rng.normal(size=(len(structures), 3, 3)))
        losses = []
        for sign in (1, -1):
            deformation = torch.eye(3, dtype=torch.float64) + sign * step * strain
            strained = torch.einsum("aij,aj->ai", deformation[index], positions)
            losses.append(objective.evaluate(strained, cells @ deformation.transpose(1, 2)).loss)
        analytic = (evaluation.strain_gradient * strain).sum((1, 2))
        assert analytic.numpy() == pytest.approx(((losses[0] - losses[1]) / 2 / step).numpy(), rel=1e-5, abs=1e-7)


def test_gradient_of_cell_rows_equals_finite_differences(crystals: EnvironmentDatabase) -> None:
    slab = fcc111("Al", (1, 2, 2), vacuum=5.0)
    slab.pbc = (True, True, False)
    structures = [rattled(bulk("Si"), 0.1), rattled(slab, 0.1)]
    objective = objective_of(structures, crystals)
    dof = DegreesOfFreedom(objective.batch, relax_cell=True)
    rows = dof.start(objective.batch.positions)
    rng = np.random.default_rng(5)
    # The slab's third direction is not periodic: its cell rows move within the plane only.
    flat = rows.new_tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    rows = rows + torch.as_tensor(rng.normal(0, 0.02, rows.shape)) * torch.cat([torch.ones_like(rows[:-3]), flat])

    def loss(at: torch.Tensor) -> torch.Tensor:
        return objective.evaluate(*dof.unpack(at)).loss

    gradient = dof.gradient(rows, objective.evaluate(*dof.unpack(rows)))
    assert (gradient[-3:] * (1 - flat)).abs().max() < 1e-8
    step = 1e-5
    for _ in range(3):
        shift = torch.as_tensor(rng.normal(size=rows.shape))
        shift[-3:] *= flat
        numeric = (loss(rows + step * shift) - loss(rows - step * shift)) / 2 / step
        per_row = (gradient * shift).sum(1)
        analytic = torch.zeros(2, dtype=torch.float64).index_add_(0, dof.structure_index, per_row)
        assert analytic.numpy() == pytest.approx(numeric.numpy(), rel=1e-5, abs=1e-7)


def test_structures_do_not_depend_on_their_batch(molecules: EnvironmentDatabase) -> None:
    names = ("CH3OH", "H2O", "CH3CH2OH", "CH3CHO", "CH4", "C2H6")
    structures = [rattled(molecule(name), 0.1, seed) for seed, name in enumerate(names)]
    together = objective_of(structures, molecules)
    evaluation = together.evaluate(together.batch.positions)
    for k, atoms in enumerate(structures):
        alone = objective_of([atoms], molecules)
        own = alone.evaluate(alone.batch.positions)
        assert float(own.loss[0]) == pytest.approx(float(evaluation.loss[k]), rel=1e-12)
        part = evaluation.gradient[together.batch.structure_index == k]
        assert torch.allclose(own.gradient, part, rtol=1e-10, atol=1e-12)


def test_keep_goes_on_with_a_part(molecules: EnvironmentDatabase) -> None:
    structures = [rattled(molecule(name), 0.1) for name in ("CH3OH", "H2O", "CH3CHO")]
    objective = objective_of(structures, molecules)
    before = objective.evaluate(objective.batch.positions).loss
    objective.keep(torch.tensor([True, False, True]))
    after = objective.evaluate(objective.batch.positions).loss
    assert torch.allclose(after, before[[0, 2]], rtol=1e-12)


def test_neighbour_lists_follow_large_moves(molecules: EnvironmentDatabase) -> None:
    atoms = rattled(molecule("CH3CH2OH"), 0.1)
    objective = objective_of([atoms], molecules)
    positions = objective.batch.positions
    objective.evaluate(positions)
    for scale in (1.3, 0.7, 2.5, 1.0):
        moved = objective.evaluate(positions * scale)
        fresh = objective_of([atoms], molecules).evaluate(positions * scale)
        assert torch.allclose(moved.loss, fresh.loss, rtol=1e-12)
        assert torch.allclose(moved.gradient, fresh.gradient, rtol=1e-9, atol=1e-12)


def test_unknown_kernel(molecules: EnvironmentDatabase) -> None:
    with pytest.raises(LosikoError, match="gauss"):
        objective_of([molecule("H2O")], molecules, kernel="gauss")
