"""Whatever goes wrong, no session is stuck and nothing leaks: thousands of small storms, each from a seed that it prints when it fails."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults.simulation import storms

RUNS, FAULTS = 2000, 10_000
OF_TODAY = 20  # more seeds, others each day
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]


def test_no_session_is_stuck_and_nothing_leaks(capsys: pytest.CaptureFixture[str]) -> None:
    today = 1_000_000 + int(os.environ.get("BACKENDAI_TEST_DAY", time.time() // 86400)) * 1000
    tally, seconds = storms([*range(1, RUNS + 1), *range(today, today + OF_TODAY)], os.cpu_count() or 2)
    with capsys.disabled():
        print(f"\n{tally.summary(seconds)}\n  seeds 1 to {RUNS}, and of today {today} to {today + OF_TODAY - 1}")
    assert not tally.wrong, sorted(tally.wrong)
    assert tally.runs == RUNS + OF_TODAY and tally.faults.total() >= FAULTS
