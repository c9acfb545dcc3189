"""Well-known crystals as entries of an OPTIMADE server, and real ones where they are there.

The crystals are facts: space group, lattice (Angstrom), Wyckoff positions. The energies above hull are invented, to
have something to filter by; every provider gives them under a name and in a shape of its own, as the real ones do.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Crystal(NamedTuple):
    """A crystal: `lattice` is (a,) of a cubic one, else (a, c); the partial species maps symbols to occupancies."""

    identifier: str
    space_group: str
    lattice: tuple[float, ...]
    species: list[Any]
    positions: list[tuple[float, float, float]]
    energy_above_hull: float | None


# Sources: quartz Levien et al. (1980), cristobalite Downs and Palmer (1994), stishovite Ross et al. (1990), LiCoO2
# Orman and Wiseman (1984), Co3O4 Knop et al. (1968); the others are textbook values.
CRYSTALS = (
    Crystal("1", "P3_221", (4.916, 5.4054), ["Si", "O"], [(0.4697, 0, 2 / 3), (0.4133, 0.2672, 0.785467)], 0.01),
    Crystal("2", "P4_12_12", (4.9717, 6.9223), ["Si", "O"], [(0.3003, 0.3003, 0), (0.2392, 0.1044, 0.1787)], 0.0),
    Crystal("3", "P4_2/mnm", (4.1773, 2.6655), ["Si", "O"], [(0, 0, 0), (0.3061, 0.3061, 0)], 0.2),
    Crystal("4", "Fd-3m", (5.431,), ["Si"], [(0, 0, 0)], 0.0),
    Crystal("5", "Fd-3m", (3.567,), ["C"], [(0, 0, 0)], 0.1),
    Crystal("6", "P6_3/mmc", (2.461, 6.708), ["C", "C"], [(0, 0, 1 / 4), (1 / 3, 2 / 3, 1 / 4)], 0.0),
    Crystal("7", "P6_3/mmc", (2.52, 4.12), ["C"], [(1 / 3, 2 / 3, 1 / 16)], 0.15),
    Crystal("8", "R-3m", (2.8161, 14.0536), ["Li", "Co", "O"], [(0, 0, 0), (0, 0, 0.5), (0, 0, 0.2395)], 0.0),
    Crystal("9", "Fm-3m", (4.2615,), ["Co", "O"], [(0, 0, 0), (0.5, 0.5, 0.5)], 0.05),
    Crystal("10", "Fm-3m", (4.619,), ["Li", "O"], [(0.25, 0.25, 0.25), (0, 0, 0)], 0.0),
    Crystal("11", "Fd-3m", (8.084,), ["Co", "Co", "O"], [(0, 0, 0), (0.625,) * 3, (0.3881,) * 3], 0.0),
    Crystal("12", "Im-3m", (3.51,), ["Li"], [(0, 0, 0)], None),
    Crystal("13", "R-3m", (2.8161, 14.0536), [{"Li": 0.5}, "Co", "O"], [(0, 0, 0), (0, 0, 0.5), (0, 0, 0.2395)], 0.3),
)
"""Number 12 has no energy above hull, number 13 (Li0.5CoO2) is disordered."""

HULL_PROPERTY = {"mp": "stability", "alexandria": "hull_distance", "oqmd": "stability", "jarvis": "ehull"}
"""What providers call it, after their prefix; of others (``cod``) there is none."""


def provider_fields(prefix: str) -> list[dict[str, str]]:
    """Describe the properties of a provider as the configuration of the reference server wants it."""
    fields = []
    if prefix in HULL_PROPERTY:
        kind = "dictionary" if prefix == "mp" else "float"
        fields.append({"name": HULL_PROPERTY[prefix], "type": kind, "description": "energy above hull (eV/atom)"})
    if prefix == "alexandria":
        fields.append({"name": "space_group", "type": "integer", "description": "number of the space group"})
    if prefix == "oqmd":
        fields.append({"name": "spacegroup", "type": "string", "description": "Hermann-Mauguin symbol"})
    if prefix == "jarvis":
        fields += [
            {"name": "spg_number", "type": "integer", "description": "number of the space group"},
            {"name": "spg_symbol", "type": "string", "description": "Hermann-Mauguin symbol"},
        ]
    return fields


def known_entries(prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the crystals as the attributes of entries of that provider, `id` among them."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.symmetry.groups import SpaceGroup

    for crystal in CRYSTALS:
        number = SpaceGroup(crystal.space_group).int_number
        a, c = crystal.lattice[0], crystal.lattice[-1]
        lattice = Lattice.cubic(a) if number >= 195 else Lattice.tetragonal(a, c)
        if 143 <= number < 195:
            lattice = Lattice.hexagonal(a, c)
        structure = Structure.from_spacegroup(crystal.space_group, lattice, crystal.species, crystal.positions)
        yield _entry(
            prefix,
            f"{prefix}-{crystal.identifier}",
            structure,
            crystal.energy_above_hull,
            (number, crystal.space_group.replace("_", "")),
        )


def real_entries(prefix: str, folder: Path, system: str) -> Iterator[dict[str, Any]]:
    """Yield entries of the Materials Project from ``<folder>/mp/mp_<system>.jsonl.xz`` in the same shape."""
    from pymatgen.core import Structure

    with lzma.open(folder / "mp" / f"mp_{system}.jsonl.xz", "rt", encoding="utf-8") as stream:
        for line in stream:
            document = json.loads(line)
            symmetry = document["symmetry"]
            yield _entry(
                prefix,
                document["material_id"],
                Structure.from_dict(document["structure"]),
                document["energy_above_hull"],
                (symmetry["number"], symmetry["symbol"]),
            )


def write_jsonl(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write entries as OPTIMADE JSON lines, which the reference server reads."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps({"x-optimade": {"meta": {"api_version": "1.2.0"}}}) + "\n")
        for attributes in entries:
            identifier = attributes.pop("id")
            stream.write(json.dumps({"id": identifier, "type": "structures", "attributes": attributes}) + "\n")


def _entry(prefix: str, identifier: str, structure: Any, hull: float | None, group: tuple[int, str]) -> dict[str, Any]:
    composition = structure.composition.element_composition
    symbols = sorted(element.symbol for element in composition)
    amounts = {symbol: composition[symbol] for symbol in symbols}
    smallest = composition.get_integer_formula_and_factor()[1]
    reduced = "".join(f"{s}{_count(amounts[s] / smallest)}" for s in symbols)
    ranked = sorted((amount / smallest for amount in amounts.values()), reverse=True)
    species = {site.species: site for site in structure}
    attributes: dict[str, Any] = {
        "id": identifier,
        "immutable_id": identifier,
        "last_modified": {"$date": "2026-03-01T12:00:00Z" if identifier.endswith("8") else "2025-01-01T00:00:00Z"},
        "elements": symbols,
        "nelements": len(symbols),
        "elements_ratios": [amounts[s] / composition.num_atoms for s in symbols],
        "chemical_formula_descriptive": composition.formula,
        "chemical_formula_reduced": reduced,
        "chemical_formula_anonymous": "".join(
            f"{letter}{_count(n)}" for letter, n in zip("ABCDEF", ranked, strict=False)
        ),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "nsites": len(structure),
        "species": [_species(each) for each in species],
        "species_at_sites": [_species(site.species)["name"] for site in structure],
        "structure_features": [] if structure.is_ordered else ["disorder"],
        "space_group_it_number": group[0],
    }
    if prefix == "mp":
        # As the Materials Project gives it: by the set of calculations that makes the hull.
        stability = {"gga_gga+u_r2scan": {"energy_above_hull": hull}, "r2scan": {"energy_above_hull": 0.0}}
        attributes["stability"] = {} if hull is None else stability
    elif prefix in HULL_PROPERTY:
        attributes[HULL_PROPERTY[prefix]] = -99999.0 if hull is None and prefix == "jarvis" else hull
    attributes |= {"alexandria": {"space_group": group[0]}, "oqmd": {"spacegroup": group[1]}}.get(prefix, {})
    if prefix == "jarvis":
        attributes |= {"spg_number": group[0], "spg_symbol": group[1]}
    return attributes


def _species(composition: Any) -> dict[str, Any]:
    symbols = [element.symbol for element in composition]
    occupancies = [float(amount) for amount in composition.values()]
    if sum(occupancies) < 1 - 1e-6:
        symbols, occupancies = [*symbols, "vacancy"], [*occupancies, 1 - sum(occupancies)]
    return {"name": "".join(symbols), "chemical_symbols": symbols, "concentration": occupancies}


def _count(amount: float) -> str:
    return "" if abs(amount - 1) < 1e-6 else str(round(amount))
