"""Each law of a scheduler catches the scheduler that breaks it, and no other law does."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Attempt, Outcome, Promise, QueueView, Reserve

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

SPEC = "scheduler_v10"
Talk = Generator[Any, Outcome, None]


class Good:
    """As they come."""

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            yield Attempt(waiting.id)


class Names(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        yield from super().attempts(view)
        if view.waiting:
            yield "done"


class Inventor(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        yield from super().attempts(view)
        if len(view.waiting) > 1:
            yield Attempt("ghost")


class Repeater(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            if (yield Attempt(waiting.id)) is Outcome.BLOCKED:
                yield Attempt(waiting.id)


class Waverer(Good):
    """Every second time it looks at the same session first, it begins with the last."""

    def __init__(self) -> None:
        self.told: dict[QueueView | None, int] = {}
        self.last: tuple[str, ...] = ()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        ids = tuple(f"{w.id}{w.submitted_at}{w.priority}{w.kernels}{w.shape}" for w in view.waiting)
        again, self.last = ids == self.last, ids
        for waiting in view.waiting[:: -1 if again else 1]:
            yield Attempt(waiting.id)


class Rememberer(Good):
    """It turns round after the first queue that it has seen."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        self.seen.add(view.waiting)
        for waiting in view.waiting[:: -1 if len(self.seen) > 1 else 1]:
            yield Attempt(waiting.id)


class Meddler(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            view.usage[waiting.user] = 1.0  # type: ignore[index]  # the contract says Mapping, and this is the crime
            yield Attempt(waiting.id)


class Watcher(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        if time.time() > 0:
            yield from super().attempts(view)


class Eager(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        yield from super().attempts(view)
        if not view.waiting:
            yield Attempt("anybody")


class Fragile(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            if (yield Attempt(waiting.id)) is Outcome.IMPOSSIBLE:
                raise ValueError("cannot be")


class Clinger(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            try:
                yield Attempt(waiting.id)
            except GeneratorExit:
                yield Attempt(waiting.id)


class Hoarder(Good):
    """It wants room kept for who has been placed, too."""

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            yield Attempt(waiting.id)
            yield Reserve(waiting.id)


class Foreteller(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            if (yield Attempt(waiting.id)) is Outcome.BLOCKED and (yield Reserve(waiting.id)) is not Outcome.RESERVED:
                raise ValueError("when, then?")


class Divider(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        parts = {key: account.usage / account.weight for key, account in view.accounts.items()}
        for waiting in sorted(view.waiting, key=lambda w: parts.get(w.project, 0.0) > 10.0):
            yield Attempt(waiting.id)


class Brooder(Good):
    """It thinks long about who finds no room in a long queue."""

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            outcome = yield Attempt(waiting.id)
            while outcome is Outcome.BLOCKED and len(view.waiting) > 5000:
                pass


class Lumper(Good):
    """It takes those whose shape is not known for likes."""

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        blocked: dict[int, float] = {}
        for waiting in view.waiting:
            limit, shortest = waiting.time_limit_s or float("inf"), blocked.get(waiting.shape)
            if (shortest is None or limit < shortest) and (yield Attempt(waiting.id)) is Outcome.BLOCKED:
                blocked[waiting.shape] = limit


class Hasty(Good):
    """It forgets that whoever runs for a shorter time may fit where a like did not."""

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        blocked, kept = set(), False
        for waiting in view.waiting:
            if waiting.shape not in blocked and (yield Attempt(waiting.id)) is Outcome.BLOCKED:
                if not kept:
                    kept = (yield Reserve(waiting.id)) is Outcome.RESERVED
                if waiting.shape:
                    blocked.add(waiting.shape)


class Turncoat(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in reversed(view.waiting):
            yield Attempt(waiting.id)

    @hookimpl
    def promises(self) -> frozenset[Promise]:
        return frozenset({Promise.EARLIER_FIRST})


class Delayer(Good):
    @hookimpl
    def promises(self) -> frozenset[Promise]:
        return frozenset({Promise.HEAD_UNDELAYED})


class Starver(Good):
    @hookimpl
    def promises(self) -> frozenset[Promise]:
        return frozenset({Promise.NOBODY_STARVES})


class Slow(Good):
    """It thinks long about who comes after a session that was placed, in a long queue."""

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            outcome = yield Attempt(waiting.id)
            while outcome is Outcome.PLACED and len(view.waiting) > 5000:
                pass


class Forgetful(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting[:3]:
            yield Attempt(waiting.id)


class Avoider(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in view.waiting:
            yield Attempt(waiting.id, frozenset({"nowhere"}))


MUTANTS = broken.general(SPEC, Good) | {
    "test_it_yields_attempts": Names,
    "test_it_names_only_who_waits": Inventor,
    "test_it_names_nobody_twice": Repeater,
    "test_it_reserves_for_who_was_blocked": Hoarder,
    "test_same_view_same_attempts": Waverer,
    "test_it_remembers_nothing": Rememberer,
    "test_it_leaves_the_view_alone": Meddler,
    "test_it_is_pure": Watcher,
    "test_an_empty_queue_gives_nothing": Eager,
    "test_it_bears_the_impossible": Fragile,
    "test_it_bears_what_nobody_can_foretell": Foreteller,
    "test_it_bears_odd_accounts": Divider,
    "test_it_can_be_broken_off": Clinger,
    "test_a_long_queue_is_quick": Slow,
    "test_a_blocked_queue_is_quick": Brooder,
    "test_it_forgets_nobody": Forgetful,
    "test_it_avoids_agents_that_are_there": Avoider,
    "test_an_unknown_shape_says_nothing": Lumper,
    "test_shapes_change_nothing": Hasty,
    "test_it_keeps_the_order_that_it_promises": Turncoat,
    "test_the_head_is_not_delayed_as_it_promises": Delayer,
    "test_nobody_starves_as_it_promises": Starver,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)


def test_a_good_one_holds_all() -> None:
    broken.holds_all(SPEC, Good)
    broken.holds_all(SPEC, "scheduler_v10.backfill")


class Dicey(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        for waiting in random.sample(view.waiting, len(view.waiting)):
            yield Attempt(waiting.id)


class Endless(Good):
    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        while True:
            yield Attempt(view.waiting[0].id if view.waiting else "nobody")


def test_dice_are_seen_by_name() -> None:
    found = {one.law.name: one.why for one in broken.check(broken.kit_of(SPEC), Dicey).results}
    assert found["test_it_is_pure"].startswith("it called random.")


def test_who_never_stops_talking_is_stopped() -> None:
    assert "test_it_names_nobody_twice" in broken.check(broken.kit_of(SPEC), Endless).broken
