"""Whatever goes wrong, no session is stuck and nothing leaks: thousands of small storms in a single thread, each from a seed that it
prints when it fails, and one with the real driver and threads on both databases."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from random import Random

import pytest

from core.tests.manager.books import Books
from core.tests.manager.calm import calm
from core.tests.manager.scene import found, people
from core.tests.manager.simulation import storms
from core.tests.manager.single import Fates
from core.tests.manager.stage import staged
from core.tests.manager.storm import Storm

RUNS, FAULTS = 2000, 10_000
OF_TODAY = 20  # more seeds, others each day
pytestmark = pytest.mark.system  # long: minutes of storms


@pytest.mark.timeout(1800)
def test_no_session_is_stuck_and_nothing_leaks(capsys: pytest.CaptureFixture[str]) -> None:
    today = 1_000_000 + int(os.environ.get("BACKENDAI_TEST_DAY", time.time() // 86400)) * 1000
    tally, seconds = storms([*range(1, RUNS + 1), *range(today, today + OF_TODAY)], os.cpu_count() or 2)
    with capsys.disabled():
        sys.stdout.write(f"\n{tally.summary(seconds)}\n  seeds 1 to {RUNS}, and of today {today} to {today + OF_TODAY - 1}\n")
    assert not tally.wrong, sorted(tally.wrong)
    assert tally.runs == RUNS + OF_TODAY and tally.faults.total() >= FAULTS


async def test_the_same_holds_on_both_databases(tmp_path: Path, db_url: str) -> None:
    async with staged(tmp_path, db_url) as stage:
        await stage.box("ready")  # so that it is known which slots there are
        await found(stage)
        await stage.boxes.pop().leave()
        await people(stage, Random(1))
        storm = Storm(stage, 1, Fates(Random(1)), Books(lambda: stage.now))
        await storm.blow(60, 40)
        assert (await calm(storm)).total() > 0
