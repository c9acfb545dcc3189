"""Environments that nothing can change are evaluated once: the same numbers for less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum, relax
from aiida_losiko.core.frozen import DRIFT, FrozenPart
from aiida_losiko.core.neighbors import BatchPart, NeighborTable, StructureBatch
from aiida_losiko.core.objective import Evaluation, LocalSimilarityObjective

METRIC = {"n_components": 20, "n_structures": 12, "n_neighbors": [4, 2]}


def database(**options: Any) -> EnvironmentDatabase:
    soap = SoapPowerSpectrum(["Al", "Si"], r_cut=2.8, n_max=3, l_max=2, sigma=0.3)
    known = [bulk("Si", cubic=True, a=5.43 * (1 + s)) for s in np.linspace(-0.06, 0.06, 12)]
    known += [bulk("Al", cubic=True, a=4.05 * (1 + s)) for s in np.linspace(-0.06, 0.06, 12)]
    return EnvironmentDatabase.build(known, soap, dtype="float64", **options)


@pytest.fixture(scope="module")
def plain() -> EnvironmentDatabase:
    return database()


@pytest.fixture(scope="module")
def learnt() -> EnvironmentDatabase:
    return database(metric=METRIC)


@pytest.fixture(scope="module")
def rod() -> Atoms:
    """Silicon, long in one direction, of which the middle moves; displaced everywhere."""
    atoms = bulk("Si", cubic=True).repeat((1, 1, 8))
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, atoms.positions.shape)
    return fixed(atoms, np.abs(atoms.positions[:, 2] - 20) > 2)


def fixed(atoms: Atoms, mask: np.ndarray) -> Atoms:
    atoms = atoms.copy()
    atoms.set_constraint(FixAtoms(mask=mask))
    return atoms


def free_mask(structures: list[Atoms]) -> torch.Tensor:
    masks = [np.ones(len(atoms), dtype=bool) for atoms in structures]
    for mask, atoms in zip(masks, structures, strict=True):
        for constraint in atoms.constraints:
            mask[constraint.index] = False
    return torch.as_tensor(np.concatenate(masks))


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many environments were described, call by call."""
    counts: list[int] = []
    original = SoapPowerSpectrum.features_of

    def counting(self: SoapPowerSpectrum, vectors: torch.Tensor, *others: Any) -> torch.Tensor:
        counts.append(len(vectors))
        return original(self, vectors, *others)

    monkeypatch.setattr(SoapPowerSpectrum, "features_of", counting)
    return counts


def assert_same(one: Evaluation, other: Evaluation, free: torch.Tensor) -> None:
    assert torch.allclose(one.loss, other.loss, rtol=1e-12, atol=0)
    assert torch.allclose(one.atom_loss, other.atom_loss, rtol=1e-9, atol=1e-13)
    assert torch.allclose(one.distance, other.distance, rtol=1e-9, atol=1e-13)
    assert torch.equal(one.environment, other.environment)
    assert torch.allclose(one.gradient, other.gradient * free[:, None], rtol=1e-10, atol=1e-12)
    assert torch.allclose(one.strain_gradient, other.strain_gradient, rtol=1e-9, atol=1e-11)


def paths(structures: list[Atoms], n_steps: int, size: float) -> list[torch.Tensor]:
    """Positions in which all that is free drifts in one direction, and shakes."""
    free, positions = free_mask(structures)[:, None], StructureBatch.from_atoms(structures).positions
    random = np.random.default_rng(1)
    along = positions.new_tensor([0.3, 0.2, 1.0])
    made = [positions]
    for _ in range(n_steps):
        shake = torch.as_tensor(random.normal(0, 0.3 * size, positions.shape))
        made.append(made[-1] + (size * along + shake) * free)
    return made


OPTIONS: dict[str, dict[str, Any]] = {
    "distance": {},
    "polynomial": {"kernel": "polynomial", "kernel_degree": 2.5},
    "repulsion": {"repulsion": 50.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_same_numbers_wherever_the_movable_atoms_go(
    options: dict[str, Any], plain: EnvironmentDatabase, rod: Atoms
) -> None:
    # Far enough for other environments to come within reach, and for neighbour tables to be made anew.
    positions = paths([rod], 12, 0.2)
    assert (positions[-1] - positions[0]).norm(dim=1).max() > 3 * DRIFT
    free = free_mask([rod])
    objective = LocalSimilarityObjective(StructureBatch.from_atoms([rod]), plain, free=free, **options)
    for at in positions:
        everything = LocalSimilarityObjective(StructureBatch.from_atoms([rod]), plain, **options)
        assert_same(objective.evaluate(at), everything.evaluate(at), free)


def test_several_structures_at_once(plain: EnvironmentDatabase, rod: Atoms) -> None:
    """One in part frozen, one free, one all frozen, one of another element, one without a lattice."""
    cluster = Atoms("Si40", positions=rod.positions[:40])
    cluster = fixed(cluster, np.arange(40) > 2)
    aluminium = fixed(bulk("Al", cubic=True).repeat((1, 1, 6)), np.arange(24) > 0)
    structures = [rod, bulk("Si", cubic=True), fixed(bulk("Si"), np.array([True, True])), aluminium, cluster]
    free = free_mask(structures)
    batch = StructureBatch.from_atoms(structures)
    weights = torch.as_tensor(np.random.default_rng(2).uniform(0.5, 2, len(free)))
    objective = LocalSimilarityObjective(batch, plain, weights=weights, free=free, repulsion=1.0)
    for at in paths(structures, 6, 0.15):
        everything = LocalSimilarityObjective(
            StructureBatch.from_atoms(structures), plain, weights=weights, repulsion=1.0
        )
        assert_same(objective.evaluate(at), everything.evaluate(at), free)
    kept = torch.tensor([True, False, False, True, True])
    atoms = kept[batch.structure_index]
    objective.keep(kept)
    left = [structure for structure, stays in zip(structures, kept.tolist(), strict=True) if stays]
    everything = LocalSimilarityObjective(StructureBatch.from_atoms(left), plain, weights=weights[atoms], repulsion=1.0)
    at = at[atoms]
    for _ in range(2):
        at = at + 0.05 * free[atoms][:, None]
        assert_same(objective.evaluate(at), everything.evaluate(at), free[atoms])


@pytest.mark.parametrize("stage", [0, 1])
def test_held_targets_of_a_learnt_metric(stage: int, learnt: EnvironmentDatabase, rod: Atoms) -> None:
    free = free_mask([rod])
    objective, everything = (
        LocalSimilarityObjective(StructureBatch.from_atoms([rod]), learnt, free=mask, stage=stage)
        for mask in (free, None)
    )
    positions = paths([rod], 8, 0.2)
    for at in positions:
        assert_same(objective.evaluate(at), everything.evaluate(at), free)
    for each in (objective, everything):
        each.search_anew(torch.tensor([True]))
    for at in positions[::-1][:4]:
        assert_same(objective.evaluate(at), everything.evaluate(at), free)


def test_only_what_can_change_is_described(plain: EnvironmentDatabase, rod: Atoms, described: list[int]) -> None:
    free = free_mask([rod])
    objective = LocalSimilarityObjective(StructureBatch.from_atoms([rod]), plain, free=free)
    positions = paths([rod], 1, 0.05)[1]
    objective.evaluate(StructureBatch.from_atoms([rod]).positions)
    assert sum(described) == len(rod)
    described.clear()
    objective.evaluate(positions)
    i, j = neighbor_list("ij", rod, plain.descriptor.cutoff + DRIFT)
    near = set(i[free.numpy()[j]]) | set(np.flatnonzero(free.numpy()))
    assert sum(described) == len(near) < 0.8 * len(rod)


def test_cost_does_not_depend_on_what_is_far_away(plain: EnvironmentDatabase, described: list[int]) -> None:
    counts = []
    for length in (8, 16):
        atoms = bulk("Si", cubic=True).repeat((1, 1, length))
        atoms = fixed(atoms, np.arange(len(atoms)) > 4)
        objective = LocalSimilarityObjective(StructureBatch.from_atoms([atoms]), plain, free=free_mask([atoms]))
        objective.evaluate(objective.batch.positions)
        described.clear()
        objective.evaluate(objective.batch.positions)
        counts.append(sum(described))
    assert counts[0] == counts[1] > 0


def test_a_frozen_atom_that_is_elsewhere_is_noticed(plain: EnvironmentDatabase, rod: Atoms) -> None:
    free = free_mask([rod])
    batch = StructureBatch.from_atoms([rod])
    objective = LocalSimilarityObjective(batch, plain, free=free)
    start, cells = batch.positions.clone(), batch.cells.clone()
    shifted = start.clone()
    shifted[0] += 0.1
    stretched = cells * 1.01
    for at, lattice in (
        (start, cells), (start, cells), (shifted, cells), (shifted, cells), (shifted, stretched),
        (start, stretched), (start, cells), (start, cells),
    ):  # fmt: skip
        fresh = LocalSimilarityObjective(StructureBatch.from_atoms([rod]), plain)
        assert_same(objective.evaluate(at, lattice), fresh.evaluate(at, lattice), free)


def test_what_comes_into_reach_because_the_cell_shrinks(plain: EnvironmentDatabase, rod: Atoms) -> None:
    """The movable atom stays where it is: the frozen ones come to it."""
    center = 30
    free = torch.arange(len(rod)) == center
    objective = LocalSimilarityObjective(StructureBatch.from_atoms([rod]), plain, free=free)
    batch = StructureBatch.from_atoms([rod])
    objective.evaluate(batch.positions, batch.cells)
    shrunk = batch.positions[center] + 0.8 * (batch.positions - batch.positions[center])
    moved = shrunk + 0.3 * free[:, None]
    for at in (shrunk, shrunk, moved):
        fresh = LocalSimilarityObjective(StructureBatch.from_atoms([rod]), plain)
        assert_same(objective.evaluate(at, 0.8 * batch.cells), fresh.evaluate(at, 0.8 * batch.cells), free)


@pytest.mark.parametrize("relax_cell", [False, True])
def test_relaxations_are_the_same(
    relax_cell: bool, plain: EnvironmentDatabase, rod: Atoms, described: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_steps": 8, "relax_cell": relax_cell, "noise_variance": 0.01, "noise_decay": 0.5}
    (quick,) = relax(rod, plain, **settings)
    n_quick = sum(described)
    described.clear()
    monkeypatch.setattr(FrozenPart, "kept", lambda self, batch: None)
    (slow,) = relax(rod, plain, **settings)
    assert quick.evaluations == slow.evaluations
    assert quick.loss == pytest.approx(slow.loss, rel=1e-9)
    assert np.abs(quick.atoms.positions - slow.atoms.positions).max() < 1e-6
    assert np.allclose(quick.matches.distance, slow.matches.distance, atol=1e-7)
    if not relax_cell:
        frozen = ~free_mask([rod]).numpy()
        assert np.array_equal(quick.atoms.positions[frozen], rod.positions[frozen])
        assert n_quick < 0.8 * sum(described)


def test_nothing_moves(plain: EnvironmentDatabase, described: list[int]) -> None:
    atoms = bulk("Si", cubic=True)
    objective = LocalSimilarityObjective(
        StructureBatch.from_atoms([atoms]), plain, free=torch.zeros(len(atoms), dtype=torch.bool)
    )
    first = objective.evaluate(objective.batch.positions)
    described.clear()
    again = objective.evaluate(objective.batch.positions)
    assert not described
    assert torch.equal(first.loss, again.loss)
    assert torch.equal(first.strain_gradient, again.strain_gradient)
    assert not again.gradient.any()


def test_table_of_a_part_has_the_rows_of_the_whole(rod: Atoms) -> None:
    water = molecule("H2O", vacuum=1.0)
    batch = StructureBatch.from_atoms([rod, water, rod])
    whole = NeighborTable(4.0)
    whole.update(batch)
    centers = torch.tensor([3, 20, 64, 66, 90])
    # Sorted, and without the atoms that none of the centres sees.
    members = torch.unique(torch.cat([centers, whole.index[centers].reshape(-1)]))
    assert len(members) < len(batch.numbers)
    part = NeighborTable(4.0, part=BatchPart(centers, members))
    part.update(batch)
    for row, center in enumerate(centers.tolist()):
        found = []
        for table, at in ((whole, center), (part, row)):
            vectors, inside, _ = table.vectors(batch)
            own = vectors[at][inside[at] > 0].numpy()
            found.append(own[np.lexsort(own.round(6).T)])
        assert np.allclose(*found, atol=1e-12)
    assert part.rows_of(centers[2:4]).tolist() == [2, 3]
