"""What a chemist would use instead: MMFF94 (RDKit) and GFN1/GFN2-xTB (tblite), each run to its own minimum.

MMFF94 is given more than the others: which atoms are bonded, and how, is perceived from the *true* geometry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ase import Atoms

#: eV/Angstrom, largest force on an atom at which an xTB minimum is one. Ten times less leaves bond lengths as they are,
#: but soft torsions run on: 15 molecules from start (a) end further from B3LYP (GFN2-xTB: 0.159 Angstrom, not 0.142
#: here) and take half as long again. The limit thus is in the peers' favour.
XTB_FMAX = 0.01
XTB_STEPS = 500
MMFF_ITERATIONS = 20_000
#: Atoms are bonded that are closer than this times the sum of their covalent radii. RDKit's own 1.3 also bonds atoms
#: across small rings (28 of 500 molecules then have no sensible Lewis structure); where both work they agree.
MMFF_BOND_FACTOR = 1.15


@dataclass
class Outcome:
    """Where one molecule ended.

    Attributes
    ----------
    atoms
        The geometry, None where there is none.
    seconds
        Processor time of one thread.
    converged
        Whether the contestant's own limit was reached.
    error
        Why there is no geometry, else empty.
    """

    atoms: Atoms | None
    seconds: float
    converged: bool = True
    error: str = ""


def _timed(minimise: Callable[[Atoms, Atoms], tuple[Atoms, bool]], start: Atoms, true: Atoms) -> Outcome:
    begin = time.process_time()
    try:
        atoms, converged = minimise(start, true)
    except Exception as exc:  # whatever the program of others raises is a molecule that it could not do
        message = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        return Outcome(None, time.process_time() - begin, False, message[:200])
    return Outcome(atoms, time.process_time() - begin, converged)


def minimise_with_xtb(method: str, start: Atoms) -> tuple[Atoms, bool]:
    """Walk to the nearest GFN-xTB minimum with ASE's BFGS, to `XTB_FMAX` in at most `XTB_STEPS` steps."""
    from ase.optimize import BFGS
    from tblite.ase import TBLite

    atoms = start.copy()
    atoms.calc = TBLite(method=method, verbosity=0)
    converged = BFGS(atoms, logfile=None).run(fmax=XTB_FMAX, steps=XTB_STEPS)
    atoms.calc = None
    return atoms, bool(converged)


def minimise_with_mmff94(start: Atoms, true: Atoms) -> tuple[Atoms, bool]:
    """Walk to the nearest MMFF94 minimum with RDKit's BFGS; bonds are those of the true geometry, total charge 0."""
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds, rdForceFieldHelpers
    from rdkit.Geometry import Point3D

    block = "\n".join(f"{a.symbol} {a.x:.6f} {a.y:.6f} {a.z:.6f}" for a in true)
    molecule = Chem.MolFromXYZBlock(f"{len(true)}\n\n{block}\n")
    rdDetermineBonds.DetermineBonds(molecule, charge=0, useVdw=True, covFactor=MMFF_BOND_FACTOR)
    Chem.SanitizeMol(molecule)
    if len(Chem.GetMolFrags(molecule)) > 1:
        raise ValueError("bond perception gave more than one molecule")
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule, mmffVariant="MMFF94")
    if properties is None:
        raise ValueError("MMFF94 has no parameters for an atom")
    conformer = molecule.GetConformer()
    for index, position in enumerate(start.positions):
        conformer.SetAtomPosition(index, Point3D(*map(float, position)))
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
    unfinished = field.Minimize(maxIts=MMFF_ITERATIONS)
    atoms = start.copy()
    atoms.positions = conformer.GetPositions()
    return atoms, unfinished == 0


def _xtb(method: str) -> Callable[[Atoms, Atoms], Outcome]:
    return lambda start, true: _timed(lambda s, _: minimise_with_xtb(method, s), start, true)


def _mmff94(start: Atoms, true: Atoms) -> Outcome:
    return _timed(minimise_with_mmff94, start, true)


#: The peers that take one molecule at a time: name -> function of start and truth.
PEERS: dict[str, Callable[[Atoms, Atoms], Outcome]] = {
    "MMFF94": _mmff94,
    "GFN1-xTB": _xtb("GFN1-xTB"),
    "GFN2-xTB": _xtb("GFN2-xTB"),
}


def version_of(name: str) -> str:
    """Version and settings of the program behind a peer, to tell kept results from those of others."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        if name == "MMFF94":
            return f"rdkit {version('rdkit')}, iterations {MMFF_ITERATIONS}, bonds {MMFF_BOND_FACTOR:g}"
        return f"tblite {version('tblite')}, ase {version('ase')}, fmax {XTB_FMAX:g}, steps {XTB_STEPS}"
    except PackageNotFoundError as exc:
        raise SystemExit(f"{name} needs {exc.name}: pip install 'aiida-losiko[benchmarks]', or leave it out") from exc
