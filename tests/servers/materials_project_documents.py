"""What the local Materials Project holds: documents made of a table of crystals, and the filters of the service."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("materials_project_entries.json")

Document = dict[str, Any]

LISTS = ("material_ids", "formula", "chemsys", "elements", "exclude_elements")
CONTROLS = ("_limit", "_skip", "_page", "_per_page", "_fields", "_all_fields", "_sort_fields")
OTHERS = ("deprecated", "theoretical", "is_stable", "license", "batch_id_not_eq", "thermo_types")


class BadRequestError(Exception):
    """The service would answer 400 with this detail."""


def read_entries(*paths: Path) -> tuple[list[Document], list[Document]]:
    """Return the summary and the thermo documents of tables (.json) and of collections of documents (.jsonl[.xz])."""
    summaries: list[Document] = []
    energies: list[Document] = []
    for path in paths or (TABLE,):
        if path.suffix == ".json":
            made = deepcopy(_table(path))
            summaries += made[0]
            energies += made[1]
        else:
            with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open() as lines:
                documents = [json.loads(line) for line in lines]
            for document in documents:
                document.pop("losiko_provenance", None)  # no field of the service
            summaries += documents
    # Collections of chemical systems that overlap hold the same entries.
    return list({document["material_id"]: document for document in summaries}.values()), energies


@cache
def _table(path: Path) -> tuple[list[Document], list[Document]]:
    summaries: list[Document] = []
    energies: list[Document] = []
    for entry in json.loads(path.read_text(encoding="utf-8"))["entries"]:
        summaries.append(_summary(entry))
        energies += _energies(entry, summaries[-1])
    return summaries, energies


def _summary(entry: dict[str, Any]) -> Document:
    from pymatgen.core import Lattice, Structure
    from pymatgen.symmetry.groups import SpaceGroup

    number = entry["space_group"]
    group = SpaceGroup.from_int_number(number)
    a, c = entry["a"], entry.get("c", entry["a"])
    lattice = Lattice.from_parameters(a, a, c, 90, 90, 120 if 143 <= number <= 194 else 90)
    species, places = [site[0] for site in entry["sites"]], [site[1:] for site in entry["sites"]]
    crystal = Structure.from_spacegroup(group.symbol, lattice, species, places)
    composition = crystal.composition
    return {
        "material_id": entry["material_id"],
        "formula_pretty": composition.reduced_formula,
        "formula_anonymous": composition.anonymized_formula,
        "chemsys": composition.chemical_system,
        "elements": sorted(element.symbol for element in composition.elements),
        "nelements": len(composition.elements),
        "nsites": len(crystal),
        "composition": dict(composition.as_dict()),
        "composition_reduced": dict(composition.as_reduced_dict()),
        "volume": crystal.volume,
        "density": float(crystal.density),
        "density_atomic": crystal.volume / len(crystal),
        "symmetry": {
            "crystal_system": group.crystal_system.capitalize(),
            "symbol": group.symbol,
            "number": number,
            "point_group": group.point_group,
            "symprec": 0.1,
            "version": "2.8.0",
        },
        "deprecated": entry.get("deprecated", False),
        "theoretical": entry.get("theoretical", False),
        "energy_above_hull": entry["energy_above_hull"],
        "energy_per_atom": entry["energy_per_atom"],
        "is_stable": entry["energy_above_hull"] == 0,
        "last_updated": "2026-01-01T00:00:00",
        "property_name": "summary",
        "builder_meta": {
            "license": entry.get("license", "BY-C"),
            "batch_id": entry.get("batch_id"),
            "build_date": "2026-01-01T00:00:00",
        },
        "structure": json.loads(crystal.to_json()),
    }


def _energies(entry: dict[str, Any], summary: Document) -> Iterator[Document]:
    shared = {
        key: summary[key] for key in ("material_id", "chemsys", "formula_pretty", "composition_reduced", "nsites")
    }
    shared["nelements"] = summary["nelements"]
    mixed = "GGA_GGA+U_R2SCAN"
    for thermo_type, hull in ((mixed, entry["energy_above_hull"]), ("r2SCAN", entry.get("r2scan_energy_above_hull"))):
        if hull is not None:
            shift = 0.0 if thermo_type == mixed else -10.0
            yield {
                **shared,
                "thermo_id": f"{entry['material_id']}_{thermo_type}",
                "thermo_type": thermo_type,
                "energy_above_hull": hull,
                "energy_per_atom": entry["energy_per_atom"] + shift,
            }


@cache
def numeric_fields() -> frozenset[str]:
    """Return the fields of a summary that the service can compare: those whose type is a number."""
    from emmet.core.summary import SummaryDoc

    numbers = (int, float, int | None, float | None)
    return frozenset(name for name, field in SummaryDoc.model_fields.items() if field.annotation in numbers)


def _test(name: str, text: str) -> Callable[[Document], bool]:
    """Return one query parameter as a test of a document."""
    from pymatgen.core import Composition

    values = [value.strip() for value in text.split(",")]
    field, _, bound = name.rpartition("_")
    if bound in ("min", "max") and field in numeric_fields():
        limit = float(text)
        if bound == "min":
            return lambda doc: doc.get(field) is not None and doc[field] >= limit
        return lambda doc: doc.get(field) is not None and doc[field] <= limit
    if name == "material_ids":
        return lambda doc: doc["material_id"] in values
    if name == "chemsys":
        systems = {"-".join(sorted(value.split("-"))) for value in values}
        return lambda doc: doc["chemsys"] in systems
    if name == "formula":
        try:
            formulas = {Composition(value).reduced_formula for value in values}
        except ValueError:
            raise BadRequestError("Problem processing one or more provided formulas.") from None
        return lambda doc: doc["formula_pretty"] in formulas
    if name == "elements":
        return lambda doc: set(values) <= set(doc["elements"])
    if name == "exclude_elements":
        return lambda doc: not set(values) & set(doc["elements"])
    if name in ("deprecated", "theoretical", "is_stable"):
        if text.lower() not in ("true", "false"):
            raise BadRequestError(f"{name} is no boolean")
        wanted = text.lower() == "true"
        return lambda doc: doc.get(name) is wanted
    if name == "thermo_types":
        return lambda doc: doc["thermo_type"] in values
    if name == "batch_id_not_eq":
        return lambda doc: (doc.get("builder_meta") or {}).get("batch_id") != text
    if name == "license":
        return lambda doc: text == "All" or (doc.get("builder_meta") or {}).get("license", "BY-C") == text
    raise BadRequestError(f"Request contains query parameters which cannot be used: {name}")


def answer(documents: Iterable[Document], parameters: dict[str, str], defaults: dict[str, str]) -> dict[str, Any]:
    """Return what the service answers to a search: the page asked for, the fields asked for, and the total.

    A field that a document does not have is left out of it.
    """
    unknown = [
        name
        for name in parameters
        if name not in (*LISTS, *CONTROLS, *OTHERS) and name.rpartition("_")[0] not in numeric_fields()
    ]
    if unknown:
        raise BadRequestError(f"Request contains query parameters which cannot be used: {', '.join(unknown)}")
    tests = [_test(name, text) for name, text in {**defaults, **parameters}.items() if name not in CONTROLS]
    found = [document for document in documents if all(test(document) for test in tests)]
    for field in reversed([name for name in parameters.get("_sort_fields", "").split(",") if name]):
        found.sort(key=lambda doc: doc.get(field.lstrip("-")), reverse=field.startswith("-"))
    skip, limit = int(parameters.get("_skip", 0)), int(parameters.get("_limit", 100))
    if limit > 1000:
        raise BadRequestError(
            "Requested more data per query than allowed by this endpoint. The max limit is 1000 entries"
        )
    if skip < 0 or limit < 0:
        raise BadRequestError("Cannot request negative _skip or _limit values")
    page = found[skip : skip + limit] if limit else found[skip:]
    if "_fields" in parameters or parameters.get("_all_fields", "False") == "False":
        fields = parameters.get("_fields", "material_id").split(",")
        page = [{name: document[name] for name in fields if name in document} for document in page]
    return {
        "data": page,
        "meta": {
            "api_version": "0.87.3",
            "time_stamp": "2026-01-01T00:00:00.000000+00:00",
            "total_doc": len(found),
            "facet": None,
            "max_limit": 1000,
            "default_fields": ["material_id"],
        },
    }
