"""Whatever goes wrong, no session is stuck and nothing leaks: thousands of small storms over a played platform, each from a seed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.parts.image import ROOT

RUNS, FAULTS, OF_TODAY = 2000, 10_000, 20
pytestmark = [pytest.mark.system, pytest.mark.timeout(850)]


def test_no_session_is_stuck_and_nothing_leaks(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "core.tests.manager.simulation", "--runs", str(RUNS), "--today", str(OF_TODAY)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    with capsys.disabled():
        print(f"\n{done.stdout}{done.stderr}")
    assert done.returncode == 0, "the seeds that failed are printed above"
    runs, faults = map(int, re.findall(r"(\d+) (?:runs|faults)", done.stdout)[:2])
    assert runs == RUNS + OF_TODAY and faults >= FAULTS
