#!/usr/bin/env bash
# From a clone to the first relaxed molecules. Safe to run again: what is there already is kept.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: bash setup_profiles/quickstart.sh [options] [-- options of workflows/main_job.py]

Makes a virtual environment with pinned versions, an AiiDA profile of its own in the checkout (SQLite, no services),
starts its daemon and runs the main job: an environment database, a dozen displaced molecules, a table, two pictures.

  --qm9 PATH    run the main job on QM9 (the archive dsgdb9nsd.xyz.tar.bz2, a folder of its files, or an extxyz/npz
                collection) instead of the molecules that ASE ships
  --venv DIR    the virtual environment to make or reuse (default: .venv in the checkout)
  --no-run      set up only
  --help        this text

No AiiDA profile that you have elsewhere is read or changed. To undo everything:
  python setup_profiles/embedded.py --remove && rm -r .venv
USAGE
}

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup_profiles/environment.sh
. "$CHECKOUT/setup_profiles/environment.sh"

venv=$CHECKOUT/.venv
run=yes
job=()
while [ $# -gt 0 ]; do
    case "$1" in
        --qm9 | --venv)
            [ $# -ge 2 ] || die "$1 needs a path"
            if [ "$1" = --venv ]; then
                venv=$(realpath -m -- "$2")
            else
                [ -e "$2" ] || die "--qm9 $2: no such file or folder"
                job+=(--qm9 "$(realpath -- "$2")")
            fi
            shift
            ;;
        --no-run) run=no ;;
        --help | -h)
            usage
            exit 0
            ;;
        --)
            shift
            job+=("$@")
            break
            ;;
        *) die "unknown option $1 (allowed: --qm9 PATH, --venv DIR, --no-run, --help)" ;;
    esac
    shift
done

prepare_environment "$venv" ""
cd "$CHECKOUT"
python setup_profiles/embedded.py --activate "$VENV/bin/activate"
export AIIDA_PATH=$CHECKOUT/.aiida
unset AIIDA_PROFILE

activate=${venv#"$CHECKOUT"/}/bin/activate
if [ "$run" = no ]; then
    say "set up. Next: cd '$CHECKOUT' && source '$activate' && python workflows/main_job.py"
    exit 0
fi
say "running the main job: python workflows/main_job.py${job[*]:+ ${job[*]}}"
python workflows/main_job.py "${job[@]}"
say "type these after: cd '$CHECKOUT' && source '$activate'"
say "the end of it all: python setup_profiles/embedded.py --stop (--help: how to remove everything)"
