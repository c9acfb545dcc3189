#!/usr/bin/env bash
# Write constraints.txt anew: the versions that pip chooses today, in a fresh environment, for the ranges of
# pyproject.toml. Run the tests afterwards; commit both files together.
# Run it with the oldest Python 3.11 that is to work, Debian 12's 3.11.2 (PYTHON=/usr/bin/python3.11): some packages
# ask for a later patch release in their newest versions.
set -euo pipefail

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
torch=${1:-2.13.0}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
version=$("$folder/venv/bin/python" -c 'import platform; print(platform.python_version())')
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "torch==$torch" "$CHECKOUT[tests,docs,benchmarks]"
{
    cat <<HEADER
# The exact versions that aiida-losiko is tested with: Python $version, Linux x86_64, pyproject.toml with the extras
# tests, docs and benchmarks. Made by: PYTHON=/usr/bin/python3.11 bash setup_profiles/renew_constraints.sh [TORCH_VERSION]
# PyTorch is asked for exactly (setup_profiles/environment.sh takes its line from here): a range lets pip look through
# builds that bring gigabytes of CUDA packages.
HEADER
    # A local version such as 2.13.0+cpu names a build; without it the same line fits the CPU and the CUDA build.
    "$folder/venv/bin/python" -m pip freeze --exclude aiida-losiko | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'
} >"$folder/constraints.txt"
mv "$folder/constraints.txt" "$CHECKOUT/constraints.txt"
