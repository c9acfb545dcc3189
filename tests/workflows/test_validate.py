"""`losiko.validate` with the real GFN2-xTB, and with one that fails."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from aiida.orm import ArrayData, CalcFunctionNode, CalcJobNode, List
from ase.build import bulk, molecule

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.metrics import rmsd
from aiida_losiko.data import StructureSetData, atoms_to_structure
from aiida_losiko.data.density_of_states import DensityOfStates
from aiida_losiko.workflows.validate import ValidateWorkChain
from aiida_losiko.workflows.validation.xtb import XtbEngine

pytest.importorskip("tblite", reason="the extra xtb")


def validate(codes, structures, **kwargs):
    return run_get_node(ValidateWorkChain.get_builder_from_protocol("xtb", structures, codes, **kwargs))


def displaced(name, noise, seed=1):
    atoms = molecule(name)
    atoms.rattle(noise, seed=seed)
    return atoms


def jobs(node):
    return [called for called in node.called if isinstance(called, CalcJobNode)]


def test_one_molecule_with_densities_of_states(losiko_code, aiida_profile):
    start, losiko = (atoms_to_structure(displaced("CH3OH", noise)) for noise in (0.1, 0.02))
    outputs, chain = validate(losiko_code, losiko, starts=start, dos=True, overrides={"fmax": 0.005})
    assert chain.is_finished_ok, chain.exit_message
    table = outputs["table"].get_dict()
    assert (table["engine"], table["n_rows"], table["units"]["energy"]) == ("xtb", 1, "eV")
    row = {name: column[0] for name, column in table["rows"].items()}
    assert row["energy_start"] > row["energy_losiko"] > row["energy_minimum"]
    assert row["energy_per_atom_minimum"] == pytest.approx(row["energy_minimum"] / 6)
    won = row["energy_start"] - row["energy_losiko"]
    assert row["recovered"] == pytest.approx(won / (row["energy_start"] - row["energy_minimum"]))
    minimum = outputs["minima"]["structure_0"].get_ase()
    assert row["rmsd_losiko"] == pytest.approx(rmsd(losiko.get_ase(), minimum))
    assert row["rmsd_start"] > row["rmsd_losiko"] > 0
    assert row["rmsd_losiko"] < row["largest_displacement"] < 0.5
    assert (row["volume_change"], row["coordination_changed"], row["converged"]) == (None, 0, True)
    assert all(5 < row[f"gap_{stage}"] < 16 for stage in ("start", "losiko", "minimum"))
    densities = outputs["dos"]["structure_0"]
    assert sorted(densities) == ["losiko", "minimum", "start"]
    assert all(sorted(DensityOfStates.from_node(node).projected) == ["C", "H", "O"] for node in densities.values())
    # One job for each of start and LOSIKO, two for the minimum; the table leads back to them.
    assert sorted(job.inputs.parameters["task"] for job in jobs(chain)) == ["relax"] + ["single_point"] * 3
    (minimised,) = (job for job in jobs(chain) if job.inputs.parameters["task"] == "relax")
    assert minimised.inputs.parameters["fmax"] == 0.005
    assert outputs["minima"]["structure_0"].creator.uuid == minimised.uuid
    read = [link.node for link in minimised.outputs.report.base.links.get_outgoing().all()]
    assert [node.process_label for node in read if isinstance(node, CalcFunctionNode)] == ["measure"]
    assert outputs["table"].creator.process_label == "tabulate_validation"


def test_the_best_of_a_set_without_duplicates(losiko_code, aiida_profile):
    atoms = [displaced(name, 0.03, seed) for name, seed in (("H2O", 1), ("H2O", 2), ("NH3", 1), ("CH4", 1), ("HCN", 1))]
    names = ["water", "water-again", "ammonia", "methane", "failed"]
    starts = StructureSetData(atoms[::-1], names[::-1])
    matches = ArrayData(
        {
            "identifiers": np.array(names),
            "loss": np.array([0.3, 0.33, 0.1, 50.0, 0.0]),
            "status": np.array(["converged"] * 4 + ["error"]),
        }
    )
    structures = StructureSetData(atoms, names)
    kwargs = {"starts": starts, "matches": matches, "max_structures": 2, "duplicate_tolerance": 0.1}
    outputs, chain = validate(losiko_code, structures, **kwargs)
    assert chain.is_finished_ok, chain.exit_message
    ranking = outputs["ranking"].get_dict()
    assert (ranking["n_structures"], ranking["n_ranked"], ranking["n_chosen"]) == (5, 4, 2)
    assert ranking["rows"]["identifier"] == ["ammonia", "water", "water-again", "methane"]
    assert ranking["rows"]["chosen"] == [True, True, False, False]
    assert outputs["structures"].get_identifiers() == ["ammonia", "water"]
    rows = outputs["table"]["rows"]
    assert rows["identifier"] == ["ammonia", "water"]
    assert rows["energy_start"] == pytest.approx(rows["energy_losiko"])
    # A whole set is three jobs, however many structures it has.
    assert len(jobs(chain)) == 3
    assert outputs["minima"]["all"].get_identifiers() == ["ammonia", "water"]
    kwargs |= {"max_structures": 3, "compute": ["losiko"]}
    outputs, chain = validate(losiko_code, structures, **kwargs)
    assert chain.is_finished_ok, chain.exit_message
    assert outputs["table"]["rows"]["identifier"] == ["ammonia", "water", "methane"]
    assert outputs["ranking"]["rows"]["duplicate_of"] == [None, None, "water", None]
    assert outputs["table"]["rows"]["energy_minimum"] == [None] * 3 and "minima" not in outputs


def test_engines_whose_density_of_states_tells_no_energy(losiko_code, aiida_profile, monkeypatch):
    monkeypatch.setattr(XtbEngine, "dos_has_energy", False)
    outputs, chain = validate(losiko_code, atoms_to_structure(molecule("H2O")), dos=True, compute=["losiko"])
    assert chain.is_finished_ok, chain.exit_message
    assert sorted(job.inputs.parameters["orbitals"] for job in jobs(chain)) == [False, True]
    assert outputs["table"]["rows"]["energy_losiko"][0] < -130
    assert list(outputs["dos"]["structure_0"]) == ["losiko"]


def test_not_converged(losiko_code, aiida_profile):
    losiko = atoms_to_structure(displaced("CH3OH", 0.05))
    outputs, chain = validate(losiko_code, losiko, overrides={"max_steps": 1})
    assert chain.exit_status == 410
    (job,) = (job for job in jobs(chain) if job.exit_status)
    told = f"minimum_relax_structure_0: XtbCalculation<{job.pk}> ended with exit status 410: 1 of 1 molecules"
    assert told in chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    # What there is is given: the last step's energy and structure, said to be unconverged.
    assert row["energy_minimum"] < row["energy_losiko"] and row["rmsd_losiko"] > 0
    assert not row["converged"] and row["problems"] == "minimum: not converged"
    assert outputs["minima"]["structure_0"].creator.uuid == job.uuid


def test_a_charge_that_cannot_be(losiko_code, aiida_profile):
    losiko = atoms_to_structure(molecule("H2O"))
    outputs, chain = validate(losiko_code, losiko, overrides={"charge": 20})
    assert chain.exit_status == 410
    for key in ("losiko_single_point_structure_0", "minimum_relax_structure_0"):
        assert f"{key}: XtbCalculation<" in chain.exit_message
    assert "exit status 201: The program rejected its input" in chain.exit_message
    row = {name: column[0] for name, column in outputs["table"]["rows"].items()}
    assert row["energy_losiko"] is None and row["energy_minimum"] is None and row["rmsd_losiko"] is None
    assert "minima" not in outputs


def test_one_of_a_set_fails(losiko_code, aiida_profile):
    atoms = [displaced("H2O", 0.02), displaced("CH3OH", 0.02)]
    atoms[0].positions[1] = atoms[0].positions[0] + 1e-4
    outputs, chain = validate(losiko_code, StructureSetData(atoms, ["bad", "good"]))
    assert chain.exit_status == 410
    rows = outputs["table"]["rows"]
    assert [energy is None for energy in rows["energy_minimum"]] == [True, False]
    assert rows["rmsd_losiko"][0] is None and rows["rmsd_losiko"][1] > 0
    assert rows["converged"] == [False, True]
    assert "apart" in rows["problems"][0] and rows["problems"][1] == ""


def test_out_of_time(losiko_code, aiida_profile):
    names = [f"ethanol-{seed}" for seed in range(30)]
    structures = StructureSetData([displaced("CH3CH2OH", 0.1, seed) for seed in range(30)], names)
    kwargs = {"max_structures": 30, "options": {"max_wallclock_seconds": 1}, "compute": ["minimum"]}
    outputs, chain = validate(losiko_code, structures, overrides={"fmax": 1e-5}, **kwargs)
    assert chain.exit_status == 410
    assert "ended with exit status 400" in chain.exit_message
    assert "not computed: max_seconds" in outputs["table"]["rows"]["problems"][-1]


def test_a_job_that_cannot_be_submitted(losiko_code, aiida_profile, monkeypatch):
    real = XtbEngine.get_builder

    def no_relaxations(self, request):
        if request.task == "relax":
            raise RuntimeError("no\npotential")
        return real(self, request)

    monkeypatch.setattr(XtbEngine, "get_builder", no_relaxations)
    outputs, chain = validate(losiko_code, atoms_to_structure(molecule("H2O")))
    assert chain.exit_status == 410
    assert "minimum_relax_structure_0: not submitted: no potential" in chain.exit_message
    assert outputs["table"]["rows"]["energy_losiko"][0] < -130


def test_outputs_that_cannot_be_read(losiko_code, aiida_profile, monkeypatch):
    def broken(self, outputs):
        raise IndexError("list index out of range")

    monkeypatch.setattr(XtbEngine, "read_set", broken)
    outputs, chain = validate(losiko_code, atoms_to_structure(molecule("H2O")), compute=["losiko"])
    assert chain.exit_status == 410
    assert "The outputs cannot be read: IndexError list index out of range" in chain.exit_message
    assert outputs["table"]["rows"]["energy_losiko"] == [None]


@pytest.mark.parametrize(
    ("engine", "kwargs", "message"),
    [
        ("xbt", {}, "unknown validation engine 'xbt' (did you mean 'xtb'?)"),
        ("xtb", {"protocol": "best"}, "unknown protocol 'best' of the engine xtb; there are: standard, rough, tight"),
        ("xtb", {"overrides": {"fmx": 1}}, "has no key 'fmx' (did you mean 'fmax'?)"),
        ("xtb", {"overrides": {"fmax": -1}}, "fmax=-1 is not allowed"),
        ("xtb", {"codes": {"pw": "losiko"}}, "the engine xtb has no code 'pw': it has losiko"),
        ("xtb", {"codes": {}}, "the engine xtb needs the code 'losiko'"),
        ("xtb", {"codes": "nowhere@nothing"}, "the code losiko of xtb is 'nowhere@nothing'"),
        ("xtb", {"structures": bulk("Si")}, "the structure (Si2) is periodic, and xtb is for molecules"),
        ("xtb", {"starts": molecule("NH3")}, "the start of the structure is H3N, not H2O"),
        ("xtb", {"matches": {}}, "`starts` and `matches` go with `structures`"),
    ],
)
def test_wrong_input_is_told_before_submission(losiko_code, engine, kwargs, message):
    structures = atoms_to_structure(kwargs.pop("structures", molecule("H2O")))
    kwargs = {name: atoms_to_structure(value) if name == "starts" else value for name, value in kwargs.items()}
    kwargs = {name: ArrayData() if name == "matches" else value for name, value in kwargs.items()}
    codes = kwargs.pop("codes", losiko_code)
    with pytest.raises(LosikoError) as error:
        ValidateWorkChain.get_builder_from_protocol(engine, structures, codes, **kwargs)
    assert message in str(error.value)


def test_wrong_ports(losiko_code, aiida_profile):
    """Of a builder that was filled by hand."""
    builder = ValidateWorkChain.get_builder()
    with pytest.raises(ValueError, match="give some of start, losiko, minimum"):
        builder.compute = List(["end"])
    with pytest.raises(ValueError, match="1 or more"):
        builder.max_structures = 0
    with pytest.raises(ValueError, match="0 or larger"):
        builder.duplicate_tolerance = -1.0
    inputs = {"engine": "xtb", "codes": {"losiko": losiko_code}}
    with pytest.raises(ValueError, match="exactly one of"):
        run_get_node(ValidateWorkChain, **inputs)
    with pytest.raises(ValueError, match="is periodic, and xtb"):
        run_get_node(ValidateWorkChain, structure=atoms_to_structure(bulk("Si")), **inputs)


def test_starts_that_are_missing(losiko_code, make_set):
    with pytest.raises(LosikoError, match="'g2:CH4' is not among the 1 starts"):
        ValidateWorkChain.get_builder_from_protocol("xtb", make_set("CH4"), losiko_code, starts=make_set("H2O"))
