"""The source `optimade` against the reference server on loopback; faults come from a proxy in between."""

from __future__ import annotations

import json
import lzma
import sys
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources import load_source, patient_session
from aiida_losiko.sources.optimade import load_optimade
from aiida_losiko.sources.optimade_providers import DATABASES, DIALECTS, find_database
from aiida_losiko.sources.optimade_query import optimade_filter

from ..servers.optimade_crystals import CRYSTALS, HULL_PROPERTY, known_entries
from ..servers.optimade_faults import Change, Cut, FaultyProxy, Slow, Status
from ..servers.optimade_process import DATA, REAL

HULLS = {crystal.identifier: crystal.energy_above_hull for crystal in CRYSTALS}


@pytest.fixture
def server(optimade):
    return optimade


@pytest.fixture
def proxy(server):
    with FaultyProxy(server) as proxy:
        yield proxy


@pytest.fixture
def sleeps(monkeypatch):
    """What the sessions would have slept (s), without doing so."""
    slept = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr(patient_session, "time", clock)
    monkeypatch.setattr("aiida_losiko.sources.optimade_client.time", clock)
    return slept


def load(address, prefix="mp", **options):
    quick = {"retries": 2, "pause": 0.0, "timeout": 30.0} | options
    selection = quick.pop("selection", None)
    return load_optimade(None, selection, base_url=f"{address}/{prefix}", **quick)


def names(records):
    """Identifiers without what all of them start with."""
    return [record.identifier.rpartition("-")[2] for record in records]


def fails(match, address, prefix="mp", **options):
    with pytest.raises(LosikoError, match=match) as excinfo:
        load(address, prefix, **options)
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value)


# What comes back


def test_a_chemical_system_with_its_subsystems(server, capfd):
    info, records = load(server, chemsys="Si-O")
    assert [record.identifier for record in records] == [f"optimade:mp:mp-{n}" for n in "1234"]
    quartz = records[0]
    assert quartz.properties == {
        "formula": "SiO2",
        "n_sites": 9,
        "energy_above_hull": 0.01,
        "thermo_type": "GGA_GGA+U_R2SCAN",
        "space_group": 154,
        "space_group_symbol": "P3_221",
        "licence": "CC-BY-4.0",
        "reference": "10.1063/1.4812323",
        "url": f"{server}/mp/v1/structures/mp-1",
        "last_modified": "2025-01-01T00:00:00",
    }
    assert quartz.atoms.info["identifier"] == quartz.identifier
    assert quartz.atoms.pbc.all()
    entry = next(known_entries("mp"))
    np.testing.assert_allclose(quartz.atoms.cell.array, entry["lattice_vectors"], atol=1e-12)
    np.testing.assert_allclose(quartz.atoms.positions, entry["cartesian_site_positions"], atol=1e-12)
    assert list(quartz.atoms.symbols) == entry["species_at_sites"]
    # Every silicon of quartz has four oxygens at 1.61 Angstrom.
    for silicon in np.flatnonzero(quartz.atoms.symbols == "Si"):
        distances = np.sort(quartz.atoms.get_distances(silicon, range(9), mic=True))
        assert np.sum((distances > 1.59) & (distances < 1.63)) == 4
    assert (info.name, info.licence, info.reference) == ("OPTIMADE mp", "CC-BY-4.0", DATABASES["mp"].reference)
    assert info.url == f"{server}/mp"
    assert capfd.readouterr() == ("", "")


def test_the_account_of_a_query(server):
    info, _ = load(server, chemsys="Li-Co-O", energy_above_hull=0.1, num_sites=20)
    query = info.query
    # Of the entries that answer, number 8 was changed last.
    assert info.version == "last modified 2026-03-01T12:00:00"
    assert query["filter"] == 'elements HAS ONLY "Co","Li","O" AND nsites<=20'
    assert query["options"] == {
        "base_url": f"{server}/mp",
        "chemsys": "Li-Co-O",
        "energy_above_hull": 0.1,
        "num_sites": 20,
    }
    assert query["provider"] == {"prefix": "mp", "name": "Test of mp"}
    assert query["implementation"]["name"] == "OPTIMADE Python Tools"
    assert query["api_version"].startswith("1.")
    assert (query["data_returned"], query["data_available"]) == (5, len(CRYSTALS))
    assert query["time_stamp"]
    assert json.loads(json.dumps(info.to_dict())) == info.to_dict()


def test_the_version_is_that_of_the_database_where_it_is_said(proxy):
    proxy.always["structures"] = Change(
        lambda answer: answer | {"meta": answer["meta"] | {"database": {"id": "x", "version": "2026.11"}}}
    )
    info, _ = load(proxy.url, chemsys="C")
    assert info.version == "2026.11"


@pytest.mark.parametrize("prefix", sorted(HULL_PROPERTY))
def test_the_energy_above_hull_under_every_name(server, prefix):
    _, records = load(server, prefix, chemsys="Li-Co-O", energy_above_hull=0.05)
    # 12 has none, 13 lies above.
    assert names(records) == ["10", "11", "8", "9"]
    for record in records:
        assert record.properties["energy_above_hull"] == HULLS[record.identifier.rpartition("-")[2]]
    assert [record.properties["space_group"] for record in records] == [225, 227, 166, 225]
    assert [record.properties["space_group_symbol"] for record in records] == ["Fm-3m", "Fd-3m", "R-3m", "Fm-3m"]
    _, records = load(server, prefix, chemsys="Li")
    assert "energy_above_hull" not in records[0].properties


def test_the_hull_of_another_thermo_type(server):
    _, records = load(server, chemsys="C", thermo_type="r2SCAN", energy_above_hull=0.0)
    assert {record.properties["energy_above_hull"] for record in records} == {0.0}
    assert names(records) == ["5", "6", "7"]
    fails("they have no energy above hull for thermo_type GGA_GGA", server, chemsys="Li", energy_above_hull=0.1)


@pytest.mark.parametrize("prefix", ["mp", "alexandria", "oqmd", "jarvis"])
def test_a_server_that_ignores_the_limit_is_not_trusted(proxy, prefix):
    """The hull is looked at again, whatever the server's filter did."""

    def raise_energies(answer):
        for entry in answer["data"]:
            attributes = entry["attributes"]
            if prefix == "mp":
                attributes["_mp_stability"] = {"gga_gga+u_r2scan": {"energy_above_hull": 0.5}}
            else:
                attributes[DIALECTS[prefix].hull] = 0.5
        return answer

    proxy.plans["structures"] = [Change(raise_energies)]
    fails(
        r"energy_above_hull=0\.3 leaves none of 3 .*the lowest is 0\.5 eV/atom",
        proxy.url,
        prefix,
        chemsys="C",
        energy_above_hull=0.3,
    )


def test_providers_without_an_energy_above_hull(server):
    message = fails("provider cod gives no energy above hull", server, "cod", chemsys="C", energy_above_hull=0.1)
    assert "mp, alexandria" in message
    info, records = load(server, "cod", chemsys="C")
    assert "energy_above_hull" not in records[0].properties
    assert info.licence == ""
    assert "licence" not in records[0].properties


def test_a_server_that_does_not_list_the_property_gives_none(proxy):
    def drop(answer):
        del answer["data"]["properties"]["_oqmd_stability"]
        return answer

    proxy.always["info/structures"] = Change(drop)
    fails("provider oqmd gives no energy above hull", proxy.url, "oqmd", chemsys="C", energy_above_hull=0.1)
    _, records = load(proxy.url, "oqmd", chemsys="C")
    assert "energy_above_hull" not in records[0].properties
    assert "_oqmd_stability" not in proxy.requests[-1][1]["response_fields"]


def test_a_server_without_lists_of_properties(proxy):
    proxy.always["info/structures"] = Status(404)
    _, records = load(proxy.url, chemsys="C", energy_above_hull=0.1)
    assert names(records) == ["5", "6"]


def test_terms_without_an_spdx_name(server):
    info, _ = load(server, "oqmd", chemsys="C")
    assert info.licence == "https://example.org/terms"


# What is asked


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"chemsys": "Li-Co-O", "subsystems": False}, ["8"]),
        ({"chemsys": "Co-O"}, ["11", "9"]),
        ({"formula": "O4Si2"}, ["1", "2", "3"]),
        ({"formula": ["SiO2", "LiCoO2"]}, ["1", "2", "3", "8"]),
        ({"ids": ["mp-4", "optimade:mp:mp-5"]}, ["4", "5"]),
        ({"ids": "mp-4"}, ["4"]),
        ({"filter": "nelements=1 AND nsites<4 OR nsites>50"}, ["11", "12"]),
        ({"filter": 'nsites=56 OR chemical_formula_reduced="CoO"', "num_sites": 50}, ["9"]),
        ({"chemsys": "C", "energy_above_hull": 0.1}, ["5", "6"]),
        ({"chemsys": "Si-O", "num_sites": 8}, ["3", "4"]),
        ({"chemsys": "Si-O", "selection": {"first": 2}}, ["1", "2"]),
        ({"chemsys": "Si-O", "selection": {"exclude": ["optimade:mp:mp-1"]}}, ["2", "3", "4"]),
    ],
)
def test_filters(server, options, expected):
    ordered = {"ordered": True} if not options.get("ids") else {}
    _, records = load(server, **ordered, **options)
    assert names(records) == expected


def test_only_what_is_needed_is_asked_for(proxy):
    load(proxy.url, "jarvis", chemsys="C")
    fields = proxy.requests[-1][1]["response_fields"].split(",")
    assert {"_jarvis_ehull", "_jarvis_spg_number", "lattice_vectors", "species"} <= set(fields)
    assert not {"immutable_id", "elements_ratios", "space_group_symmetry_operations_xyz"} & set(fields)
    assert [endpoint for endpoint, _ in proxy.requests] == ["info", "info/structures", "structures"]


def test_all_pages_are_followed(proxy):
    _, records = load(proxy.url, chemsys="Si-O", page_limit=1)
    assert names(records) == ["1", "2", "3", "4"]
    assert proxy.count("structures") == 4
    offsets = [parameters.get("page_offset") for endpoint, parameters in proxy.requests if endpoint == "structures"]
    assert offsets == [None, "1", "2", "3"]


def test_special_characters_of_a_filter_arrive(proxy):
    text = 'chemical_formula_descriptive CONTAINS "a&b+c#d%20" OR nsites=2'
    _, records = load(proxy.url, filter=text)
    assert names(records) == ["12"]
    assert proxy.requests[-1][1]["filter"] == f"({text})"


def test_more_entries_than_allowed_are_not_fetched(proxy):
    fails("has 4 entries for this query, max_entries is 3", proxy.url, chemsys="Si-O", max_entries=3, page_limit=1)
    assert proxy.count("structures") == 1
    _, records = load(proxy.url, chemsys="Si-O", max_entries=4, page_limit=1)
    assert len(records) == 4


def test_more_entries_than_allowed_where_the_server_does_not_count(proxy):
    def forget(answer):
        del answer["meta"]["data_returned"], answer["meta"]["data_available"]
        return answer

    proxy.always["structures"] = Change(forget)
    _, records = load(proxy.url, chemsys="Si-O", max_entries=4, page_limit=1)
    assert len(records) == 4
    fails("more than 3 entries for this query", proxy.url, chemsys="Si-O", max_entries=3, page_limit=1)


def test_filter_text():
    assert optimade_filter("oqmd", chemsys="Si-O", num_sites=8, energy_above_hull=0.3, ordered=True) == (
        'elements HAS ONLY "O","Si" AND nsites<=8 AND NOT structure_features HAS "disorder" AND _oqmd_stability<=0.3'
    )
    assert optimade_filter("odbx", formula="Si2O4", energy_above_hull=0.025) == (
        'chemical_formula_reduced="O2Si" AND _odbx_thermodynamics.hull_distance<=0.025'
    )
    # The names of its hulls hold a plus sign, which no filter can.
    assert optimade_filter("mp", ids=["mp-1", "mp-2"], energy_above_hull=0.1) == '(id="mp-1" OR id="mp-2")'


# Nothing left, and bad entries


@pytest.mark.parametrize(
    ("prefix", "options", "match"),
    [
        ("mp", {"chemsys": "Fe-Cr"}, r'nothing for chemsys=Fe-Cr \(elements HAS ONLY "Cr","Fe"\);'),
        ("mp", {"chemsys": "Si-O", "num_sites": 1}, r"nothing for num_sites=1 \(nsites<=1\), though .*chemsys=Si-O;"),
        ("mp", {"chemsys": "C", "filter": "nsites>10"}, r"nothing for filter=nsites>10, though .* chemsys=C;"),
        ("mp", {"ids": ["mp-4"], "formula": "C"}, r'nothing for ids=mp-4 \(id="mp-4"\), though .* formula=C;'),
        (
            "oqmd",
            {"filter": 'id="oqmd-3"', "energy_above_hull": 0.1},
            r"nothing for energy_above_hull=0\.1 \(_oqmd_stability<=0\.1\), though",
        ),
        ("mp", {"ids": ["mp-3"], "energy_above_hull": 0.1}, r"energy_above_hull=0\.1 leaves none of 1 .*is 0\.2 eV"),
        ("mp", {"ids": ["mp-13"]}, "no entry of OPTIMADE mp .* can be taken: disordered: mp-13"),
    ],
)
def test_an_empty_result_says_which_filter_emptied_it(server, prefix, options, match):
    fails(match, server, prefix, **options)


def test_disordered_entries_are_named_and_the_rest_kept(server):
    with pytest.warns(UserWarning, match=r"^1 of 6 OPTIMADE entries are left out: disordered: mp-13$"):
        _, records = load(server, chemsys="Li-Co-O")
    assert names(records) == ["10", "11", "12", "8", "9"]


def test_identifiers_that_the_database_does_not_have(server):
    with pytest.warns(UserWarning, match=r"gave no entry for mp-98, mp-99$"):
        _, records = load(server, ids=["mp-99", "mp-5", "mp-98"])
    assert names(records) == ["5"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"species": [{"name": "C", "chemical_symbols": ["C"], "concentration": [0.9]}]}, "disordered"),
        ({"species": [{"name": "C", "chemical_symbols": ["C", "Si"], "concentration": [0.5, 0.5]}]}, "disordered"),
        ({"species": [{"name": "C", "chemical_symbols": ["X"], "concentration": [1.0]}]}, "a species 'X' that is no"),
        (
            {"species": [{"name": "C", "chemical_symbols": ["C"], "concentration": [1.0], "attached": ["H"]}]},
            "attached atoms without a place",
        ),
        ({"structure_features": ["implicit_atoms"]}, "atoms without a place"),
        ({"cartesian_site_positions": None}, "positions or lattice vectors are missing"),
        ({"cartesian_site_positions": [[0, 0, 0]] * 3}, "positions or lattice vectors are missing"),
        ({"cartesian_site_positions": [[0, 0, 0]] * 4}, "0 Angstrom apart"),
        ({"species_at_sites": None}, "no atoms"),
        ({"species_at_sites": ["C", "C", "C", "Q7"]}, "a species 'Q7' that is no element"),
    ],
)
def test_entries_that_cannot_be_taken_are_named_with_the_reason(proxy, change, reason):
    def spoil(answer):
        entry = next(entry for entry in answer["data"] if entry["id"] == "mp-7")
        entry["attributes"] |= change
        return answer

    proxy.plans["structures"] = [Change(spoil)]
    with pytest.warns(UserWarning, match=rf"^1 of 3 OPTIMADE entries are left out: .*{reason}.*: mp-7$"):
        _, records = load(proxy.url, chemsys="C")
    assert names(records) == ["5", "6"]


def test_sparse_entries_are_read(proxy):
    """OQMD leaves out the list of species; not every server says periodicity or space group."""

    def strip(answer):
        for entry in answer["data"]:
            for key in ("species", "dimension_types", "space_group_it_number", "structure_features"):
                entry["attributes"][key] = None
        return answer

    proxy.always["structures"] = Change(strip)
    _, records = load(proxy.url, "oqmd", formula="CoO")
    assert str(records[0].atoms.symbols) == "Co4O4" and records[0].atoms.pbc.all()
    assert (records[0].properties["space_group"], records[0].properties["space_group_symbol"]) == (225, "Fm-3m")
    _, records = load(proxy.url, "cod", formula="CoO")
    assert "space_group" not in records[0].properties


# Failures


@pytest.mark.parametrize("endpoint", ["info", "info/structures", "structures"])
@pytest.mark.parametrize(
    "faults",
    [
        [Status(429, {"Retry-After": "7"}), Status(429, {"Retry-After": "7"})],
        [Status(500), Status(503, {}, b"<html>busy</html>")],
        [Cut(), Cut(0.9)],
        [Cut(0)],
        [Slow(3.0)],
        [Status(200, {}, b"<html>a proxy says hello</html>")],
        [Status(502), Cut()],
    ],
    ids=["429", "5xx", "cut", "dropped", "slow", "no-json", "mixed"],
)
def test_what_passes_is_outlasted(proxy, sleeps, endpoint, faults):
    proxy.plans[endpoint] = list(faults)
    expected = len(faults)
    if endpoint == "structures":
        # Also between two pages.
        proxy.plans[endpoint] = [None, *faults]
    _, records = load(proxy.url, chemsys="Si-O", page_limit=2, timeout=1.5 if Slow(3.0) in faults else 30.0)
    assert names(records) == ["1", "2", "3", "4"]
    assert len(sleeps) == expected
    if faults[0] == Status(429, {"Retry-After": "7"}):
        assert sleeps == [7.0, 7.0]
    assert proxy.count(endpoint) == expected + (2 if endpoint == "structures" else 1)


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (Status(429), "429 Too Many Requests"),
        (Status(503, {}, b'{"errors": [{"detail": "down for\\nrepair"}]}'), "503 Service Unavailable.*down for"),
        (Cut(), "the connection"),
        (Cut(0), "the connection"),
        (Slow(3.0), "time-out"),
        (Status(200, {}, b"hello"), "no JSON"),
    ],
    ids=["429", "503", "cut", "dropped", "slow", "no-json"],
)
def test_retries_are_bounded(proxy, sleeps, fault, match):
    proxy.always["structures"] = fault
    timeout = 1.5 if isinstance(fault, Slow) else 30.0
    message = fails(f"does not answer: 3 of at most 3 tries .*{match}", proxy.url, chemsys="Si", timeout=timeout)
    assert "nothing of this query was kept" in message
    assert proxy.count("structures") == 3


def test_the_pauses_grow(proxy, sleeps):
    proxy.always["info"] = Status(500)
    fails("does not answer", proxy.url, chemsys="Si", retries=4, pause=10.0)
    assert len(sleeps) == 4
    assert all(late > early for early, late in zip(sleeps, sleeps[2:], strict=False))


def test_a_server_that_wants_hours_is_not_waited_for(proxy, sleeps):
    proxy.always["structures"] = Status(429, {"Retry-After": "7200"})
    fails("asks to wait 7200 s", proxy.url, chemsys="Si")
    assert sleeps == [] and proxy.count("structures") == 1


def test_the_pause_between_pages_that_the_server_asks_for(proxy, sleeps):
    proxy.always["structures"] = Change(lambda answer: answer | {"meta": answer["meta"] | {"request_delay": 3.5}})
    load(proxy.url, chemsys="Si-O", page_limit=2)
    assert sleeps == [3.5]
    proxy.always["structures"] = Change(lambda answer: answer | {"meta": answer["meta"] | {"request_delay": 1e6}})
    load(proxy.url, chemsys="Si-O", page_limit=2)
    assert sleeps == [3.5, 10.0]


def test_nobody_listens():
    with pytest.raises(LosikoError, match=r"does not answer: 1 of at most 1 tries .*[Rr]efused") as excinfo:
        load("http://127.0.0.1:9", chemsys="Si", retries=0)
    assert "\n" not in str(excinfo.value)


@pytest.mark.parametrize(
    ("prefix", "options", "match"),
    [
        ("mp", {"filter": "_mp_nonsense>1"}, r"refuses: 400 Bad Request: '_mp_nonsense' is not .*give a filter that"),
        ("mp", {"chemsys": "C", "page_limit": 101}, "refuses: 403 .*a smaller page_limit"),
        ("nowhere", {"chemsys": "C"}, "refuses: 404 Not Found; check the address"),
    ],
)
def test_refusals_are_final_and_silent(server, capfd, prefix, options, match):
    fails(match, server, prefix, **options)
    assert capfd.readouterr() == ("", "")


def test_a_refusal_is_not_repeated(proxy, sleeps):
    proxy.always["structures"] = Status(501, {}, b'{"errors": [{"title": "no", "detail": "HAS ONLY is not known"}]}')
    fails("refuses: 501 Not Implemented: HAS ONLY is not known; give a filter", proxy.url, chemsys="C")
    assert proxy.count("structures") == 1 and sleeps == []


def test_a_page_on_the_web_is_no_server(proxy):
    proxy.always["info"] = Status(200, {}, b"{}")
    fails("names no provider, as OPTIMADE servers do; check base_url", proxy.url, chemsys="C")


def end_early(answer):
    answer["links"]["next"] = None
    return answer


def repeat(answer):
    answer["data"][-1]["id"] = "mp-1"
    return answer


def never_end(answer):
    answer["data"] = []
    return answer


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (end_early, "gave 2 of 4 entries and no further page; run the same again"),
        (repeat, "gave entry mp-1 twice"),
        (never_end, "infinite loop|gave 0 of 4 entries"),
        (lambda answer: answer | {"data": None}, "the OPTIMADE server"),
        (lambda answer: [answer], "the OPTIMADE server"),
    ],
)
def test_a_result_whose_pages_do_not_fit_is_not_kept(proxy, change, match, capfd):
    proxy.plans["structures"] = [Change(change)]
    fails(match, proxy.url, chemsys="Si-O", page_limit=2)
    assert capfd.readouterr() == ("", "")


# Options


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "needs chemsys, formula, ids or filter"),
        ({"chemsys": "Si-Oo"}, "chemsys 'Si-Oo' is no chemical system"),
        ({"chemsys": "Si-Si"}, "names an element twice"),
        ({"chemsys": ["Si", "O"]}, r"chemsys=\['Si', 'O'\] is not allowed; it must be a text"),
        ({"formula": "SiX2"}, "formula 'SiX2' is no chemical formula"),
        ({"ids": ['a"b']}, "ids is"),
        ({"filter": "nelements=="}, "filter 'nelements==' is no OPTIMADE filter"),
        ({"chemsys": "Si", "filter": "nsites>1) OR (nsites<1"}, "is no OPTIMADE filter"),
        ({"chemsys": "Si", "energy_above_hull": -1.0}, "energy_above_hull=-1.0 is not allowed; it must be at least 0"),
        ({"chemsys": "Si", "num_sites": 0}, "num_sites=0 is not allowed"),
        ({"chemsys": "Si", "ordered": 1}, "ordered=1 is not allowed"),
        ({"chemsys": "Si", "retries": -1}, "retries=-1 is not allowed"),
        ({"chemsys": "Si", "max_entries": 0}, "max_entries=0 is not allowed"),
        ({"chemsys": "Si", "page_limit": 0}, "page_limit=0 is not allowed"),
        ({"chemsys": "Si", "selection": {"frist": 1}}, "unknown selection key frist"),
    ],
)
def test_options_that_are_not_allowed(options, match):
    """Nothing is asked: nobody listens there."""
    fails(match, "http://127.0.0.1:9", **options)


@pytest.mark.parametrize(
    ("provider", "base_url", "match"),
    [
        ("", "", "one of provider and base_url, neither given; providers are mp, "),
        ("mp", "https://example.org", "both given"),
        ("alexandra", "", r"unknown OPTIMADE provider 'alexandra' \(did you mean 'alexandria'\?\)"),
        ("", "example.org/optimade", "no address of an OPTIMADE server"),
        ("", "https://example.org/v1/structures?filter=x", "no address of an OPTIMADE server"),
        ("", "ftp://example.org", "no address of an OPTIMADE server"),
        ("", "https://me:secret@example.org", "holds a name or password"),
    ],
)
def test_databases_that_cannot_be_found(provider, base_url, match):
    with pytest.raises(LosikoError, match=match) as excinfo:
        find_database(provider, base_url)
    assert "secret" not in str(excinfo.value)


def test_databases_by_name_and_address():
    assert find_database("mp", "") == ("mp", "https://optimade.materialsproject.org")
    assert find_database("", "https://optimade.materialsproject.org/v1/") == find_database("mp", "")
    assert find_database("", "https://alexandria.icams.rub.de/pbesol/v1.2.0") == find_database("alexandria.pbesol", "")
    assert find_database("", "http://127.0.0.1:80/x/") == ("", "http://127.0.0.1:80/x")
    # Every name with a dialect starts with the prefix that its server says.
    assert {name.partition(".")[0] for name in DATABASES} >= set(DIALECTS)


def test_the_registry(server):
    _, records = load_source("optimade", base_url=f"{server}/mp", chemsys="Si")
    assert [record.identifier for record in records] == ["optimade:mp:mp-4"]
    with pytest.raises(LosikoError, match="takes no path"):
        load_source("optimade", "here", base_url=f"{server}/mp", chemsys="Si")
    with pytest.raises(
        LosikoError, match="unknown option chemsystem of source optimade; allowed are provider, base_url"
    ):
        load_source("optimade", base_url=f"{server}/mp", chemsystem="Si")
    with pytest.raises(LosikoError, match="leaves nothing of source optimade"):
        load_source("optimade", selection={"min_atoms": 100}, base_url=f"{server}/mp", chemsys="Si")


def test_the_package_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "optimade"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optimade", None)
    fails(r"pip install aiida-losiko\[optimade\]", "http://127.0.0.1:9", chemsys="Si")


# Real entries


@pytest.mark.skipif(
    not REAL.exists(),
    reason=f"no {REAL.name} in LOSIKO_DATA ({DATA}): entries of the Materials Project, https://materialsproject.org",
)
def test_real_entries(server):
    from pymatgen.core import Structure

    with lzma.open(REAL, "rt", encoding="utf-8") as stream:
        documents = {document["material_id"]: document for document in map(json.loads, stream)}
    wanted = {
        identifier
        for identifier, document in documents.items()
        if document["energy_above_hull"] is not None and document["energy_above_hull"] <= 0.3
    }
    assert 0 < len(wanted) < len(documents)
    info, records = load(server, "real-Si-O", chemsys="Si-O", energy_above_hull=0.3)
    assert info.query["data_returned"] == len(documents)
    assert {record.identifier.removeprefix("optimade:mp:") for record in records} == wanted
    for record in records:
        document = documents[record.identifier.removeprefix("optimade:mp:")]
        structure = Structure.from_dict(document["structure"])
        assert record.properties["formula"] == document["formula_pretty"]
        assert record.properties["energy_above_hull"] == document["energy_above_hull"]
        assert record.properties["space_group"] == document["symmetry"]["number"]
        assert Counter(record.atoms.symbols) == Counter(site.specie.symbol for site in structure)
        assert record.atoms.get_volume() == pytest.approx(structure.volume)
        # The same atoms in the same places, whatever their order.
        fractional = np.sort(np.round(record.atoms.cell.scaled_positions(record.atoms.positions), 5), axis=0)
        np.testing.assert_allclose(fractional, np.sort(np.round(structure.frac_coords, 5), axis=0), atol=2e-5)
