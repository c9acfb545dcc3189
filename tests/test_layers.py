"""The house rules on imports: which package may import which, and what must not be loaded early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "aiida_losiko"
BELOW_DATA = {"core", "builders", "sources"}
# What each part may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "builders": {"core"},
    "sources": {"core"},
    "data": BELOW_DATA,
    "calculations": BELOW_DATA | {"data"},
    "parsers": BELOW_DATA | {"data", "calculations"},
    "groups": {"core", "data"},
    "tools": {"core", "data"},
    "workflows": BELOW_DATA | {"data", "calculations", "parsers", "groups", "tools"},
    "cli": BELOW_DATA | {"data", "calculations", "parsers", "groups", "tools", "workflows"},
}
WITHOUT_AIIDA = sorted(BELOW_DATA)
NETWORK = {"requests", "urllib", "urllib3", "http", "socket", "ftplib", "mp_api", "boto3", "httpx"}


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """Return (line, absolute module name) of every import in a file, also those inside functions."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            # "from aiida_losiko import data" names the part only in the alias.
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def files_of(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob("*.py"))


def parts_in_package() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")


def test_every_part_has_a_rule():
    assert set(parts_in_package()) <= set(ALLOWED)


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_run_one_way(part):
    allowed = ALLOWED[part] | {part}
    wrong = []
    for path in files_of(part):
        for line, module in imported_modules(path):
            names = module.split(".")
            if names[0] == "aiida_losiko" and len(names) > 1 and names[1] in ALLOWED and names[1] not in allowed:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert wrong == []


@pytest.mark.parametrize("part", WITHOUT_AIIDA)
def test_no_aiida_below_data(part):
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {module}"
        for path in files_of(part)
        for line, module in imported_modules(path)
        if module.split(".")[0] == "aiida"
    ]
    assert wrong == []


def test_no_network_in_core():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {module}"
        for path in files_of("core")
        for line, module in imported_modules(path)
        if module.split(".")[0] in NETWORK
    ]
    assert wrong == []


def test_the_walk_sees_relative_and_nested_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "aiida_losiko")
    module = tmp_path / "aiida_losiko" / "core" / "example.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "def f():\n    from ..data import nodes\n    from aiida_losiko import cli\n    import aiida.orm\n"
    )
    assert imported_modules(module) == [(2, "aiida_losiko.data.nodes"), (3, "aiida_losiko.cli"), (4, "aiida.orm")]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def module_names(*parts: str) -> list[str]:
    names = []
    for part in parts:
        for path in files_of(part):
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            names.append(name.removesuffix(".__init__"))
    return names


def test_core_builders_sources_load_with_aiida_blocked():
    names = module_names(*WITHOUT_AIIDA)
    assert "aiida_losiko.core.errors" in names
    result = run_python(
        "import sys, importlib\n"
        "sys.modules['aiida'] = None\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
    )
    assert result.returncode == 0, result.stderr


def heavy_modules_after(statement: str) -> str:
    heavy = ["aiida", "torch", "ase.io", "pymatgen", "dscribe", "matplotlib", "scipy", "tqdm", "mp_api"]
    result = run_python(f"{statement}\nimport sys\nprint(','.join(m for m in {heavy!r} if m in sys.modules))")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "module", ["aiida_losiko", "aiida_losiko.builders", "aiida_losiko.core", "aiida_losiko.sources"]
)
def test_importing_is_light(module):
    assert heavy_modules_after(f"import {module}") == ""


def test_the_program_starts_light_and_without_aiida():
    statement = (
        "import sys\n"
        "from aiida_losiko.cli.losiko import main\n"
        "sys.argv = ['losiko', '--help']\n"
        "import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
    )
    assert heavy_modules_after(statement) == ""
