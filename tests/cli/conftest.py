"""A small database of real molecules and a way to run `losiko` that keeps stdout and stderr apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from click.testing import CliRunner, Result

from aiida_losiko.cli.losiko import main

# A small descriptor, so that the tests are about the program.
SMALL = ["--set", "descriptor.n_max=4", "--set", "descriptor.l_max=3"]
KNOWN = ["CH3CH2OH", "CH3OH", "H2O", "CH4", "C2H6", "CH3OCH3", "H2CO"]


def _named(name: str, stdev: float = 0.0, seed: int = 0) -> Atoms:
    atoms = molecule(name)
    atoms.info["identifier"] = name
    atoms.rattle(stdev, seed=seed)
    return atoms


@pytest.fixture(scope="session")
def named() -> Callable[..., Atoms]:
    """Make a molecule of ASE with its formula as identifier, displaced by `stdev` Angstrom per coordinate."""
    return _named


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Options for a small descriptor."""
    return SMALL


@pytest.fixture(scope="session")
def known() -> list[str]:
    """Identifiers of the structures in the database, in order."""
    return KNOWN


@pytest.fixture(scope="session")
def losiko() -> Callable[..., Result]:
    """Run the program in this process; an unexpected exception is a failure."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def assert_one_line_error() -> Callable[..., None]:
    """Check exit status 1 and a single line on stderr that holds the words, and nothing on stdout."""

    def check(result: Result, *words: str) -> None:
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stdout == ""
        for word in words:
            assert word in result.stderr

    return check


@pytest.fixture(scope="session")
def known_file(tmp_path_factory) -> Path:
    """Seven organic molecules with identifiers."""
    path = tmp_path_factory.mktemp("known") / "known.extxyz"
    write(path, [_named(name) for name in KNOWN])
    return path


@pytest.fixture(scope="session")
def database(known_file, tmp_path_factory, losiko) -> Path:
    """Their database, made by the program."""
    path = tmp_path_factory.mktemp("database") / "known.db"
    result = losiko("database", "build", known_file, "-o", path, *SMALL)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def rough_file(tmp_path) -> Path:
    """Three displaced molecules of the database."""
    path = tmp_path / "rough.extxyz"
    write(path, [_named(name, 0.05, seed) for seed, name in enumerate(["CH3CH2OH", "CH3OH", "H2O"])])
    return path
