#!/bin/sh
# Sets up a virtual environment from the locks: setup.sh FOLDER run|test [PYTHON]. Safe to run again; works without root.
set -eu
cd "$(dirname "$0")/.."
venv=$1 what=$2 python=${3:-}

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -z "$python" ]; then
    for python in python3 python3.13 python3.12 python3.11 none; do fits "$python" && break; done
fi
if ! fits "$python"; then
    echo "This needs Python 3.11 or newer, and none was found; say where one is: make PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv --clear "$venv"
    elif command -v uv >/dev/null; then
        uv venv --quiet --clear --seed --python "$python" "$venv"
    elif command -v virtualenv >/dev/null; then
        virtualenv --quiet --clear --python "$python" "$venv"
    else
        echo "$python cannot make virtual environments: its venv module is a package of its own here." >&2
        echo "Install it (Debian, Ubuntu: apt-get install python3-venv) and run this again." >&2
        exit 1
    fi
fi
pip() { "$venv/bin/python" -m pip -qq --disable-pip-version-check "$@"; }
pip install --require-hashes -r requirements.lock
[ "$what" = run ] || pip install --require-hashes -r requirements-test.lock
set -- core plugins/*
for member do set -- "$@" -e "./$member"; shift; done
pip install --no-deps --no-build-isolation "$@"
# Starting bai costs half as much when its modules are compiled, whatever PYTHONDONTWRITEBYTECODE says.
"$venv/bin/python" -m compileall -q core/backendai plugins/*/backendai_* || true
