"""The engine `quantumespresso`: its builders, what is told before, and what it reads off outputs. No pw.x is needed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from aiida import orm
from ase import Atoms
from ase.build import bulk

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import atoms_to_structure
from aiida_losiko.workflows.validation import Request, load_engine
from aiida_losiko.workflows.validation.quantumespresso import RYDBERG, RYDBERG_PER_BOHR

pytest.importorskip("aiida_quantumespresso", reason="the extra qe")

FAMILY = "headers-only"
#: What aiida-pseudo reads of a pseudopotential, and nothing that a program could use.
HEADER = '<UPF version="2.0.1">\n<PP_HEADER element="{}" z_valence="{}"/>\n</UPF>\n'


@pytest.fixture
def family(aiida_profile):
    """A family of silicon and oxygen with cutoffs."""
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

    found = orm.QueryBuilder().append(CutoffsPseudoPotentialFamily, filters={"label": FAMILY}).first(flat=True)
    if found is not None:
        return found
    made = CutoffsPseudoPotentialFamily(label=FAMILY).store()
    pseudos = [
        UpfData(BytesIO(HEADER.format(element, valence).encode()), filename=f"{element}.upf").store()
        for element, valence in (("Si", 4.0), ("O", 6.0))
    ]
    made.add_nodes(pseudos)
    made.set_cutoffs(
        {"Si": {"cutoff_wfc": 20.0, "cutoff_rho": 80.0}, "O": {"cutoff_wfc": 30.0, "cutoff_rho": 240.0}},
        "low",
        unit="Ry",
    )
    return made


@pytest.fixture
def codes(aiida_code_installed):
    return {
        name: aiida_code_installed(
            label=name, filepath_executable="/bin/true", default_calc_job_plugin=f"quantumespresso.{name}"
        )
        for name in ("pw", "dos", "projwfc")
    }


@pytest.fixture
def build(family, codes):
    """Return the plain content of a builder."""

    def make(task, atoms=None, options=None, **parameters):
        engine = load_engine("quantumespresso")
        structure = atoms_to_structure(bulk("Si") if atoms is None else atoms).store()
        wanted = engine.spell_out({"protocol": "debian", "pseudo_family": FAMILY, **parameters})
        engine.check(structure.get_symbols_set(), codes, wanted)
        builder = engine.get_builder(Request(structure, task, codes, wanted, options or {}))
        return builder.process_class.__name__, plain(builder._inputs(prune=True))

    return make


def plain(value):
    """Return nodes as what they hold; codes, structures and pseudopotentials by name."""
    if isinstance(value, orm.Dict):
        value = value.get_dict()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, orm.AbstractCode):
        return value.label
    if isinstance(value, orm.StructureData):
        return value.get_formula()
    if isinstance(value, orm.List):
        return value.get_list()
    if isinstance(value, orm.BaseType):
        return value.value
    return value.filename if isinstance(value, orm.SinglefileData) else value


@pytest.mark.parametrize("task", ["single_point", "relax", "dos"])
def test_builders(build, data_regression, task):
    name, inputs = build(task)
    data_regression.check({"process": name, "inputs": inputs})


def test_every_number_arrives(build):
    name, inputs = build(
        "relax",
        fmax=0.01,
        relax_cell=True,
        max_steps=7,
        max_iterations=2,
        smearing_width=0.1,
        electronic_tolerance=1e-7,
        energy_tolerance=1e-5,
        pressure_tolerance=1.0,
        k_spacing=0.3,
        ecutwfc=25.0,
        ecutrho=100.0,
        functional="PBEsol",
        charge=1.0,
        namelists={"SYSTEM": {"nosym": True}, "ELECTRONS": {"mixing_beta": 0.2}},
        options={"max_wallclock_seconds": 600, "withmpi": False, "resources": {"num_machines": 2}},
    )
    base = inputs["base_relax"]
    told = base["pw"]["parameters"]
    assert name == "PwRelaxWorkChain"
    assert "base_init_relax" not in inputs
    assert told["CONTROL"]["calculation"] == "vc-relax" and told["CONTROL"]["nstep"] == 7
    assert told["CONTROL"]["forc_conv_thr"] == pytest.approx(0.01 / RYDBERG_PER_BOHR)
    assert told["CONTROL"]["etot_conv_thr"] == pytest.approx(2 * 1e-5 / RYDBERG)
    assert told["ELECTRONS"]["conv_thr"] == pytest.approx(2 * 1e-7 / RYDBERG)
    assert told["ELECTRONS"]["mixing_beta"] == 0.2
    assert told["CELL"] == {"cell_dofree": "all", "press_conv_thr": 1.0}
    system = told["SYSTEM"]
    assert system["degauss"] == pytest.approx(0.1 / RYDBERG)
    assert (system["ecutwfc"], system["ecutrho"], system["input_dft"]) == (25.0, 100.0, "PBEsol")
    assert (system["tot_charge"], system["nosym"]) == (1.0, True)
    assert (base["kpoints_distance"], base["max_iterations"]) == (0.3, 2)
    options = base["pw"]["metadata"]["options"]
    assert (options["max_wallclock_seconds"], options["withmpi"]) == (600, False)
    assert options["resources"]["num_machines"] == 2


def test_insulators_and_spins(build):
    _, inputs = build("single_point", smearing_width=None)
    system = inputs["pw"]["parameters"]["SYSTEM"]
    assert system["occupations"] == "fixed" and "degauss" not in system and "smearing" not in system
    _, inputs = build("single_point", spin=True, magnetic_moments={"Si": 1.0})
    system = inputs["pw"]["parameters"]["SYSTEM"]
    assert (system["nspin"], system["starting_magnetization"]) == (2, {"Si": 0.25})


def test_missing_potentials(build):
    lithia = Atoms("LiO", positions=[[0, 0, 0], [2, 0, 0]], cell=[4, 4, 4], pbc=True)
    told = r"the family headers-only has no pseudopotential of Li, but of O, Si: .*aiida-pseudo install family FOLDER "
    with pytest.raises(LosikoError, match=told):
        build("single_point", lithia)
    command = r"no family of pseudopotentials 'SSSP/1.3/PBE/efficiency'; there are: .*headers-only.*; aiida-pseudo "
    with pytest.raises(LosikoError, match=command + r"install sssp -v 1.3 -x PBE -p efficiency"):
        build("single_point", pseudo_family="SSSP/1.3/PBE/efficiency")
    dojo = "PseudoDojo/0.4/PBE/SR/standard/upf"
    with pytest.raises(LosikoError, match=r"install pseudo-dojo -v 0.4 -x PBE -r SR -p standard -f upf"):
        build("single_point", pseudo_family=dojo)


def test_missing_cutoffs(build):
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import PseudoPotentialFamily

    bare = PseudoPotentialFamily(label="bare").store()
    bare.add_nodes([UpfData(BytesIO(HEADER.format("Si", 4.0).encode()), filename="Si.upf").store()])
    with pytest.raises(LosikoError, match=r"the family bare recommends no cutoffs for Si .*give ecutwfc and ecutrho"):
        build("single_point", pseudo_family="bare")
    _, inputs = build("single_point", pseudo_family="bare", ecutwfc=20.0, ecutrho=80.0)
    assert inputs["pw"]["parameters"]["SYSTEM"]["ecutwfc"] == 20.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"fmax": 0}, "fmax of the engine quantumespresso is 0: give a number above 0"),
        ({"ecutwfc": "high"}, "ecutwfc of the engine quantumespresso is 'high'"),
        ({"dos_range": [5, -5]}, r"dos_range of the engine quantumespresso is \[5, -5\]"),
        ({"namelists": {"SYSTEMS": {}}}, "namelists of the engine quantumespresso has 'SYSTEMS': .*SYSTEM"),
        ({"smearing_width": 0.0}, "smearing_width of the engine quantumespresso is 0.0: .*or null"),
    ],
)
def test_wrong_values_are_told_before(build, parameters, message):
    with pytest.raises(LosikoError, match=message):
        build("single_point", **parameters)


def test_wrong_code(family, codes):
    engine = load_engine("quantumespresso")
    with pytest.raises(LosikoError, match=r"the code pw is dos@.*, of the plugin quantumespresso.dos"):
        engine.check(["Si"], {"pw": codes["dos"]}, engine.spell_out({"protocol": "debian", "pseudo_family": FAMILY}))


def test_what_the_plugin_refuses_is_one_line(build):
    slab = bulk("Si")
    slab.pbc = (False, True, True)
    with pytest.raises(LosikoError, match="no inputs of Quantum ESPRESSO for this structure: 2D-periodic"):
        build("single_point", slab)


# -- reading -----------------------------------------------------------------------------------------------------------

CONVERGED = {"scf_conv": {"convergence_achieved": True}, "opt_conv": {"convergence_achieved": True}}


def outputs(bands=None, **parameters):
    found = {"parameters": orm.Dict({"energy": -213.5, "number_of_electrons": 8.0, **parameters})}
    if bands is not None:
        node = orm.BandsData()
        node.set_kpoints(np.zeros((np.shape(bands)[-2], 3)))
        node.set_bands(np.array(bands), units="eV")
        found["bands"] = node
    return found


def read(*args, **kwargs):
    return load_engine("quantumespresso").read(outputs(*args, **kwargs))


def test_energy_and_gap():
    bands = [[0, 1, 2, 3.0, 5.0], [0, 1, 2, 3.5, 4.5]]
    found = read(bands, convergence_info=CONVERGED)
    assert (found.energy, found.gap, found.converged, found.dos) == (-213.5, 1.0, True, None)
    # A single point says nothing of atoms.
    assert read(convergence_info={"scf_conv": CONVERGED["scf_conv"]}).converged
    # Overlapping bands, an odd electron, and no empty band.
    assert read([[0, 1, 2, 3.0, 5.0], [0, 1, 2, 5.5, 6.0]]).gap == 0.0
    assert read(bands, number_of_electrons=7.0).gap == 0.0
    assert read([[0, 1, 2, 3.0]]).gap is None
    # Both spins: the highest of either against the lowest of either.
    up, down = [[0.0, 1.0, 4.0]], [[0.0, 2.5, 3.0]]
    assert read([up, down], number_of_electrons=3.0, total_magnetization=1.0).gap == pytest.approx(1.5)


@pytest.mark.parametrize("which", ["scf_conv", "opt_conv"])
def test_not_converged(which):
    found = read(convergence_info={**CONVERGED, which: {"convergence_achieved": False}})
    assert found.energy == -213.5 and not found.converged


def test_garbage():
    assert not read().converged  # no word on convergence
    with pytest.raises(LosikoError, match="the energy in the outputs is 'NaN'"):
        read(energy="NaN", convergence_info=CONVERGED)
    with pytest.raises(KeyError):
        load_engine("quantumespresso").read({"parameters": orm.Dict({"wall_time": "1s"})})


def projections(kinds, energies, height):
    from aiida.plugins import OrbitalFactory

    bands = orm.BandsData()
    bands.set_kpoints(np.zeros((1, 3)))
    bands.set_bands(np.zeros((1, 1)), units="eV")
    orbitals = [
        OrbitalFactory("core.realhydrogen")(
            kind_name=kind, angular_momentum=0, magnetic_number=0, radial_nodes=0, position=(float(place), 0.0, 0.0)
        )
        for place, kind in enumerate(kinds)
    ]
    node = orm.ProjectionData()
    node.set_reference_bandsdata(bands)
    node.set_projectiondata(
        orbitals,
        list_of_projections=[np.ones((1, 1))] * len(kinds),
        list_of_energy=[energies] * len(kinds),
        list_of_pdos=[np.full(len(energies), height)] * len(kinds),
        bands_check=False,
    )
    return node


@pytest.mark.parametrize("spin", [False, True])
def test_density_of_states(aiida_profile, spin):
    energies = np.linspace(2.0, 6.0, 9)
    dos = orm.XyData()
    dos.set_x(energies, "dos_energy", "eV")
    names = ["dos_spin_up", "dos_spin_down"] if spin else ["dos"]
    dos.set_y(
        [np.arange(9.0), *[np.full(9, 4.0 / len(names)) for _ in names]],
        ["integrated_dos", *names],
        ["states", *["states/eV" for _ in names]],
    )
    kinds = ("Fe1", "Fe2", "O")
    nodes = outputs([[0, 1, 2, 3.0, 5.0]], fermi_energy=4.5)
    nodes["dos"] = dos
    for key in ("projections_up", "projections_down") if spin else ("projections",):
        nodes[key] = projections(kinds, energies + 0.001, 0.5 if spin else 1.0)
    found = load_engine("quantumespresso").read(nodes)
    assert found.energy is None and found.gap == 2.0 and found.converged
    assert found.dos.zero == "Fermi level"
    np.testing.assert_allclose(found.dos.energies, energies - 4.5)
    np.testing.assert_allclose(found.dos.total, 4.0)
    assert sorted(found.dos.projected) == ["Fe", "O"]
    np.testing.assert_allclose(found.dos.projected["Fe"][1:], 2.0)
    np.testing.assert_allclose(found.dos.projected["O"][1:], 1.0)


def test_what_a_failed_work_chain_keeps_to_itself(aiida_profile, aiida_localhost):
    """Of the runs of pw.x behind it, the last with an energy."""
    from aiida.common import LinkType

    chain = orm.WorkChainNode().store()
    for place, energy in enumerate((-1.0, -2.0, None)):
        run = orm.CalcJobNode(computer=aiida_localhost, process_type="aiida.calculations:quantumespresso.pw")
        run.set_option("resources", {"num_machines": 1, "num_mpiprocs_per_machine": 1})
        run.base.links.add_incoming(chain, LinkType.CALL_CALC, f"iteration_{place}")
        run.store()
        said = orm.Dict({} if energy is None else {"energy": energy})
        said.base.links.add_incoming(run, LinkType.CREATE, "output_parameters")
        said.store()
    chain.set_exit_status(401)
    found = load_engine("quantumespresso").outputs_of(chain)
    assert found["parameters"]["energy"] == -2.0
