"""Cost of one loss and its gradient on one core, side by side with DScribe and featomic.

The loss is Eq. 8 with a fixed target for each atom: the sum over atoms of |p / |p| - t|^2. Everybody gives the loss and
its gradient in the positions; ours also finds the nearest environments itself and gives the gradient in the strain.
DScribe's is its derivatives contracted with dL/dp. featomic's is its torch interface with automatic differentiation.
featomic's density, basis and cutoff are not those of DScribe: its settings are as near as they come (same radius,
width, n_max and l_max, no smoothing) and its numbers are not compared, only timed.

Bars: 10 times faster than the faster of DScribe's methods on an 18-atom molecule, 50 times on a periodic cell of 108
atoms, where DScribe has numerical derivatives only; at most 4 times the cost of the own forward pass.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from ase import Atoms

from aiida_losiko.core import EnvironmentDatabase, SoapPowerSpectrum
from aiida_losiko.tools.tables import Column, text_table

Evaluation = Callable[[], tuple[float, np.ndarray]]

CASES: dict[str, dict[str, Any]] = {
    "molecule": {"r_cut": 4.0, "n_max": 6, "l_max": 6, "sigma": 0.5, "species": ["H", "C", "N", "O", "F"]},
    "cell": {"r_cut": 4.0, "n_max": 4, "l_max": 2, "sigma": 0.7, "species": ["H", "Li", "O", "Co"]},
}


def ours(atoms: Atoms, database: EnvironmentDatabase) -> Evaluation:
    """Loss, gradient and strain gradient as a relaxation evaluates them, neighbour table and matching included.

    The positions change by hundredths of an Angstrom from call to call, as on the way of an optimiser; the first call
    is at the given ones.
    """
    from aiida_losiko.core.neighbors import StructureBatch
    from aiida_losiko.core.objective import LocalSimilarityObjective

    batch = StructureBatch.from_atoms([atoms])
    objective = LocalSimilarityObjective(batch, database)
    generator = np.random.default_rng(2)
    jitter = batch.positions.new_tensor(generator.normal(scale=0.01, size=(8, len(atoms), 3)))
    jitter[0] = 0.0
    places = itertools.cycle(batch.positions + jitter)

    def evaluate() -> tuple[float, np.ndarray]:
        result = objective.evaluate(next(places))
        return float(result.loss), result.gradient.numpy()

    return evaluate


def ours_from_scratch(atoms: Atoms, database: EnvironmentDatabase) -> Evaluation:
    """Do the same without anything kept from the evaluation before: neighbours, tables and matches are made anew."""
    from aiida_losiko.core.neighbors import StructureBatch
    from aiida_losiko.core.objective import LocalSimilarityObjective

    def evaluate() -> tuple[float, np.ndarray]:
        batch = StructureBatch.from_atoms([atoms])
        result = LocalSimilarityObjective(batch, database).evaluate(batch.positions)
        return float(result.loss), result.gradient.numpy()

    return evaluate


def ours_forward(atoms: Atoms, soap: SoapPowerSpectrum, targets: np.ndarray) -> Callable[[], float]:
    """The loss alone, towards given targets, with the neighbour table kept."""
    import torch

    from aiida_losiko.core.descriptors.base import species_positions
    from aiida_losiko.core.neighbors import NeighborTable, StructureBatch

    batch = StructureBatch.from_atoms([atoms])
    table = NeighborTable(soap.cutoff)
    table.update(batch)
    present = soap.check_species(atoms.numbers)
    index = species_positions(present, batch.numbers)[table.index]
    columns = soap.columns(present)
    wanted = torch.as_tensor(targets if columns is None else targets[:, columns])

    @torch.no_grad()
    def evaluate() -> float:
        table.update(batch)
        vectors, inside = table.vectors(batch)[:2]
        features = soap.features_of(vectors, inside, index, present)
        unit = features / torch.linalg.vector_norm(features, dim=1, keepdim=True)
        return float(((unit - wanted) ** 2).sum())

    return evaluate


def dscribe(atoms: Atoms, settings: dict[str, Any], targets: np.ndarray, method: str) -> Evaluation:
    """DScribe's derivatives contracted with dL/dp."""
    from dscribe.descriptors import SOAP

    soap = SOAP(rbf="gto", periodic=bool(atoms.pbc.any()), dtype="float64", **settings)

    def evaluate() -> tuple[float, np.ndarray]:
        # (n_centres, n_atoms, 3, n_features)
        derivatives, features = soap.derivatives(atoms, method=method, attach=True, return_descriptor=True)
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / norms
        difference = 2 * (unit - targets)
        slopes = (difference - (difference * unit).sum(1, keepdims=True) * unit) / norms
        return float(((unit - targets) ** 2).sum()), np.einsum("iaxf,if->ax", derivatives, slopes, optimize=True)

    return evaluate


def featomic(atoms: Atoms, settings: dict[str, Any]) -> Evaluation:
    """The loss towards featomic's own vectors of a displaced copy, differentiated by torch."""
    import torch
    from featomic.torch import SoapPowerSpectrum as Featomic
    from featomic.torch import systems_to_torch
    from metatensor.torch import Labels

    calculator = Featomic(
        cutoff={"radius": settings["r_cut"], "smoothing": {"type": "Step"}},
        density={"type": "Gaussian", "width": settings["sigma"]},
        basis={
            "type": "TensorProduct",
            "max_angular": settings["l_max"],
            "radial": {"type": "Gto", "max_radial": settings["n_max"] - 1},
        },
    )
    present = sorted(set(atoms.numbers.tolist()))
    pairs = [[a, b] for k, a in enumerate(present) for b in present[k:]]
    neighbors = Labels(["neighbor_1_type", "neighbor_2_type"], torch.tensor(pairs))

    def unit_vectors(structure: Atoms, gradient: bool) -> tuple[Any, list[Any]]:
        system = systems_to_torch(structure, positions_requires_grad=gradient)
        blocks = calculator.compute(system).keys_to_properties(neighbors).blocks()
        return system.positions, [block.values / block.values.norm(dim=1, keepdim=True) for block in blocks]

    _, targets = unit_vectors(common.displaced([atoms], 0.05, seed=1)[0], gradient=False)

    def evaluate() -> tuple[float, np.ndarray]:
        positions, units = unit_vectors(atoms, gradient=True)
        loss = sum(((unit - target) ** 2).sum() for unit, target in zip(units, targets, strict=True))
        (gradient,) = torch.autograd.grad(loss, positions)
        return float(loss.detach()), gradient.numpy()

    return evaluate


def run_case(name: str, atoms: Atoms, bar: float, rounds: int) -> list[bool]:
    """Time one structure and print its table and verdicts."""
    settings, periodic = CASES[name], bool(atoms.pbc.any())
    soap = SoapPowerSpectrum(**settings)
    # The database holds one displaced copy, thus the nearest environments are the targets of the others' loss.
    target = common.displaced([atoms], 0.05, seed=1)[0]
    database = EnvironmentDatabase.build([target], soap, sources=["target"], duplicate_tolerance=0.0, dtype="float64")
    evaluate, targets = ours(atoms, database), matched_targets(atoms, target, soap, database)
    loss, gradient = evaluate()
    contestants: dict[str, Callable[[], Any]] = {
        "aiida-losiko, loss only": ours_forward(atoms, soap, targets),
        "aiida-losiko": evaluate,
        "aiida-losiko, from scratch": ours_from_scratch(atoms, database),
    }
    for method in ("numerical",) if periodic else ("analytical", "numerical"):
        contestants[f"DScribe {method}"] = dscribe(atoms, settings, targets, method)
    try:
        contestants["featomic"] = featomic(atoms, settings)
    except ImportError as error:
        print(f"featomic is left out ({error}): pip install 'aiida-losiko[benchmarks]'")

    print(
        f"{name}: {atoms.get_chemical_formula()}, {len(atoms)} atoms, "
        + ", ".join(f"{k} {v}" for k, v in settings.items() if k != "species")
    )
    check_agreement(contestants, loss, gradient)
    timings = common.time_in_rounds(contestants, rounds, seconds=0.3)
    medians = {contestant: float(np.median(values)) for contestant, values in timings.items()}
    mine = medians["aiida-losiko"]
    rows = [
        {"who": who, "median": 1e3 * median, "least": 1e3 * min(timings[who]), "ratio": median / mine}
        for who, median in medians.items()
    ]
    columns = [
        Column("who", "loss + gradient"),
        Column("median", "median", "ms", ".2f"),
        Column("least", "least", "ms", ".2f"),
        Column("ratio", "over ours", "", ".2f"),
    ]
    print(text_table(rows, columns))
    best = min(value for who, value in medians.items() if who.startswith("DScribe"))
    passed = [
        common.verdict(f"{name}: faster than DScribe by", best / mine, bar, at_least=True, unit="x"),
        common.verdict(
            f"{name}: cost over the own forward pass",
            mine / medians["aiida-losiko, loss only"],
            4,
            at_least=False,
            unit="x",
        ),
    ]
    print()
    return passed


def matched_targets(atoms: Atoms, target: Atoms, soap: SoapPowerSpectrum, database: EnvironmentDatabase) -> np.ndarray:
    """Unit vectors of the environments that the database matches, (n_atoms, n_features)."""
    of_atoms, of_target = soap.create(atoms), soap.create(target)
    of_target /= np.linalg.norm(of_target, axis=1, keepdims=True)
    rows = np.empty(len(atoms), dtype=int)
    for symbol in sorted(set(atoms.symbols)):
        chosen = np.flatnonzero(atoms.symbols == symbol)
        _, indices = database.match(of_atoms[chosen], symbol)
        rows[chosen] = [database.origins(symbol, int(index))[0][1] for index in indices[:, 0]]
    return of_target[rows]


def check_agreement(contestants: dict[str, Callable[[], Any]], loss: float, gradient: np.ndarray) -> None:
    """Print how far DScribe's loss and gradient are from ours: they have to be the same function."""
    for name, function in contestants.items():
        if name.startswith("DScribe"):
            other_loss, other = function()
            print(
                f"  {name}: loss differs by {abs(other_loss - loss):.1e} of {loss:.4f}, "
                f"gradient by {np.abs(other - gradient).max():.1e} of {np.abs(gradient).max():.3f} 1/Angstrom"
            )


def main() -> None:
    """Run both cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 11")
    arguments = parser.parse_args()
    common.one_core()
    common.header("One loss and its gradient, one core")
    rounds = 3 if arguments.quick else 11
    passed = run_case("molecule", common.molecule_of_18_atoms(), 10, rounds)
    passed += run_case(
        "cell", common.displaced([common.hydrogen_in_lithium_cobalt_oxide()], 0.02, seed=0)[0], 50, rounds
    )
    common.finish(passed)


if __name__ == "__main__":
    main()
