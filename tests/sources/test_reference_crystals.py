from __future__ import annotations

import json
import lzma
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase.neighborlist import neighbor_list

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import density
from aiida_losiko.core.structures import check_structure
from aiida_losiko.sources import load_source
from aiida_losiko.sources.aflow_prototypes import space_group_symbol
from aiida_losiko.sources.reference_crystals import TABLE, build_crystal, crystal_table

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LOSIKO_DATA", ROOT.parent / "shared" / "data"))
TABLE_OF_CRYSTALS = crystal_table()
NAMES = tuple(TABLE_OF_CRYSTALS)
CENTRING = {"P": 1, "A": 2, "B": 2, "C": 2, "I": 2, "F": 4, "R": 3}
SYMMETRIC = "heterogenite-symmetric"
WATER = ("ice-xi", "ice-ih-ordered", "ice-viii", "ice-xiii")


def with_elements(*elements: str) -> list[str]:
    return [name for name, crystal in TABLE_OF_CRYSTALS.items() if crystal.elements >= set(elements)]


def of_elements(*elements: str) -> list[str]:
    return [name for name, crystal in TABLE_OF_CRYSTALS.items() if crystal.elements == set(elements)]


def shells(name: str, centre: str, neighbour: str, cutoff: float) -> list[list[float]]:
    """Sorted distances (Angstrom) from each `centre` atom to its `neighbour` atoms within the cutoff."""
    atoms = build_crystal(name)
    i, j, d = neighbor_list("ijd", atoms, cutoff)
    symbols = np.array(atoms.get_chemical_symbols())
    return [sorted(d[(i == k) & (symbols[j] == neighbour)].tolist()) for k in np.flatnonzero(symbols == centre)]


def as_structure(atoms):
    from pymatgen.core import Structure

    return Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions())


def test_table_is_large_and_covers_the_systems():
    assert len(NAMES) >= 45
    assert len({c.formula for c in TABLE_OF_CRYSTALS.values()}) >= 20
    for wanted in ("SiO2", "LiCoO2", "LiHO", "LiH3O2", "CoHO2", "Co(HO)2", "CoO", "Co3O4", "Li2O", "Li2O2", "LiH"):
        assert any(crystal.formula == wanted for crystal in TABLE_OF_CRYSTALS.values()), wanted
    for element in ("Si", "C", "Li", "Co", "H", "O"):
        assert of_elements(element)
    keys = [line.split(":")[0] for line in TABLE.read_text().splitlines() if line[:1].isalpha()]
    assert len(keys) == len(set(keys)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_crystal_is_what_the_table_says(name):
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    crystal = TABLE_OF_CRYSTALS[name]
    cell, primitive = build_crystal(name, conventional=True), build_crystal(name)
    check_structure(cell)
    structure = as_structure(cell)
    assert structure.composition.reduced_formula == crystal.formula
    assert len(cell) == crystal.n_atoms == CENTRING[crystal.space_group[0]] * len(primitive)
    for atoms in (structure, as_structure(primitive)):
        found = SpacegroupAnalyzer(atoms, symprec=1e-3)
        assert found.get_space_group_number() == crystal.number
        assert found.get_space_group_symbol() == space_group_symbol(crystal.number)
    assert density(cell) == pytest.approx(crystal.density, rel=0.03)
    assert density(primitive) == pytest.approx(density(cell))


@pytest.mark.parametrize("name", NAMES)
def test_orbits_have_the_stated_multiplicity(name):
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    crystal = TABLE_OF_CRYSTALS[name]
    cell = as_structure(build_crystal(name, conventional=True))
    orbits = SpacegroupAnalyzer(cell, symprec=1e-3).get_symmetrized_structure().equivalent_sites
    found = sorted((orbit[0].specie.symbol, len(orbit)) for orbit in orbits)
    assert found == sorted((site.element, site.multiplicity) for site in crystal.sites)


@pytest.mark.parametrize("name", NAMES)
def test_no_atoms_are_too_close(name):
    atoms = build_crystal(name)
    i, j, d = neighbor_list("ijd", atoms, 2.0)
    shortest = {}
    for pair, distance in zip(np.sort(atoms.numbers[np.stack([i, j])], axis=0).T.tolist(), d.tolist(), strict=True):
        shortest[tuple(pair)] = min(distance, shortest.get(tuple(pair), 9.0))
    allowed = {
        (1, 1): 0.73,
        (1, 8): 0.93,
        (1, 3): 1.9,
        (6, 6): 1.41,
        (8, 8): 1.2,
        (8, 14): 1.55,
        (3, 8): 1.9,
        (8, 27): 1.85,
    }
    for pair, distance in shortest.items():
        assert distance >= allowed[pair], pair


@pytest.mark.parametrize("name", of_elements("Si", "O"))
def test_silica_has_its_polyhedra(name):
    dense = name in ("stishovite", "seifertite")
    n_oxygen, shortest, longest = (6, 1.74, 1.86) if dense else (4, 1.55, 1.68)
    for shell in shells(name, "Si", "O", 2.3):
        assert len(shell) == n_oxygen and shortest < shell[0] and shell[-1] < longest
    assert {len(shell) for shell in shells(name, "O", "Si", 2.3)} == {3 if dense else 2}


@pytest.mark.parametrize("name", [name for name in with_elements("O", "H") if name != SYMMETRIC])
def test_each_hydrogen_has_one_oxygen(name):
    for shell in shells(name, "H", "O", 1.4):
        assert len(shell) == 1 and 0.93 <= shell[0] <= 1.05


def test_symmetric_hydrogen_is_midway():
    for shell in shells(SYMMETRIC, "H", "O", 1.4):
        assert shell == pytest.approx([1.248, 1.248], abs=0.01)
    (ordered,) = shells("heterogenite", "H", "O", 1.6)
    assert ordered == pytest.approx([1.03, 1.466], abs=0.01)


@pytest.mark.parametrize("name", WATER)
def test_ice_is_made_of_water_that_is_fourfold_bonded(name):
    atoms = build_crystal(name)
    i, j, vectors = neighbor_list("ijD", atoms, 1.1)
    for oxygen in np.flatnonzero(atoms.numbers == 8):
        u, v = vectors[i == oxygen]
        angle = np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
        assert 98 < angle < 118
    # each hydrogen bond is an O-H and an H...O
    bonds = shells(name, "O", "H", 2.15)
    assert {len(shell) for shell in bonds} == {4}
    assert {len(shell) for shell in shells(name, "H", "O", 2.15)} == {2}
    assert set(j.tolist()) == set(range(len(atoms)))


def test_carbon_bonds():
    for name in ("diamond", "lonsdaleite", "diamond-4h"):
        for shell in shells(name, "C", "C", 1.8):
            assert shell == pytest.approx([1.544] * 4, abs=0.003)
    for name in ("graphite", "graphite-3r"):
        for shell in shells(name, "C", "C", 1.8):
            assert shell == pytest.approx([1.42] * 3, abs=0.005)


def test_molecules_and_other_bonds():
    for name, centre, neighbour, cutoff, n, shortest, longest in (
        ("H2-alpha", "H", "H", 1.0, 1, 0.741, 0.743),
        ("O2-alpha", "O", "O", 1.5, 1, 1.20, 1.23),
        ("O2-beta", "O", "O", 1.5, 1, 1.20, 1.23),
        ("H2O2", "O", "O", 1.6, 1, 1.45, 1.48),
        ("Li2O2", "O", "O", 1.7, 1, 1.53, 1.56),
        ("Li2O", "Li", "O", 2.4, 4, 1.99, 2.01),
        ("LiH", "Li", "H", 2.4, 6, 2.03, 2.05),
        ("LiOH", "Li", "O", 2.3, 4, 1.95, 1.98),
        ("LiOH-H2O", "Li", "O", 2.3, 4, 1.95, 2.0),
        ("LiCoO2", "Co", "O", 2.3, 6, 1.91, 1.93),
        ("LiCoO2", "Li", "O", 2.3, 6, 2.08, 2.11),
        ("LiCoO2-spinel", "Co", "O", 2.3, 6, 1.91, 1.93),
        ("heterogenite", "Co", "O", 2.3, 6, 1.89, 1.91),
        ("Co(OH)2", "Co", "O", 2.4, 6, 2.08, 2.11),
        ("CoO2", "Co", "O", 2.3, 6, 1.87, 1.90),
        ("CoO", "Co", "O", 2.4, 6, 2.12, 2.14),
        ("CoO-wurtzite", "Co", "O", 2.3, 4, 1.96, 1.98),
        ("CoO-zincblende", "Co", "O", 2.3, 4, 1.96, 1.98),
        ("silicon", "Si", "Si", 2.6, 4, 2.35, 2.36),
        ("silicon-lonsdaleite", "Si", "Si", 2.6, 4, 2.32, 2.36),
        ("silicon-bc8", "Si", "Si", 2.6, 4, 2.30, 2.40),
        ("silicon-beta-tin", "Si", "Si", 2.7, 6, 2.42, 2.59),
        ("Co-hcp", "Co", "Co", 2.7, 12, 2.49, 2.51),
        ("Co-fcc", "Co", "Co", 2.7, 12, 2.50, 2.51),
        ("Li-bcc", "Li", "Li", 3.2, 8, 3.03, 3.05),
        ("Li-fcc", "Li", "Li", 3.3, 12, 3.09, 3.10),
        ("Li-hcp", "Li", "Li", 3.3, 12, 3.10, 3.12),
    ):
        for shell in shells(name, centre, neighbour, cutoff):
            assert len(shell) == n and shortest < shell[0] and shell[-1] < longest, (name, shell)
    cobalt = sorted((len(shell), round(shell[0], 2)) for shell in shells("Co3O4", "Co", "O", 2.3))
    assert cobalt == [(4, 1.95)] * 2 + [(6, 1.91)] * 4


@cache
def collected(system: str) -> list[dict]:
    with lzma.open(DATA / "mp" / f"mp_{system}.jsonl.xz", "rt") as stream:
        return [json.loads(line) for line in stream]


# Not among the collected entries in this symmetry: models, an ordered form, and one molecular crystal.
WITHOUT_COUNTERPART = {"H2-alpha", "ice-ih-ordered", "ice-xiii", "heterogenite", "O2-alpha"}


@pytest.mark.skipif(
    not (DATA / "mp" / "mp_Si-O.jsonl.xz").is_file(),
    reason="LOSIKO_DATA has no mp/mp_Si-O.jsonl.xz; the entries themselves: https://materialsproject.org",
)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_COUNTERPART])
def test_an_independent_collection_has_the_same_crystal(name):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    crystal, own = TABLE_OF_CRYSTALS[name], as_structure(build_crystal(name))
    system = "C" if "C" in crystal.elements else "Si-O" if "Si" in crystal.elements else "Li-Co-O-H"
    matcher = StructureMatcher()
    distances = []
    for entry in collected(system):
        same = entry["formula_pretty"] == crystal.formula and entry["symmetry"]["number"] == crystal.number
        if same and entry["nsites"] <= 2 * len(own):
            other = Structure.from_dict(entry["structure"])
            if matcher.fit(own, other):
                distances.append(float(matcher.get_rms_dist(own, other)[0]))
    assert distances and min(distances) < 0.04


def test_load_source_selects_by_elements():
    info, records = load_source("reference_crystals", None, {"elements": ["Si", "O"]})
    assert {s for r in records for s in r.atoms.symbols} == {"Si", "O"}
    assert len(records) == len(of_elements("Si", "O")) + len(of_elements("Si")) + len(of_elements("O"))
    assert info.licence == "MIT" and info.version.startswith("aiida-losiko ") and info.checksum.startswith("md5:")
    identifiers = [r.identifier for r in load_source("reference_crystals")[1]]
    assert identifiers == [f"crystal:{name}" for name in NAMES]


def test_other_selections():
    def ids(selection, **options):
        return [r.identifier for r in load_source("reference_crystals", None, selection, **options)[1]]

    assert ids({"ids": ["crystal:graphite", 1]}) == ["crystal:quartz-alpha", "crystal:graphite"]
    assert set(ids({"named": "stable", "elements": ["C"]})) == {"crystal:graphite"}
    assert "crystal:quartz-beta" not in ids("stable") and "crystal:LiCoO2" in ids("stable")
    assert ids({"elements": ["C"], "exclude": ["crystal:diamond"], "max_atoms": 2}) == ["crystal:graphite-3r"]
    (record,) = load_source("reference_crystals", None, {"ids": ["crystal:diamond"]}, conventional=True)[1]
    assert len(record.atoms) == record.properties["n_sites"] == 8


def test_properties_are_json_and_complete():
    _, records = load_source("reference_crystals")
    for record in records:
        properties = json.loads(json.dumps(record.properties))
        assert properties["formula"] == TABLE_OF_CRYSTALS[properties["name"]].formula
        assert properties["n_sites"] == len(record.atoms) and record.atoms.pbc.all()
        assert properties["licence"] == "MIT" and properties["reference"].endswith(")")
        assert isinstance(properties["theoretical"], bool) and "energy_above_hull" not in properties
        assert record.atoms.info == {"identifier": record.identifier}
    quartz = records[0].properties
    assert (quartz["space_group"], quartz["space_group_symbol"], quartz["stable"]) == (154, "P3_221", True)
    for doi in filter(None, (crystal.doi for crystal in TABLE_OF_CRYSTALS.values())):
        assert doi.startswith("10.") and "/" in doi


def test_a_record_can_be_changed_without_harm():
    atoms = build_crystal("diamond")
    atoms.positions += 1.0
    atoms.symbols[0] = "Si"
    assert str(build_crystal("diamond").symbols) == "C2" and build_crystal("diamond").positions.min() < 1.0


def test_building_warns_of_nothing():
    from aiida_losiko.sources.reference_crystals import _build

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(_build.__wrapped__("moganite", True)) == 36


def test_bad_requests_are_refused_in_one_line():
    for options, pattern in (
        ({"path": "table.yaml"}, "takes no path"),
        ({"selection": "stabel"}, "unknown named selection 'stabel'; allowed are stable"),
        ({"selection": {"elements": ["Xe"]}}, "leaves nothing"),
        ({"prototypes": ["A2B_hP9_152_c_b"]}, "unknown AFLOW prototype 'A2B_hP9_152_c_b' \\(did you mean"),
        ({"prototypes": "A2B_hP9_152_c_a"}, "give True, False or a list"),
        ({"prototype": True}, "unknown option prototype of source reference_crystals; allowed are prototypes"),
    ):
        with pytest.raises(LosikoError, match=pattern) as excinfo:
            load_source("reference_crystals", **options)
        assert "\n" not in str(excinfo.value)
    with pytest.raises(LosikoError, match="unknown crystal 'quarz-alpha' \\(did you mean 'quartz-alpha'"):
        build_crystal("quarz-alpha")


def test_aflow_prototypes_come_on_request():
    info, records = load_source("reference_crystals", None, {"elements": ["Si", "O"]}, prototypes=True)
    prototypes = {r.identifier: r for r in records if r.identifier.startswith("aflow:")}
    assert len(prototypes) >= 15 and "pymatgen" in info.version
    assert {s for r in records for s in r.atoms.symbols} == {"Si", "O"}
    quartz = prototypes["aflow:A2B_hP9_152_c_a"]
    assert len(quartz.atoms) == 9 and quartz.properties["space_group_symbol"] == "P3_121"
    assert quartz.properties["reference"].endswith("Solid State Communications 72, 507 (1989)")
    assert "aflow:A_hR2_166_c:O2" in prototypes
    everything = load_source("reference_crystals", None, None, prototypes=True)[1]
    assert len({r.identifier for r in everything}) == len(everything) > len(NAMES) + 280
    for record in everything[len(NAMES) :]:
        check_structure(record.atoms)
        assert json.loads(json.dumps(record.properties))["reference"]


def test_aflow_prototypes_by_label():
    _, records = load_source("reference_crystals", None, {"elements": ["C", "O"]}, prototypes=["A_hR2_166_c"])
    assert [r.identifier for r in records][-2:] == ["aflow:A_hR2_166_c:O2", "aflow:A_hR2_166_c:C"]
    _, (record,) = load_source("reference_crystals", None, {"ids": ["aflow:A_cF8_227_a"]}, prototypes=True)
    assert record.properties["name"] == "diamond" and record.properties["strukturbericht"] == "A4"


def test_space_group_symbols_are_those_of_spglib():
    import spglib

    short = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        short.setdefault(kind.number, kind.international_short)
    assert {number: space_group_symbol(number) for number in short} == short


def test_the_documentation_lists_every_crystal():
    page = (ROOT / "docs" / "crystal-sources.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `crystal:")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    listed = {row[0].strip("`"): tuple(row[1:4]) for row in rows}
    expected = {
        f"crystal:{name}": (entry.formula, f"{space_group_symbol(entry.number)} ({entry.number})", entry.reference)
        for name, entry in TABLE_OF_CRYSTALS.items()
    }
    assert listed == expected and len(rows) == len(expected)
