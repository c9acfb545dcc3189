#!/usr/bin/env bash
# Write constraints.txt anew: the versions that pip chooses today, in a fresh environment, for the ranges of
# pyproject.toml. Run the tests afterwards; commit both files together.
set -euo pipefail

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
torch=${1:-2.13.0}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "torch==$torch" "$CHECKOUT[tests,docs,benchmarks]"
{
    cat <<HEADER
# The exact versions that aiida-losiko is tested with: Python 3.11, Linux x86_64, pyproject.toml with the extras
# tests, docs and benchmarks. Made by: bash setup_profiles/renew_constraints.sh [TORCH_VERSION]
# PyTorch is asked for exactly (setup_profiles/environment.sh takes its line from here): a range lets pip look through
# builds that bring gigabytes of CUDA packages.
HEADER
    # A local version such as 2.13.0+cpu names a build; without it the same line fits the CPU and the CUDA build.
    "$folder/venv/bin/python" -m pip freeze --exclude aiida-losiko | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'
} >"$folder/constraints.txt"
mv "$folder/constraints.txt" "$CHECKOUT/constraints.txt"
