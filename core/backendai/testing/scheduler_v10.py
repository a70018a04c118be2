"""The laws of a scheduler."""

from __future__ import annotations

import copy
from dataclasses import replace
from random import Random
from typing import ClassVar

from backendai.spec.scheduler_v10 import SPEC, Attempt, Outcome, Promise, QueueView, Reserve, Scheduler
from backendai.testing.examples import for_all, show
from backendai.testing.laws import Conformance, NotHere, Violation, Weight, ensure, law
from backendai.testing.scheduler_cases import (
    RUSH,
    Answer,
    Case,
    always,
    listed,
    make_accounts,
    make_case,
    make_full,
    make_queue,
    make_rush,
    make_view,
    names,
    talk,
    told,
)
from backendai.testing.toy_group import Job, ToyGroup
from backendai.testing.watch import cpu_limit, watching

MANY = 10_000
Group = tuple[list[int], list[Job]]  # agents' sizes, and sessions


class SchedulerConformance(Conformance[Scheduler]):
    """What a scheduler keeps to. many: how many sessions wait where the time is taken."""

    spec = SPEC
    many: ClassVar[int] = MANY

    @law()
    async def test_it_yields_attempts(self, scheduler: Scheduler) -> None:
        """It yields attempts and reservations and nothing else."""

        def holds(case: Case) -> None:
            strange = next((it for it in talk(scheduler, case.view, case.fate) if not isinstance(it, Attempt | Reserve)), None)
            ensure(strange is None, f"it yielded {strange!r}")

        for_all(make_case, holds)

    @law()
    async def test_it_names_only_who_waits(self, scheduler: Scheduler) -> None:
        """It names sessions of the queue and nobody else."""

        def holds(case: Case) -> None:
            said = [wish.session for wish in talk(scheduler, case.view, case.fate) if isinstance(wish, Attempt | Reserve)]
            stray = set(said) - {w.id for w in case.view.waiting}
            ensure(not stray, f"it named {listed(stray)}, which does not wait")

        for_all(make_case, holds)

    @law()
    async def test_it_names_nobody_twice(self, scheduler: Scheduler) -> None:
        """It tries each session once at most."""

        def holds(case: Case) -> None:
            tried = names(talk(scheduler, case.view, case.fate))
            twice = {name for name in tried if tried.count(name) > 1}
            ensure(not twice, f"it named {listed(twice)} more than once")

        for_all(make_case, holds)

    @law()
    async def test_it_reserves_for_who_was_blocked(self, scheduler: Scheduler) -> None:
        """It reserves only for sessions that it has tried and that were blocked, and once for each at most."""

        def holds(case: Case) -> None:
            blocked: list[str] = []

            def fate(wish: object, number: int) -> Outcome:
                if isinstance(wish, Reserve) and any(wish.session == waiting.id for waiting in case.view.waiting):
                    ensure(wish.session in blocked, f"it reserves for {wish.session}, which was not blocked, or has a reservation")
                    blocked.remove(wish.session)
                outcome = case.fate(wish, number)
                if isinstance(wish, Attempt) and outcome is Outcome.BLOCKED:
                    blocked.append(wish.session)
                return outcome

            talk(scheduler, case.view, fate)

        for_all(make_case, holds)

    @law()
    async def test_same_view_same_attempts(self, scheduler: Scheduler) -> None:
        """The same view and the same outcomes give the same attempts."""

        def holds(case: Case) -> None:
            first, second = (talk(scheduler, case.view, case.fate) for _ in range(2))
            ensure(first == second, f"it tried {told(first)}, then {told(second)}")

        for_all(make_case, holds)

    @law()
    async def test_it_remembers_nothing(self, scheduler: Scheduler) -> None:
        """What it saw before changes nothing: asked about some queues in another order it tries the same in each."""
        cases = [make_case(Random(seed)) for seed in range(20)]
        async with self.started() as other:
            there = [talk(scheduler, case.view, case.fate) for case in cases]
            back = [talk(other, case.view, case.fate) for case in reversed(cases)][::-1]
        for case, first, second in zip(cases, there, back, strict=True):
            ensure(first == second, f"it tried {told(first)}, and after other queues {told(second)}, with {show(case)}")

    @law()
    async def test_it_leaves_the_view_alone(self, scheduler: Scheduler) -> None:
        """It changes nothing in the view."""

        def holds(case: Case) -> None:
            before = copy.deepcopy(case.view)
            talk(scheduler, case.view, case.fate)
            ensure(case.view == before, "it changed the view")

        for_all(make_case, holds)

    @law()
    async def test_it_is_pure(self, scheduler: Scheduler) -> None:
        """It looks at no clock (the view has one), no file, no connection and no unseeded dice."""

        def holds(case: Case) -> None:
            with watching() as seen:
                talk(scheduler, case.view, case.fate)
            ensure(not seen, f"it called {seen[0] if seen else ''}")

        for_all(make_case, holds)

    @law()
    async def test_an_empty_queue_gives_nothing(self, scheduler: Scheduler) -> None:
        """Where nobody waits it names nobody."""
        view = make_view(Random(1), 0)
        ensure(not talk(scheduler, view, always(Outcome.PLACED)), "it yielded something for an empty queue")

    @law()
    async def test_it_bears_the_impossible(self, scheduler: Scheduler) -> None:
        """A session that no agent could ever hold is no fault: the conversation goes on or ends."""

        def holds(case: Case) -> None:
            talk(scheduler, case.view, always(Outcome.IMPOSSIBLE))

        for_all(make_case, holds)

    @law()
    async def test_it_bears_what_nobody_can_foretell(self, scheduler: Scheduler) -> None:
        """A reservation that cannot be dated, so that nothing is kept, is no fault: the conversation goes on or ends."""

        def holds(case: Case) -> None:
            talk(scheduler, case.view, always(Outcome.BLOCKED, Outcome.UNKNOWN))

        for_all(make_case, holds)

    @law()
    async def test_it_bears_odd_accounts(self, scheduler: Scheduler) -> None:
        """Accounts of no weight, of a negative, endless or unknown use, and a group of unknown size, do no harm."""

        def make(random: Random) -> Case:
            view = make_view(random, random.randint(1, 6))
            return Case(replace(view, accounts=make_accounts(random), total=random.choice(((), (0,) * len(view.slots), view.total))), [])

        def holds(case: Case) -> None:
            talk(scheduler, case.view, case.fate)

        for_all(make, holds)

    @law()
    async def test_it_can_be_broken_off(self, scheduler: Scheduler) -> None:
        """It ends without a word when the platform breaks the conversation off."""

        def holds(case: Case) -> None:
            conversation = scheduler.attempts(case.view)
            if next(conversation, None) is None:
                return
            try:
                conversation.close()
            except Exception as error:
                raise Violation(f"broken off it raised {type(error).__name__}: {error}") from error

        for_all(make_case, holds)

    @law()
    async def test_a_long_queue_is_quick(self, scheduler: Scheduler) -> None:
        """It goes through a queue of ten thousand sessions that are all placed within the hook's deadline."""
        self._quick(scheduler, always(Outcome.PLACED))

    @law()
    async def test_a_blocked_queue_is_quick(self, scheduler: Scheduler) -> None:
        """It goes through a queue of ten thousand sessions that all find no room within the hook's deadline."""
        self._quick(scheduler, always(Outcome.BLOCKED))

    def _quick(self, scheduler: Scheduler, fate: Answer) -> None:
        view, limit = make_view(Random(2), self.many, agents=100), SPEC.terms()["attempts"].deadline_s or self.patience_s
        with cpu_limit(limit, lambda: Violation(f"{self.many} waiting sessions took more than {limit:g} s of computing")):
            talk(scheduler, view, fate)

    @law(Weight.RECOMMENDED)
    async def test_it_forgets_nobody(self, scheduler: Scheduler) -> None:
        """Where there is room for everybody, everybody is tried."""

        for_all(make_case, lambda case: _all_tried(scheduler, case.view))

    @law(Weight.RECOMMENDED)
    async def test_it_avoids_agents_that_are_there(self, scheduler: Scheduler) -> None:
        """The agents that an attempt avoids are agents of the view."""

        def holds(case: Case) -> None:
            attempts = [it for it in talk(scheduler, case.view, case.fate) if isinstance(it, Attempt)]
            stray = {agent for attempt in attempts for agent in attempt.avoid} - {node.id for node in case.view.nodes}
            ensure(not stray, f"it avoids {listed(stray)}, which is not in the view")

        for_all(make_case, holds)

    @law(Weight.RECOMMENDED)
    async def test_an_unknown_shape_says_nothing(self, scheduler: Scheduler) -> None:
        """Where nobody's shape is known it tries whom it would try if each had a shape of its own."""

        def holds(case: Case) -> None:
            waiting = case.view.waiting
            unknown = replace(case.view, waiting=tuple(replace(w, shape=0) for w in waiting))
            own = replace(case.view, waiting=tuple(replace(w, shape=number) for number, w in enumerate(waiting, 1)))
            first, second = (talk(scheduler, view, case.fate) for view in (unknown, own))
            ensure(first == second, f"it tried {told(first)}, and with shapes that nobody shares {told(second)}")

        for_all(make_case, holds)

    @law(Weight.RECOMMENDED)
    async def test_shapes_change_nothing(self, scheduler: Scheduler) -> None:
        """Shapes save attempts, and nothing else: with them those are placed who would be without; a shorter limit may yet fit."""

        def holds(group: Group) -> None:
            with_shapes, without = (_played(scheduler, group, shapes=shapes) for shapes in (True, False))
            ensure(with_shapes == without, f"it started {with_shapes}, and without shapes {without}")

        for_all(make_queue, holds)

    @law(Weight.RECOMMENDED)
    async def test_it_keeps_the_order_that_it_promises(self, scheduler: Scheduler) -> None:
        """If it promises *earlier first*, of a user's sessions that are alike in all else the earlier is tried first."""
        _promised(scheduler, Promise.EARLIER_FIRST)

        def holds(group: Group) -> None:
            toy, jobs = ToyGroup(group[0]), [replace(job, runs=5, size=min(job.size, 2000)) for job in group[1]]
            toy.run(scheduler, [job for job in jobs if job.at == 0], 1)
            toy.run(scheduler, [job for job in jobs if job.at > 0], 3)
            for number, id in enumerate(toy.tried):
                one = next(job for job in jobs if job.id == id)
                before = {job.id for job in jobs if job.at < one.at and replace(job, id=id, at=one.at) == one}
                late = before - {*toy.started, *toy.tried[:number]}
                ensure(not late, f"it tried {id} before {listed(sorted(late))}, which asked earlier")

        for_all(make_queue, holds)

    @law(Weight.RECOMMENDED)
    async def test_the_head_is_not_delayed_as_it_promises(self, scheduler: Scheduler) -> None:
        """If it promises *head undelayed*, who finds no room first starts no later than if nobody after it were placed."""
        _promised(scheduler, Promise.HEAD_UNDELAYED)

        def holds(group: Group) -> None:
            toy = ToyGroup(group[0])
            toy.run(scheduler, group[1], 1)
            if toy.head is None:
                return
            id, due = toy.head
            toy.run(scheduler, [job for job in group[1] if job.at > 0], due + 1)
            ensure(id in toy.started, f"{id} could have started after {due} s, and has not")

        for_all(make_full, holds)

    @law(Weight.RECOMMENDED)
    async def test_nobody_starves_as_it_promises(self, scheduler: Scheduler) -> None:
        """If it promises *nobody starves*, a large session starts although small ones come faster than they go."""
        _promised(scheduler, Promise.NOBODY_STARVES)

        def holds(group: Group) -> None:
            toy = ToyGroup(group[0])
            toy.run(scheduler, group[1], RUSH, lambda: "large" in toy.started)
            ensure("large" in toy.started, f"the largest session has not started after {RUSH} s")

        for_all(make_rush, holds, 10)


def _all_tried(scheduler: Scheduler, view: QueueView) -> None:
    left = {w.id for w in view.waiting} - set(names(talk(scheduler, view, always(Outcome.PLACED))))
    ensure(not left, f"it never tried {listed(sorted(left))}, although everybody before was placed")


def _promised(scheduler: Scheduler, promise: Promise) -> None:
    given = getattr(scheduler, "promises", None)  # an optional hook that is left out is not there
    if given is None or promise not in given():
        raise NotHere(f"it does not promise that: {promise.value}")


def _played(scheduler: Scheduler, group: Group, shapes: bool) -> dict[str, int]:
    toy = ToyGroup(group[0], shapes)
    toy.run(scheduler, group[1], 12)
    return toy.started
