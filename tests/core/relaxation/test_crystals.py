"""The protocol `crystals`: known crystals stay, displaced ones come back."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_losiko.core import EnvironmentDatabase, make_descriptor, relax
from aiida_losiko.core.metrics import displacements
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.core.settings import RelaxSettings
from aiida_losiko.sources import load_source

PROTOCOL = load_protocol("crystals")


def database_of(elements: list[str]) -> EnvironmentDatabase:
    _, records = load_source("reference_crystals", None, {"elements": elements, "max_atoms": 20})
    descriptor = make_descriptor({**PROTOCOL.descriptor, "species": elements})
    return EnvironmentDatabase.build([record.atoms for record in records], descriptor, **PROTOCOL.database)


def crystal(name: str, repeat: tuple[int, int, int]):
    _, (record,) = load_source("reference_crystals", None, {"ids": [f"crystal:{name}"]}, conventional=True)
    return record.atoms * repeat


def relaxed(atoms, database):
    (result,) = relax([atoms], database, settings=RelaxSettings.from_dict(PROTOCOL.relax))
    assert result.converged and not result.flags
    return result


@pytest.mark.parametrize(
    ("name", "elements", "repeat", "limit"),
    [
        ("diamond", ["C"], (2, 2, 2), 0.05),
        ("LiCoO2", ["Li", "Co", "O"], (2, 2, 1), 0.05),
        # 16 kinds of SiO2 in which an oxygen can swing: the same one in shape, not to the last digit.
        ("quartz-alpha", ["Si", "O"], (2, 2, 2), 0.3),
    ],
)
def test_crystals_stay_and_come_back(name, elements, repeat, limit):
    database, perfect = database_of(elements), crystal(name, repeat)
    kept = relaxed(perfect, database)
    assert kept.loss < 1e-10
    assert np.abs(displacements(kept.atoms, perfect)).max() < 1e-3

    start = perfect.copy()
    start.positions += np.random.default_rng(1).normal(scale=0.1, size=start.positions.shape)
    back = np.linalg.norm(displacements(relaxed(start, database).atoms, perfect), axis=1)
    assert back.max() < limit
    assert np.sqrt((back**2).mean()) < 0.6 * np.sqrt((displacements(start, perfect) ** 2).sum(1).mean())


def test_an_atom_without_neighbours_can_be_described():
    """The weight of the centre is small, not zero: entries of single far atoms are in databases."""
    from ase import Atoms

    descriptor = make_descriptor({**PROTOCOL.descriptor, "species": ["H"]})
    lonely = Atoms("H", cell=[20, 20, 20], pbc=True)
    assert len(EnvironmentDatabase.build([lonely], descriptor, sources=["lonely"]).vectors("H")) == 1


def test_hydrogen_between_far_atoms_is_not_taken_for_a_lone_one():
    """What the Gaussian of the centre does with its full weight, and why it has a small one."""
    from ase import Atoms

    far = Atoms("H", cell=[2.8, 2.8, 2.8], pbc=True, info={"identifier": "far"})
    _, (host,) = load_source("reference_crystals", None, {"ids": ["crystal:LiCoO2"]}, conventional=True)
    site = host.atoms * (2, 2, 1)
    lithium = int(np.flatnonzero(site.numbers == 3)[0])
    site.symbols[lithium] = "H"
    elements = ["Li", "Co", "O", "H"]
    _, records = load_source("reference_crystals", None, {"elements": elements, "max_atoms": 20})
    nearest = {}
    for own in (1.0, PROTOCOL.descriptor["weighting"]["w0"]):
        weighting = {**PROTOCOL.descriptor["weighting"], "w0": own}
        descriptor = make_descriptor({**PROTOCOL.descriptor, "weighting": weighting, "species": elements})
        database = EnvironmentDatabase.build([far, *(record.atoms for record in records)], descriptor)
        (result,) = relax([site], database, max_steps=0)
        nearest[own] = result.matches.source[lithium]
    assert nearest[1.0] == "far"
    assert nearest[0.1] != "far"
