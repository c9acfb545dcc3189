"""Relaxing one structure in the process itself."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, StructureData

from aiida_losiko.calculations.common import check_parameters, known_protocol, spell_out
from aiida_losiko.calculations.functions.common import keep_from_cache, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData, atoms_to_structure, structure_to_atoms
from aiida_losiko.data.matches import matches_to_node, summarise

__all__ = ("relax_structure",)


@calcfunction
def relax_structure(
    structure: StructureData, database: EnvironmentDatabaseData, parameters: Dict
) -> dict[str, Any] | ExitCode:
    """Relax one structure: no queue, no program, done in this process. For a set use `losiko.relax`.

    Parameters
    ----------
    structure
        The start.
    database
        The environments to steer towards.
    parameters
        Keys, all optional: `protocol` (default: the one that the database was built with), `relax` (what differs from
        it), `exclude` (identifiers of sources left out of the database), `fixed_atoms` (indices from 0), `weights`
        (how much each atom counts, c_i of Eq. 8, on top of those by species in `relax`).

    Returns
    -------
    dict
        `structure` (StructureData), `report` (Dict) and `matches` (ArrayData) as those of the `losiko.relax` job. It
        is no failure when the steps did not suffice: the report says `n_converged`. Exit status 201 for wrong input.

    Notes
    -----
    Taken from the cache only where `relax` holds all parameters, as `load_protocol(name).relax` gives them: a function
    cannot put the numbers behind a name into its hash, as the job does.
    """
    try:
        return _relax(structure, database, parameters.get_dict())
    except LosikoError as error:
        return rejected(error)


def _relax(structure: StructureData, database: EnvironmentDatabaseData, parameters: dict[str, Any]) -> dict[str, Any]:
    from aiida_losiko.core.protocols import DEFAULT_PROTOCOL
    from aiida_losiko.core.relaxation.driver import relax
    from aiida_losiko.core.settings import RelaxSettings
    from aiida_losiko.core.structures.weights import set_weights, weights_of

    fixed, weights = parameters.pop("fixed_atoms", None), parameters.pop("weights", None)
    check_parameters(parameters, ("relax",), lists=("exclude",))
    name = parameters.get("protocol") or known_protocol(database) or DEFAULT_PROTOCOL
    numbers = spell_out(parameters, ("relax",), name)["relax"]
    settings = RelaxSettings.from_dict(numbers)
    if numbers != parameters.get("relax"):
        # The others come with the name of a protocol, which may stand for other numbers next time.
        keep_from_cache()
    exclude = parameters.get("exclude", [])
    environments = database.load()
    unknown = sorted(set(exclude) - set(environments.sources))
    if unknown:
        raise LosikoError(
            f"exclude holds {unknown[0]!r}, which is no source of the database: see database.load().sources"
        )
    if exclude:
        environments = environments.without(exclude)

    start = structure_to_atoms(structure, fixed)
    if weights is not None:
        set_weights(start, weights)
    result = relax(start, environments, settings=settings, weights=weights_of([start]))[0]
    if result.status == "error":
        raise LosikoError(str(result.error))
    rows, identifiers = [result.to_dict()], [str(start.info["identifier"])]
    report = {"protocol": name, "settings": settings.to_dict(), "excluded": exclude} | summarise(rows, identifiers)
    return {
        "structure": atoms_to_structure(result.atoms, like=structure),
        "report": Dict(report),
        "matches": matches_to_node(rows, [len(start)], identifiers),
    }
