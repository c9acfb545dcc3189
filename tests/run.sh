#!/usr/bin/env bash
# All the checks: ruff, ruff format, mypy, pytest. Makes or reuses the virtual environment .venv of the checkout
# (another place: LOSIKO_VENV=DIR). Arguments go to pytest: bash tests/run.sh -k water
set -euo pipefail

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup_profiles/environment.sh
. "$CHECKOUT/setup_profiles/environment.sh"
prepare_environment "${LOSIKO_VENV:-$CHECKOUT/.venv}" tests
cd "$CHECKOUT"

# Two workers with one thread each: many threads on small molecules only get in each other's way.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLBACKEND=Agg

say "ruff check" && ruff check .
say "ruff format --check" && ruff format --check .
say "mypy" && mypy
say "pytest" && python -m pytest --numprocesses "${LOSIKO_TEST_WORKERS:-2}" "$@"
