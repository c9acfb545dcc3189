#!/usr/bin/env bash
# Quantum ESPRESSO on Debian, for tests. Safe to run again: what is there already is kept.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: bash setup_profiles/quantumespresso.sh [options]

Installs the Debian packages quantum-espresso and quantum-espresso-data (as root, or with sudo) and the extra
aiida-losiko[qe], and makes in the AiiDA profile that is the default here:

  the family debian-mixed of pseudopotentials of 21 elements, of mixed kinds, with low cutoffs: for tests only
  the codes pw@localhost-mpi, dos@localhost-mpi and projwfc@localhost-mpi

  --venv DIR    the virtual environment (default: .venv in the checkout, as quickstart.sh makes it)
  --packages    only the Debian packages
  --help        this text

For results use a family that was made as one: aiida-pseudo install sssp -v 1.3 -x PBE -p efficiency
USAGE
}

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup_profiles/environment.sh
. "$CHECKOUT/setup_profiles/environment.sh"

venv=$CHECKOUT/.venv
packages_only=no
while [ $# -gt 0 ]; do
    case "$1" in
        --venv)
            [ $# -ge 2 ] || die "$1 needs a path"
            venv=$(realpath -m -- "$2")
            shift
            ;;
        --packages) packages_only=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) die "unknown option $1 (allowed: --venv DIR, --packages, --help)" ;;
    esac
    shift
done

# apt as root, or with sudo.
apt_get() {
    local sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "the Debian packages need root: run this as root, or install sudo"
        sudo=sudo
    fi
    # shellcheck disable=SC2086  # no word where there is no sudo
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null
}

if command -v pw.x >/dev/null && [ -d /usr/share/espresso/pseudo ]; then
    say "Quantum ESPRESSO is there: $(command -v pw.x)"
else
    command -v apt-get >/dev/null || die "no apt-get here: install Quantum ESPRESSO with the package manager of this system, and its codes with verdi code create"
    say "installing the Debian packages quantum-espresso and quantum-espresso-data"
    apt_get update >/dev/null || die "apt-get update failed: check the network"
    apt_get install --no-install-recommends quantum-espresso quantum-espresso-data >/dev/null || die "apt-get install failed: see its messages above"
fi
[ "$packages_only" = no ] || exit 0

[ -x "$venv/bin/python" ] || die "there is no environment $venv: run bash setup_profiles/quickstart.sh --no-run first, or give --venv DIR"
if ! "$venv/bin/python" -c 'import aiida_quantumespresso' 2>/dev/null; then
    say "installing the extra aiida-losiko[qe]"
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --constraint "$CHECKOUT/constraints.txt" \
        --editable "$CHECKOUT[qe]" || die "could not install aiida-losiko[qe]: see the messages of pip above"
fi
# The profile of the checkout, unless the person has chosen one.
if [ -z "${AIIDA_PATH:-}" ] && [ -d "$CHECKOUT/.aiida" ]; then
    export AIIDA_PATH=$CHECKOUT/.aiida
fi
"$venv/bin/python" "$CHECKOUT/setup_profiles/quantumespresso.py"
say "a first validation: docs/validation-quantumespresso.md"
