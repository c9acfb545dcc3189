"""The AFLOW prototypes that pymatgen ships: 288 crystals with their literature.

Mehl et al., The AFLOW library of crystallographic prototypes, part 1, Comput. Mater. Sci. 136, S1 (2017). They are part
of :mod:`aiida_losiko.sources.reference_crystals` on request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.sources.base import SourceRecord
from aiida_losiko.sources.selection import Selection

PREFIX = "aflow:"


def iterate_prototypes(
    chosen: Selection, labels: Sequence[str] | None = None, after: int = 0
) -> Iterator[SourceRecord]:
    """Yield prototypes with the elements that they are named for (none are put in the place of others).

    Parameters
    ----------
    chosen : Selection
        Which are wanted; the caller draws.
    labels : sequence of str, optional
        AFLOW labels such as ``A2B_hP9_152_c_a``, or identifiers; default all.
    after : int, default 0
        Number of the record before the first prototype.

    Yields
    ------
    SourceRecord
        Identifier ``aflow:<label>``, and ``aflow:<label>:<formula>`` where several prototypes share a label;
        properties ``formula``, ``space_group``, ``space_group_symbol``, ``n_sites``, ``licence``, ``reference`` and
        where known ``name`` (of the mineral) and ``strukturbericht``.

    Raises
    ------
    LosikoError
        A label that pymatgen does not have.
    """
    wanted = None if labels is None else _checked(labels)
    for number, (label, identifier, entry) in enumerate(_library(), start=after + 1):
        if wanted is not None and label not in wanted and identifier not in wanted:
            continue
        if not chosen.wants(number, identifier):
            continue
        structure = entry["snl"].structure
        symbols = [site.specie.symbol for site in structure]
        if chosen.fits(symbols):
            yield _record(label, identifier, entry, symbols)


@cache
def _library() -> list[tuple[str, str, dict[str, Any]]]:
    """Label, identifier and pymatgen's entry of each prototype."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY  # type: ignore[attr-defined]

    uses = Counter(entry["tags"]["aflow"] for entry in AFLOW_PROTOTYPE_LIBRARY)
    library = []
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        label = entry["tags"]["aflow"]
        formula = entry["snl"].structure.composition.reduced_formula
        library.append((label, PREFIX + label + (f":{formula}" if uses[label] > 1 else ""), entry))
    return library


def _checked(labels: Sequence[str]) -> frozenset[str]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise LosikoError(f"prototypes is {labels!r}; give True, False or a list of AFLOW labels")
    known = {name for label, identifier, _ in _library() for name in (label, identifier)}
    for label in labels:
        if label not in known:
            raise LosikoError(
                f"unknown AFLOW prototype {label!r}{did_you_mean(label, known)}; "
                "allowed are the labels that pymatgen ships, such as A2B_hP9_152_c_a"
            )
    return frozenset(labels)


def _record(label: str, identifier: str, entry: dict[str, Any], symbols: list[str]) -> SourceRecord:
    from ase import Atoms

    structure, tags = entry["snl"].structure, entry["tags"]
    number = int(label.split("_")[2])
    properties = {
        "label": label,
        "formula": structure.composition.reduced_formula,
        "space_group": number,
        "space_group_symbol": space_group_symbol(number),
        "n_sites": len(symbols),
        "licence": "MIT",
        "reference": _citation(entry["snl"].references),
    }
    for key, tag in (("name", "mineral"), ("strukturbericht", "strukturbericht")):
        if tags.get(tag) not in (None, "", "None"):
            properties[key] = tags[tag]
    atoms = Atoms(symbols, cell=structure.lattice.matrix, scaled_positions=structure.frac_coords, pbc=True)
    return SourceRecord(identifier, atoms, properties)


def space_group_symbol(number: int) -> str:
    """Return the short symbol of the standard setting, as the Materials Project writes it (``P2_1/c``)."""
    from pymatgen.symmetry.groups import sg_symbol_from_int_number

    symbol = str(sg_symbol_from_int_number(number))
    return symbol[0] + symbol[2:-1] if 3 <= number <= 15 else symbol


def _citation(bibtex: str) -> str:
    """Authors, journal, volume, page (year) of the first entry, as far as they are there."""
    first = re.split(r"\n\s*@", bibtex.strip(), maxsplit=1)[0]
    field = dict(re.findall(r"^\s*(\w+)\s*=\s*[{\"](.*?)[}\"],?\s*$", first, flags=re.MULTILINE))
    authors = ", ".join(field.get("author", "").split(" and "))
    place = " ".join(field[key].strip() for key in ("journal", "volume") if key in field)
    page = f", {field['page_first']}" if "page_first" in field else ""
    year = f" ({field['year']})" if "year" in field else ""
    return ", ".join(part for part in (authors, place) if part) + page + year
