"""Every entry point of the package loads and is what its group asks for."""

from __future__ import annotations

from importlib.metadata import EntryPoint, distribution

import pytest

import aiida_losiko

ENTRY_POINTS = [point for point in distribution("aiida-losiko").entry_points if point.group.startswith("aiida.")]


def test_version_is_the_same_everywhere():
    assert distribution("aiida-losiko").version == aiida_losiko.__version__


def test_names_start_with_losiko():
    assert len(ENTRY_POINTS) >= 12
    assert [point.name for point in ENTRY_POINTS if not point.name.startswith("losiko.")] == []


@pytest.mark.parametrize("point", ENTRY_POINTS, ids=lambda point: f"{point.group}:{point.name}")
def test_loads_through_aiida(point: EntryPoint):
    from aiida.plugins.entry_point import load_entry_point

    assert load_entry_point(point.group, point.name) is point.load()


def test_the_program_is_callable():
    (script,) = (point for point in distribution("aiida-losiko").entry_points if point.group == "console_scripts")
    assert script.name == "losiko"
    assert callable(script.load())
