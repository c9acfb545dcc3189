"""Named parameter sets: the five cases of the paper's Table S1 and `balanced`, the default.

A protocol is a YAML file in this folder that says what differs from ``defaults.yaml``. Its three sections are the
parameters of the descriptor (without the species), of `EnvironmentDatabase.build` and of `RelaxSettings`; this module
knows which keys there are, the values are judged where they are used.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from aiida_losiko.core.errors import LosikoError, did_you_mean

__all__ = ["DEFAULT_PROTOCOL", "Protocol", "load_protocol", "merge", "parse_overrides", "parse_yaml", "protocol_names"]

DEFAULT_PROTOCOL = "balanced"
SECTIONS = ("descriptor", "database", "relax")
_DEFAULT_DESCRIPTOR = "soap"


class _Loader(yaml.SafeLoader):
    """The safe loader that also reads ``1e-4`` as a number, as YAML 1.2 and every other program do."""


_Loader.yaml_implicit_resolvers = copy.deepcopy(yaml.SafeLoader.yaml_implicit_resolvers)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Protocol:
    """A complete parameter set.

    Attributes
    ----------
    name, description, reference
        Name of the protocol, one line about it, and where its values come from.
    descriptor
        Parameters of the descriptor, without its species (lengths in Angstrom).
    database
        Keyword arguments of `EnvironmentDatabase.build`.
    relax
        Fields of `RelaxSettings`.
    """

    name: str
    description: str
    reference: str
    descriptor: dict[str, Any]
    database: dict[str, Any]
    relax: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able deep copy with the keys of the attributes."""
        return {
            "name": self.name,
            "description": self.description,
            "reference": self.reference,
            **{section: copy.deepcopy(getattr(self, section)) for section in SECTIONS},
        }


def protocol_names() -> list[str]:
    """Return the names of the protocols, the default one first."""
    folder = resources.files(__package__)
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    names.remove("defaults")
    return [DEFAULT_PROTOCOL, *(name for name in names if name != DEFAULT_PROTOCOL)]


def load_protocol(name: str = DEFAULT_PROTOCOL, overrides: Mapping[str, Any] | None = None) -> Protocol:
    """Return the protocol of that name, complete with defaults and changed by the overrides.

    Parameters
    ----------
    name
        One of `protocol_names`.
    overrides
        Nested, as in ``{"descriptor": {"r_cut": 3.5}, "relax": {"max_steps": 100}}``. ``weighting`` is merged key by
        key unless its function changes; any other value replaces the protocol's.

    Raises
    ------
    LosikoError
        Unknown protocol, section or key, or a section that is not a mapping.
    """
    names = protocol_names()
    if name not in names:
        raise LosikoError(f"unknown protocol {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}")
    own = _read(name)
    sections = merge(_read("defaults"), {section: own.get(section) or {} for section in SECTIONS})
    sections = merge(sections, check_overrides(overrides))
    return Protocol(name, own["description"], own["reference"], **sections)


def check_overrides(overrides: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the overrides as a dict of sections after checking the names of sections and keys (not the values).

    Raises
    ------
    LosikoError
        Unknown section or key, or a section that is not a mapping.
    """
    allowed = _read("defaults")
    checked: dict[str, dict[str, Any]] = {}
    if overrides is not None and not isinstance(overrides, Mapping):
        raise LosikoError(f"overrides are a mapping of sections ({', '.join(SECTIONS)}), not {overrides!r}")
    for section, values in (overrides or {}).items():
        if section not in SECTIONS:
            raise LosikoError(
                f"unknown section {section!r}{did_you_mean(section, SECTIONS)}; there are: {', '.join(SECTIONS)}"
            )
        if values is None:
            continue
        if not isinstance(values, Mapping):
            raise LosikoError(
                f"section {section!r} is a mapping of parameters, not {values!r}; write {section}: {{key: value}}"
            )
        keys = list(allowed[section])
        if section == "descriptor":
            keys.append("name")
            # Other descriptors have parameters of their own, which `make_descriptor` checks.
            if values.get("name", _DEFAULT_DESCRIPTOR) != _DEFAULT_DESCRIPTOR:
                keys.extend(str(key) for key in values)
        for key in values:
            if key not in keys:
                hint = (
                    " (the species of a database: --species H,C,...)" if key == "species" else did_you_mean(key, keys)
                )
                raise LosikoError(f"unknown key '{section}.{key}'{hint}; {section} has: {', '.join(keys)}")
        checked[section] = copy.deepcopy(dict(values))
    return checked


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with nested `changes` put over it; neither argument is changed.

    A mapping is merged into a mapping, except where its kind changes (another ``name`` of a descriptor, another
    ``function`` of a weighting): the parameters of one kind mean nothing to another, so it is replaced.
    """
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and _same_kind(old, value):
            result[key] = merge(old, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _same_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both mappings describe the same kind of descriptor or weighting."""
    if "function" in new and new["function"] != old.get("function"):
        return False
    return bool(new.get("name", _DEFAULT_DESCRIPTOR) == old.get("name", _DEFAULT_DESCRIPTOR))


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """Return nested overrides of texts such as ``"descriptor.r_cut=3.5"``; values are read as YAML.

    Raises
    ------
    LosikoError
        An item without a dotted key or without a value, a value that is not YAML, a key given with two values, and
        unknown sections or keys.
    """
    nested: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise LosikoError(f"cannot read the setting {item!r}; write section.key=value, as in relax.max_steps=100")
        if not text.strip():
            raise LosikoError(f"no value in the setting {item!r}; write {path.strip()}=VALUE (null for none)")
        value = parse_yaml(text, f"the setting {item!r}")
        level = nested
        for key in keys[:-1]:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise LosikoError(f"the setting {item!r} goes into {key!r}, which another setting gave a value")
        if keys[-1] in level and level[keys[-1]] != value:
            raise LosikoError(f"{path.strip()!r} is set twice, to {level[keys[-1]]!r} and {value!r}; give it once")
        level[keys[-1]] = value
    return check_overrides(nested)


def parse_yaml(text: str, where: str) -> Any:
    """Return what the YAML (or JSON) text says; `where` names it in errors.

    Raises
    ------
    LosikoError
        The text is not YAML, or holds a number that is not finite.
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader: builds plain Python values only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise LosikoError(f"{where} is not YAML or JSON: {' '.join(str(problem).split())}{place}") from None
    _check_finite(value, where)
    return value


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise LosikoError(f"{where} holds {value}; parameters are finite numbers")
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for child in children:
        _check_finite(child, where)


def read_parameters(path: str | Path) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """Return (protocol name or None, overrides) of a parameter file.

    The file is YAML or JSON: ``{"protocol": name, "descriptor": {...}, "database": {...}, "relax": {...}}``, each
    part optional.

    Raises
    ------
    LosikoError
        Not YAML, not a mapping, or unknown keys.
    OSError
        The file cannot be read.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"), f"the parameter file '{path}'")
    except UnicodeDecodeError:
        raise LosikoError(f"the parameter file '{path}' is not text; it is YAML or JSON in UTF-8") from None
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise LosikoError(f"the parameter file '{path}' holds {type(content).__name__}, not a mapping of {_FILE_KEYS}")
    name = content.get("protocol")
    if name is not None and not isinstance(name, str):
        raise LosikoError(
            f"the parameter file '{path}' has protocol {name!r}; it is a name: {', '.join(protocol_names())}"
        )
    try:
        return name, check_overrides({key: value for key, value in content.items() if key != "protocol"})
    except LosikoError as error:
        raise LosikoError(f"{error} (in '{path}')") from None


_FILE_KEYS = f"protocol, {', '.join(SECTIONS)}"


@cache
def _read_text(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _read(name: str) -> dict[str, Any]:
    """Return the content of a protocol file of this folder, a fresh one at each call."""
    content: dict[str, Any] = yaml.safe_load(_read_text(name))
    return content
