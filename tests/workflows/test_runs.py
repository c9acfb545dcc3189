"""The work chains with the real program, run in this process."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from aiida.orm import CalcJobNode, Dict
from aiida.plugins import CalculationFactory

from aiida_losiko.calculations.relax import RelaxCalculation
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.data import StructureSetData
from aiida_losiko.tools.provenance import source_structure, trace
from aiida_losiko.workflows.database import DatabaseWorkChain
from aiida_losiko.workflows.relax import RelaxWorkChain

NAMES = ("CH3CH2OH", "CH3OH", "H2O", "CH4", "C2H6", "CH3OCH3", "H2CO")
SOURCE = {"name": "G2", "licence": "LGPL-2.1-or-later", "reference": "10.1063/1.460205"}
SMALL = {"describe": {"parameters": {"descriptor": {"n_max": 3, "l_max": 2, "r_cut": 3.0}}}}


def relax(code, structures, database, **kwargs):
    parameters = {"relax": kwargs.pop("relax", {}), **kwargs.pop("parameters", {})}
    overrides = {"relax": {"parameters": parameters}, "max_iterations": kwargs.pop("max_iterations", 5)}
    builder = RelaxWorkChain.get_builder_from_protocol(code, structures, database, overrides=overrides, **kwargs)
    return run_get_node(builder)


def run_job(inputs, parameters):
    """Run the job itself, without a work chain around it."""
    return run_get_node(RelaxCalculation, **inputs, parameters=Dict(parameters))


def jobs(node):
    return [called for called in node.called if isinstance(called, CalcJobNode)]


def test_from_a_set_to_relaxed_structures_and_back(losiko_code, make_set):
    """The main job in small: select, describe, displace, relax with restarts, and trace an atom."""
    source = make_set(*NAMES, source=SOURCE).store()
    builder = DatabaseWorkChain.get_builder_from_protocol(
        losiko_code, source, overrides=SMALL, selection={"exclude": ["g2:CH3OH"]}
    )
    built, chain = run_get_node(builder)
    assert chain.is_finished_ok, chain.exit_message
    assert built["structures"].get_identifiers() == [f"g2:{name}" for name in NAMES if name != "CH3OH"]
    assert built["database"].load().sources == built["structures"].get_identifiers()
    assert built["database"].protocol == "balanced"
    assert built["report"]["n_sources"] == 6

    held_out = CalculationFactory("losiko.select")(source, Dict({"ids": ["g2:CH3OH", "g2:CH4"]}))
    start = CalculationFactory("losiko.displace")(held_out, Dict({"standard_deviation": 0.05, "seed": 1}))
    settings = {"max_steps": 15, "relative_loss_tolerance": 1e-3}  # so that one job is not enough
    relaxed, chain = relax(losiko_code, start, built["database"], relax=settings, max_iterations=20)
    assert chain.is_finished_ok, chain.exit_message
    assert len(jobs(chain)) > 1
    assert relaxed["structures"].get_identifiers() == ["g2:CH3OH", "g2:CH4"]
    assert relaxed["report"]["n_converged"] == 2
    # The report is that of all jobs, and its place in the graph is known.
    reports = [job.outputs.report for job in jobs(chain)]
    assert relaxed["report"]["n_jobs"] == len(reports)
    assert relaxed["report"]["steps"] == sum(report["steps"] for report in reports)
    assert relaxed["report"]["structures"]["initial_loss"] == reports[0]["structures"]["initial_loss"]
    assert relaxed["report"].creator.process_type == "aiida.calculations:losiko.join_reports"
    # Methane is in the database: it is found again.
    assert rmsd(relaxed["structures"].get_ase(1), source.get_ase(source.index_of("g2:CH4"))) < 0.01

    rows = trace(relaxed["structures"], structure="g2:CH4")
    assert {(row["source"], row["symbol"] == row["source_symbol"]) for row in rows} == {("g2:CH4", True)}
    assert rows[0]["symbol"] == "C"
    assert rows[0]["source_info"] == SOURCE
    assert source_structure(rows[0]) == source.get_ase(3)
    path = {step["role"]: step["uuid"] for step in rows[0]["path"]}
    assert path["origin"] == source.uuid
    assert path["described"] == built["structures"].uuid
    assert path["database"] == built["database"].uuid
    assert path["relaxation"] == jobs(chain)[-1].uuid
    # One of them, for a code that knows nothing of sets: the way back is the same.
    one = CalculationFactory("losiko.extract")(relaxed["structures"], "g2:CH4")["structure"]
    assert [row["source"] for row in trace(one)] == [row["source"] for row in rows]
    assert [step["role"] for step in trace(one, 0)[0]["path"]][:4] == ["output", "extraction", "set", "relaxation"]
    with pytest.raises(LosikoError, match="single structure"):
        trace(one, 0, structure="g2:CH3OH")
    chosen = CalculationFactory("losiko.select")(relaxed["structures"], Dict({"exclude": ["g2:CH3OH"]}))
    one = CalculationFactory("losiko.extract")(chosen, 0)["structure"]
    for way, roles in ((chosen, ["choice", "set"]), (one, ["extraction", "set", "choice", "set"])):
        again = trace(way)
        assert [(row["structure"], row["source"]) for row in again] == [("g2:CH4", row["source"]) for row in rows]
        assert [step["role"] for step in again[0]["path"]][: len(roles) + 2] == ["output", *roles, "relaxation"]
    # The held-out molecule cannot have been matched to itself.
    assert "g2:CH3OH" not in {row["source"] for row in trace(chain, structure=0)}


def test_one_structure_with_a_fixed_atom(losiko_code, make_molecules, make_set, database_node):
    start = StructureSetData(make_molecules("CH3OH", noise=0.05)).get_structure(0)
    builder = RelaxWorkChain.get_builder_from_protocol(losiko_code, start, database_node)
    builder.fixed_atoms = [0]
    relaxed, chain = run_get_node(builder)
    assert chain.is_finished_ok, chain.exit_message
    assert relaxed["structure"].creator.process_type == "aiida.calculations:losiko.relax"
    np.testing.assert_allclose(relaxed["structure"].sites[0].position, start.sites[0].position, atol=1e-12)
    assert rmsd(relaxed["structure"].get_ase(), make_molecules("CH3OH")[0]) < 0.02
    # Without a losiko.describe behind it the way ends at the database.
    row = trace(chain, 0)[0]
    assert row["source"] == "g2:CH3OH"
    assert row["source_info"] is None
    assert row["path"][-1]["uuid"] == database_node.uuid


def test_gives_up_with_the_last_structures(losiko_code, make_set, database_node):
    start = make_set("CH3OH", noise=0.1)
    relaxed, chain = relax(losiko_code, start, database_node, relax={"max_steps": 1}, max_iterations=2)
    assert chain.exit_status == 410
    assert len(jobs(chain)) == 2
    assert relaxed["report"]["status"] == {"max_steps": 1}
    assert rmsd(relaxed["structures"].get_ase(0), start.get_ase(0)) > 1e-3


def test_out_of_time(losiko_code, make_set, database_node):
    options = {"max_wallclock_seconds": 1}
    relaxed, chain = relax(losiko_code, make_set("CH3OH", noise=0.1), database_node, max_iterations=1, options=options)
    assert chain.exit_status == 400
    assert relaxed["structures"].get_identifiers() == ["g2:CH3OH"]


def test_one_bad_structure_does_not_stop_the_others(losiko_code, make_molecules, make_set, database_node):
    molecules = make_molecules("CH3OH", "H2O", "NH3", noise=0.02)
    molecules[0].positions[0] = molecules[0].positions[1]
    start = StructureSetData(molecules)
    relaxed, chain = relax(losiko_code, start, database_node)
    assert chain.exit_status == 420
    assert relaxed["matches"].get_array("status").tolist() == ["error", "converged", "error"]
    assert set(relaxed["report"]["errors"]) == {"g2:CH3OH", "g2:NH3"}
    np.testing.assert_array_equal(relaxed["structures"].get_ase(2).positions, molecules[2].positions)
    assert trace(relaxed["structures"], 0, structure="g2:NH3")[0]["source"] is None


def test_input_that_the_program_rejects(losiko_code, make_set, database_node):
    outputs, chain = relax(losiko_code, make_set("H2O"), database_node, parameters={"exclude": ["g2:C9"]})
    assert chain.exit_status == 201
    assert "g2:C9" in chain.exit_message
    assert jobs(chain)[0].exit_status == 201
    assert "g2:C9" in jobs(chain)[0].exit_message
    assert "structures" not in outputs


def test_a_selection_that_fails(losiko_code, make_set):
    builder = DatabaseWorkChain.get_builder_from_protocol(losiko_code, make_set("H2O"), selection={"ids": ["x"]})
    outputs, chain = run_get_node(builder)
    assert chain.exit_status == 401
    assert "'x'" in chain.exit_message
    assert outputs == {}


def test_bad_structures_are_left_out_of_the_database(losiko_code, make_molecules, aiida_profile):
    molecules = make_molecules("H2O", "CH4", "CH3OH")
    molecules[1].positions[0] = np.nan
    source = StructureSetData(molecules)
    overrides = {**SMALL, "clean_workdir": True}
    built, chain = run_get_node(DatabaseWorkChain.get_builder_from_protocol(losiko_code, source, overrides=overrides))
    assert chain.exit_status == 420
    assert jobs(chain)[0].outputs.remote_folder.is_empty
    assert "g2:CH4" in chain.exit_message
    assert built["database"].load().sources == ["g2:H2O", "g2:CH3OH"]


def test_every_setting_reaches_the_program_through_the_job(losiko_code, make_set, database_node):
    settings = {"weights": {"H": 0.0, "O": 2.0}, "n_hops": 1, "hop_length": 0.3, "repulsion": 0.0}
    settings |= {"relative_loss_tolerance": 0.05, "max_steps": 40}
    inputs = {"code": losiko_code, "structures": make_set("CH3OH", noise=0.05), "database": database_node}
    weighted, node = run_job(inputs, {"relax": settings})
    assert node.is_finished_ok, node.exit_message
    assert {key: weighted["report"]["settings"][key] for key in settings} == settings
    alike, _ = run_job(inputs, {"relax": settings | {"weights": None}})
    losses = [each["matches"].get_array("initial_loss")[0] for each in (weighted, alike)]
    assert losses[0] != pytest.approx(losses[1])


def test_a_name_that_stands_for_other_numbers_is_no_hit(losiko_code, make_set, database_node, monkeypatch):
    from aiida_losiko.core import protocols

    inputs = {"code": losiko_code, "structures": make_set("H2O", noise=0.02).store(), "database": database_node}
    parameters = {"protocol": "balanced"}
    with enable_caching():
        first, again = (run_job(inputs, parameters)[1] for _ in range(2))
        assert again.base.caching.get_cache_source() == first.uuid
        read = protocols._read

        def changed(name):
            content = read(name)
            if name == "balanced":
                content["relax"] = {**content["relax"], "max_steps": 77}
            return content

        monkeypatch.setattr(protocols, "_read", changed)
        other, other_again = (run_job(inputs, parameters)[1] for _ in range(2))
    assert not other.base.caching.is_created_from_cache
    assert other_again.base.caching.get_cache_source() == other.uuid
    # What ran are the numbers of this side, whatever the program knows under the name.
    assert other.outputs.report["settings"]["max_steps"] == 77
    assert other.inputs.parameters.get_dict() == first.inputs.parameters.get_dict()


def test_the_second_time_is_taken_from_the_cache(losiko_code, make_set):
    def run_both():
        # Made anew: it is the content that counts, not the node.
        source = make_set(*NAMES, source=SOURCE)
        built, chain = run_get_node(DatabaseWorkChain.get_builder_from_protocol(losiko_code, source, overrides=SMALL))
        assert chain.is_finished_ok, chain.exit_message
        relaxed, relaxation = relax(losiko_code, make_set("CH4", noise=0.02), built["database"])
        assert relaxation.is_finished_ok, relaxation.exit_message
        return built, jobs(chain)[0], relaxed, jobs(relaxation)[0]

    with enable_caching():
        first, described, _, _ = run_both()
        second, described_again, relaxed, relaxation = run_both()
    assert described_again.base.caching.get_cache_source() == described.uuid
    assert second["database"].uuid != first["database"].uuid
    assert second["database"].base.repository.hash() == first["database"].base.repository.hash()
    assert relaxation.base.caching.is_created_from_cache
    rows = trace(relaxed["structures"])
    assert {row["source"] for row in rows} == {"g2:CH4"}
    path = {step["role"]: step["uuid"] for step in rows[0]["path"]}
    assert (path["description"], path["database"]) == (described_again.uuid, second["database"].uuid)


def test_a_database_with_a_learnt_metric(losiko_code, make_set):
    """Build, relax with restarts, leave a source out, and trace an atom."""
    names = [*NAMES, "CH3CHO", "HCOOH", "C2H2", "C2H4", "CO2", "CH3COOH", "CH3CH2O", "CH3O", "H2O2", "H2CCO"]
    names += ["C3H6_Cs", "C3H4_C3v", "C4H4O", "HCOOCH3", "OCHCHO"]
    source = make_set(*names, source=SOURCE).store()
    metric = {"n_components": 20, "n_structures": 15, "n_neighbors": [4, 1]}
    overrides = {"describe": {"parameters": {**SMALL["describe"]["parameters"], "database": {"metric": metric}}}}
    built, chain = run_get_node(DatabaseWorkChain.get_builder_from_protocol(losiko_code, source, overrides=overrides))
    assert chain.is_finished_ok, chain.exit_message
    stated = built["database"].summary["metric"]
    assert {key: stated[key] for key in metric} == metric
    assert built["report"]["metric"] == stated
    database = built["database"].load()
    assert len(database.metric.stages) == 2
    assert database.reach == pytest.approx(built["database"].summary["reach"])

    start = make_set("CH3CHO", "C2H4", noise=0.05)
    relaxed, chain = relax(losiko_code, start, built["database"], relax={"max_steps": 5}, max_iterations=5)
    assert chain.is_finished_ok, chain.exit_message
    # Each job goes through the stages anew, so it is given more steps.
    steps = [job.outputs.report["settings"]["max_steps"] for job in jobs(chain)]
    assert 1 < len(steps) <= 5 and steps == [5 * 2**k for k in range(len(steps))]
    assert relaxed["report"]["n_converged"] == 2
    for k, name in enumerate(("g2:CH3CHO", "g2:C2H4")):
        assert rmsd(relaxed["structures"].get_ase(k), source.get_ase(source.index_of(name))) < 0.03
    assert trace(relaxed["structures"], structure="g2:C2H4")[0]["source"] == "g2:C2H4"
    node = relaxed["matches"]
    assert np.isfinite(node.get_array("distance")).all() and (node.get_array("out_of_reach") >= 0).all()

    left_out, chain = relax(losiko_code, start, built["database"], parameters={"exclude": ["g2:C2H4"]})
    assert chain.is_finished_ok, chain.exit_message
    assert "g2:C2H4" not in left_out["matches"].get_array("sources")
