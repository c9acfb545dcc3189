"""Molecules from SMILES by RDKit: distance geometry, and the best of some conformers by MMFF94."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiida_losiko.core.checks import is_whole, require
from aiida_losiko.core.errors import LosikoError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("from_smiles",)


def from_smiles(smiles: str, n_conformers: int = 10, seed: int = 0) -> Atoms:
    """Return a molecule, a rough start for methods that know better.

    Parameters
    ----------
    smiles
        Such as `CCO`. Hydrogen atoms are added; the heavy atoms stand first, in the order of the text.
    n_conformers
        How many are embedded; that of the lowest MMFF94 energy is taken, the first where MMFF94 lacks parameters.
    seed
        Of the embedding: the same seed gives the same molecule with the same version of RDKit.

    Returns
    -------
    ase.Atoms
        Not periodic; Angstrom.

    Raises
    ------
    LosikoError
        Without RDKit, for text that is no SMILES, and for molecules that cannot be embedded.
    """
    from ase import Atoms

    require("n_conformers", n_conformers, is_whole(n_conformers, 1), "1 or more")
    require("seed", seed, is_whole(seed), "a whole number from 0")
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ImportError as error:
        raise LosikoError("molecules from SMILES need RDKit: pip install rdkit") from error

    rdBase.DisableLog("rdApp.*")  # it writes to standard error what is raised here
    plain = Chem.MolFromSmiles(smiles) if isinstance(smiles, str) and smiles.strip() else None
    if plain is None:
        raise LosikoError(f"{smiles!r} is no SMILES that RDKit can read: give such as 'CCO' for ethanol")
    molecule = Chem.AddHs(plain)
    conformers = list(rdDistGeom.EmbedMultipleConfs(molecule, numConfs=n_conformers, randomSeed=seed))
    if not conformers:
        raise LosikoError(f"RDKit finds no coordinates for {smiles!r}: is the ring strained beyond what can be?")
    best = conformers[0]
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
        found: list[Any] = list(rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule))
        # Of energies that are equal to all that matters the first one, so that rounding does not choose.
        lowest = min(energy for _, energy in found)
        best = next(n for n, (_, energy) in zip(conformers, found, strict=True) if energy < lowest + 1e-4)
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    return Atoms(symbols, positions=molecule.GetConformer(best).GetPositions())
