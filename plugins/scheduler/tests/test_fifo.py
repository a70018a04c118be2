"""First come, first served: who is tried, in which order, and when it stops."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Waiting
from backendai_scheduler.fifo import Fifo
from hypothesis import given
from hypothesis import strategies as st

PLACED, BLOCKED, IMPOSSIBLE = Outcome.PLACED, Outcome.BLOCKED, Outcome.IMPOSSIBLE
OVERTAKE = Fifo.Config(overtake=True)


def waiting(id: str, priority: int = 10, submitted_at: float = 0.0) -> Waiting:
    return Waiting(id, "ann", "project", priority, submitted_at, ((1000,),))


def tried(sessions: Sequence[Waiting], outcomes: Sequence[Outcome] = (), config: Fifo.Config | None = None) -> list[str]:
    """Hold the conversation; return whom it named. outcomes: what becomes of each attempt, and PLACED of all later ones."""
    asked = sorted(sessions, key=lambda session: (session.submitted_at, session.id))
    talk = Fifo(config).attempts(QueueView(100.0, ("cpu",), asked))
    named, told = [], list(outcomes)
    try:
        attempt = next(talk)
        while True:
            assert isinstance(attempt, Attempt) and attempt.avoid == frozenset()
            named.append(attempt.session)
            attempt = talk.send(told.pop(0) if told else PLACED)
    except StopIteration:
        return named


QUEUE = [waiting("late", submitted_at=3.0), waiting("early", submitted_at=1.0), waiting("urgent", 20, 9.0), waiting("idle", 0, 0.5)]


def test_the_higher_priority_goes_first_and_then_whoever_asked_earlier() -> None:
    assert tried(QUEUE) == ["urgent", "early", "late", "idle"]


def test_of_those_who_asked_at_once_the_order_of_the_view_decides() -> None:
    assert tried([waiting("b"), waiting("a"), waiting("c")]) == ["a", "b", "c"]


def test_nobody_waits_then_nobody_is_named() -> None:
    assert tried([]) == []


def test_it_stops_at_the_first_who_has_to_wait_for_room() -> None:
    assert tried(QUEUE, [PLACED, BLOCKED]) == ["urgent", "early"]


def test_with_overtake_others_may_pass_whoever_waits() -> None:
    assert tried(QUEUE, [BLOCKED, BLOCKED], OVERTAKE) == ["urgent", "early", "late", "idle"]


@pytest.mark.parametrize("config", [None, OVERTAKE])
def test_what_no_agent_could_ever_hold_keeps_nobody_waiting(config: Fifo.Config | None) -> None:
    assert tried(QUEUE, [IMPOSSIBLE, IMPOSSIBLE], config) == ["urgent", "early", "late", "idle"]


def test_overtaking_is_off_unless_the_operator_wants_it() -> None:
    assert Fifo.Config().overtake is False
    assert tried(QUEUE, [BLOCKED], Fifo.Config()) == tried(QUEUE, [BLOCKED]) == ["urgent"]


QUEUES = st.lists(st.builds(waiting, st.text("abc", min_size=1, max_size=4), st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5])),
                  unique_by=lambda w: w.id, max_size=12)
OUTCOMES = st.lists(st.sampled_from(Outcome), max_size=12)


@given(QUEUES, OUTCOMES)
def test_nobody_is_passed_by_who_should_come_later(sessions: list[Waiting], outcomes: list[Outcome]) -> None:
    by_id = {session.id: session for session in sessions}
    named = [by_id[id] for id in tried(sessions, outcomes)]
    left = [session for session in sessions if session not in named]
    for session in named:
        assert not [other for other in left if (-other.priority, other.submitted_at) < (-session.priority, session.submitted_at)]


@given(QUEUES, OUTCOMES)
def test_it_goes_on_until_somebody_has_to_wait(sessions: list[Waiting], outcomes: list[Outcome]) -> None:
    blocked = outcomes.index(BLOCKED) + 1 if BLOCKED in outcomes else len(sessions)
    assert len(tried(sessions, outcomes)) == min(blocked, len(sessions))
    assert sorted(tried(sessions, outcomes, OVERTAKE)) == sorted(session.id for session in sessions)
