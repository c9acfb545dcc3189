"""Basin hopping: random displacements of what ended where the database knows nothing like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core.environments.database import EnvironmentDatabase

# An environment nearer to its match than this has no reason to hop, however little is known.
NO_MATCH = 0.01


def atom_limits(structures: list[Atoms], database: EnvironmentDatabase) -> list[float]:
    """Distance (as of `Matches`) for each atom, structure after structure, beyond which a converged atom hops.

    It is the reach of the database for the element. Where that is not known, as of a database of one molecule, every
    atom that has not come very near to an environment hops.
    """
    by_species = {symbol: max(reach or NO_MATCH, NO_MATCH) for symbol, reach in database.reach.items()}
    return [by_species[symbol] for atoms in structures for symbol in atoms.symbols]


def hop(
    positions: torch.Tensor, chosen: torch.Tensor, r_cut: float, length: float, generator: torch.Generator
) -> torch.Tensor:
    """Displace the chosen atoms at random; an atom without any neighbour is put beside another one.

    Parameters
    ----------
    positions : Tensor, shape (n_atoms, 3)
        In Angstrom.
    chosen : Tensor of bool, shape (n_atoms,)
        Atoms to be moved.
    r_cut : float
        An atom with no other within this distance feels no gradient, and would not come back by small displacements.
    length : float
        Standard deviation of the displacements in Angstrom.

    Returns
    -------
    Tensor, shape (n_atoms, 3)
    """
    noise = length * torch.randn(positions.shape, dtype=positions.dtype, generator=generator)
    partner = torch.randint(max(len(positions) - 1, 1), (len(positions),), generator=generator)
    partner += partner >= torch.arange(len(positions))
    lonely = chosen & ((torch.cdist(positions, positions) < r_cut).sum(1) == 1) & (len(positions) > 1)
    origin = positions.clone()
    origin[lonely] = positions[partner[lonely]]
    return torch.where(chosen[:, None], origin + noise, positions)
