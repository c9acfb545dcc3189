"""What `losiko.validate` asks of an engine: a builder for a task, and what to read off the finished process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from aiida import orm
from aiida.engine.processes.builder import ProcessBuilder

from aiida_losiko.core.checks import is_real
from aiida_losiko.core.errors import LosikoError, did_you_mean
from aiida_losiko.core.protocols import merge, parse_yaml
from aiida_losiko.data import StructureSetData
from aiida_losiko.data.density_of_states import DensityOfStates

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ("DOS", "RELAX", "SINGLE_POINT", "TASKS", "Measurement", "Request", "ValidationEngine")

#: The energy of a structure; the structure of the lowest energy nearby; density of states and gap of a structure.
SINGLE_POINT, RELAX, DOS = TASKS = ("single_point", "relax", "dos")


@dataclass(frozen=True)
class Request:
    """One process that an engine is asked for.

    Attributes
    ----------
    structure
        What to compute. A set only for engines with `takes_sets`.
    task
        One of `TASKS`.
    codes
        The codes by the names that the engine gives them, stored nodes.
    parameters
        All inputs of the engine's protocol, as `ValidationEngine.spell_out` returns them.
    options
        For the scheduler: `{"resources": ..., "max_wallclock_seconds": ..., "queue_name": ...}`.
    """

    structure: orm.StructureData | StructureSetData
    task: str
    codes: Mapping[str, orm.AbstractCode]
    parameters: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What an engine found out about one structure.

    Attributes
    ----------
    energy
        Total energy in eV of all atoms of the structure; None where the process does not tell.
    gap
        Between the highest occupied and the lowest empty state in eV; zero for metals, None where it is not known.
    dos
        Density of states, where it was asked for.
    converged
        Whether the electrons are converged and, of a relaxation, the atoms.
    error
        Why there is no energy, in one line; else empty.

    Raises
    ------
    LosikoError
        For an energy or gap that is no number, and a gap below zero.
    """

    energy: float | None
    gap: float | None = None
    dos: DensityOfStates | None = None
    converged: bool = True
    error: str = ""

    def __post_init__(self) -> None:
        """Check the numbers, which come from files of programs."""
        for name in ("energy", "gap"):
            value = getattr(self, name)
            if value is not None and (not is_real(value) or (name == "gap" and value < 0)):
                raise LosikoError(f"the {name} in the outputs is {value!r}, no {name} in eV")
            object.__setattr__(self, name, None if value is None else float(value))


class ValidationEngine(ABC):
    """A program that computes energies.

    Subclasses say what they are in class attributes, and implement `get_builder` and `read`. Whatever they need from
    optional packages they import inside of these two, so that an engine can be looked at without it.
    """

    #: The name of the entry point, and of the protocol file.
    name: ClassVar[str]
    #: One line for people.
    description: ClassVar[str]
    takes_molecules: ClassVar[bool] = False
    takes_crystals: ClassVar[bool] = False
    #: Whether one process may work through a whole StructureSetData; `read_set` then has to be implemented.
    takes_sets: ClassVar[bool] = False
    #: The tasks that the engine knows, of `TASKS`.
    tasks: ClassVar[tuple[str, ...]] = TASKS
    #: Whether the process of the task `dos` also tells the energy; else a single point is run beside it.
    dos_has_energy: ClassVar[bool] = True
    #: Names of the codes that every task needs, and of those that only the task `dos` needs.
    codes: ClassVar[tuple[str, ...]]
    dos_codes: ClassVar[tuple[str, ...]] = ()
    #: Module that must be there where AiiDA runs, and the extra of this package that brings it.
    module: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None
    #: What `read` needs, and for the task `relax` the last `structure` (sets: `structures`): name to the output of the
    #: process, or to several of which the first that is there is taken ("misc", "relax.structure").
    outputs: ClassVar[Mapping[str, str | tuple[str, ...]]]

    @abstractmethod
    def get_builder(self, request: Request) -> ProcessBuilder:
        """Return a builder, complete but for `metadata.call_link_label`.

        Raises
        ------
        LosikoError
            For what only can be seen now, such as potentials that are not there.
        """

    @abstractmethod
    def read(self, outputs: Mapping[str, Any]) -> Measurement:
        """Return what the outputs of a finished process say.

        Parameters
        ----------
        outputs
            Some of the nodes named in `outputs`, those that the process has: a failed one may have fewer.

        Raises
        ------
        LosikoError, KeyError
            Where they do not say an energy.
        """

    def read_set(self, outputs: Mapping[str, Any]) -> list[Measurement]:
        """Return the same for each structure, in order; for engines with `takes_sets`."""
        return [self.read(outputs)]

    def check(  # noqa: B027
        self, elements: Sequence[str], codes: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> None:
        """Look before anything is submitted at what can go wrong later, such as potentials of an element.

        Raises
        ------
        LosikoError
            With the command that mends it.
        """

    def require(self) -> None:
        """Raise a `LosikoError` that names the command to type, unless the engine's optional package is there."""
        if self.module is not None and find_spec(self.module) is None:
            package = f"'aiida-losiko[{self.extra}]'" if self.extra else self.module
            raise LosikoError(f"the engine {self.name} needs the module {self.module}: pip install {package}")

    def check_task(self, task: str) -> None:
        """Raise a `LosikoError` for a task that the engine does not know."""
        if task not in self.tasks:
            raise LosikoError(f"the engine {self.name} does not do {task!r}: it does {', '.join(self.tasks)}")

    def check_codes(self, codes: Mapping[str, Any], dos: bool = False) -> None:
        """Raise a `LosikoError` unless the codes are those that the engine needs."""
        known = (*self.codes, *self.dos_codes)
        for name in codes:
            if name not in known:
                raise LosikoError(f"the engine {self.name} has no code {name!r}: it has {', '.join(known)}")
        for name in known if dos else self.codes:
            if name not in codes:
                raise LosikoError(f"the engine {self.name} needs the code {name!r}: give codes={{{name!r}: ...}}")

    def check_structure(self, atoms: Atoms, label: str = "the structure") -> None:
        """Raise a `LosikoError` for a molecule or a crystal that the engine does not take."""
        formula = atoms.get_chemical_formula()
        if atoms.pbc.any() and not self.takes_crystals:
            raise LosikoError(
                f"{label} ({formula}) is periodic, and {self.name} is for molecules: choose an engine for crystals, or "
                "set atoms.pbc = False if it is a molecule in a box"
            )
        if not atoms.pbc.any() and not self.takes_molecules:
            raise LosikoError(
                f"{label} ({formula}) is a molecule without a cell, and {self.name} needs one: put it into a box with "
                "atoms.center(vacuum=6.0) and atoms.pbc = True, or choose an engine for molecules"
            )

    def outputs_of(self, node: orm.ProcessNode) -> dict[str, orm.Data]:
        """Return those of `outputs` that a process has."""
        found: dict[str, orm.Data] = {}
        for name, paths in self.outputs.items():
            for path in (paths,) if isinstance(paths, str) else paths:
                try:
                    value: Any = node.outputs
                    for part in path.split("."):
                        value = value[part]
                except (KeyError, AttributeError):  # NotExistentKeyError, NotExistentAttributeError
                    continue
                if isinstance(value, orm.Data):
                    found[name] = value
                    break
        return found

    # Protocols

    def default_protocol(self) -> str:
        """Return the name of the protocol that is used where none is named."""
        return str(self._content()["default_protocol"])

    def protocols(self) -> dict[str, str]:
        """Return the descriptions of the protocols by their names."""
        return {name: str(own["description"]) for name, own in self._content()["protocols"].items()}

    def spell_out(self, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return all inputs of a protocol.

        Parameters
        ----------
        parameters
            `protocol` (a name, default `default_protocol`), and what differs from it.

        Returns
        -------
        dict
            With `protocol` and every input; spelling it out again changes nothing.

        Raises
        ------
        LosikoError
            For an unknown protocol or key, and for a value in the place of a mapping or the other way round.
        """
        content, given = self._content(), dict(parameters or {})
        name = given.pop("protocol", None) or content["default_protocol"]
        names = list(content["protocols"])
        if name not in names:
            hint = did_you_mean(name, names)
            raise LosikoError(
                f"unknown protocol {name!r} of the engine {self.name}{hint}; there are: {', '.join(names)}"
            )
        defaults = content["default_inputs"]
        _check_keys(given, defaults, f"the protocol of {self.name}", content.get("open") or ())
        own = {key: value for key, value in content["protocols"][name].items() if key != "description"}
        return {"protocol": name, **merge(merge(defaults, own), given)}

    def _content(self) -> dict[str, Any]:
        """Return the content of `protocols/<name>.yaml` beside the module of the engine."""
        file = resources.files(type(self).__module__.rpartition(".")[0]) / "protocols" / f"{self.name}.yaml"
        content: dict[str, Any] = parse_yaml(file.read_text(encoding="utf-8"), f"the protocol file {file.name}")
        return content


def _check_keys(given: Mapping[str, Any], known: Mapping[str, Any], where: str, free: Sequence[str]) -> None:
    """Check names against the default inputs; what is under the names in `free` is the program's own business."""
    for key, value in given.items():
        if key not in known:
            raise LosikoError(f"{where} has no key {key!r}{did_you_mean(key, known)}; it has: {', '.join(known)}")
        if known[key] is not None and isinstance(known[key], Mapping) != isinstance(value, Mapping):
            what = "a mapping" if isinstance(known[key], Mapping) else "a value"
            raise LosikoError(f"the key {key!r} in {where} is {value!r}: give {what}")
        if isinstance(known[key], Mapping) and key not in free:
            _check_keys(value, known[key], f"{key} in {where}", free)
