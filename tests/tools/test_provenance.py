"""Following atoms back through a graph that is made by hand, for ways that the work chains do not take."""

from __future__ import annotations

import pytest
from aiida.common import LinkType
from aiida.orm import CalcJobNode, Dict
from aiida.plugins import CalculationFactory

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData
from aiida_losiko.tools.provenance import source_structure, trace

NAMES = ("CH3CH2OH", "CH3OH", "H2O", "CH4", "C2H6", "CH3OCH3", "H2CO")
ROLES = ["output", "relaxation", "matches", "database", "description", "described"]


@pytest.fixture
def campaign(aiida_localhost, make_set, small_database):
    """Two selections one after the other, the description of what is left, and a relaxation in this process."""
    source = make_set(*NAMES, "NH3", "HCN", source={"name": "G2"}).store()
    select = CalculationFactory("losiko.select")
    some = select(source, Dict({"exclude": ["g2:HCN"]}))
    described = select(some, Dict({"exclude": ["g2:NH3"]}))
    job = CalcJobNode(computer=aiida_localhost, process_type="aiida.calculations:losiko.describe")
    job.base.links.add_incoming(described, link_type=LinkType.INPUT_CALC, link_label="structures")
    job.store()
    database = EnvironmentDatabaseData(small_database)
    database.base.links.add_incoming(job, link_type=LinkType.CREATE, link_label="database")
    database.store()
    start = make_set("CH3OH", noise=0.02).get_structure(0)
    relax = CalculationFactory("losiko.relax_structure")
    result = relax(start, database, Dict({"relax": {"max_steps": 100}}))
    return {"source": source, "described": described, "job": job, "database": database, "start": start} | result


def test_back_to_the_first_set(campaign):
    rows = trace(campaign["structure"], [1, 0])
    assert [row["atom"] for row in rows] == [1, 0]
    assert [row["symbol"] for row in rows] == ["O", "C"]
    for row in rows:
        assert row["source"] == "g2:CH3OH"
        assert row["source_symbol"] == row["symbol"]
        assert row["source_info"] == {"name": "G2"}
        assert row["out_of_reach"] in (True, False, None)
        assert [step["role"] for step in row["path"]] == [*ROLES, "selection", "selection", "origin"]
        assert row["path"][-1] == {"role": "origin", "uuid": campaign["source"].uuid, "pk": campaign["source"].pk}
    assert source_structure(rows[0]) == campaign["source"].get_ase(1)
    # A row is plain: a change of it is a change of nothing else.
    rows[0]["path"].clear()
    assert rows[1]["path"]


def test_by_node_uuid_pk_and_process(campaign):
    node = campaign["structure"]
    expected = trace(node)
    assert len(expected) == 6
    assert trace(node.uuid) == trace(node.pk) == trace(node.creator) == expected


def test_one_query_for_the_relaxation_whatever_the_number_of_atoms(campaign, monkeypatch):
    from aiida.orm import QueryBuilder

    calls = []
    first = QueryBuilder.first
    monkeypatch.setattr(QueryBuilder, "first", lambda self, *args, **kw: calls.append(1) or first(self, *args, **kw))
    trace(campaign["structure"])
    assert len(calls) <= 6


@pytest.mark.parametrize("role", ["start", "database", "job", "report"])
def test_what_is_no_relaxed_structure(campaign, role):
    node = campaign[role]
    with pytest.raises(LosikoError, match="losiko"):
        trace(node)


def test_wrong_atoms_and_structures(campaign):
    with pytest.raises(LosikoError, match="atom 6 of a structure of 6 atoms"):
        trace(campaign["structure"], 6)
    with pytest.raises(LosikoError, match="single structure"):
        trace(campaign["structure"], 0, structure="x")


def test_a_database_from_elsewhere(database_node, make_set):
    relax = CalculationFactory("losiko.relax_structure")
    result = relax(make_set("H2O").get_structure(0), database_node, Dict({"relax": {"max_steps": 1}}))
    row = trace(result["structure"], 0)[0]
    assert row["source"] == "g2:H2O"
    assert row["source_info"] is row["source_symbol"] is None
    with pytest.raises(LosikoError, match="no source structure in the graph"):
        source_structure(row)
