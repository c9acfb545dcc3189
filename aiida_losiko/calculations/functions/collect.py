"""Single structures as one set."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict

from aiida_losiko.calculations.functions.common import check_keys, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import StructureSetData, node_to_atoms

__all__ = ("collect",)


@calcfunction
def collect(parameters: Dict, **structures: Any) -> StructureSetData | ExitCode:
    """Return structures, each of a process of its own, as one set, such as a database is built from.

    Parameters
    ----------
    parameters
        `identifiers`: label of each of `structures` to its identifier in the set; they come in the order of the
        labels. `source`: see `StructureSetData`. `properties`: label to what is known of the structure.
    **structures
        The structures (StructureData) by labels.

    Returns
    -------
    StructureSetData
        Exit status 201 for a structure without an identifier, and for an identifier that is there twice.
    """
    try:
        given = parameters.get_dict()
        check_keys(given, ("identifiers", "source", "properties"))
        names, known = given.get("identifiers") or {}, given.get("properties") or {}
        labels = sorted(structures)
        for label in labels:
            if label not in names:
                raise LosikoError(f"the structure {label!r} has no identifier: name it in parameters, identifiers")
        return StructureSetData(
            [node_to_atoms(structures[label])[0] for label in labels],
            identifiers=[names[label] for label in labels],
            source=given.get("source"),
            properties=[known.get(label) or {} for label in labels] if known else None,
        )
    except LosikoError as error:
        return rejected(error)
