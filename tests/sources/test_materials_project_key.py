"""The key: where it is looked for, when, and that it is nowhere afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.materials_project_key import NoKeyError, find_key

from ..servers.materials_project import running
from .materials_project_service import KEY_VARIABLES, ask, names

SECRET = "LeakCheck0123456789abcdefghijklm"
OTHER = "f" * 32


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty home, and no key in the environment."""
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config").mkdir()
    return tmp_path


def test_a_missing_key_says_where_to_get_and_put_one(home):
    with running() as server, pytest.raises(LosikoError) as excinfo:
        ask(server, chemsys="Si")
    message = str(excinfo.value)
    for part in (
        "https://materialsproject.org/api",
        "MP_API_KEY",
        "PMG_MAPI_KEY in ~/.config/.pmgrc.yaml",
        "reference_crystals",
        "OPTIMADE",
    ):
        assert part in message
    assert "\n" not in message
    assert server.requests == []


def test_the_key_is_looked_up_at_every_request(home, monkeypatch):
    with running() as server:
        server.key = SECRET
        (home / ".config" / ".pmgrc.yaml").write_text(f"PMG_MAPI_KEY: {OTHER}\nPMG_VASP_PSP_DIR: ~/potcar\n")
        with pytest.raises(LosikoError, match="refuses the key"):
            ask(server, chemsys="Si")
        (home / ".config" / ".pmgrc.yaml").write_text(f"PMG_MAPI_KEY: {SECRET}\n")
        assert names(ask(server, chemsys="Si")[1]) == ["mp-149"]
        server.key = OTHER
        monkeypatch.setenv("MP_API_KEY", f" {OTHER}\n")
        assert names(ask(server, chemsys="Si")[1]) == ["mp-149"]


@pytest.mark.parametrize("place", ["MP_API_KEY", "PMG_MAPI_KEY", "MAPI_KEY", "new file", "old file", "own file"])
def test_where_it_may_be(home, monkeypatch, place):
    files = {"new file": ".config/.pmgrc.yaml", "old file": ".pmgrc.yaml", "own file": "mine.yaml"}
    if place in files:
        (home / files[place]).write_text(f"PMG_MAPI_KEY: {SECRET}\n")
        if place == "own file":
            monkeypatch.setenv("PMG_CONFIG_FILE", str(home / files[place]))
    else:
        monkeypatch.setenv(place, SECRET)
    assert find_key() == SECRET


def test_the_environment_comes_first(home, monkeypatch):
    (home / ".config" / ".pmgrc.yaml").write_text(f"PMG_MAPI_KEY: {OTHER}\n")
    monkeypatch.setenv("PMG_MAPI_KEY", "e" * 32)
    assert find_key() == "e" * 32
    monkeypatch.setenv("MP_API_KEY", SECRET)
    assert find_key() == SECRET


@pytest.mark.parametrize("wrong", [SECRET[:-1], SECRET + "x", SECRET[:-1] + "\u00e9", SECRET[:15] + "\n" + SECRET[16:]])
def test_what_cannot_be_a_key_is_not_repeated(home, monkeypatch, wrong):
    monkeypatch.setenv("MP_API_KEY", wrong)
    with pytest.raises(LosikoError, match=rf"in MP_API_KEY has {len(wrong)} characters and cannot be one") as excinfo:
        find_key()
    assert SECRET[:10] not in str(excinfo.value)


@pytest.mark.parametrize("text", ["PMG_MAPI_KEY: [{0}", "{0}", "\tPMG_MAPI_KEY: {0}", "- PMG_MAPI_KEY: {0}"])
def test_a_damaged_settings_file_is_not_quoted(home, text, recwarn):
    (home / ".config" / ".pmgrc.yaml").write_text(text.format(SECRET) + "\n")
    with pytest.raises(LosikoError, match=r"\.pmgrc\.yaml cannot be read as YAML") as excinfo:
        find_key()
    assert SECRET not in str(excinfo.value) and excinfo.value.__context__ is None
    assert SECRET not in "".join(str(warning.message) for warning in recwarn)


def test_the_key_is_not_sent_to_another_host(home, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", SECRET)
    with running() as server, running() as other:
        server.key = other.key = SECRET
        elsewhere = other.address.replace("127.0.0.1", "localhost")
        server.fail(f"redirect:{elsewhere}")
        with pytest.raises(LosikoError, match="refuses the key"):
            ask(server, chemsys="Si")
        assert other.keys == [None]
        server.fail(f"redirect:{server.address}")
        assert names(ask(server, chemsys="Si")[1]) == ["mp-149"]


@pytest.mark.parametrize("place", ["settings", "environment beside damaged settings"])
def test_the_key_is_nowhere_afterwards(tmp_path, place):
    """In a process of its own, with an empty home: nothing that is said or written in any case holds the key."""
    home, work = tmp_path / "home", tmp_path / "work"
    settings = home / ".config" / ".pmgrc.yaml"
    settings.parent.mkdir(parents=True)
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}
    environment |= {"HOME": str(home), "EXPECTED_KEY": SECRET, "PYTHONWARNINGS": "always"}
    environment["NO_PROXY"] = "127.0.0.1,localhost"
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    if place == "settings":
        settings.write_text(f"PMG_MAPI_KEY: {SECRET}\n")
    else:
        environment["MP_API_KEY"] = SECRET
        settings.write_text(f"PMG_MAPI_KEY: [{SECRET}\n")  # pymatgen would quote this line in a warning
    program = Path(__file__).with_name("materials_project_leaks.py")
    done = subprocess.run(
        [sys.executable, str(program)], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr[-2000:]
    told = sum(done.stdout.count(f"{kind}Error: ") for kind in ("Losiko", "Service"))
    assert told >= 15 and "success: 4 records" in done.stdout
    assert "left out, disordered" in done.stderr
    assert SECRET not in done.stdout
    assert SECRET not in done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != settings]
    assert work / "everything.log" in written
    assert b"materials/summary" in (work / "everything.log").read_bytes()
    assert [str(path) for path in written if SECRET.encode() in path.read_bytes()] == []
    assert not list(home.glob(".mprester*"))


def test_no_key_at_all_is_told_apart_from_one_that_cannot_be_one(home, monkeypatch):
    with pytest.raises(NoKeyError):
        find_key()
    settings = home / ".config" / ".pmgrc.yaml"
    settings.write_text("PMG_VASP_PSP_DIR: ~/potcar\n")
    with pytest.raises(NoKeyError):
        find_key()
    for broken in ("PMG_MAPI_KEY: [\n", "PMG_MAPI_KEY: abc\n"):
        settings.write_text(broken)
        with pytest.raises(LosikoError) as excinfo:
            find_key()
        assert not isinstance(excinfo.value, NoKeyError)
