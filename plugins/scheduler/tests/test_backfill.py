"""Strict order, a place kept for the head, and everybody else who does not delay it; where nothing can be foretold, patience."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from backendai.spec.scheduler_v10 import Attempt, Node, Outcome, Waiting
from backendai_scheduler.backfill import Backfill
from backendai_scheduler.passing import ASKS, Passing

sys.path.insert(0, str(Path(__file__).parent))  # for played: pytest's importlib mode adds nothing itself
from played import NOW, always, only, tell, tried, view, waiting

PLACED, BLOCKED, IMPOSSIBLE, RESERVED, UNKNOWN = Outcome


def queue(*shapes: int, limit: float | None = None) -> list[Waiting]:
    """Return sessions a, b, c, … of these shapes."""
    return [waiting("abcdefghij"[n], shape=shape, time_limit_s=limit) for n, shape in enumerate(shapes)]


def test_the_higher_priority_goes_first_and_then_whoever_asked_earlier() -> None:
    sessions = [waiting("early"), waiting("late"), waiting("urgent", priority=20), waiting("idle", priority=0)]
    assert tried(tell(Backfill(), view(sessions), always(PLACED))) == ["urgent", "early", "late", "idle"]


def test_the_first_that_finds_no_room_keeps_its_place_and_others_are_tried() -> None:
    assert tried(tell(Backfill(), view(queue(1, 2, 3)), only("b"))) == ["a", "Ra", "b", "c"]


def test_as_many_keep_their_place_as_the_operator_says() -> None:
    sessions = queue(1, 2, 3, 4)
    assert tried(tell(Backfill(Passing(depth=2)), view(sessions), only("b"))) == ["a", "Ra", "b", "c", "Rc", "d"]
    assert tried(tell(Backfill(Passing(depth=0)), view(sessions), only("b"))) == ["a", "b", "c", "d"]


def test_the_likes_of_who_found_no_room_are_not_tried() -> None:
    assert tried(tell(Backfill(), view(queue(1, 1, 2, 1, 2)), always(BLOCKED))) == ["a", "Ra", "c"]


def test_a_like_may_keep_its_place_while_others_still_may() -> None:
    assert tried(tell(Backfill(Passing(depth=2)), view(queue(1, 1, 1)), always(BLOCKED))) == ["a", "Ra", "b", "Rb"]


def test_a_like_that_ends_sooner_is_tried() -> None:
    sessions = [waiting("a", shape=1), waiting("b", shape=1, time_limit_s=60.0), waiting("c", shape=1, time_limit_s=60.0),
                waiting("d", shape=1, time_limit_s=90.0), waiting("e", shape=1, time_limit_s=30.0)]
    assert tried(tell(Backfill(), view(sessions), always(BLOCKED))) == ["a", "Ra", "b", "e"]


def test_what_no_room_would_help_keeps_no_place_and_says_nothing_of_its_likes() -> None:
    assert tried(tell(Backfill(), view(queue(1, 2, 1)), lambda session: IMPOSSIBLE if session == "a" else BLOCKED)) == ["a", "b", "Rb", "c"]


def test_it_ends_when_so_many_found_no_room_that_the_next_look_is_due() -> None:
    assert tried(tell(Backfill(Passing(limit=3)), view(queue(1, 2, 3, 4, 5)), only("b"))) == ["a", "Ra", "b", "c", "d"]
    assert tried(tell(Backfill(Passing(limit=2)), view(queue(1, 1, 1, 2, 3)), always(BLOCKED))) == ["a", "Ra", "d"]


def test_where_nobody_can_tell_the_next_one_may_keep_its_place() -> None:
    said = tell(Backfill(), view(queue(1, 2, 3)), always(BLOCKED), lambda session: UNKNOWN if session == "a" else RESERVED)
    assert tried(said) == ["a", "Ra", "b", "Rb", "c"]


def test_what_nobody_can_tell_is_not_asked_for_ever() -> None:
    sessions = [waiting(f"s{n}", shape=n) for n in range(1, 3 * ASKS)]
    said = tried(tell(Backfill(), view(sessions), always(BLOCKED), always(UNKNOWN)))
    assert sum(one.startswith("R") for one in said) == 1 + ASKS
    assert sum(not one.startswith("R") for one in said) == len(sessions)


def kept(asked: float, free: int = 0, patience_s: float = 100.0) -> frozenset[str]:
    """Return what is kept from the others for a session of half an agent that asked at *asked*, of which nobody can tell the start."""
    nodes = [Node("a", (8000,), (1000,)), Node("b", (8000,), (3000,)), Node("c", (8000,), (free,)), Node("small", (3000,), (3000,))]
    sessions = [waiting("head", need=(4000,), submitted_at=asked), waiting("other")]
    said = tell(Backfill(Passing(patience_s=patience_s)), view(sessions, nodes=nodes), always(BLOCKED), always(UNKNOWN))
    assert isinstance(said[0], Attempt) and isinstance(said[2], Attempt) and not said[0].avoid
    assert tried(said) == ["head", "Rhead", "other", *([] if said[2].avoid else ["Rother"])], "agents or a reservation, never both"
    return said[2].avoid


def test_whoever_has_waited_for_long_without_a_foreseeable_start_gets_agents_kept() -> None:
    assert kept(NOW - 99) == frozenset()
    assert kept(NOW - 100) == {"b"}, "the one that lacks least"


def test_the_agents_that_are_kept_double_with_each_further_wait() -> None:
    assert kept(NOW - 250) == {"b", "a"}
    assert kept(NOW - 400) == kept(NOW - 10 ** 9) == {"a", "b", "c"}, "never one that is too small"


def test_patience_without_end_keeps_nothing() -> None:
    assert kept(NOW - 10 ** 9, patience_s=float("inf")) == frozenset()


def test_nothing_is_kept_for_whom_a_rule_holds_back_and_not_a_lack_of_room() -> None:
    assert kept(NOW - 1000, free=4000) == frozenset()


@pytest.mark.parametrize("wrong", [{"depth": -1}, {"limit": 0}, {"patience_s": 0.0}, {"patience_s": float("nan")}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Passing(**wrong)  # type: ignore[arg-type]  # each of the type of its field
