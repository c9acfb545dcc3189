"""LOSIKO on the molecules of a `qm9_study`: its databases and its results, kept like those of the peers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import qm9_collection as qm9
from ase import Atoms
from code_state import code_fingerprint
from kept import Kept, fingerprint, write_json
from qm9_study import Study, complete

from aiida_losiko import __version__
from aiida_losiko.core import EnvironmentDatabase, Relaxation, RelaxSettings, make_descriptor, relax
from aiida_losiko.core.protocols import Protocol, load_protocol

#: Molecules that are relaxed before results are written: two batches.
CHUNK = 128
DATABASE_CODE = ("aiida_losiko.core.environments.database", "aiida_losiko.core.descriptors")
RELAX_CODE = (*DATABASE_CODE, "aiida_losiko.core.relaxation.driver", "aiida_losiko.core.optimizers")


@dataclass(frozen=True)
class Contestant:
    """A protocol, as it is or changed.

    Attributes
    ----------
    name
        For the tables.
    protocol
        Name of the protocol.
    overrides
        What differs from it.
    sizes
        The databases that it is run with; None: all.
    n_molecules
        For contestants that take long: how many molecules of each start.
    chunk
        Molecules relaxed at once.
    """

    name: str
    protocol: str
    overrides: dict[str, Any] = field(default_factory=dict, hash=False)
    sizes: tuple[int, ...] | None = None
    n_molecules: int | None = None
    chunk: int = CHUNK

    @cached_property
    def settings(self) -> Protocol:
        """Return all parameters."""
        return load_protocol(self.protocol, self.overrides)


def contestants(protocols: Sequence[str], lbfgs: int, nelder_mead: int, iterations: int) -> list[Contestant]:
    """Return the paper's settings with both optimisers (its database, some of the molecules), then the protocols."""
    simplex = {"relax": {"optimizer": "Nelder-Mead", "max_steps": iterations}}
    paper = [Contestant("paper, L-BFGS", "qm9", sizes=(qm9.PAPER,), n_molecules=lbfgs, chunk=25)]
    if nelder_mead:
        paper.append(Contestant("paper, Nelder-Mead", "qm9", simplex, (qm9.PAPER,), nelder_mead, chunk=1))
    return [*paper, *(Contestant(f"LOSIKO {name}", name) for name in protocols)]


def doubtful(result: Relaxation) -> bool:
    """Whether LOSIKO itself says not to trust a result."""
    return bool(result.flags) or bool(result.error) or result.n_out_of_reach > 0


def run(study: Study, contestant: Contestant, kind: str, size: int) -> list[Atoms]:
    """Return what a contestant makes of one kind of start with one database, computed where not kept yet."""
    settings = RelaxSettings.from_dict(contestant.settings.relax)
    name = f"{contestant.name} from ({kind}) with {size}"
    key = {
        "start": study.start_key(kind),
        "database": database_key(study, contestant.settings, size),
        "relax": contestant.settings.relax,
        "code": _code(RELAX_CODE),
        "chunk": contestant.chunk,
    }
    kept = Kept(study.output, f"{contestant.name.replace(',', '')}-{kind}-{size}", key)

    def work(starts: list[Atoms]) -> list[Atoms]:
        known = database(study, contestant.settings, size)
        return relaxed(lambda: relax(starts, known, settings=settings), starts)

    starts = study.starts(kind)[: contestant.n_molecules]
    return complete(kept, starts, work, contestant.chunk, name, warm_up=contestant.n_molecules is None)


def relaxed(call: Callable[[], list[Relaxation]], starts: list[Atoms]) -> list[Atoms]:
    """Time a call on one thread and give structures that carry what is to be kept of the results."""
    begin = processor_time()
    results = call()
    seconds = (processor_time() - begin) / len(results)
    structures = []
    for start, result in zip(starts, results, strict=True):
        atoms = result.atoms.copy()
        atoms.info = {
            "identifier": start.info["identifier"],
            "seconds": seconds,
            "converged": result.converged,
            "error": result.error or "",
            "flagged": doubtful(result),
            "flags": list(result.flags),
            "out_of_reach": result.n_out_of_reach,
            "loss": None if result.loss != result.loss else result.loss,
            "evaluations": result.evaluations,
        }
        structures.append(atoms)
    return structures


def processor_time() -> float:
    """Processor time of this process and of those that it started and that ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def database_key(study: Study, protocol: Protocol, size: int) -> dict[str, Any]:
    """What a database follows from."""
    return {
        "molecules": fingerprint(study.choice.databases[size]),
        "descriptor": protocol.descriptor,
        "database": protocol.database,
        "code": _code(DATABASE_CODE),
    }


def database(study: Study, protocol: Protocol, size: int) -> EnvironmentDatabase:
    """Open the database of a protocol's settings, built where it is not kept yet."""
    key = database_key(study, protocol, size)
    folder = study.output / "databases"
    path = folder / f"{size}-{fingerprint(key)}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = make_descriptor({"name": "soap", "species": qm9.SPECIES, **protocol.descriptor})
        molecules = study.collection.molecules(study.choice.databases[size])
        names = [atoms.info["identifier"] for atoms in molecules]
        begin = processor_time()
        built = EnvironmentDatabase.build(molecules, descriptor, sources=names, **protocol.database)
        seconds = processor_time() - begin
        built.save(path)
        write_json(path.with_suffix(".json"), {**key, "seconds": seconds, "size": size, "bytes": path.stat().st_size})
        print(f"  database of {size}: {len(built)} environments in {seconds:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
    return _opened(path)


@lru_cache(maxsize=1)
def _opened(path: Path) -> EnvironmentDatabase:
    # Once, not once per chunk: what is prepared for matching stays with it.
    return EnvironmentDatabase.load(path)


@cache
def _code(modules: tuple[str, ...]) -> str:
    return f"{__version__} {code_fingerprint(modules)}"
