"""The program with a metric that is learnt from the database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.collections import g2
from ase.io import read, write
from click.testing import Result

METRIC = ["--set", "database.metric={n_components: 20, n_structures: 15, n_neighbors: [4, 2]}"]


@pytest.fixture(scope="module")
def molecules(named: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("molecules") / "molecules.extxyz"
    made = [named(name) for name in g2.names]
    write(path, [atoms for atoms in made if set(atoms.symbols) <= set("HCO") and 3 <= len(atoms) <= 8])
    return path


@pytest.fixture(scope="module")
def learnt(losiko: Callable[..., Result], small: list[str], molecules: Path) -> Path:
    path = molecules.parent / "learnt.db"
    result = losiko("database", "build", molecules, "-o", path, *small, *METRIC)
    assert result.exit_code == 0, result.stderr
    assert "metric learnt in 2 stages" in result.stdout
    return path


def test_info_tells_the_metric_and_its_unit(losiko: Callable[..., Result], learnt: Path) -> None:
    shown = losiko("database", "info", learnt, "--verify").stdout
    assert "learnt in 2 stages (targets of 4 + 2 environments) for starts 0.1 Angstrom off" in shown
    assert "in units of the usual one" in shown
    assert json.loads(losiko("database", "info", learnt, "--json").stdout)["metric"]["n_neighbors"] == [4, 2]


def test_too_few_structures_are_told(
    losiko: Callable[..., Result], small: list[str], named: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "few.extxyz", [named(name) for name in ("CH4", "H2O")])
    result = losiko("database", "build", tmp_path / "few.extxyz", "-o", tmp_path / "few.db", *small, *METRIC)
    assert result.exit_code == 0 and "learnt" not in result.stdout
    assert "none: fewer than 20 structures" in losiko("database", "info", tmp_path / "few.db").stdout


def test_relax_and_exclude(
    losiko: Callable[..., Result], learnt: Path, named: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "rough.extxyz", [named("CH3OH", 0.1), named("C2H4", 0.1, 1)])
    report = tmp_path / "report.json"
    options = ("-d", learnt, "-o", tmp_path / "out.extxyz", "--report", report)
    result = losiko("relax", tmp_path / "rough.extxyz", *options, "--exclude", "C2H4")
    assert result.exit_code == 0, result.stderr
    written = json.loads(report.read_text())
    assert written["database"]["metric"]["n_components"] == 20
    sources = written["structures"][1]["matches"]["source"]
    assert "C2H4" not in sources and len(sources) == 6
    first = read(tmp_path / "out.extxyz", 0)
    assert first.info["losiko_converged"] and first.arrays["losiko_distance"].max() < 10


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("database.metric.n_component=5", ["metric.n_component", "did you mean 'n_components'"]),
        ("database.metric={shrinkage: 7}", ["metric.shrinkage=7"]),
        ("database.metric=yes", ["metric=True", "null or a mapping"]),
    ],
)
def test_wrong_settings(
    option: str,
    words: list[str],
    losiko: Callable[..., Result],
    molecules: Path,
    assert_one_line_error: Callable[..., None],
    tmp_path: Path,
) -> None:
    result = losiko("database", "build", molecules, "-o", tmp_path / "no.db", "--set", option)
    assert_one_line_error(result, *words)
    assert not (tmp_path / "no.db").exists()


def test_the_polynomial_kernel_is_refused(
    losiko: Callable[..., Result], learnt: Path, molecules: Path, assert_one_line_error: Callable[..., None]
) -> None:
    output = molecules.parent / "out.extxyz"
    result = losiko("relax", molecules, "-d", learnt, "-o", output, "--set", "relax.kernel=polynomial", "--quiet")
    assert_one_line_error(result, "polynomial", "learnt metric")
    assert not output.exists()
