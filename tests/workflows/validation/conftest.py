"""The stand-in for VASP: a toy that writes VASP's files, behind mock-vasp. It tests the chain, not any accuracy."""

from __future__ import annotations

import pytest


@pytest.fixture
def vasp_family(aiida_profile, tmp_path):
    """A family of placeholder potentials."""
    from ...vasp_stand_in.install import upload_potentials

    return upload_potentials(tmp_path)


@pytest.fixture
def vasp_code(vasp_family, aiida_localhost, tmp_path):
    """mock-vasp with an empty registry, and the toy to fill it."""
    from ...vasp_stand_in.install import make_code

    aiida_localhost.set_minimum_job_poll_interval(0.5)
    return make_code(aiida_localhost, tmp_path / "registry", label=f"vasp-{tmp_path.name}")
