"""The stand-in for VASP in a profile of AiiDA: its code, `mock-vasp` of aiida-vasp, and placeholder potentials.

`mock-vasp` looks in a registry, a folder of finished calculations, for one of the same INCAR, KPOINTS and POSCAR; what
it does not find there our program computes (`program.py`), and it goes into the registry.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

FAMILY = "stand-in"
#: Names that VASP's potentials have and the stand-in's placeholders take over, for aiida-vasp maps elements to them.
NAMES = ("H", "C", "N", "O", "Si", "Al", "Ti_pv", "Co", "Li_sv", "Fe_pv", "F", "Ce")
POTENTIAL = """\
  PAW_PBE {name} 01Jan2000
  {valence:.6f}
 parameters from PSCTR are:
   VRHFIN ={element}: placeholder, this is no potential
   LEXCH  = PE
   EATOM  =     1.0000 eV
   TITEL  = PAW_PBE {name} 01Jan2000
   LULTRA =        F    use ultrasoft PP ?
   IUNSCR =        0    unscreen: 0-lin 1-nonlin 2-no
   POMASS =    1.000; ZVAL   =    {valence:.3f}    mass and valenz
   ENMAX  =  100.000; ENMIN  =   75.000 eV
 END of PSCTR-controll parameters
 A placeholder: the numbers above are invented, and there is no data.
 End of Dataset
"""


def write_potentials(folder: Path, names: Iterable[str] = NAMES) -> Path:
    """Write placeholders in the folders in which VASP's potentials come; returns the folder."""
    for name in names:
        place = folder / name / "POTCAR"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(POTENTIAL.format(name=name, element=name.split("_")[0], valence=4.0), encoding="utf-8")
    return folder


def upload_potentials(folder: Path, names: Iterable[str] = NAMES, family: str = FAMILY) -> str:
    """Upload placeholders as `aiida-vasp potcar uploadfamily` does; returns the name of the family."""
    from aiida_vasp.data.potcar import PotcarData

    PotcarData.upload_potcar_family(
        write_potentials(folder / "placeholders", names),
        family,
        "Placeholders for tests: no potentials, nothing of VASP.",
        stop_if_existing=False,
    )
    return family


def prepend_text(registry: Path) -> str:
    """Return what the job's script does before it runs `mock-vasp`."""
    registry.mkdir(parents=True, exist_ok=True)
    program = registry / "vasp-stand-in"
    # mock-vasp calls a program without arguments.
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{Path(__file__).with_name('program.py')}'\n")
    program.chmod(0o755)
    lines = [
        "export OMP_NUM_THREADS=1",
        # mock-vasp imports aiida, which makes ~/.aiida unless told otherwise.
        f"export AIIDA_PATH='{os.environ.get('AIIDA_PATH', Path.home())}'",
        f"export MOCK_VASP_REG_BASE='{registry}'",
        f"export MOCK_VASP_VASP_CMD='{program}'",
        # One at a time: a registry that another job just writes to cannot be read.
        'exec 9> "$MOCK_VASP_REG_BASE/lock" && flock 9',
    ]
    return "\n".join(lines)


#: mock-vasp also registers what AiiDA put into the folder, and would give it to the next job of the same inputs.
APPEND_TEXT = 'rm -f "$MOCK_VASP_REG_BASE"/*/out/_*'


def make_code(computer: Computer, registry: Path, label: str = "vasp-stand-in") -> InstalledCode:
    """Return a stored code of the stand-in."""
    from aiida.orm import InstalledCode

    return InstalledCode(
        label=label,
        description="mock-vasp with a toy of aiida-losiko behind it; its numbers mean nothing",
        computer=computer,
        filepath_executable=str(Path(sys.executable).parent / "mock-vasp"),
        default_calc_job_plugin="vasp.vasp",
        prepend_text=prepend_text(registry),
        append_text=APPEND_TEXT,
        with_mpi=False,
    ).store()
