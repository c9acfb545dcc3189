"""Molecules from SMILES, as a process."""

from __future__ import annotations

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict

from aiida_losiko.builders.smiles import from_smiles as build
from aiida_losiko.calculations.functions.common import check_keys, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData

__all__ = ("from_smiles",)


@calcfunction
def from_smiles(molecules: Dict, parameters: Dict | None = None) -> StructureSetData | ExitCode:
    """Return rough starts of molecules, see `aiida_losiko.builders.smiles`.

    Parameters
    ----------
    molecules
        SMILES by the identifiers that the molecules get.
    parameters
        `n_conformers` (default 10), `seed` (default 0).

    Returns
    -------
    StructureSetData
        Sorted by the number of atoms, then by identifier; the property `smiles` of each is what was given. Exit status
        201 for what is no SMILES.
    """
    try:
        settings = parameters.get_dict() if parameters is not None else {}
        check_keys(settings, ("n_conformers", "seed"))
        built = {name: build(smiles, **settings) for name, smiles in molecules.get_dict().items()}
        names = sorted(built, key=lambda name: (len(built[name]), name))
        properties = [{"smiles": molecules[name]} for name in names]
        return StructureSetData([built[name] for name in names], identifiers=names, properties=properties)
    except LosikoError as error:
        return rejected(error)
