"""What is asked, what comes back, and what is said when nothing does."""

from __future__ import annotations

import json
import warnings
from collections import Counter

import numpy as np
import pytest

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data.set_content import check_source

from ..servers.materials_project import running
from .materials_project_service import ask, names, real_entries

SILICA = ["mp-149", "mp-900001", "mp-900002", "mp-900010"]


def test_a_chemical_system_with_its_subsystems(materials_project):
    info, records = ask(materials_project, chemsys="Si-O", energy_above_hull=0.1)
    assert names(records) == ["mp-149", "mp-900001", "mp-900002"]
    quartz = records[1]
    assert quartz.atoms.get_chemical_formula() == "O6Si3" and quartz.atoms.pbc.all()
    assert quartz.atoms.info["identifier"] == "mp-900001"
    distances = quartz.atoms.get_all_distances(mic=True)
    oxygen = quartz.atoms.symbols == "O"
    assert np.sort(distances[0][oxygen])[:4] == pytest.approx(1.61, abs=0.01)
    assert quartz.properties == {
        "material_id": "mp-900001",
        "formula": "SiO2",
        "chemsys": "O-Si",
        "energy_above_hull": 0.01,
        "energy_per_atom": -8.0,
        "thermo_type": "GGA_GGA+U_R2SCAN",
        "space_group": 154,
        "space_group_symbol": "P3_221",
        "n_sites": 9,
        "theoretical": False,
        "deprecated": False,
        "licence": "CC-BY-4.0",
        "reference": "10.1063/1.4812323",
        "database_version": "2026.01.01",
    }
    assert (info.name, info.version, info.licence) == ("Materials Project", "2026.01.01", "CC-BY-4.0")
    json.dumps([record.properties for record in records])


def test_one_bulk_search_with_the_fields_needed(materials_project):
    info, _ = ask(materials_project, chemsys="Si-O", energy_above_hull=0.1, num_sites=20, theoretical=False)
    (sent,) = materials_project.searches()
    fields = sent.pop("_fields").split(",")
    assert "structure" in fields and "energy_above_hull" in fields and len(fields) < 12
    assert sent == {
        "chemsys": "O,O-Si,Si",
        "energy_above_hull_max": "0.1",
        "nsites_max": "20",
        "theoretical": "False",
        "deprecated": "False",
        "batch_id_not_eq": "gnome_r2scan_statics",
        "_sort_fields": "material_id",
        "_limit": "1000",
    }
    (recorded,) = info.query["requests"]
    assert recorded.pop("_fields").split(",") == fields
    assert recorded == {"path": "/materials/summary/", **sent}
    assert info.query["asked"] == {
        "chemsys": "Si-O",
        "energy_above_hull": 0.1,
        "num_sites": 20,
        "theoretical": False,
    }


def test_the_recorded_query_asks_the_same_again(materials_project):
    info, records = ask(materials_project, formula=["SiO2", "C"], num_sites=8, database_version="2026.01.01")
    _, again = ask(materials_project, **info.query["asked"])
    assert names(again) == names(records) == ["mp-66", "mp-900010", "mp-900012", "mp-900013"]


def test_the_account_goes_into_a_node_as_it_is(materials_project):
    info, _ = ask(materials_project, chemsys="Si", subsystems=False)
    kept = check_source(info)
    assert kept["version"] == "2026.01.01"
    assert json.loads(kept["description"])["requests"][0]["chemsys"] == "Si"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"chemsys": "O-Si", "subsystems": False}, SILICA[1:]),
        ({"chemsys": "Si"}, ["mp-149"]),
        ({"formula": "SiO2"}, SILICA[1:]),
        ({"formula": ["Si", "CoO"]}, ["mp-149", "mp-900006"]),
        ({"material_ids": "mp-149"}, ["mp-149"]),
        ({"material_ids": ["mp-900010", "mp-66"]}, ["mp-66", "mp-900010"]),
        ({"chemsys": "Si-O", "num_sites": 9}, ["mp-149", "mp-900001", "mp-900010"]),
        ({"chemsys": "Si-O", "theoretical": True}, ["mp-900002"]),
        ({"chemsys": "Co-O", "deprecated": True}, ["mp-900007"]),
        ({"chemsys": "Co-O"}, ["mp-900006"]),
        ({"chemsys": "C", "energy_above_hull": 0.11}, ["mp-66", "mp-900012"]),
        ({"chemsys": "C", "energy_above_hull": 0}, ["mp-900012"]),
    ],
)
def test_what_and_filters(materials_project, options, expected):
    _, records = ask(materials_project, **options)
    assert names(records) == expected


def test_pages(materials_project):
    _, records = ask(materials_project, chemsys="Si-O", page_size=3)
    assert names(records) == SILICA
    assert [(sent["_limit"], sent.get("_skip")) for sent in materials_project.searches()] == [("3", None), ("1", "3")]


def test_another_thermo_type_brings_its_own_energies(materials_project):
    info, records = ask(materials_project, chemsys="Si-O", thermo_type="R2SCAN", energy_above_hull=0.02)
    assert {record.identifier: record.properties["energy_above_hull"] for record in records} == {
        "mp-149": 0.0,
        "mp-900001": 0.0,
    }
    assert [record.properties["energy_per_atom"] for record in records] == [-15.0, -18.0]
    assert {record.properties["thermo_type"] for record in records} == {"R2SCAN"}
    summary, thermo = info.query["requests"]
    assert "energy_above_hull_max" not in summary
    assert (thermo["path"], thermo["thermo_types"], thermo["energy_above_hull_max"]) == (
        "/materials/thermo/",
        "r2SCAN",
        "0.02",
    )


def test_gnome_only_when_asked_for_and_with_its_licence(materials_project):
    assert "mp-900009" not in names(ask(materials_project, chemsys="Li-O")[1])
    info, records = ask(materials_project, chemsys="Li-O", include_gnome=True)
    assert {record.identifier: record.properties["licence"] for record in records} == {
        "mp-900008": "CC-BY-4.0",
        "mp-900009": "CC-BY-NC-4.0",
    }
    assert info.licence == "CC-BY-4.0 AND CC-BY-NC-4.0"


def test_what_is_not_cc_by_is_left_out_even_if_it_is_sent(materials_project):
    (peroxide,) = [document for document in materials_project.summaries if document["formula_pretty"] == "Li2O2"]
    peroxide["builder_meta"]["batch_id"] = "another batch"
    assert names(ask(materials_project, chemsys="Li-O")[1]) == ["mp-900008"]


def test_a_disordered_entry_is_rejected_by_name(materials_project):
    with pytest.warns(UserWarning, match=r"disordered or partially occupied: mp-900004 \(Li1\.5Co3O6\)") as caught:
        _, records = ask(materials_project, chemsys="Li-Co-O")
    assert caught[0].filename == ask.__code__.co_filename  # the line that asked
    assert "mp-900003" in names(records) and "mp-900004" not in names(records)
    with pytest.raises(LosikoError, match=r"no entry .* is left: disordered or partially occupied: mp-900004"):
        ask(materials_project, material_ids="mp-900004")


def test_entries_that_cannot_be_used_cost_only_themselves(materials_project):
    first, second, third, fourth = (doc for doc in materials_project.summaries if doc["material_id"] in SILICA)
    del first["structure"]
    first.pop("theoretical")
    second["structure"]["sites"][0]["species"] = "?"
    third["structure"]["sites"][1]["abc"] = third["structure"]["sites"][0]["abc"]
    with pytest.warns(UserWarning, match="left out") as caught:
        _, records = ask(materials_project, chemsys="Si-O")
    told = " | ".join(str(warning.message) for warning in caught)
    assert names(records) == [fourth["material_id"]]
    assert records[0].properties["theoretical"] is False  # a field that the first document of the page lacks
    assert "no structure: mp-149 (Si)" in told
    assert "cannot be read (" in told and "mp-900001" in told
    assert "Angstrom apart" in told and "mp-900002" in told


def test_ids_that_do_not_come_are_named(materials_project):
    with pytest.warns(UserWarning, match="gave 1 of 3 ids; it does not have mp-1, mp-900007, or a filter"):
        _, records = ask(materials_project, material_ids=["mp-149", "mp-1", "mp-900007"])
    assert names(records) == ["mp-149"]


def test_a_selection_of_what_comes(materials_project):
    assert (
        names(ask(materials_project, {"exclude": ["mp-149"], "elements": ["Si", "O"]}, chemsys="Si-O")[1]) == SILICA[1:]
    )
    assert names(ask(materials_project, {"max_atoms": 6}, chemsys="Si-O")[1]) == ["mp-900010"]
    with pytest.raises(LosikoError, match="leaves nothing of source materials_project"):
        ask(materials_project, {"max_atoms": 1}, chemsys="Si-O")


def test_the_database_version(materials_project):
    info, _ = ask(materials_project, chemsys="Si", database_version="2026-01-01")
    assert info.version == "2026.01.01"
    materials_project.db_version = "2026.02.02"  # the official client would still say the old one
    materials_project.requests.clear()
    with pytest.raises(LosikoError, match=r"from database version 2026\.02\.02, asked for is 2026\.01\.01"):
        ask(materials_project, chemsys="Si", database_version="2026.01.01")
    assert materials_project.searches() == []
    assert ask(materials_project, chemsys="Si")[0].version == "2026.02.02"


def test_a_version_that_is_not_told(materials_project):
    materials_project.heartbeat_status = 403  # what the network in front of the service does at times
    with pytest.warns(UserWarning, match="does not tell its database version"):
        info, records = ask(materials_project, chemsys="Si")
    assert (info.version, names(records)) == ("unknown", ["mp-149"])
    with pytest.raises(LosikoError, match=r"\(not told\), asked for is 2026"):
        ask(materials_project, chemsys="Si", database_version="2026.01.01")


def test_eight_elements_fit_into_one_request(materials_project):
    with pytest.warns(UserWarning, match="disordered"):
        _, records = ask(materials_project, chemsys="Si-O-H-Li-Co-C-Al-Mg")
    assert "mp-900005" in names(records)
    assert len(materials_project.searches()) == 1
    assert len(materials_project.searches()[0]["chemsys"].split(",")) == 255


def test_many_ids_are_split_by_the_client(materials_project):
    wanted = [f"mp-{number}" for number in range(1000000, 1001200)] + ["mp-149"]
    with pytest.warns(UserWarning, match="gave 1 of 1201 ids"):
        info, records = ask(materials_project, material_ids=wanted)
    assert names(records) == ["mp-149"]
    assert sum(len(sent["material_ids"].split(",")) for sent in info.query["requests"]) == len(wanted)


def test_real_entries_in_pages(materials_project_key):
    paths = real_entries()
    if not paths:
        pytest.skip("no real entries in $LOSIKO_DATA/mp; they are to be had from materialsproject.org with a key")
    with running(paths) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Counter(
            doc["chemsys"]
            for doc in server.summaries
            if set(doc["elements"]) <= {"Li", "Co", "O", "H"}
            and doc["energy_above_hull"] is not None
            and doc["energy_above_hull"] <= 0.2
        )
        _, records = ask(server, chemsys="Li-Co-O-H", energy_above_hull=0.2, page_size=100)
        pages = server.searches()
        assert Counter(record.properties["chemsys"] for record in records) == expected
        assert len(pages) == -(-len(records) // 100) > 2
        _, silica = ask(server, chemsys="Si-O", num_sites=12, page_size=50)
        assert {"mp-6930", "mp-149"} <= set(names(silica))
        by_name = {record.identifier: record for record in silica}
        assert by_name["mp-6930"].properties["space_group"] in (152, 154)
        assert max(record.properties["n_sites"] for record in silica) <= 12
