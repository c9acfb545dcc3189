"""What all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# The import of aiida makes its folder, ~/.aiida unless told otherwise: keep the tests away from what a person has.
# Set before the plugin below imports aiida; workers of pytest-xdist inherit it.
if "LOSIKO_TEST_AIIDA_PATH" not in os.environ:
    os.environ["LOSIKO_TEST_AIIDA_PATH"] = tempfile.mkdtemp(prefix="losiko-tests-")
    atexit.register(shutil.rmtree, os.environ["LOSIKO_TEST_AIIDA_PATH"], ignore_errors=True)
os.environ["AIIDA_PATH"] = os.environ["LOSIKO_TEST_AIIDA_PATH"]

pytest_plugins = "aiida.tools.pytest_fixtures"
