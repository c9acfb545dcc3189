"""A service that is busy, slow, broken or refuses: what is repeated, for how long, and what is said in the end."""

from __future__ import annotations

import time
import warnings
from email.utils import formatdate

import pytest

from aiida_losiko.core.errors import LosikoError

from .materials_project_service import ask, names

SILICA = ["mp-149", "mp-900001", "mp-900002", "mp-900010"]


@pytest.mark.parametrize(
    "faults",
    [
        ["429:0", "429:0"],
        ["500"],
        ["502", "503", "504"],
        ["drop"],
        ["cut"],
        ["garbage"],
        ["429:0", "cut", "drop"],
    ],
    ids="-".join,
)
def test_what_may_pass_is_repeated(materials_project, faults):
    for fault in faults:
        materials_project.fail(fault)
    info, records = ask(materials_project, chemsys="Si-O")
    assert names(records) == SILICA
    assert len(materials_project.searches()) == len(faults) + 1
    assert len(info.query["requests"]) == 1


def test_only_the_page_that_failed_is_repeated(materials_project):
    materials_project.faults.extend(["", "", "cut", "500", ""])
    _, records = ask(materials_project, chemsys="Si-O", page_size=1)
    assert names(records) == SILICA
    assert [sent.get("_skip", "0") for sent in materials_project.searches()] == ["0", "1", "2", "2", "2", "3"]


@pytest.mark.parametrize("fault", ["cut", "500", "drop", "garbage"])
def test_nothing_is_returned_of_a_result_that_breaks_off(materials_project, fault):
    materials_project.faults.extend(["", ""] + [fault] * 3)
    with pytest.raises(LosikoError, match=r"does not answer: 3 of at most 3 tries .* nothing of this query was kept"):
        ask(materials_project, chemsys="Si-O", page_size=1, retries=2)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429:0", "429 Too Many Requests: .*API rate limit exceeded"),
        ("503", "503 Service Unavailable: .*An unexpected error occurred"),
        ("drop", "the connection ended before the answer"),
        ("cut", "the connection ended in the middle of the answer"),
        ("garbage", "an answer of 24 bytes that is no JSON"),
    ],
)
def test_the_end_is_one_clear_line(materials_project, fault, reason):
    materials_project.fail(fault, times=99)
    with pytest.raises(LosikoError, match=rf"^the Materials Project does not answer: .*\({reason}") as excinfo:
        ask(materials_project, chemsys="Si-O")
    assert len(materials_project.searches()) == 4
    assert "\n" not in str(excinfo.value)
    assert excinfo.value.__cause__ is None and excinfo.value.__context__ is None


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(materials_project, as_date):
    # A date has whole seconds: 3 from now are more than 2.
    wait, least = (formatdate(time.time() + 3, usegmt=True), 1.5) if as_date else ("1", 1.0)
    materials_project.fail(f"429:{wait}")
    start = time.monotonic()
    _, records = ask(materials_project, chemsys="Si-O")
    assert names(records) == SILICA
    assert time.monotonic() - start >= least


def test_a_wait_beyond_the_bound_is_not_waited_for(materials_project):
    materials_project.fail("429:3600")
    with pytest.raises(LosikoError, match=r"1 of at most 4 tries within 60 s .* asks to wait 3600 s"):
        ask(materials_project, chemsys="Si-O")
    assert len(materials_project.searches()) == 1


def test_a_slow_answer_is_given_up_and_asked_again(materials_project):
    ask(materials_project, chemsys="Si")  # what the client asks once per process is behind us
    materials_project.fail("slow:6")
    materials_project.requests.clear()
    _, records = ask(materials_project, chemsys="Si-O", timeout=2.0)
    assert names(records) == SILICA
    assert len(materials_project.searches()) == 2
    materials_project.fail("slow:6", times=2)
    with pytest.raises(LosikoError, match="time-out: no byte came in time"):
        ask(materials_project, chemsys="Si-O", timeout=1.0, retries=1)


def test_an_answer_that_never_ends_is_bounded(materials_project):
    ask(materials_project, chemsys="Si")
    materials_project.fail("drip:0.5")
    with pytest.raises(LosikoError, match=r"within 3 s failed \(the answer was not complete"):
        ask(materials_project, chemsys="Si-O", max_seconds=3.0)
    assert len(materials_project.searches()) == 2  # the one before, and this


def test_nobody_listens(materials_project_key):
    with pytest.raises(LosikoError, match=r"2 of at most 2 tries .*\(no connection: .*[Rr]efused"):
        ask(type("Nobody", (), {"address": "http://127.0.0.1:9/"}), chemsys="Si", retries=1)


def test_a_heartbeat_that_fails_is_repeated(materials_project):
    materials_project.heartbeat_faults.extend(["500", "drop", "", "500", "cut", "garbage"])
    info, _ = ask(materials_project, chemsys="Si")
    assert info.version == "2026.01.01"
    assert not materials_project.heartbeat_faults


def test_a_heartbeat_of_the_client_that_hangs_is_left_behind(materials_project):
    from mp_api.client.core import BaseRester

    # It keeps what a server at the same port once said, to another test.
    BaseRester._get_heartbeat_info.cache_clear()
    materials_project.heartbeat_faults.extend(["", "slow:8"])
    _, records = ask(materials_project, chemsys="Si", timeout=2.0)
    assert names(records) == ["mp-149"]
    # Ours before, the client's that hangs, the client's again, ours after.
    assert [path for path, _ in materials_project.requests].count("/heartbeat") == 4


def test_a_release_in_the_middle_is_an_error(materials_project):
    from mp_api.client.core import BaseRester

    def changing():
        yield from ("2026.01.01", "2026.01.01")
        while True:
            yield "2026.03.03"

    versions = changing()
    BaseRester._get_heartbeat_info.cache_clear()
    type(materials_project).db_version = property(lambda _: next(versions), lambda _, value: None)
    del materials_project.__dict__["db_version"]
    try:
        with pytest.raises(LosikoError, match=r"from database version 2026\.01\.01 to 2026\.03\.03 during the query"):
            ask(materials_project, chemsys="Si-O")
    finally:
        del type(materials_project).db_version


def test_pages_that_do_not_fit_together_are_an_error(materials_project):
    twice = [dict(document) for document in materials_project.summaries if document["material_id"] == "mp-149"]
    materials_project.summaries.extend(twice)
    with pytest.raises(LosikoError, match="announced 5 entries and sent 5, 4 of them different"):
        ask(materials_project, chemsys="Si-O", page_size=2)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(materials_project, status, monkeypatch):
    materials_project.refusal = status
    monkeypatch.setenv("MP_API_KEY", "1" * 32)
    with pytest.raises(
        LosikoError, match=rf"refuses the key, or this machine \({status}: .*Invalid authent"
    ) as excinfo:
        ask(materials_project, chemsys="Si")
    assert len(materials_project.searches()) == 1
    assert "\n" not in str(excinfo.value) and "1" * 32 not in str(excinfo.value)


def test_an_address_of_something_else(materials_project, monkeypatch):
    address = materials_project.address + "elsewhere"
    with pytest.raises(LosikoError, match="is no service of the Materials Project: its heartbeat answers 404"):
        ask(type("Elsewhere", (), {"address": address}), chemsys="Si")
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address.rstrip("/"))
    info, _ = ask(type("Default", (), {"address": None}), chemsys="Si")
    assert info.url == materials_project.address


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://api.example.org/", "would send the key unencrypted"),
        ("https://me:secret@api.example.org/", "holds a user name or password"),
        ("api.example.org", "is no address of a service"),
        ("ftp://localhost/", "is no address of a service"),
        ("https://api.example.org/?x=1", "is no address of a service"),
    ],
)
def test_addresses_that_the_key_is_not_sent_to(materials_project_key, endpoint, message):
    with pytest.raises(LosikoError, match=message) as excinfo:
        ask(type("Wrong", (), {"address": endpoint}), chemsys="Si")
    assert "secret" not in str(excinfo.value)


def test_a_query_that_the_service_does_not_accept(materials_project, monkeypatch):
    # As an older or newer service would: a parameter that it does not know.
    module = __import__(f"{type(materials_project).__module__}_documents", fromlist=["OTHERS"])
    monkeypatch.setattr(module, "OTHERS", tuple(name for name in module.OTHERS if name != "batch_id_not_eq"))
    with pytest.raises(LosikoError, match="does not accept the query \\(400: "):
        ask(materials_project, chemsys="Si")
    assert len(materials_project.searches()) == 1


def test_an_answer_that_the_client_cannot_use(materials_project, monkeypatch):
    module = __import__(f"{type(materials_project).__module__}", fromlist=["answer"])
    monkeypatch.setattr(module, "answer", lambda *_: {"meta": {"total_doc": 1}})
    with pytest.raises(LosikoError, match=r"client of the Materials Project fails \(KeyError: 'data'\)"):
        ask(materials_project, chemsys="Si")


def test_the_local_service_serves_the_whole_client(materials_project):
    """With the client as people use it: document models, default session, count."""
    from mp_api.client import MPRester

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with MPRester(endpoint=materials_project.address, mute_progress_bars=True) as rester:
            assert rester.db_version == "2026.01.01"
            found = rester.materials.summary.search(chemsys=["Si", "O", "Si-O"], energy_above_hull=(0, 0.1))
            assert [str(doc.material_id) for doc in found] == SILICA[:3]
            assert found[1].structure.composition.reduced_formula == "SiO2"
            assert found[1].symmetry.number == 154
            assert rester.materials.summary.count({"chemsys": "C"}) == 3
            energies = rester.materials.thermo.search(
                formula="C", thermo_types=["R2SCAN"], fields=["energy_above_hull"]
            )
            assert sorted(doc.energy_above_hull for doc in energies) == [0.0, 0.12]
    materials_project.fail("429:0", times=2)
    with MPRester(endpoint=materials_project.address, mute_progress_bars=True, use_document_model=False) as rester:
        assert [
            doc["material_id"] for doc in rester.materials.summary.search(formula="Si", fields=["material_id"])
        ] == ["mp-149"]
