"""The script of the reference molecules, as far as it goes without a daemon and PySCF."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from uuid import uuid4

import pytest
from aiida.common import LinkType
from aiida.orm import CalcFunctionNode, QueryBuilder, WorkChainNode
from aiida.tools.archive.abstract import get_format
from ase.build import molecule

from aiida_losiko.data import StructureSetData, atoms_to_structure

SCRIPT = Path(__file__).parents[2] / "workflows" / "reference_molecules.py"


@pytest.fixture(scope="module")
def job():
    specification = importlib.util.spec_from_file_location("reference_molecules", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def add_chain(aiida_profile):
    """Add a finished or a running work chain with a minimum."""

    def add(label: str, exit_status: int | None = 0):
        node = WorkChainNode(label=label).store()
        minimum = atoms_to_structure(molecule("H2O")).store()
        minimum.base.links.add_incoming(node, LinkType.RETURN, "minima__structure_0")
        node.set_process_state("waiting" if exit_status is None else "finished")
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.seal()
        return node

    return add


def test_at_least_sixty_different_molecules(job):
    chemistry = pytest.importorskip("rdkit.Chem", reason="the extra benchmarks")
    canonical = {chemistry.CanonSmiles(smiles) for smiles in job.MOLECULES.values()}
    assert len(canonical) == len(job.MOLECULES) >= 60
    for smiles in canonical:
        assert chemistry.MolFromSmiles(smiles).GetNumHeavyAtoms() <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--count", "0"], "--count 0 is not allowed: 1 to"), (["--at-once", "0"], "--at-once 0 is not allowed")],
)
def test_wrong_arguments(job, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        job.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_what_is_done_is_found_and_what_failed_is_not(job, add_chain):
    name = f"test-{uuid4()}"
    label = job.label_of(name)
    assert job.finished(name) is None and job.latest(label, ended_well=False) is None
    add_chain(label, exit_status=410)
    assert job.finished(name) is None
    running = add_chain(label, exit_status=None)
    assert job.finished(name) is None and job.latest(label, ended_well=False).uuid == running.uuid
    done = add_chain(label)
    assert job.finished(name).uuid == done.uuid
    assert "structure_0" in job.finished(name).outputs.minima


def test_the_set_goes_into_an_archive_with_what_it_came_from(job, add_chain, tmp_path):
    chains = {name: add_chain(job.label_of(name)) for name in ("water", "methane")}
    minima = {name: node.outputs.minima["structure_0"] for name, node in chains.items()}
    molecules = job.gather(minima)
    assert molecules.get_identifiers() == ["water", "methane"]
    assert molecules.get_properties()[0] == {"smiles": "O"} and molecules.source["licence"] == "CC0-1.0"
    path = tmp_path / "new" / "molecules.aiida"
    job.export(molecules, path)
    with get_format().open(path, "r") as reader:
        backend = reader.get_backend()
        found = {
            kind: set(QueryBuilder(backend=backend).append(kind, project="uuid").all(flat=True))
            for kind in (StructureSetData, WorkChainNode, CalcFunctionNode)
        }
    assert found[StructureSetData] == {molecules.uuid}
    assert found[WorkChainNode] == {node.uuid for node in chains.values()}
    assert found[CalcFunctionNode] == {molecules.creator.uuid}
