"""How long ``bai`` takes to start, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from tests.bench.table import Row, at_most, show
from tests.parts.platform import BAI, Platform

ROUNDS = 25
WARM = 3  # rounds that only fill caches
BARE = (sys.executable, "-c", "pass")
SESSIONS = 10  # in the list that `bai ps` prints


def taken(argv: Sequence[str], env: Mapping[str, str]) -> float:
    """Return the milliseconds that a program takes from its start to its end."""
    begun = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env)
    return (time.perf_counter() - begun) * 1000


def in_turns(programs: Mapping[str, Sequence[str]], env: Mapping[str, str]) -> dict[str, float]:
    """Return the median of each program, all of them run once in every round."""
    times: dict[str, list[float]] = {what: [] for what in programs}
    for turn in range(ROUNDS + WARM):
        for what, argv in programs.items():
            found = taken(argv, env)
            if turn >= WARM:
                times[what].append(found)
    return {what: statistics.median(series) for what, series in times.items()}


def main() -> None:
    platform = Platform("null")
    try:
        platform.start()
        for _ in range(SESSIONS):
            platform.ask_for("true", command=["sleep", "600"], slots={"cpu": 0.01, "mem": "1m"})
        env = {**os.environ, **platform.env}
        found = in_turns({"bare": BARE, "help": (BAI, "--help"), "ps": (BAI, "ps")}, env)
    finally:
        platform.remove()
    rows: list[Row] = [at_most("bai --help, beside python -c pass", found["help"], found["bare"], 5),
                       at_most(f"bai ps with {SESSIONS} sessions, beside the same", found["ps"], found["bare"], 10)]
    show(f"Starting the command ({ROUNDS} rounds, by turns)", rows)


if __name__ == "__main__":
    main()
