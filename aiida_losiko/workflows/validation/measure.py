"""Reading energies, gaps and densities of states off the outputs of an engine's process."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode, calcfunction
from aiida.orm import Dict, Str

from aiida_losiko.calculations.functions.common import keep_from_cache, rejected
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.workflows.validation.registry import load_engine

__all__ = ("measure",)

#: Exit status of outputs that say no energy.
UNREADABLE = 302


@calcfunction
def measure(engine: Str, **outputs: Any) -> dict[str, Any] | ExitCode:
    """Return what an engine reads off the outputs of one of its processes.

    Parameters
    ----------
    engine
        Its name.
    **outputs
        The nodes that it reads, see `ValidationEngine.outputs`.

    Returns
    -------
    dict
        `measurement` (Dict: `engine`, and for each structure of the process, in order, `energy` in eV, `gap` in eV,
        `converged`, `error`) and, where there are some, `dos_0`, `dos_1`, ... (see
        `aiida_losiko.data.density_of_states`). Exit status 302 for outputs that cannot be read.
    """
    # The entry point of an engine may be another one tomorrow.
    keep_from_cache()
    try:
        reader = load_engine(engine.value)
    except LosikoError as error:
        return rejected(error)
    try:
        found = reader.read_set(outputs)
    except Exception as error:  # whatever the reader of somebody else makes of broken outputs
        text = str(error) if isinstance(error, LosikoError) else f"{type(error).__name__} {error}"
        return ExitCode(UNREADABLE, f"The outputs cannot be read: {' '.join(text.split())}")
    columns = {name: [getattr(each, name) for each in found] for name in ("energy", "gap", "converged", "error")}
    densities = {f"dos_{i}": each.dos.to_node() for i, each in enumerate(found) if each.dos is not None}
    return {"measurement": Dict({"engine": engine.value, "unit": "eV", **columns}), **densities}
