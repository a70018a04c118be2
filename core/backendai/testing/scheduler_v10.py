"""The laws of a scheduler."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import ClassVar

from backendai.spec.scheduler_v10 import SPEC, Attempt, Holding, Node, Outcome, QueueView, Scheduler, Waiting
from backendai.testing.examples import for_all, show
from backendai.testing.laws import Conformance, Violation, Weight, ensure, law
from backendai.testing.watch import cpu_limit, watching

SLOTS = ("cpu", "mem", "cuda.device")
MANY = 10_000
Answer = Callable[[int], Outcome]  # what becomes of the attempt of that number


class SchedulerConformance(Conformance[Scheduler]):
    """What a scheduler keeps to. many: how many sessions wait where the time is taken."""

    spec = SPEC
    many: ClassVar[int] = MANY

    @law()
    async def test_it_yields_attempts(self, scheduler: Scheduler) -> None:
        """It yields attempts and nothing else."""

        def holds(case: Case) -> None:
            strange = next((it for it in _talk(scheduler, case.view, case.fate) if not isinstance(it, Attempt)), None)
            ensure(strange is None, f"it yielded {strange!r}")

        for_all(make_case, holds)

    @law()
    async def test_it_names_only_who_waits(self, scheduler: Scheduler) -> None:
        """It names sessions of the queue and nobody else."""

        def holds(case: Case) -> None:
            stray = set(_names(_talk(scheduler, case.view, case.fate))) - {w.id for w in case.view.waiting}
            ensure(not stray, f"it named {_list(stray)}, which does not wait")

        for_all(make_case, holds)

    @law()
    async def test_it_names_nobody_twice(self, scheduler: Scheduler) -> None:
        """It names each session once at most."""

        def holds(case: Case) -> None:
            names = _names(_talk(scheduler, case.view, case.fate))
            twice = {name for name in names if names.count(name) > 1}
            ensure(not twice, f"it named {_list(twice)} more than once")

        for_all(make_case, holds)

    @law()
    async def test_same_view_same_attempts(self, scheduler: Scheduler) -> None:
        """The same view and the same outcomes give the same attempts."""

        def holds(case: Case) -> None:
            first, second = (_talk(scheduler, case.view, case.fate) for _ in range(2))
            ensure(first == second, f"it tried {_told(first)}, then {_told(second)}")

        for_all(make_case, holds)

    @law()
    async def test_it_remembers_nothing(self, scheduler: Scheduler) -> None:
        """What it saw before changes nothing: asked about some queues in another order it tries the same in each."""
        cases = [make_case(Random(seed)) for seed in range(20)]
        async with self.started() as other:
            there = [_talk(scheduler, case.view, case.fate) for case in cases]
            back = [_talk(other, case.view, case.fate) for case in reversed(cases)][::-1]
        for case, first, second in zip(cases, there, back, strict=True):
            ensure(first == second, f"it tried {_told(first)}, and after other queues {_told(second)}, with {show(case)}")

    @law()
    async def test_it_leaves_the_view_alone(self, scheduler: Scheduler) -> None:
        """It changes nothing in the view."""

        def holds(case: Case) -> None:
            before = copy.deepcopy(case.view)
            _talk(scheduler, case.view, case.fate)
            ensure(case.view == before, "it changed the view")

        for_all(make_case, holds)

    @law()
    async def test_it_is_pure(self, scheduler: Scheduler) -> None:
        """It looks at no clock (the view has one), no file, no connection and no unseeded dice."""

        def holds(case: Case) -> None:
            with watching() as seen:
                _talk(scheduler, case.view, case.fate)
            ensure(not seen, f"it called {seen[0] if seen else ''}")

        for_all(make_case, holds)

    @law()
    async def test_an_empty_queue_gives_nothing(self, scheduler: Scheduler) -> None:
        """Where nobody waits it names nobody."""
        view = make_view(Random(1), 0)
        ensure(not _talk(scheduler, view, _always(Outcome.PLACED)), "it yielded something for an empty queue")

    @law()
    async def test_it_bears_the_impossible(self, scheduler: Scheduler) -> None:
        """A session that no agent could ever hold is no fault: the conversation goes on or ends."""

        def holds(case: Case) -> None:
            _talk(scheduler, case.view, _always(Outcome.IMPOSSIBLE))

        for_all(make_case, holds)

    @law()
    async def test_it_can_be_broken_off(self, scheduler: Scheduler) -> None:
        """It ends without a word when the platform breaks the conversation off."""

        def holds(case: Case) -> None:
            talk = scheduler.attempts(case.view)
            if next(talk, None) is None:
                return
            try:
                talk.close()
            except Exception as error:
                raise Violation(f"broken off it raised {type(error).__name__}: {error}") from error

        for_all(make_case, holds)

    @law()
    async def test_a_long_queue_is_quick(self, scheduler: Scheduler) -> None:
        """It goes through a queue of ten thousand sessions within the hook's deadline."""
        view, limit = make_view(Random(2), self.many, agents=100), SPEC.terms()["attempts"].deadline_s or self.patience_s
        with cpu_limit(limit, lambda: Violation(f"{self.many} waiting sessions took more than {limit:g} s of computing")):
            _talk(scheduler, view, _always(Outcome.PLACED))

    @law(Weight.RECOMMENDED)
    async def test_it_forgets_nobody(self, scheduler: Scheduler) -> None:
        """Where there is room for everybody, everybody is tried."""

        def holds(case: Case) -> None:
            names = _names(_talk(scheduler, case.view, _always(Outcome.PLACED)))
            left = {w.id for w in case.view.waiting} - set(names)
            ensure(not left, f"it never tried {_list(left)}, although everybody before was placed")

        for_all(make_case, holds)

    @law(Weight.RECOMMENDED)
    async def test_it_avoids_agents_that_are_there(self, scheduler: Scheduler) -> None:
        """The agents that an attempt avoids are agents of the view."""

        def holds(case: Case) -> None:
            attempts = [it for it in _talk(scheduler, case.view, case.fate) if isinstance(it, Attempt)]
            stray = {agent for attempt in attempts for agent in attempt.avoid} - {node.id for node in case.view.nodes}
            ensure(not stray, f"it avoids {_list(stray)}, which is not in the view")

        for_all(make_case, holds)


class Case:
    """A view, and an outcome for each attempt."""

    def __init__(self, view: QueueView, outcomes: Sequence[Outcome]) -> None:
        self.view = view
        self._outcomes = outcomes

    def __repr__(self) -> str:
        return f"the outcomes {', '.join(one.value for one in self._outcomes) or 'none'} and {self.view!r}"

    def fate(self, number: int) -> Outcome:
        return self._outcomes[number % len(self._outcomes)] if self._outcomes else Outcome.PLACED


def make_case(random: Random) -> Case:
    """Make a small queue, in which each session is placed or blocked."""
    view = make_view(random, random.randint(1, 6), random.randint(1, 4))
    return Case(view, [random.choice((Outcome.PLACED, Outcome.BLOCKED)) for _ in view.waiting])


def make_view(random: Random, waiting: int, agents: int = 3) -> QueueView:
    """Make a queue in the order of submission, with ties in priority and in time."""
    now = 1_800_000_000.0
    times = sorted(now - random.randint(0, 20) for _ in range(waiting))
    nodes = tuple(_node(random, f"agent{number}") for number in range(agents))
    holding = tuple(_holding(random, f"held{number}", now, nodes) for number in range(random.randint(0, 3)))
    usage = {f"user{number}": float(random.randint(0, 9)) for number in range(3)}
    return QueueView(now, SLOTS, tuple(_waiting(random, f"s{number}", at) for number, at in enumerate(times)), holding, nodes, usage)


def _node(random: Random, id: str) -> Node:
    capacity = tuple(random.randint(0, 8) * 1000 for _ in SLOTS)
    return Node(id, capacity, tuple(amount - random.randint(0, amount // 1000) * 1000 for amount in capacity))


def _waiting(random: Random, id: str, at: float) -> Waiting:
    kernels = tuple(tuple(random.randint(0, 4) * 1000 for _ in SLOTS) for _ in range(random.randint(1, 2)))
    return Waiting(id, f"user{random.randint(0, 2)}", f"project{random.randint(0, 1)}", random.randint(0, 3), at, kernels,
                   random.choice((None, 60.0, 3600.0)))


def _holding(random: Random, id: str, now: float, nodes: Sequence[Node]) -> Holding:
    return Holding(id, f"user{random.randint(0, 2)}", "project0", 0, now - random.randint(1, 100), ((1000,) * len(SLOTS),),
                   (random.choice(nodes).id,), random.choice((None, now + 60)))


def _always(outcome: Outcome) -> Answer:
    return lambda number: outcome


def _talk(scheduler: Scheduler, view: QueueView, fate: Answer) -> list[object]:
    """Hold a conversation and return what was yielded; whoever goes on for ever is stopped after a while."""
    talk = scheduler.attempts(view)
    said: list[object] = []
    try:
        said.append(next(talk))
        while len(said) < 2 * len(view.waiting) + 8:
            said.append(talk.send(fate(len(said) - 1)))
    except StopIteration:
        return said
    except Exception as error:
        raise Violation(f"it raised {type(error).__name__}: {error}") from error
    talk.close()
    return said


def _names(said: Sequence[object]) -> list[str]:
    return [attempt.session for attempt in said if isinstance(attempt, Attempt)]


def _told(attempts: Sequence[object]) -> str:
    return _list(attempt.session if isinstance(attempt, Attempt) else repr(attempt) for attempt in attempts)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "nobody"
