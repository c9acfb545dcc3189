"""Glass out of a crystal by switching bonds (F. Wooten, K. Winer and D. Weaire, Phys. Rev. Lett. 54, 1392, 1985).

Every atom keeps its number of bonds, thus the glass has no dangling one: what cooling a melt approaches slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiida_losiko.builders.network import Network
from aiida_losiko.builders.supercell import Matrix, make_supercell, name_of
from aiida_losiko.builders.valence_forces import relax_network, silicon_network
from aiida_losiko.core.checks import is_real, is_whole, require

if TYPE_CHECKING:
    from ase import Atoms

FloatArray = NDArray[np.float64]

_QUICK, _FULL = 60, 400
"""Steps of the minimiser after a switch, and at the start and the end."""


def switch_bonds(
    crystal: Atoms,
    *,
    supercell: Matrix | None = None,
    n_atoms: int | Sequence[int] | None = None,
    trials: int = 30,
    temperatures: Sequence[float] = (4.0, 0.1),
    seed: int = 0,
) -> Atoms:
    """Return a glass: a network like that of a crystal, as fully bonded, but without its order.

    Two linked corners B and C are drawn, one of the other links of each, A-B and C-D, and switched: A-C and B-D. All
    atoms go to the nearest minimum (`aiida_losiko.builders.valence_forces`). What costs energy is taken with the
    probability of Metropolis. It begins hot, which destroys the crystal, and cools down. The cell stays as it is.

    Parameters
    ----------
    crystal
        Of fourfold Si, linked directly or by twofold O: cristobalite, quartz, silicon.
    supercell, n_atoms
        As of `aiida_losiko.builders.substitute`: a matrix in the vectors of the crystal, or about how many atoms.
    trials
        Switches that are tried, per fourfold atom.
    temperatures
        First and last, in eV.
    seed
        Of the random numbers.

    Returns
    -------
    ase.Atoms
        Fourfold atoms first. The identifier is ``"<crystal>:glass-seed<seed>"``; ``info["glass"]`` has the parameters,
        how many switches were `accepted`, and the `energy` per fourfold atom in eV.

    Raises
    ------
    LosikoError
        For what is no such network, cells that are too small, and wrong parameters.
    """
    require("trials", trials, is_whole(trials), "a whole number of at least 0")
    require("seed", seed, is_whole(seed), "a whole number of at least 0")
    pair = isinstance(temperatures, Sequence) and len(temperatures) == 2 and all(is_real(t) for t in temperatures)
    allowed = pair and temperatures[0] >= temperatures[1] > 0
    require("temperatures", temperatures, allowed, "two numbers of eV above zero, the first not the smaller one")
    start, _, _ = make_supercell(crystal, supercell, n_atoms)
    network, order = silicon_network(start)
    glass = start[order]
    cell = glass.cell.array
    generator = np.random.default_rng(seed)
    positions, energy = relax_network(network, glass.positions, cell, _FULL)
    accepted = 0
    hot, cold = (float(t) for t in temperatures)
    for temperature in np.geomspace(hot, cold, trials * network.n_corners):
        trial = _switched(network, generator)
        limit = energy - temperature * np.log(generator.random())
        if trial is None:
            continue
        moved, cost = relax_network(trial, positions, cell, _QUICK, limit)
        if cost < limit:
            network, positions, energy, accepted = trial, moved, cost, accepted + 1
    glass.positions, energy = relax_network(network, positions, cell, _FULL)
    glass.wrap()
    glass.info = {
        "identifier": f"{name_of(crystal)}:glass-seed{seed}",
        "glass": {
            "seed": seed,
            "trials": trials,
            "temperatures": [hot, cold],
            "accepted": accepted,
            "energy": energy / network.n_corners,
        },
    }
    return glass


def _switched(network: Network, generator: np.random.Generator) -> Network | None:
    """Return the network with the links of two neighbours switched, or None where that makes no sound one."""
    b = int(generator.integers(network.n_corners))
    of_b = network.links(b)
    middle = of_b.pop(int(generator.integers(len(of_b))))
    c = middle.corner
    back = (b, *(-middle.shift).tolist())
    of_c = [link for link in network.links(c) if (link.corner, *link.shift.tolist()) != back]
    one, other = of_b[generator.integers(3)], of_c[generator.integers(len(of_c))]
    if c == b or one.bond == other.bond:
        return None
    trial = network.copy()
    trial.move_end(one, c, middle.shift)
    trial.move_end(other, b, -middle.shift)
    return trial if trial.is_simple(b) and trial.is_simple(c) else None
