#!/bin/sh
# Style, types, and who may import whom; every one is run, and any complaint fails.
cd "$(dirname "$0")/.." || exit 1
status=0
for command in "ruff check ." "mypy core/backendai plugins/scheduler/backendai_scheduler plugins/agentselector/backendai_agentselector" "lint-imports"; do
    echo "+ $command"
    $command || status=1
done
exit $status
