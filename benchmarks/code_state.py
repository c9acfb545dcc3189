"""What a result of this package hangs on: the code behind it, whatever its comments, docstrings and layout."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import common
from kept import fingerprint

#: Packages whose `__init__` only hands on names: importing from them does not hang on all that they name.
FACADES = ("aiida_losiko", "aiida_losiko.core")


def code_fingerprint(modules: Iterable[str]) -> str:
    """Fingerprint of modules of this package and of all that they import from it, also inside functions.

    Parameters
    ----------
    modules
        Full names, such as ``aiida_losiko.core.environments.database``.
    """
    found: dict[str, Path] = {}
    todo = [*modules]
    while todo:
        name = todo.pop()
        path = _file_of(name)
        if path is None or name in found or name in FACADES:
            continue
        found[name] = path
        todo.extend(_imports(path))
    return fingerprint({name: _statements(path) for name, path in found.items()})


def _file_of(module: str) -> Path | None:
    """Where a module's code is; None for what is no module of this package."""
    base = common.REPOSITORY.joinpath(*module.split("."))
    if not module.startswith("aiida_losiko"):
        return None
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # A name may be a module of its own.
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


@cache
def _statements(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A text that stands alone does nothing: a docstring.
            node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(item: ast.AST) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
