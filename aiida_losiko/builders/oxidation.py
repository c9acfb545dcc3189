"""Silicon with oxygen in some of its bonds: environments between those of silicon and silica, which no crystal has.

At the interface of silicon and its oxide photoemission finds silicon with one, two and three oxygen neighbours (F. J.
Himpsel et al., Phys. Rev. B 38, 6084, 1988). No common crystal of silicon and oxygen has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aiida_losiko.builders.network import Network
from aiida_losiko.builders.supercell import Matrix, make_supercell, name_of
from aiida_losiko.builders.valence_forces import relax_with_cell, silicon_network
from aiida_losiko.core.checks import is_real, is_whole, require
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

_STEPS = 1000
# Lengths in silica by those in silicon with the same network: cristobalite and diamond.
_SWELLING = 1.31
_RATTLE = 0.1  # Angstrom


def oxidize(
    crystal: Atoms,
    share: float,
    *,
    supercell: Matrix | None = None,
    n_atoms: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Atoms:
    """Put an oxygen atom into bonds of silicon drawn at random, and relax positions and cell by springs.

    Parameters
    ----------
    crystal
        Silicon whose atoms are fourfold: diamond, lonsdaleite.
    share
        Of the bonds that get an oxygen, between 0 and 1: of 1 comes SiO2.
    supercell, n_atoms
        As of `aiida_losiko.builders.substitute`.
    seed
        Of the random numbers.

    Returns
    -------
    ase.Atoms
        Every fourfold atom has four neighbours still, every oxygen two. The identifier is
        ``"<crystal>:oxidized-<share>-seed<seed>"``; ``info["oxidized"]`` has the parameters and the `energy` of the
        springs (`aiida_losiko.builders.valence_forces`) per fourfold atom in eV. It is not the energy of a compound.

    Raises
    ------
    LosikoError
        For another crystal, cells that are too small, and wrong parameters.
    """
    from ase import Atoms

    require("seed", seed, is_whole(seed), "a whole number of at least 0")
    require("share", share, is_real(share) and 0 < share <= 1, "a number above 0, at most 1")
    start, _, _ = make_supercell(crystal, supercell, n_atoms)
    bare, order = silicon_network(start)
    if bare.n_bridges:
        raise LosikoError(f"{crystal.get_chemical_formula()} has oxygen already: give silicon")
    n_bonds = len(bare.ends)
    n_oxygen = max(round(share * n_bonds), 1)
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(n_bonds)[:n_oxygen])
    kept = np.setdiff1d(np.arange(n_bonds), chosen)
    oxygen = bare.n_corners + np.arange(n_oxygen)
    first, second = bare.ends[chosen].T
    ends = [bare.ends[kept], np.stack([oxygen, first], axis=1), np.stack([oxygen, second], axis=1)]
    shifts = [bare.shifts[kept], np.zeros_like(bare.shifts[chosen]), bare.shifts[chosen]]
    network = Network(bare.n_corners, n_oxygen, np.concatenate(ends), np.concatenate(shifts))
    cell = start.cell.array
    corners = start.positions[order]
    between = 0.5 * (corners[first] + corners[second] + bare.shifts[chosen] @ cell)
    factor = 1 + (_SWELLING - 1) * share
    positions = factor * np.concatenate([corners, between])
    # No oxygen feels a force as long as its bonds are straight.
    positions += _RATTLE * generator.normal(size=positions.shape)
    positions, cell, energy = relax_with_cell(network, positions, factor * cell, _STEPS)
    symbols = [*start[order].symbols, *["O"] * n_oxygen]
    oxide = Atoms(symbols, positions=positions, cell=cell, pbc=True)
    oxide.wrap()
    oxide.info = {
        "identifier": f"{name_of(crystal)}:oxidized-{share:g}-seed{seed}",
        "oxidized": {"share": float(share), "seed": seed, "energy": energy / network.n_corners},
    }
    return oxide
