"""Environment databases: built, matched, traced, calibrated, cut down; with a descriptor that is quick to compute."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.errors import LosikoError


class ToyDescriptor:
    """Sums of Gaussians of distances per species, for molecules; enough of a descriptor for a database."""

    name = "toy"
    r_cut = 3.0

    def __init__(self, species=("H", "C", "O")):
        self.species = tuple(species)
        self.numbers = torch.tensor([{"H": 1, "C": 6, "N": 7, "O": 8}[symbol] for symbol in species])
        self.n_features = 6 * len(species)
        self.parameters = {"name": "toy", "species": list(species)}

    def features(self, batch):
        distances = torch.cdist(batch.positions, batch.positions, compute_mode="donot_use_mm_for_euclid_dist")
        weights = (batch.structure_index[:, None] == batch.structure_index) * (distances < 3.0)
        shells = torch.exp(-((distances[:, :, None] - torch.linspace(0, 3, 6, dtype=torch.float64)) ** 2) / 0.3)
        kinds = (batch.numbers[:, None] == self.numbers).double()
        return torch.einsum("ij,ijs,jz->izs", weights.double(), shells, kinds).flatten(1)


NAMES = ("CH4", "H2O", "CH3OH", "C2H6", "CO2", "H2CO", "C2H4", "CH3CH2OH", "C2H2", "HCOOH", "CH3CHO", "H2O2")


def molecules(names=NAMES):
    return [molecule(name) for name in names]


@pytest.fixture(scope="module")
def database():
    return EnvironmentDatabase.build(molecules(), ToyDescriptor(), NAMES, metadata={"licence": "none"})


def normalised(structures):
    from aiida_losiko.core.neighbors import StructureBatch

    features = ToyDescriptor().features(StructureBatch.from_atoms(structures)).numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_every_atom_is_an_origin_of_its_environment(database):
    assert list(database.n_environments) == ["H", "C", "O"]
    assert len(database) == sum(database.n_environments.values())
    seen = set()
    for symbol, n in database.n_environments.items():
        counts = database.counts(symbol)
        for index in range(n):
            origins = database.origins(symbol, index)
            assert len(origins) == counts[index]
            for rank, (name, atom) in enumerate(origins):
                atoms = molecule(name)
                assert atoms.symbols[atom] == symbol
                vector = normalised([atoms])[atom]
                distance = np.linalg.norm(database.vectors(symbol)[index].double().numpy() - vector)
                assert distance < (1e-6 if rank == 0 else 1.01e-4)
                seen.add((name, atom))
    assert seen == {(name, i) for name in NAMES for i in range(len(molecule(name)))}
    # The four hydrogen atoms of methane are one environment.
    assert database.origins("H", 0) == [("CH4", 1), ("CH4", 2), ("CH4", 3), ("CH4", 4)]


def test_match_is_exact_for_raw_and_normalised_vectors(database):
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    vectors = normalised([atoms])[atoms.numbers == 1]
    known = database.vectors("H").double().numpy()
    expected = np.linalg.norm(vectors[:, None] - known[None], axis=2)
    for given in (vectors, 17.0 * vectors, torch.from_numpy(vectors)):
        distances, indices = database.match(given, "H", k=4)
        assert type(distances) is type(indices) is type(given)
        np.testing.assert_array_equal(np.asarray(indices), np.argsort(expected, axis=1, kind="stable")[:, :4])
        np.testing.assert_allclose(np.asarray(distances), np.sort(expected, axis=1)[:, :4], rtol=1e-10)


def test_match_errors(database):
    vectors = normalised([molecule("CH4")])
    with pytest.raises(LosikoError, match=r"species N has no environments .* H, C, O"):
        database.match(vectors, "N")
    with pytest.raises(LosikoError, match="vector of zeros"):
        database.match(0.0 * vectors, "H")
    with pytest.raises(LosikoError, match=r"\(M, 18\)"):
        database.match(vectors[:, :3], "H")
    with pytest.raises(LosikoError, match="NaN"):
        database.match(np.nan * vectors, "H")
    with pytest.raises(LosikoError, match="k=0"):
        database.match(vectors, "H", k=0)
    with pytest.raises(LosikoError, match="environment 10000 of H"):
        database.origins("H", 10000)


def test_min_distances_are_the_shortest_pairs(database):
    shortest = {}
    for atoms in molecules():
        distances = atoms.get_all_distances()
        for i, j in zip(*np.triu_indices(len(atoms), 1), strict=True):
            pair = "-".join(sorted((atoms.symbols[i], atoms.symbols[j]), key="HCO".index))
            if distances[i, j] < 3.0:
                shortest[pair] = min(shortest.get(pair, np.inf), distances[i, j])
    assert database.min_distances == pytest.approx(shortest, abs=1e-12)


def reach_naively(database, symbol, quantile):
    vectors = database.vectors(symbol).double().numpy()
    owners = [{name for name, _ in database.origins(symbol, i)} for i in range(len(vectors))]
    nearest = []
    for i, mine in enumerate(owners):
        # The environment itself counts where another source has it, too.
        allowed = [j for j, theirs in enumerate(owners) if len(mine) > 1 or theirs - mine]
        nearest.append(min(np.linalg.norm(vectors[i] - vectors[j]) for j in allowed))
    return nearest, float(np.quantile(nearest, quantile))


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_reach_is_the_leave_one_source_out_quantile(quantile):
    built = EnvironmentDatabase.build(molecules(), ToyDescriptor(), NAMES, reach_quantile=quantile)
    for symbol in built.n_environments:
        nearest, expected = reach_naively(built, symbol, quantile)
        np.testing.assert_allclose(built.leave_one_out(symbol), nearest, atol=1e-12)
        assert built.reach[symbol] == pytest.approx(expected, abs=1e-12)
    assert built.reach["H"] > 0


def test_reach_of_a_large_block_is_sampled(monkeypatch, database):
    monkeypatch.setattr("aiida_losiko.core.environments.calibration._ALL", 10)
    monkeypatch.setattr("aiida_losiko.core.environments.calibration._SAMPLE", 8)
    sampled = EnvironmentDatabase.build(molecules(), ToyDescriptor(), NAMES)
    looked_at = ~np.isnan(sampled.leave_one_out("H"))
    assert looked_at.sum() == 8
    np.testing.assert_array_equal(sampled.leave_one_out("H")[looked_at], database.leave_one_out("H")[looked_at])


def test_reach_is_unknown_for_a_single_source():
    built = EnvironmentDatabase.build(molecules(("H2O", "CH4")), ToyDescriptor(), ("water", "methane"))
    assert built.reach["O"] is None
    assert built.reach["C"] is None
    assert built.reach["H"] is not None
    assert json.loads(json.dumps(built.summary()))["reach"]["O"] is None


def test_the_same_structure_twice_is_merged():
    built = EnvironmentDatabase.build(molecules(("H2O", "H2O")), ToyDescriptor(), ("a", "b"))
    assert built.n_environments == {"H": 1, "O": 1}
    assert built.origins("H", 0) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert built.reach == {"H": 1e-4, "O": 1e-4}  # what would be merged is known


def test_without_leaves_sources_out(database):
    gone = ["CH4", "C2H4", "H2O2"]
    left = database.without(gone)
    kept = [name for name in NAMES if name not in gone]
    assert left.sources == kept
    assert database.sources == list(NAMES)
    for symbol in database.n_environments:
        expected = []
        for index in range(database.n_environments[symbol]):
            origins = [origin for origin in database.origins(symbol, index) if origin[0] not in gone]
            if origins:
                expected.append((origins, database.vectors(symbol)[index]))
        assert left.n_environments[symbol] == len(expected)
        for index, (origins, vector) in enumerate(expected):
            assert left.origins(symbol, index) == origins
            assert torch.equal(left.vectors(symbol)[index], vector)
    # Calibrated anew, as a database of the remaining structures is.
    rebuilt = EnvironmentDatabase.build(molecules(kept), ToyDescriptor(), kept)
    assert left.reach == pytest.approx(rebuilt.reach, abs=3e-4)
    assert left.reach != database.reach


def test_without_drops_a_species_that_is_gone():
    built = EnvironmentDatabase.build(molecules(("H2O", "CH4")), ToyDescriptor(), ("water", "methane"))
    left = built.without("water")
    assert set(left.n_environments) == {"H", "C"}
    with pytest.raises(LosikoError, match="species O"):
        left.match(np.ones((1, 18)), "O")
    with pytest.raises(LosikoError, match="empty"):
        built.without(["water", "methane"])


def test_without_names_an_unknown_source(database):
    with pytest.raises(LosikoError, match=r"'CH3CH2O' .*\(did you mean 'CH3CH2OH'"):
        database.without(["CH3CH2O"])
    with pytest.raises(LosikoError, match="it has for example 'CH4'"):
        database.without(["zzzzzzzzz"])


@pytest.mark.parametrize("selection", ["farthest", "random"])
def test_thinning_keeps_a_deterministic_part(selection, database):
    options = {"selection": selection, "max_environments": 4, "seed": 2}
    thinned = EnvironmentDatabase.build(molecules(), ToyDescriptor(), NAMES, **options)
    again = EnvironmentDatabase.build((m for m in molecules()), ToyDescriptor(), NAMES, batch_size=5, **options)
    assert set(thinned.n_environments.values()) == {4}
    for symbol in thinned.n_environments:
        full = {tuple(database.origins(symbol, i)) for i in range(database.n_environments[symbol])}
        kept = [tuple(thinned.origins(symbol, i)) for i in range(4)]
        assert set(kept) < full
        assert kept == [tuple(again.origins(symbol, i)) for i in range(4)]


def test_sources_default_to_labels_and_numbers():
    structures = molecules(("H2O", "CH4"))
    structures[1].info["identifier"] = "mine"
    assert EnvironmentDatabase.build(iter(structures), ToyDescriptor()).sources == ["structure-0", "mine"]


def test_vectors_are_normalised_and_stored_as_asked():
    for dtype in ("float32", "float64"):
        built = EnvironmentDatabase.build(molecules(("H2O",)), ToyDescriptor(), dtype=dtype)
        assert built.vectors("H").dtype == getattr(torch, dtype)
        norms = torch.linalg.vector_norm(built.vectors("H").double(), dim=1)
        assert float((norms - 1).abs().max()) < 1e-7


def test_summary_is_json(database):
    summary = json.loads(json.dumps(database.summary()))
    assert summary["n_environments"] == database.n_environments
    assert summary["n_sources"] == len(NAMES)
    assert summary["n_atoms"]["O"] == sum(int((m.numbers == 8).sum()) for m in molecules())
    assert summary["metadata"] == {"licence": "none"}


BAD = {
    "no atoms": Atoms(),
    "not finite numbers": Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]),
    "species N": Atoms("NH", [[0, 0, 0], [0, 0, 1]]),
    "apart": Atoms("H2", [[0, 0, 0], [0, 0, 1e-5]]),
    "no volume": Atoms("H", cell=[0, 0, 0], pbc=True),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_structures_are_named(message):
    structures = [*molecules(("H2O",)), BAD[message]]
    with pytest.raises(LosikoError, match=message) as caught:
        EnvironmentDatabase.build(structures, ToyDescriptor(), ["good", "culprit"])
    assert "'culprit'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vector_of_zeros_is_named():
    class Blind(ToyDescriptor):
        def features(self, batch):
            features = super().features(batch)
            features[4] = 0.0
            return features

    with pytest.raises(LosikoError, match=r"'methane': the vector of atom 1 \(H\)"):
        EnvironmentDatabase.build(molecules(("H2O", "CH4")), Blind(), ("water", "methane"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ["a", "a"]}, "'a' occurs twice"),
        ({"sources": ["a"]}, "1 sources for more structures"),
        ({"sources": ["a", "b", "c"]}, "2 structures, but more sources"),
        ({"dtype": "float16"}, "'float16'"),
        ({"reach_quantile": 1.5}, "reach_quantile=1.5"),
        ({"reach_quantile": "much"}, "reach_quantile='much'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"selection": "nearest", "max_environments": 5}, r"'nearest'.*'farthest', 'random'"),
        ({"selection": "random", "max_environments": 0}, "max_environments=0"),
        ({"selection": "random", "max_environments": "few"}, "max_environments='few'"),
        ({"max_environments": 10}, "give both"),
        ({"selection": "random"}, "give both"),
        ({"duplicate_tolerance": -1.0}, "duplicate_tolerance=-1.0"),
        ({"duplicate_tolerance": None}, "duplicate_tolerance=None"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "x"}, "seed='x'"),
        ({"metadata": {"x": object()}}, "JSON"),
    ],
)
def test_build_errors(options, message):
    with pytest.raises(LosikoError, match=message) as caught:
        EnvironmentDatabase.build(molecules(("H2O", "CH4")), ToyDescriptor(), **options)
    assert "\n" not in str(caught.value)


def test_settings_may_come_from_numpy(database):
    counted = {
        "selection": "random",
        "max_environments": np.int64(4),
        "seed": np.int64(2),
        "reach_quantile": np.float32(1),
    }
    built = EnvironmentDatabase.build(molecules(), ToyDescriptor(), NAMES, **counted)
    assert json.loads(json.dumps(built.summary()))["settings"]["max_environments"] == 4


def test_no_structures():
    with pytest.raises(LosikoError, match="at least one"):
        EnvironmentDatabase.build([], ToyDescriptor())


def test_soap_of_molecules_and_of_a_crystal():
    from aiida_losiko.core.descriptors import SoapPowerSpectrum

    soap = SoapPowerSpectrum(["H", "C", "O"], r_cut=3.0, n_max=3, l_max=2, sigma=0.4)
    diamond = bulk("C", "diamond", a=3.57) * (2, 1, 1)
    built = EnvironmentDatabase.build([*molecules(("CH4", "C2H6")), diamond], soap, ("methane", "ethane", "diamond"))
    assert built.n_environments == {"H": 2, "C": 3}
    assert built.origins("C", 2) == [("diamond", i) for i in range(4)]
    assert built.min_distances["C-C"] == pytest.approx(min(3.57 * np.sqrt(3) / 4, 1.5121), abs=0.02)
    distances, indices = built.match(soap.create(diamond), "C")
    assert indices.ravel().tolist() == [2] * 4
    assert float(distances.max()) < 1e-6
