"""The queries as processes: question, server version and answer are nodes, the key is in none."""

from __future__ import annotations

import json
import logging

import pytest
from aiida.manage.caching import enable_caching
from aiida.orm import Dict, FolderData, Log, Node, QueryBuilder, SinglefileData, load_node
from aiida.plugins import CalculationFactory

from aiida_losiko.sources import SOURCES, load_source

from ..servers.materials_project import VERSION, running
from ..sources.materials_project_service import real_entries
from ..sources.test_archive import DIAMOND, GRAPHENE, HIGH, SEARCH

SECRET = "LeakCheck0123456789abcdefghijklm"
QUICK = {"pause": 0.01, "max_seconds": 30.0, "timeout": 10.0, "retries": 1}


def run(source, **inputs):
    """Ask; return the outputs and the process node."""
    if isinstance(inputs.get("query"), dict):
        inputs["query"] = Dict(inputs["query"])
    return CalculationFactory(f"losiko.query.{source}").run_get_node(**inputs)


def ask(service, **query):
    return run("materials_project", query={"endpoint": service.address, **QUICK, **query})


def fails(node, status, *parts):
    """Check that a process failed, said why in one line, and left nothing."""
    assert (node.exit_status, list(node.outputs)) == (status, []), node.exit_message
    for part in parts:
        assert part in node.exit_message
    assert "\n" not in node.exit_message


def search(tmp_path, **files):
    """An archive of a random search as a node."""
    for name, text in (files or {name.replace("/", "-"): text for name, text in SEARCH.items()}).items():
        (tmp_path / name).write_text(text)
    return FolderData(tree=str(tmp_path))


def test_every_source_has_a_query(aiida_profile):
    for source in SOURCES:
        function = CalculationFactory(f"losiko.query.{source}")
        assert function.__name__ == source
        assert function.spec().inputs["query"].help
        refused = function.spec().inputs["query"].validate(Dict({"api_key": "x"}))
        assert "holds a key or password in 'api_key'" in str(refused)


def test_question_version_and_answer_are_nodes(materials_project):
    outputs, node = ask(materials_project, chemsys="Si-O", energy_above_hull=0.2)
    assert node.is_finished_ok, node.exit_message
    assert node.process_type == "aiida.calculations:losiko.query.materials_project"
    assert node.inputs.query["chemsys"] == "Si-O"
    info, records = load_source(
        "materials_project", endpoint=materials_project.address, chemsys="Si-O", energy_above_hull=0.2, **QUICK
    )
    structures = load_node(outputs["structures"].pk)
    assert structures.creator.uuid == node.uuid
    assert structures.get_identifiers() == [record.identifier for record in records]
    assert structures.get_properties() == [record.properties for record in records]
    assert structures.source == info.to_dict()
    answer = outputs["answer"].get_dict()
    assert answer["database_version"] == VERSION
    assert answer["source"]["version"] == VERSION
    assert answer["query"] == info.query
    assert answer["n_structures"] == len(records)
    assert sum(answer["licences"].values()) == len(records)
    assert answer["structures"]["energy_above_hull"] == [r.properties["energy_above_hull"] for r in records]
    assert answer["structures"]["identifier"] == structures.get_identifiers()


def test_a_selection_is_part_of_the_question(materials_project):
    outputs, _ = ask(materials_project, chemsys="Si-O", selection={"ids": ["mp-149"]})
    assert outputs["structures"].get_identifiers() == ["mp-149"]


def test_what_is_left_out_is_in_the_answer_and_the_log(materials_project):
    outputs, node = ask(materials_project, chemsys="Li-Co-O")
    (message,) = outputs["answer"]["warnings"]
    assert "disordered" in message
    assert [log.message for log in Log.collection.get_logs_for(node)] == [message]


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ({}, ["needs one of chemsys, formula, material_ids"]),
        ({"chemsys": "Si-O", "hull": 0.1}, ["unknown option hull"]),
        ({"chemsys": "Si-O", "num_sites": 1}, ["num_sites=1 leaves nothing", "allow more"]),
        ({"chemsys": "Si-O", "selection": {"min_atoms": 999}}, ["leaves nothing"]),
        ({"chemsys": "Si-O", "database_version": "1999.01.01"}, [VERSION, "asked for is 1999.01.01"]),
        ({"chemsys": "Xx"}, ["is no chemical system"]),
        ({"chemsys": "Si-O", "endpoint": "http://example.org"}, ["would send the key unencrypted"]),
    ],
)
def test_a_question_that_cannot_be_answered(materials_project, query, parts):
    outputs, node = ask(materials_project, **query)
    assert outputs == {} or outputs is None
    fails(node, 201, *parts)


@pytest.mark.parametrize("fault", ["500", "429:9999", "drop", "cut", "garbage"])
def test_a_service_that_fails(materials_project, fault):
    materials_project.fail(fault, times=9)
    fails(ask(materials_project, chemsys="Si")[1], 301, "does not answer", "nothing of this query was kept")
    materials_project.faults.clear()
    assert ask(materials_project, chemsys="Si")[1].is_finished_ok


def test_a_service_that_is_busy_and_then_answers(materials_project):
    materials_project.fail("429:0", times=1)
    assert ask(materials_project, chemsys="Si")[1].is_finished_ok


def test_no_service_and_no_key(materials_project, monkeypatch):
    query = {"chemsys": "Si", "endpoint": "http://127.0.0.1:9", **QUICK}
    fails(run("materials_project", query=query)[1], 301, "no connection")
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    fails(ask(materials_project, chemsys="Si")[1], 201, "no key of the Materials Project", "reference_crystals")


def test_another_day_is_another_answer(materials_project, monkeypatch):
    def cached(**query):
        with enable_caching():
            return [ask(materials_project, **query)[1].base.caching.is_created_from_cache for _ in range(2)]

    assert cached(chemsys="Si") == [False, False]
    assert cached(chemsys="Si", database_version=VERSION) == [False, True]
    # What another account, or another address behind the same question, would answer.
    assert cached(chemsys="Si", database_version=VERSION, include_gnome=True) == [False, False]
    monkeypatch.setenv("MP_API_ENDPOINT", materials_project.address)
    elsewhere = {"chemsys": "Si", "database_version": VERSION, **QUICK}
    with enable_caching():
        nodes = [run("materials_project", query=elsewhere)[1] for _ in range(2)]
    assert [node.base.caching.is_created_from_cache for node in nodes] == [False, False]
    before = len(materials_project.searches())
    materials_project.db_version = "2026.02.02"
    assert cached(chemsys="Si") == [False, False]
    assert len(materials_project.searches()) > before
    # The release that was asked for is in the graph, though the service has another one now.
    with enable_caching():
        outputs, node = ask(materials_project, chemsys="Si", database_version=VERSION)
    assert node.base.caching.is_created_from_cache
    assert outputs["answer"]["database_version"] == VERSION
    # A failure is not for the cache.
    with enable_caching():
        fails(ask(materials_project, chemsys="C", database_version=VERSION)[1], 201, "asked for is")
        materials_project.db_version = VERSION
        assert ask(materials_project, chemsys="C", database_version=VERSION)[1].is_finished_ok


def test_equal_answers_have_equal_nodes(materials_project):
    first, second = (ask(materials_project, chemsys="Si")[0]["structures"] for _ in range(2))
    assert first.uuid != second.uuid
    assert first.base.caching.get_hash() == second.base.caching.get_hash()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"chemsys": "Si", "api_key": "x" * 32}, "key or password in 'api_key'"),
        ({"chemsys": "Si", "mp_api_key": ""}, "key or password"),
        ({"chemsys": SECRET}, "key or password in 'chemsys'"),
        ({"selection": {"ids": ["a", f"b{SECRET}"]}}, "key or password in 'selection.ids'"),
        ({"chemsys": "Si", "endpoint": "https://me:word@example.org"}, "user name or password in the address"),
    ],
)
def test_a_question_with_a_secret_is_not_stored(materials_project, monkeypatch, query, message):
    monkeypatch.setenv("MP_API_KEY", SECRET)
    count = QueryBuilder().append(Node).count()
    with pytest.raises(ValueError, match=message) as excinfo:
        run("materials_project", query=query)
    assert SECRET not in str(excinfo.value)
    assert QueryBuilder().append(Node).count() == count


def test_the_key_is_in_no_node(materials_project, monkeypatch, caplog, capfd):
    """Nothing of the graph holds the key, whatever became of the query: attributes, extras, files, logs."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MP_API_KEY", SECRET)
    materials_project.key, materials_project.repeats_the_key = SECRET, True
    outcomes = [ask(materials_project, chemsys="Si-O")[1].exit_status]
    outcomes.append(ask(materials_project, chemsys="Li-Co-O")[1].exit_status)
    outcomes.append(ask(materials_project, chemsys="Si-O", num_sites=1)[1].exit_status)
    for fault in ("500", "drop", "cut", "404"):
        materials_project.faults.clear()
        materials_project.fail(fault, times=9)
        outcomes.append(ask(materials_project, chemsys="Si", timeout=2.0)[1].exit_status)
    materials_project.faults.clear()
    materials_project.key = "f" * 32
    outcomes.append(ask(materials_project, chemsys="Si")[1].exit_status)
    assert outcomes == [0, 0, 201, 301, 301, 301, 201, 201]
    nodes = 0
    for (node,) in QueryBuilder().append(Node).iterall():
        nodes += 1
        told = [node.label, node.description, json.dumps(node.base.attributes.all), json.dumps(node.base.extras.all)]
        assert SECRET not in "".join(told), node
        for name in node.base.repository.list_object_names():
            if node.base.repository.get_object(name).is_file():
                assert SECRET.encode() not in node.base.repository.get_object_content(name, "rb"), node
    assert nodes > 20
    logs = Log.collection.all()
    assert logs
    assert SECRET not in "".join(f"{log.message} {log.metadata}" for log in logs)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


def test_real_entries(materials_project_key):
    """Of the real service, as many as LOSIKO_DATA has: all properties arrive, and the filter counts as the service."""
    paths = real_entries()
    if not paths:
        pytest.skip("no real entries in $LOSIKO_DATA/mp; they are to be had from materialsproject.org with a key")
    with running(paths) as service:
        outputs, node = ask(service, chemsys="Si-O", energy_above_hull=0.3)
        assert node.is_finished_ok, node.exit_message
        fewer, asked = ask(service, chemsys="Si-O", energy_above_hull=0.1)
    structures = outputs["structures"]
    assert len(structures) > 100 and not (asked.exit_status or outputs["answer"]["warnings"])
    filtered = CalculationFactory("losiko.filter_by_hull")(structures, 0.1)
    assert filtered["structures"].get_identifiers() == fewer["structures"].get_identifiers()
    assert filtered["structures"].get_properties() == fewer["structures"].get_properties()
    assert filtered["report"]["filters"]["energy_above_hull"]["n_unknown"] == 0
    assert set(structures.property_names) >= {"energy_above_hull", "space_group", "formula", "n_sites", "licence"}


def test_optimade(optimade):
    query = {"base_url": f"{optimade}/mp", "chemsys": "Si-O", "energy_above_hull": 0.1, "retries": 2, "pause": 0.0}
    outputs, node = run("optimade", query=query)
    assert node.is_finished_ok, node.exit_message
    structures = outputs["structures"]
    assert structures.get_identifiers() == [f"optimade:mp:mp-{n}" for n in "124"]
    assert [row["energy_above_hull"] for row in structures.get_properties()] == [0.01, 0.0, 0.0]
    answer = outputs["answer"].get_dict()
    assert answer["database_version"].startswith("last modified 2025")
    assert "O" in answer["query"]["filter"] and answer["query"]["time_stamp"]
    # The moment of the answer is in the answer, not in the structures: they are the same next time.
    assert "time_stamp" not in json.loads(structures.source["description"])
    with enable_caching():
        again, second = run("optimade", query=query)
    assert not second.base.caching.is_created_from_cache
    assert again["structures"].base.caching.get_hash() == structures.base.caching.get_hash()
    fails(run("optimade", query={**query, "num_sites": 1})[1], 201, "num_sites")
    fails(run("optimade", query={**query, "base_url": "http://127.0.0.1:9/mp", "retries": 0})[1], 301, "no connection")


def test_reference_crystals():
    outputs, node = run("reference_crystals", query={"selection": {"elements": ["C"]}})
    assert node.is_finished_ok, node.exit_message
    assert "crystal:diamond" in outputs["structures"].get_identifiers()
    assert outputs["answer"]["licences"] == {"MIT": outputs["answer"]["n_structures"]}
    assert run("reference_crystals")[0]["answer"]["n_structures"] > 40
    with enable_caching():
        again = [run("reference_crystals")[1].base.caching.is_created_from_cache for _ in range(2)]
    assert again == [False, False]
    fails(run("reference_crystals", query={"selection": {"elements": ["Xe"]}})[1], 201, "leaves nothing")


def test_an_archive(tmp_path):
    file = search(tmp_path).store()
    query = {"max_energy_above_lowest": 0.5, "licence": "CC-BY-4.0", "selection": {"elements": ["C"]}}
    with enable_caching():
        (outputs, node), (_, again) = (run("archive", file=file, query=query) for _ in range(2))
    assert node.is_finished_ok, node.exit_message
    assert outputs["structures"].get_identifiers() == ["airss:C-100-1-1", "airss:C-100-2-5"]
    assert outputs["structures"].get_properties()[1]["energy_above_lowest"] == pytest.approx(0.4)
    assert outputs["structures"].source["licence"] == "CC-BY-4.0"
    # What a file gives depends on the file: here the cache may answer.
    assert again.base.caching.is_created_from_cache
    fails(run("archive", file=file, query={"max_energy_above_lowest": -1})[1], 201, "allowed are numbers from 0")
    fails(run("archive", file=file, query={"file": "/data/C.tar"})[1], 201, "give a SinglefileData")


def test_no_place_on_this_machine_is_recorded(tmp_path):
    (tmp_path / "C-search.res").write_text(DIAMOND + GRAPHENE + HIGH.replace("C 1 0.25", "C x 0.25"))
    outputs, node = run("archive", file=SinglefileData(tmp_path / "C-search.res"))
    assert node.is_finished_ok, node.exit_message
    assert outputs["structures"].source["name"] == "C-search.res"
    assert outputs["structures"].source["checksum"].startswith("md5:")
    assert outputs["answer"]["warnings"]
    bad = SinglefileData(tmp_path / "C-search.res")
    _, failed = run("archive", file=bad, query={"selection": {"elements": ["Xe"]}})
    fails(failed, 201, "C-search.res: the selection leaves none")
    told = json.dumps([outputs["answer"].get_dict(), outputs["structures"].source]) + failed.exit_message
    assert "/tmp" not in told and "losiko-" not in told


def test_qm9(tmp_path, make_molecules):
    from aiida_losiko.core.structures import write_any

    molecules = make_molecules("CH4", "NH3", "H2O")
    for number, atoms in enumerate(molecules, start=1):
        atoms.info["identifier"] = f"gdb_{number}"
    write_any(tmp_path / "qm9.extxyz", molecules)
    (tmp_path / "list.txt").write_text("header\n" * 9 + "     2  N  N  N\n")
    file = SinglefileData(tmp_path / "qm9.extxyz")
    outputs, node = run("qm9", file=file, query={"selection": {"first": 3}})
    assert node.is_finished_ok, node.exit_message
    assert outputs["structures"].get_identifiers() == ["gdb_1", "gdb_2", "gdb_3"]
    assert "uncharacterised molecules of QM9 are not left out" in outputs["answer"]["warnings"][0]
    outputs, node = run("qm9", file=file, uncharacterized=SinglefileData(tmp_path / "list.txt"))
    assert node.is_finished_ok, node.exit_message
    assert outputs["structures"].get_identifiers() == ["gdb_1", "gdb_3"]
    assert outputs["answer"]["warnings"] == []
    fails(run("qm9", file=file, query={"uncharacterized": "list.txt"})[1], 201, "give a SinglefileData")
