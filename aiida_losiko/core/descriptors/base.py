"""What every descriptor of local atomic environments offers to the rest of the package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.neighbors import NeighborTable, StructureBatch

if TYPE_CHECKING:
    from ase import Atoms

N_ELEMENTS = len(chemical_symbols)


class Descriptor(ABC):
    """Maps the neighbours of an atom to a vector of features that does not change when the environment is rotated.

    A subclass has a `name`, a constructor whose arguments are the entries of `parameters`, and `features_of`.

    Parameters
    ----------
    species : iterable of str
        Chemical symbols of all elements that can occur, in any order.

    Attributes
    ----------
    species : tuple of str
        The elements, sorted by atomic number.
    r_cut : float
        Nominal radius of the environment in Angstrom.
    cutoff : float
        Radius within which neighbours are needed, in Angstrom (at least `r_cut`).
    n_features : int
        Length of a feature vector.
    """

    name: ClassVar[str]
    r_cut: float
    cutoff: float
    n_features: int

    def __init__(self, species: Iterable[str]) -> None:
        symbols = [species] if isinstance(species, str) else list(species)
        unknown = [str(s) for s in symbols if s not in atomic_numbers or s == "X"]
        if unknown or not symbols:
            raise LosikoError(
                f"species {', '.join(unknown) or '[]'} is not a list of chemical elements; "
                "give symbols such as ['H', 'C', 'O']"
            )
        self.species = tuple(sorted(set(symbols), key=lambda s: int(atomic_numbers[s])))
        self.numbers = tuple(int(atomic_numbers[s]) for s in self.species)

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The settings as plain values; `make_descriptor(parameters)` gives an equal descriptor."""

    @abstractmethod
    def columns(self, present: tuple[int, ...]) -> NDArray[np.int64] | None:
        """Features that can differ from zero when only these atomic numbers are there, ascending; None for all of them.

        What is absent need not be computed, stored or compared.
        """

    @abstractmethod
    def features_of(
        self, vectors: torch.Tensor, inside: torch.Tensor, species_index: torch.Tensor, present: tuple[int, ...]
    ) -> torch.Tensor:
        """Feature vectors of some centres, differentiable once in `vectors`.

        Parameters
        ----------
        vectors : Tensor, shape (n_centers, n_neighbors, 3)
            From each centre to its neighbours, in Angstrom; the centre itself is among them.
        inside : Tensor, shape (n_centers, n_neighbors)
            One for neighbours, zero for padding.
        species_index : Tensor of int64, shape (n_centers, n_neighbors)
            Which element of `present` a neighbour is.
        present : tuple of int
            Atomic numbers that occur, ascending.

        Returns
        -------
        Tensor, shape (n_centers, len(columns(present)))
            Without the columns of what is absent. Features have to go to zero smoothly at the cutoff.
        """

    def check_species(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Return the sorted atomic numbers that occur; raise a `LosikoError` for one that the descriptor lacks."""
        present = tuple(sorted({int(z) for z in numbers}))
        absent = [chemical_symbols[z] for z in present if z not in self.numbers]
        if absent:
            raise LosikoError(
                f"species {', '.join(absent)} is not known to the descriptor, which has {', '.join(self.species)}; "
                "build the database from structures that contain it, or leave the structure out"
            )
        return present

    def features(self, batch: StructureBatch) -> torch.Tensor:
        """Feature vectors of all atoms of a batch, differentiable once in its positions and cells.

        Returns
        -------
        Tensor, shape (n_atoms, n_features)
            Not normalised.
        """
        present = self.check_species(batch.numbers.tolist())
        table = NeighborTable(self.cutoff, skin=0.0)
        table.update(batch)
        vectors, inside, _ = table.vectors(batch)
        species_index = species_positions(present, batch.numbers)[table.index]
        compact = self.features_of(vectors, inside, species_index, present)
        columns = self.columns(present)
        if columns is None:
            return compact
        full = compact.new_zeros((len(compact), self.n_features))
        return full.index_copy(1, torch.as_tensor(columns, device=compact.device), compact)

    @overload
    def create(self, structures: Atoms) -> NDArray[np.float64]: ...

    @overload
    def create(self, structures: Sequence[Atoms]) -> list[NDArray[np.float64]]: ...

    def create(self, structures: Atoms | Sequence[Atoms]) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Feature vectors as arrays of shape (n_atoms, n_features), one for each structure."""
        from ase import Atoms

        as_list: list[Atoms] = [structures] if isinstance(structures, Atoms) else list(structures)
        with torch.no_grad():
            features: NDArray[np.float64] = self.features(StructureBatch.from_atoms(as_list)).numpy()
        if isinstance(structures, Atoms):
            return features
        return np.split(features, np.cumsum([len(atoms) for atoms in as_list])[:-1])

    def __eq__(self, other: object) -> bool:
        """Equal when the settings are."""
        return isinstance(other, Descriptor) and self.parameters == other.parameters

    def __hash__(self) -> int:
        """Hash of the settings."""
        return hash(repr(self.parameters))

    def __repr__(self) -> str:
        """As it would be typed."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items() if key != "name")
        return f"{type(self).__name__}({arguments})"


def species_positions(present: tuple[int, ...], numbers: torch.Tensor) -> torch.Tensor:
    """The position in `present` of each of the atomic numbers `numbers`."""
    lookup = torch.zeros(N_ELEMENTS, dtype=torch.int64, device=numbers.device)
    lookup[torch.as_tensor(present, device=numbers.device)] = torch.arange(len(present), device=numbers.device)
    return lookup[numbers]
