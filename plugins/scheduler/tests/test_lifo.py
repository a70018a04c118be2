"""Last come, first served."""

from __future__ import annotations

import sys
from pathlib import Path

from backendai.spec.scheduler_v10 import Outcome
from backendai_scheduler.lifo import Lifo

sys.path.insert(0, str(Path(__file__).parent))  # for played: pytest's importlib mode adds nothing itself
from played import always, only, tell, tried, view, waiting

QUEUE = view([waiting("oldest"), waiting("old"), waiting("urgent", priority=20), waiting("new")])


def test_the_higher_priority_goes_first_and_then_whoever_asked_last() -> None:
    assert tried(tell(Lifo(), QUEUE, always(Outcome.PLACED))) == ["urgent", "new", "old", "oldest"]


def test_it_stops_at_the_first_who_has_to_wait_for_room() -> None:
    assert tried(tell(Lifo(), QUEUE, only("urgent"))) == ["urgent", "new"]


def test_with_overtake_others_may_pass_whoever_waits() -> None:
    assert tried(tell(Lifo(Lifo.Config(overtake=True)), QUEUE, only("old"))) == ["urgent", "new", "old", "oldest"]


def test_what_no_agent_could_ever_hold_keeps_nobody_waiting() -> None:
    assert tried(tell(Lifo(), QUEUE, always(Outcome.IMPOSSIBLE))) == ["urgent", "new", "old", "oldest"]


def test_it_gives_its_word_on_nothing() -> None:
    assert not hasattr(Lifo(), "promises")
