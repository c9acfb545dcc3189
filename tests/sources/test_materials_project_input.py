"""What is asked wrongly, or asks for nothing."""

from __future__ import annotations

import pytest

from aiida_losiko.core.errors import LosikoError

from .materials_project_service import ask


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chemsys": "Xe"}, "has no entry of the chemical system Xe, with any filter"),
        (
            {"chemsys": "Si-O", "num_sites": 5, "energy_above_hull": 0.1},
            r"num_sites=5 leaves nothing of Si-O and its subsystems .* 4 with deprecated=False, 4 with "
            r"include_gnome=False, 0 with num_sites=5; the lowest is 6 sites",
        ),
        (
            {"chemsys": "Si-O", "num_sites": 7, "energy_above_hull": 0.1},
            r"energy_above_hull=0\.1 leaves nothing .* 1 with num_sites=7, 0 with energy_above_hull=0\.1; the lowest "
            r"is 0\.19 eV/atom",
        ),
        (
            {"chemsys": "C", "theoretical": True},
            "theoretical=True leaves nothing .* 3 with include_gnome=False, 0 with",
        ),
        (
            {"material_ids": ["mp-900009"]},
            "include_gnome=False leaves nothing of mp-900009 .* 1 with deprecated=False, 0 with include_gnome=False",
        ),
        ({"material_ids": "mp-900007"}, "deprecated=False leaves nothing of mp-900007 .* all 1 entries are withdrawn"),
        ({"formula": "SiO2", "deprecated": True}, "deprecated=True leaves nothing .* all 3 entries are in use"),
        ({"formula": "CoO", "thermo_type": "R2SCAN"}, "thermo_type=R2SCAN leaves nothing of CoO"),
    ],
)
def test_an_empty_result_says_which_filter_emptied_it(materials_project, options, message):
    with pytest.raises(LosikoError, match=message) as excinfo:
        ask(materials_project, **options)
    assert "\n" not in str(excinfo.value)
    assert "structure" not in materials_project.searches()[-1]["_fields"]
    assert len(materials_project.searches()) <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs one of chemsys, formula, material_ids; given is none"),
        ({"chemsys": "Si", "formula": "Si"}, "given are chemsys and formula"),
        ({"chemsys": "Si-Xx"}, "'Si-Xx' is no chemical system"),
        ({"chemsys": ["Si", "O"]}, "is no chemical system"),
        ({"chemsys": "Si-*"}, "is no chemical system"),
        ({"chemsys": "Si-O-Si"}, "names an element twice"),
        ({"chemsys": "H-He-Li-Be-B-C-N-O-F"}, "has 9 elements, allowed are at most 8"),
        ({"formula": "ABO3"}, "formula 'ABO3' is no chemical formula"),
        ({"formula": []}, "formula is .*give a text or a list"),
        ({"material_ids": "149"}, "material_ids holds '149'"),
        ({"material_ids": ["mp-1", "mp-2;x"]}, "material_ids holds 'mp-2;x'"),
        ({"chemsys": "Si", "energy_above_hull": -0.1}, r"energy_above_hull=-0\.1 is not allowed"),
        ({"chemsys": "Si", "energy_above_hull": "0.1"}, "energy_above_hull='0.1' is not allowed"),
        ({"chemsys": "Si", "num_sites": 0}, "num_sites=0 is not allowed"),
        ({"chemsys": "Si", "deprecated": None}, "deprecated=None is not allowed"),
        ({"chemsys": "Si", "theoretical": "no"}, "theoretical='no' is not allowed"),
        ({"chemsys": "Si", "thermo_type": "r2scan"}, "unknown thermo_type 'r2scan'.*allowed are GGA_GGA"),
        ({"chemsys": "Si", "page_size": 2000}, "page_size=2000 is not allowed"),
        ({"chemsys": "Si", "retries": -1}, "retries=-1 is not allowed"),
        ({"chemsys": "Si", "timeout": 0}, "timeout=0 is not allowed"),
        ({"chemsys": "Si", "hull": 1}, "unknown option hull of source materials_project"),
    ],
)
def test_bad_input_is_told_before_anything_is_sent(materials_project, options, message):
    with pytest.raises(LosikoError, match=message) as excinfo:
        ask(materials_project, **options)
    assert "\n" not in str(excinfo.value)
    assert materials_project.requests == []
