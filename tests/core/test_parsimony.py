"""Few compounds rather than many: shares of sources, what they cost, and what comes of it in a relaxation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from aiida_losiko.core import EnvironmentDatabase, LosikoError, SoapPowerSpectrum, relax
from aiida_losiko.core.environments.tracking import TrackedNearest
from aiida_losiko.core.metrics import displacements
from aiida_losiko.core.neighbors import StructureBatch
from aiida_losiko.core.objective import LocalSimilarityObjective
from aiida_losiko.core.parsimony import UNFORESEEN, SourceShares
from aiida_losiko.core.relaxation.run import Run
from aiida_losiko.core.relaxation.stages import ROUGHLY, number_of_stages, run_of_stage
from aiida_losiko.core.settings import RelaxSettings

STRENGTH = 0.05


def rattled(atoms: Atoms, size: float, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
    return atoms


SILICON = bulk("Si", cubic=True)
ROCK_SALT = bulk("NaCl", "rocksalt", a=5.64, cubic=True)


@pytest.fixture(scope="module")
def database() -> EnvironmentDatabase:
    """Two crystals, and eight disordered versions of each: their atoms are nearly anywhere."""
    crystals = {"silicon": SILICON, "salt": ROCK_SALT}
    disordered = {f"{name} {k}": rattled(atoms, 0.25, k) for name, atoms in crystals.items() for k in range(8)}
    structures = crystals | disordered
    soap = SoapPowerSpectrum(["Na", "Si", "Cl"], r_cut=4.0, n_max=5, l_max=3, sigma=0.4)
    return EnvironmentDatabase.build(structures.values(), soap, sources=list(structures), dtype="float64")


def objective_of(structures: list[Atoms], database: EnvironmentDatabase, **options: object) -> LocalSimilarityObjective:
    return LocalSimilarityObjective(StructureBatch.from_atoms(structures), database, **options)  # type: ignore[arg-type]


def test_the_compound_of_a_rough_structure_has_the_largest_share(database: EnvironmentDatabase) -> None:
    structures = [rattled(SILICON * 2, 0.12), rattled(ROCK_SALT, 0.12)]
    objective = objective_of(structures, database, parsimony=STRENGTH)
    objective.evaluate(objective.batch.positions)
    assert objective._shares is not None and objective._shares.shares is not None
    shares = objective._shares.shares
    assert shares.sum(1).numpy() == pytest.approx([1.0, 1.0])
    assert [database.sources[k] for k in shares.argmax(1).tolist()] == ["silicon", "salt"]


def test_what_is_added_is_what_the_shares_say(database: EnvironmentDatabase) -> None:
    shares = SourceShares(STRENGTH, database, StructureBatch.from_atoms([SILICON]))
    shares.shares = torch.zeros((1, len(database.sources)), dtype=torch.float64)
    shares.shares[0, database.sources.index("silicon")] = 0.75
    shares.shares[0, database.sources.index("silicon 3")] = 0.25
    added = shares.added("Si", 0)
    expected = {"silicon": 0.0, "silicon 3": np.log((0.75 + UNFORESEEN) / (0.25 + UNFORESEEN))}
    for k, value in enumerate(added.tolist()):
        ((source, _), *_) = database.origins("Si", k)
        assert value == pytest.approx(STRENGTH * expected.get(source, np.log((0.75 + UNFORESEEN) / UNFORESEEN)))


def test_matches_are_nearest_with_what_is_added(database: EnvironmentDatabase) -> None:
    structures = [rattled(SILICON * (2, 1, 1), 0.15, 3), rattled(ROCK_SALT, 0.15, 4), rattled(SILICON, 0.2, 5)]
    objective = objective_of(structures, database, parsimony=STRENGTH)
    batch = objective.batch
    for _ in range(3):  # the first search, and such as follow small moves
        evaluation = objective.evaluate(batch.positions + 0.02)
        moved = [
            Atoms(a.numbers, p.numpy(), cell=a.cell, pbc=True)
            for a, p in zip(structures, batch.positions.split(batch.n_atoms.tolist()), strict=True)
        ]
        vectors = np.concatenate(database.descriptor.create(moved))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for k, symbol in enumerate(a.symbol for atoms in structures for a in atoms):
            structure = int(batch.structure_index[k])
            added = objective._shares.added(symbol, structure).numpy()  # type: ignore[union-attr]
            squared = ((database.vectors(symbol).numpy() - vectors[k]) ** 2).sum(1)
            best = int((squared + added).argmin())
            assert int(evaluation.environment[k]) == best
            assert float(evaluation.atom_loss[k]) == pytest.approx(squared[best] + added[best], abs=1e-9)
            assert float(evaluation.distance[k]) == pytest.approx(squared[best] ** 0.5, abs=1e-6)


def test_gradients_are_those_of_finite_differences(database: EnvironmentDatabase) -> None:
    objective = objective_of([rattled(SILICON, 0.1), rattled(ROCK_SALT, 0.1)], database, parsimony=STRENGTH)
    positions = objective.batch.positions.clone()
    evaluation = objective.evaluate(positions)
    h = 1e-5
    for atom, axis in ((0, 0), (3, 2), (9, 1), (14, 0)):
        losses = []
        for sign in (1, -1):
            moved = positions.clone()
            moved[atom, axis] += sign * h
            losses.append(float(objective.evaluate(moved).loss.sum()))
        assert float(evaluation.gradient[atom, axis]) == pytest.approx((losses[0] - losses[1]) / (2 * h), abs=1e-6)


def test_a_known_crystal_has_no_loss(database: EnvironmentDatabase) -> None:
    objective = objective_of([SILICON * 2, ROCK_SALT], database, parsimony=STRENGTH)
    evaluation = objective.evaluate(objective.batch.positions)
    assert evaluation.loss.numpy() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_large_structures_are_counted_by_a_part_of_their_atoms(database: EnvironmentDatabase) -> None:
    shares = SourceShares(STRENGTH, database, StructureBatch.from_atoms([SILICON, SILICON * 6]))
    assert shares._chosen[:8].all()
    assert int(shares._chosen[8:].sum()) == 432  # every fourth of 1728


@pytest.mark.parametrize("options", [{"kernel": "polynomial"}, {"learnt": True}])
def test_only_for_the_plain_distance(database: EnvironmentDatabase, options: dict[str, object]) -> None:
    if options.pop("learnt", False):
        structures = [rattled(SILICON, 0.1, k) for k in range(20)]
        soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=3, l_max=2, sigma=0.4)
        names = [str(k) for k in range(20)]
        database = EnvironmentDatabase.build(structures, soap, names, metric={"n_components": 5, "n_neighbors": [2]})
    with pytest.raises(LosikoError, match=r"parsimony=0\.05 is for the plain distance"):
        objective_of([SILICON], database, parsimony=STRENGTH, **options)


def test_three_stages(database: EnvironmentDatabase) -> None:
    plain = Run(RelaxSettings(), database)
    sparing = Run(RelaxSettings(parsimony=0.05, noise_variance=0.01, noise_decay=0.5, n_hops=2), database)
    assert (number_of_stages(plain), number_of_stages(sparing)) == (1, 3)
    rough, again, last = (run_of_stage(sparing, stage, 3).settings for stage in range(3))
    assert (rough.parsimony, rough.noise_variance, rough.n_hops, rough.relative_loss_tolerance) == (
        0.05,
        0.01,
        0,
        ROUGHLY,
    )
    assert (again.parsimony, again.noise_variance, again.n_hops, again.relative_loss_tolerance) == (
        0.05,
        0.0,
        0,
        ROUGHLY,
    )
    assert last == RelaxSettings(noise_variance=0.01, noise_decay=0.5, n_hops=2)


def test_a_crystal_comes_back_among_what_is_nearly_it(database: EnvironmentDatabase) -> None:
    ideal = SILICON * 2
    starts = [rattled(ideal, 0.15, seed) for seed in range(3)]
    worst = {}
    for strength in (0.0, STRENGTH):
        relaxed = relax(starts, database, settings=RelaxSettings(parsimony=strength, relative_loss_tolerance=1e-3))
        worst[strength] = [np.linalg.norm(displacements(r.atoms, ideal), axis=1).max() for r in relaxed]
    assert min(worst[0.0]) > 0.2
    assert max(worst[STRENGTH]) < 0.1


def test_the_company_does_not_matter(database: EnvironmentDatabase) -> None:
    settings = RelaxSettings(parsimony=STRENGTH, relative_loss_tolerance=1e-2)
    structures = [rattled(SILICON, 0.15, 1), rattled(ROCK_SALT, 0.2, 2), rattled(SILICON, 0.05, 3)]
    together = relax(structures, database, settings=settings)
    for atoms, other in zip(structures, together, strict=True):
        (alone,) = relax([atoms], database, settings=settings)
        assert np.abs(displacements(alone.atoms, other.atoms)).max() < 1e-4


@pytest.mark.parametrize("columns", [None, [0, 1, 2, 5, 6]])
def test_tracked_with_what_is_added(database: EnvironmentDatabase, columns: list[int] | None) -> None:
    generator = torch.Generator().manual_seed(0)
    searcher = database.searcher("Si")
    n, dim = searcher.vectors.shape
    chosen = None if columns is None else torch.tensor(columns)
    added = 0.3 * torch.rand(n, dtype=torch.float64, generator=generator)
    tracked = TrackedNearest(searcher, n_candidates=4, columns=chosen, added=added)
    full = torch.zeros((6, dim), dtype=torch.float64)
    place = slice(None) if chosen is None else chosen
    for _ in range(6):
        full[:, place] += 0.05 * torch.randn(full[:, place].shape, dtype=torch.float64, generator=generator)
        found = tracked.update(full[:, place])
        scores = torch.cdist(full, searcher.vectors.double()).square() + added
        assert torch.equal(found, scores.argmin(1))
        assert torch.allclose(tracked.distances.square(), scores.amin(1))


def test_ties_are_of_the_lower_number() -> None:
    soap = SoapPowerSpectrum(["Si"], r_cut=4.0, n_max=3, l_max=2, sigma=0.4)
    one = EnvironmentDatabase.build([rattled(SILICON, 0.2)], soap, ["one"], dtype="float64")
    vectors = one.vectors("Si")
    tracked = TrackedNearest(one.searcher("Si"), n_candidates=1, added=torch.full((len(vectors),), 0.1))
    assert torch.equal(tracked.update(vectors), torch.arange(len(vectors)))
    assert tracked.distances.numpy() == pytest.approx(0.1**0.5)
