#!/usr/bin/env python
"""Make the pseudopotential family, the computer and the codes of Quantum ESPRESSO in the default AiiDA profile.

What is there already is kept, so that it can be run again. The programs and pseudopotentials are those of the Debian
packages quantum-espresso and quantum-espresso-data; ``setup_profiles/quantumespresso.sh`` installs these and runs this.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiida import orm

HERE = Path(__file__).resolve().parent


class SetupError(Exception):
    """A problem that the person can mend; its text is one line."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"==> {text}", flush=True)


def main() -> int:
    """Run the command line program; returns the exit status."""
    from aiida import load_profile
    from aiida.common.exceptions import ConfigurationError

    try:
        try:
            load_profile()
        except ConfigurationError as error:
            raise SetupError(
                f"there is no AiiDA profile ({error}): run bash setup_profiles/quickstart.sh --no-run first, or verdi "
                "presto for a profile of your own"
            ) from None
        specification = read_specification()
        ensure_family(specification)
        ensure_codes(specification, ensure_computer())
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def read_specification() -> dict[str, Any]:
    """Return the content of ``quantumespresso.yaml``."""
    import yaml

    return dict(yaml.safe_load((HERE / "quantumespresso.yaml").read_text()))


def ensure_family(specification: dict[str, Any], elements: Iterable[str] | None = None) -> orm.Group:
    """Return the family of pseudopotentials, of all elements or of some; made first if need be."""
    from aiida import orm
    from aiida_pseudo.data.pseudo import UpfData
    from aiida_pseudo.groups.family import CutoffsPseudoPotentialFamily

    label, folder = specification["family"], Path(specification["folder"])
    found = orm.QueryBuilder().append(CutoffsPseudoPotentialFamily, filters={"label": label}).first(flat=True)
    if found is not None:
        say(f"the family {label} has pseudopotentials of {len(found.elements)} elements")
        return found
    chosen = {
        element: row
        for element, row in specification["pseudopotentials"].items()
        if elements is None or element in elements
    }
    missing = [name for name, *_ in chosen.values() if not (folder / name).is_file()]
    if missing:
        raise SetupError(f"{folder} has no {', '.join(missing)}: sudo apt-get install -y quantum-espresso-data")
    with tempfile.TemporaryDirectory() as selected:
        for name, *_ in chosen.values():
            shutil.copy(folder / name, selected)
        family = CutoffsPseudoPotentialFamily.create_from_folder(Path(selected), label, pseudo_type=UpfData)
    family.description = (
        "For tests: pseudopotentials of mixed kinds and functionals, from Debian's quantum-espresso-data"
    )
    cutoffs = {element: {"cutoff_wfc": wfc, "cutoff_rho": rho} for element, (_, wfc, rho) in chosen.items()}
    family.set_cutoffs(cutoffs, "low", unit="Ry")
    say(f"made the family {label} of {len(chosen)} elements: {', '.join(chosen)}")
    return family


def ensure_computer() -> orm.Computer:
    """Return the configured computer of ``computer-localhost-mpi.yaml``."""
    import shlex

    import yaml
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    spec = yaml.safe_load((HERE / "computer-localhost-mpi.yaml").read_text())
    try:
        computer = orm.load_computer(spec["label"])
    except NotExistent:
        computer = orm.Computer(
            label=spec["label"],
            hostname=spec["hostname"],
            description=spec["description"],
            transport_type=spec["transport"],
            scheduler_type=spec["scheduler"],
            workdir=spec["work_dir"].replace("{work_dir}", work_folder()),
        )
        computer.set_shebang(spec["shebang"])
        computer.set_mpirun_command(shlex.split(spec["mpirun_command"]))
        computer.set_default_mpiprocs_per_machine(spec["mpiprocs_per_machine"])
        computer.set_prepend_text(spec["prepend_text"])
        computer.set_append_text(spec["append_text"])
        # Nobody else shares this machine's "queue": ask it often.
        computer.set_minimum_job_poll_interval(0.5)
        computer.store()
        say(f"made the computer {computer.label}")
    if not computer.is_configured:
        computer.configure(safe_interval=0)
    return computer


def work_folder() -> str:
    """Return where the computer localhost works, or a folder beside the profile."""
    from aiida import orm
    from aiida.common.exceptions import NotExistent
    from aiida.manage.configuration import get_config

    try:
        return str(orm.load_computer("localhost").get_workdir())
    except NotExistent:
        return str(Path(get_config().dirpath) / "scratch" / "localhost-mpi")


def ensure_codes(specification: dict[str, Any], computer: orm.Computer) -> None:
    """Make the codes that are not there."""
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    for label, program in specification["codes"].items():
        full_label = f"{label}@{computer.label}"
        try:
            code = orm.load_code(full_label)
        except NotExistent:
            path = shutil.which(program)
            if path is None:
                raise SetupError(f"there is no {program}: sudo apt-get install -y quantum-espresso") from None
            orm.InstalledCode(
                label=label,
                computer=computer,
                filepath_executable=path,
                default_calc_job_plugin=f"quantumespresso.{label}",
                description=f"{program} of Quantum ESPRESSO",
                prepend_text=specification["prepend_text"],
                with_mpi=True,
            ).store()
            say(f"made the code {full_label} ({path})")
        else:
            say(f"the code {full_label} is there ({code.filepath_executable})")


if __name__ == "__main__":
    sys.exit(main())
