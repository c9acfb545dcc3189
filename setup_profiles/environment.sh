# Sourced by quickstart.sh and tests/run.sh: one virtual environment with the exact versions of constraints.txt.
# shellcheck shell=bash
#
#   prepare_environment DIR EXTRAS   makes or reuses the environment DIR with the package and EXTRAS ("" or "tests");
#                                    sets VENV to its path, puts it in front of PATH
#
# CHECKOUT must hold the root of the repository.

say() { printf '==> %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The Python to build the environment with: $PYTHON if set, else the first that is 3.11 (the version that was tried).
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
            die "PYTHON=$PYTHON is not a working Python of version 3.11 or later"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no Python 3.11 found; on Debian 12: sudo apt-get install -y python3.11 python3.11-venv (or set PYTHON=/path/to/python)"
}

# AiiDA's daemon cannot be started by a verdi whose path holds a blank. Then the environment itself goes to the data
# folder of the user, and the place asked for becomes a link to it.
place_without_blanks() {
    local wanted=$1 real
    case "$wanted" in
        *[[:space:]]*) ;;
        *) return ;;
    esac
    [ -e "$wanted" ] && return
    [ -n "${HOME:-}${XDG_DATA_HOME:-}" ] || die "the path '$wanted' holds a blank, which AiiDA's daemon cannot take: give --venv DIR without one"
    real="${XDG_DATA_HOME:-$HOME/.local/share}/aiida-losiko/venv-$(printf '%s' "$wanted" | sha256sum | cut -c 1-12)"
    case "$real" in
        *[[:space:]]*) die "the path '$wanted' holds a blank, which AiiDA's daemon cannot take: give --venv DIR without one" ;;
    esac
    mkdir -p "$real" "$(dirname "$wanted")" && ln -sfn "$real" "$wanted" || die "cannot make the folder $real"
    say "the path of the checkout holds a blank: the environment lies in $real"
}

make_venv() {
    local python
    python=$(find_python) || exit 1
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python has no venv module; on Debian 12: sudo apt-get install -y python3.11-venv"
    say "making the virtual environment $VENV"
    "$python" -m venv "$VENV" || die "could not make the virtual environment $VENV"
}

# pip with the constraints; its long output goes to the log.
install() {
    local what=$1 reason start=$SECONDS
    shift
    say "installing $what (log: $INSTALL_LOG)"
    if ! "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check --constraint "$CHECKOUT/constraints.txt" \
        "$@" >>"$INSTALL_LOG" 2>&1 </dev/null; then
        if grep -qE 'NewConnectionError|NameResolutionError|name resolution|Network is unreachable|ConnectTimeout|ReadTimeout|ProxyError|Connection refused' "$INSTALL_LOG"; then
            die "no connection to the package index while installing $what; check the network and run the same command again (details: $INSTALL_LOG)"
        fi
        reason=$(grep -iE '^ *error:' "$INSTALL_LOG" | tail -n 1)
        die "could not install $what: ${reason:-pip failed} (details: $INSTALL_LOG)"
    fi
    say "  done in $((SECONDS - start)) s"
}

# What an installed environment depends on; when it has not changed there is nothing to install.
fingerprint() {
    { cat "$CHECKOUT/pyproject.toml" "$CHECKOUT/constraints.txt"; printf '%s\n' "$CHECKOUT"; "$VENV/bin/python" -VV; } | sha256sum
}

prepare_environment() {
    local wanted=$1 extras=$2 now name
    place_without_blanks "$wanted"
    [ -d "$wanted/bin" ] || [ ! -e "$wanted" ] || [ -z "$(ls -A "$wanted")" ] ||
        die "$wanted exists and is not a virtual environment: give another place with --venv DIR"
    VENV=$wanted
    [ ! -e "$wanted" ] || VENV=$(cd "$wanted" && pwd -P)
    [ -d "$VENV/bin" ] || make_venv
    VENV=$(cd "$VENV" && pwd -P)
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && grep -qF "$VENV" "$VENV/bin/activate" 2>/dev/null ||
        die "the virtual environment $VENV does not work (interrupted, moved or copied?): rm -r '$wanted' and run the same command again"
    INSTALL_LOG=$VENV/install.log
    now=$(fingerprint)
    if [ "$(cat "$VENV/.losiko-${extras:-base}" 2>/dev/null)" = "$now" ]; then
        say "the virtual environment $VENV is up to date"
    else
        : >"$INSTALL_LOG" || die "cannot write $INSTALL_LOG"
        # Older ones stumble over an extra that two packages spell differently (atomic-tools, atomic_tools).
        install "pip itself" --upgrade "pip>=24"
        # Asked for exactly, so that pip settles on one build and does not look through the others.
        install "PyTorch, the largest part" "$(grep '^torch==' "$CHECKOUT/constraints.txt")"
        install "aiida-losiko and the rest" --editable "$CHECKOUT${extras:+[$extras]}"
        for name in base $extras; do printf '%s\n' "$now" >"$VENV/.losiko-$name"; done
    fi
    unset PYTHONHOME PYTHONPATH
    export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
}
