"""The power spectrum against DScribe and against its own finite differences."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule, nanotube

from aiida_losiko.core.descriptors import SoapPowerSpectrum, make_descriptor
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.neighbors import StructureBatch

WEIGHTINGS = {
    "none": None,
    "pow": {"function": "pow", "c": 1.0, "d": 1.0, "m": 6.0, "r0": 1.6},
    "poly": {"function": "poly", "c": 2.0, "m": 2.0, "r0": 3.5},
    "exp": {"function": "exp", "c": 1.0, "d": 0.5, "r0": 1.2},
    "w0": {"w0": 0.3},
    "pow-w0": {"function": "pow", "c": 1.5, "d": 2.0, "m": 4.0, "r0": 2.0, "w0": 0.0},
}


def rattled(atoms: Atoms, seed: int = 0, size: float = 0.1) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, size, atoms.positions.shape)
    return atoms


def periodic_cells() -> dict[str, Atoms]:
    primitive = bulk("Si")
    left = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    left.set_cell(left.cell.array[[1, 0, 2]])  # the vectors change places, the atoms stay: a left-handed cell
    skewed = make_supercell(bulk("ZnS", "zincblende", a=5.4), [[1, 0, 0], [2, 1, 0], [-1, 3, 1]])
    slab = fcc111("Al", (2, 2, 3), vacuum=6.0)
    slab.pbc = (True, True, False)
    flat_slab = slab.copy()
    flat_slab.cell[2] = 0.0
    wire = nanotube(3, 0, length=1)
    wire.pbc = (False, False, True)
    perovskite = Atoms(
        "CsPbBr2Cl",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=[5.9, 5.8, 6.0],
        pbc=True,
    )
    return {
        "smaller than the cutoff": rattled(primitive),
        "one species": rattled(bulk("Si", cubic=True)),
        "left-handed": rattled(left),
        "skewed": rattled(skewed),
        "slab": rattled(slab),
        "slab without a third vector": rattled(flat_slab),
        "wire": rattled(wire),
        "four species": rattled(perovskite),
    }


def reference(atoms: Atoms, periodic: bool, weighting: dict | None, **settings: object) -> np.ndarray:
    from dscribe.descriptors import SOAP

    atoms = atoms.copy()
    if periodic:
        atoms.set_cell(atoms.cell.complete())
    options = dict(weighting) if weighting else None
    return SOAP(periodic=periodic, weighting=options, rbf="gto", **settings).create(atoms)


@pytest.mark.parametrize("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_molecule_equals_dscribe(weighting: dict | None, sigma: float) -> None:
    settings = {"species": ["H", "C", "N", "O", "F"], "r_cut": 4.0, "n_max": 6, "l_max": 6, "sigma": sigma}
    atoms = rattled(molecule("CH3CONH2"))
    ours = SoapPowerSpectrum(**settings, weighting=weighting).create(atoms)
    theirs = reference(atoms, False, weighting, **settings)
    assert ours.shape == theirs.shape == (len(atoms), 3255)
    assert np.abs(ours - theirs).max() < 1e-9


@pytest.mark.parametrize("name", periodic_cells())
@pytest.mark.parametrize("weighting", [None, WEIGHTINGS["pow"]], ids=["none", "pow"])
def test_periodic_cell_equals_dscribe(name: str, weighting: dict | None) -> None:
    atoms = periodic_cells()[name]
    settings = {"species": sorted(set(atoms.symbols)), "r_cut": 4.5, "n_max": 4, "l_max": 3, "sigma": 0.4}
    ours = SoapPowerSpectrum(**settings, weighting=weighting).create(atoms)
    theirs = reference(atoms, True, weighting, **settings)
    assert np.abs(theirs).max() > 0.01
    assert np.abs(ours - theirs).max() < 1e-9


def test_species_that_are_absent_leave_zeros_in_place() -> None:
    settings = {"r_cut": 4.0, "n_max": 3, "l_max": 2, "sigma": 0.4}
    few = SoapPowerSpectrum(["H", "O"], **settings)
    many = SoapPowerSpectrum(["O", "Si", "H", "Li"], **settings)
    water = molecule("H2O")
    columns = many.columns((1, 8))
    assert columns is not None
    full = many.create(water)
    assert np.allclose(full[:, columns], few.create(water), atol=1e-14)
    assert not np.delete(full, columns, axis=1).any()


def test_a_batch_gives_what_each_structure_gives_alone() -> None:
    soap = SoapPowerSpectrum(["H", "C", "O", "Si"], r_cut=4.0, n_max=4, l_max=4, sigma=0.3)
    structures = [molecule("CH3OH"), bulk("Si"), molecule("H2O"), rattled(bulk("Si", cubic=True))]
    for alone, together in zip(structures, soap.create(structures), strict=True):
        assert np.abs(soap.create(alone) - together).max() < 1e-13


def test_float32_agrees_to_single_precision() -> None:
    soap = SoapPowerSpectrum(["H", "C", "O"], r_cut=4.0, n_max=6, l_max=6, sigma=0.3)
    atoms = molecule("CH3CH2OH")
    features = soap.features(StructureBatch.from_atoms([atoms], dtype=torch.float32))
    assert features.dtype == torch.float32
    expected = soap.create(atoms)
    assert np.abs(features.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    soap = SoapPowerSpectrum(["H", "C", "O"], r_cut=4.0, n_max=6, l_max=6, sigma=0.3)
    atoms = molecule("CH3CH2OH")
    features = soap.features(StructureBatch.from_atoms([atoms], device="cuda"))
    assert np.abs(features.cpu().numpy() - soap.create(atoms)).max() < 1e-10


@pytest.mark.parametrize("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
@pytest.mark.parametrize("name", ["molecule", "skewed", "slab", "smaller than the cutoff"])
def test_gradients_equal_finite_differences(name: str, weighting: dict | None) -> None:
    atoms = rattled(molecule("CH3OH")) if name == "molecule" else periodic_cells()[name]
    soap = SoapPowerSpectrum(set(atoms.symbols), r_cut=3.3, n_max=3, l_max=3, sigma=0.35, weighting=weighting)
    batch = StructureBatch.from_atoms([atoms])
    batch.positions.requires_grad_()
    batch.cells.requires_grad_()
    features = soap.features(batch)
    direction = torch.as_tensor(np.random.default_rng(1).normal(size=features.shape))
    in_positions, in_cell = torch.autograd.grad(
        (features * direction).sum(), [batch.positions, batch.cells], allow_unused=True
    )

    def value(positions: np.ndarray, cell: np.ndarray) -> float:
        moved = atoms.copy()
        moved.positions, moved.cell = positions, cell
        return float((soap.create(moved) * direction.numpy()).sum())

    step = 1e-5
    rng = np.random.default_rng(2)
    for _ in range(4):
        shift = rng.normal(size=atoms.positions.shape)
        cell = atoms.cell.array
        numeric = (value(atoms.positions + step * shift, cell) - value(atoms.positions - step * shift, cell)) / 2 / step
        assert float((in_positions * torch.as_tensor(shift)).sum()) == pytest.approx(numeric, rel=1e-6, abs=1e-7)
        if atoms.pbc.any():
            strain = rng.normal(size=(3, 3)) * atoms.pbc[:, None]
            numeric = (value(atoms.positions, cell + step * strain) - value(atoms.positions, cell - step * strain)) / (
                2 * step
            )
            assert float((in_cell[0] * torch.as_tensor(strain)).sum()) == pytest.approx(numeric, rel=1e-6, abs=1e-7)


def test_parameters_make_an_equal_descriptor() -> None:
    soap = SoapPowerSpectrum(["O", "H"], 4.0, 4, 4, 0.25, weighting=WEIGHTINGS["pow"])
    again = make_descriptor(soap.parameters)
    assert again == soap and hash(again) == hash(soap)
    assert soap.species == ("H", "O")
    assert make_descriptor({**soap.parameters, "sigma": 0.3}) != soap


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r_cut": 1.0}, "r_cut=1.0"),
        ({"r_cut": 1e9}, "r_cut=1000000000.0"),
        ({"n_max": 0}, "n_max=0"),
        ({"l_max": 21}, "l_max=21"),
        ({"sigma": -0.1}, "sigma=-0.1"),
        ({"sigma": 1e-300}, "sigma=1e-300"),
        ({"sigma": 1e5}, "sigma=100000.0"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"species": ["Xx"]}, "Xx"),
        ({"species": []}, "species"),
        ({"weighting": {"function": "gauss"}}, "gauss"),
        ({"weighting": {"function": "pow", "c": 1}}, "'d'"),
        ({"weighting": {"w1": 1}}, "'w1'"),
        ({"weighting": 3}, "weighting=3"),
        ({"weighting": {"w0": "x"}}, "w0='x'"),
        ({"weighting": {"function": "poly", "c": 1, "m": 2, "r0": 0}}, "r0=0"),
        ({"name": "acsf"}, "acsf"),
        ({"rcut": 3}, "'rcut'"),
        ({"n_max": 100, "r_cut": 1.5}, "n_max=100"),
        ({"n_max": 12, "r_cut": 2.3}, "n_max=12"),
    ],
)
def test_wrong_settings_are_told_in_one_line(change: dict, words: str) -> None:
    settings = {"species": ["H", "O"], "r_cut": 4.0, "n_max": 4, "l_max": 4, "sigma": 0.25}
    # A warning on the way would be a second line. (Not as a mark: fixtures of the session may warn.)
    with warnings.catch_warnings(action="error"), pytest.raises(LosikoError) as error:
        make_descriptor({**settings, **change})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_element_is_named() -> None:
    soap = SoapPowerSpectrum(["H", "O"], 4.0, 4, 4, 0.25)
    with pytest.raises(LosikoError, match=r"species Si .* H, O"):
        soap.create(bulk("Si"))
