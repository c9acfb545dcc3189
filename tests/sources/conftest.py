"""Services on this machine for the tests of the sources."""

from __future__ import annotations

import pytest

from ..servers.materials_project import KEY, running
from .materials_project_service import KEY_VARIABLES


@pytest.fixture
def materials_project_key(monkeypatch):
    """The key of the local service in the environment, and nothing else of the kind."""
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("MP_API_KEY", KEY)
    return KEY


@pytest.fixture
def materials_project(materials_project_key):
    """The local Materials Project with the committed table, and its key in the environment."""
    with running() as server:
        yield server
