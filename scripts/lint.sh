#!/bin/sh
# Style, types, and who may import whom; every one is run, and any complaint fails.
cd "$(dirname "$0")/.." || exit 1
status=0
check() {
    echo "+ $*"
    "$@" || status=1
}
check ruff check --quiet .
check mypy --no-error-summary core/backendai plugins/*/backendai_* tests conftest.py
check lint-imports --no-logo
exit $status
