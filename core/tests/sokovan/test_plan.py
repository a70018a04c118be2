"""One plan: gangs, the conversation with a scheduler, the selector's say, and what happens when a plugin misbehaves."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import take
from backendai.sokovan.plan import Placement, Plan, make_plan
from backendai.sokovan.snapshot import Agent, Lease, Request
from backendai.spec.agentselector_v10 import PlacementView
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView
from backendai_agentselector.concentrated import Concentrated
from backendai_agentselector.dispersed import Dispersed
from backendai_scheduler.fifo import Fifo

GIB = 1 << 30


def node(name: str, cpu: int, used: int = 0, **more: Any) -> Agent:
    return Agent(f"id-{name}", name, {"cpu": cpu * SCALE}, {"cpu": used * SCALE}, **more)


def ask(id: str, *cores: int, at: float = 0.0, **more: Any) -> Request:
    return Request(id, "u", "", "", more.pop("priority", 10), at, tuple({"cpu": n * SCALE} for n in cores), **more)


def plan(waiting: Iterable[Request], agents: Iterable[Agent], scheduler: Any = None, selector: Any = None, **more: Any) -> Plan:
    plugins: tuple[Any, Any] = scheduler or Fifo(), selector or Concentrated()
    return make_plan(take(5.0, list(waiting), list(agents)), *plugins, **more)


def where(made: Plan) -> dict[str, tuple[str, ...]]:
    return {placement.session: tuple(agent.removeprefix("id-") for agent in placement.agents) for placement in made.placements}


class Saying:
    """A scheduler that yields what it is told to and remembers the outcomes."""

    def __init__(self, *attempts: Any) -> None:
        self.given = attempts
        self.outcomes: list[Outcome] = []
        self.closed = False

    def attempts(self, view: QueueView) -> Generator[Any, Outcome, None]:
        self.view = view
        try:
            for attempt in self.given:
                if isinstance(attempt, Exception):
                    raise attempt
                self.outcomes.append((yield attempt))
        finally:
            self.closed = True


class Scoring:
    """A selector that answers what it is told to and remembers what it saw."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[PlacementView] = []

    def scores(self, view: PlacementView) -> Any:
        self.seen.append(view)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(view) if callable(self.answer) else self.answer


def test_a_session_goes_where_there_is_room() -> None:
    made = plan([ask("s", 2)], [node("a", 4, used=3), node("b", 4, used=2)])
    assert made == Plan((Placement("s", ("id-b",)),), order=("s",))


def test_a_gang_starts_whole_or_not_at_all() -> None:
    agents = [node("a", 2), node("b", 1)]
    made = plan([ask("gang", 2, 1)], agents)
    assert where(made) == {"gang": ("a", "b")}
    made = plan([ask("gang", 2, 2), ask("one", 2, at=1.0)], [node("a", 2), node("b", 2, used=1)], Fifo(Fifo.Config(overtake=True)))
    assert where(made) == {"one": ("a",)}, "what the gang took for its first container was given back"
    made = plan([ask("gang", 2, 2)], [node("a", 2), node("b", 2, used=1)])
    assert made.holds == {"gang": "Waits for room for all of its 2 containers at once."}
    made = plan([ask("gang", 2, 2)], agents)
    assert made.holds == {"gang": "Needs room for all of its 2 containers at once; the agents that are there are too few for it."}


def test_a_gang_that_was_given_up_leaves_no_trace_for_the_selector() -> None:
    selector = Scoring(lambda view: np.zeros(len(view.agents)))
    plan([ask("gang", 2, 2, 2), ask("one", 1, at=1.0)], [node("a", 2), node("b", 2)], Fifo(Fifo.Config(overtake=True)), selector)
    view = selector.seen[-1]
    assert view.free.tolist() == [[2 * SCALE], [2 * SCALE]] and view.kernels.tolist() == [0, 0] and view.last_used.tolist() == [0, 0]


def test_the_selector_is_told_what_was_just_placed() -> None:
    selector = Scoring(lambda view: -view.kernels.astype(np.float64))
    made = plan([ask("s", 1), ask("t", 1, at=1.0), ask("u", 1, at=2.0)], [node("a", 4, kernels=1, last_used=7), node("b", 4)],
                selector=selector)
    assert where(made) == {"s": ("b",), "t": ("a",), "u": ("b",)}
    assert [view.last_used.tolist() for view in selector.seen] == [[7, 0], [7, 8], [9, 8]]
    assert selector.seen[0].agents == ("id-a", "id-b") and selector.seen[0].request.tolist() == [SCALE]


def test_the_selector_sees_only_agents_that_can_take_it_and_may_not_write() -> None:
    selector = Scoring(lambda view: np.arange(len(view.agents), dtype=np.float64))
    made = plan([ask("s", 3)], [node("a", 2), node("b", 3), node("c", 8), node("d", 8, why="sick")], selector=selector)
    assert where(made) == {"s": ("c",)} and selector.seen[0].agents == ("id-b", "id-c")
    with pytest.raises(ValueError, match="read-only"):
        selector.seen[0].free[0] = 0


def test_of_equals_the_first_agent_is_taken() -> None:
    for agents in ([node("a", 4), node("b", 4)], [node("b", 4), node("a", 4)]):
        assert where(plan([ask("s", 1)], agents, selector=Scoring([1.0, 1.0]))) == {"s": ("a",)}


def test_concentrated_fills_one_agent_and_dispersed_spreads() -> None:
    waiting, agents = [ask(f"s{n}", 1, at=n) for n in range(4)], [node("a", 4), node("b", 4)]
    assert set(where(plan(waiting, agents, selector=Concentrated())).values()) == {("a",)}
    assert [at[0] for at in where(plan(waiting, agents, selector=Dispersed())).values()] == ["a", "b", "a", "b"]


def test_higher_priority_goes_first_then_who_asked_earlier() -> None:
    waiting = [ask("late", 1, at=9.0), ask("early", 1, at=1.0), ask("vip", 1, at=10.0, priority=90)]
    made = plan(waiting, [node("a", 2)])
    assert [placement.session for placement in made.placements] == ["vip", "early"]
    assert "has free now is 0" in made.holds["late"]


def test_what_no_agent_could_hold_keeps_nobody_waiting() -> None:
    made = plan([ask("huge", 64), ask("small", 1, at=1.0)], [node("a", 2)])
    assert where(made) == {"small": ("a",)}
    assert made.holds == {"huge": "Needs 64 cores: the most that one agent has at all is 2 (agent a). It waits for a larger one."}


def test_outcomes_are_told_to_the_scheduler() -> None:
    scheduler = Saying(Attempt("s"), Attempt("t"), Attempt("huge"))
    plan([ask("s", 2), ask("t", 1), ask("huge", 9)], [node("a", 2)], scheduler)
    assert scheduler.outcomes == [Outcome.PLACED, Outcome.BLOCKED, Outcome.IMPOSSIBLE]


def test_agents_that_the_scheduler_avoids_are_not_taken() -> None:
    scheduler = Saying(Attempt("s", avoid=frozenset({"id-a"})), Attempt("t", avoid=frozenset({"id-a", "id-b"})))
    made = plan([ask("s", 1), ask("t", 1)], [node("a", 4), node("b", 4)], scheduler)
    assert where(made) == {"s": ("b",)}
    assert made.holds == {"t": "Waits for its turn: the agents with room for it are kept for sessions ahead of it."}


def test_what_is_avoided_by_one_is_still_open_to_the_next() -> None:
    scheduler = Saying(Attempt("s", avoid=frozenset({"id-a"})), Attempt("t"))
    assert where(plan([ask("s", 1), ask("t", 1)], [node("a", 1)], scheduler)) == {"t": ("a",)}


def test_who_is_not_tried_waits_for_its_turn() -> None:
    made = plan([ask("s", 1), ask("t", 1)], [node("a", 4)], Saying(Attempt("t")))
    assert where(made) == {"t": ("a",)}
    assert made.holds == {"s": "Waits for its turn: a session ahead of it in the queue waits for room."}


def test_the_view_is_what_the_contract_says() -> None:
    scheduler = Saying()
    leases = [Lease("h2", "v", "", "", 1, 3.0, ({"cpu": SCALE, "mem": GIB},), ("id-a",), 9.0),
              Lease("h1", "u", "", "", 1, 2.0, ({},), ("id-b",))]
    agents = [node("b", 2), Agent("id-a", "a", {"mem": GIB, "cpu": 2 * SCALE}, {"mem": 2 * GIB}), node("c", 2, why="sick")]
    make_plan(take(7.0, [ask("s", 1, at=2.0, time_limit_s=60.0), ask("r", 1, at=1.0)], agents, leases), scheduler, Concentrated())  # type: ignore[arg-type]  # no base class
    view = scheduler.view
    assert view.now == 7.0 and view.slots == ("cpu", "mem")
    assert [waiting.id for waiting in view.waiting] == ["r", "s"] and view.waiting[1].time_limit_s == 60.0
    assert view.waiting[0].kernels == ((SCALE, 0),)
    assert [holding.id for holding in view.holding] == ["h1", "h2"] and view.holding[1].ends_by == 9.0
    assert [(n.id, n.capacity, n.free) for n in view.nodes] == [
        ("id-a", (2 * SCALE, GIB), (2 * SCALE, 0)), ("id-b", (2 * SCALE, 0), (2 * SCALE, 0))]


BROKEN = "The scheduler plugin failed; ask your administrator to look at `bai plugin ls` and the manager's log."


@pytest.mark.parametrize(("last", "says"), [
    (RuntimeError("bang"), "bang"),
    ("t", "neither Attempt nor Reserve"),
    (Attempt("stranger"), "does not wait"),
    (Attempt("s"), "tried already"),
])
def test_a_scheduler_that_breaks_is_blamed_and_what_it_placed_stands(last: Any, says: str) -> None:
    made = plan([ask("s", 1), ask("t", 1)], [node("a", 4)], Saying(Attempt("s"), last))
    assert where(made) == {"s": ("a",)} and made.holds == {"t": BROKEN}
    assert made.fault is not None and (made.fault.spec, made.fault.hook) == ("scheduler", "attempts") and says in str(made.fault.error)


def test_a_scheduler_without_end_is_cut_off() -> None:
    calls = iter([False, True])
    scheduler = Saying(*(Attempt(f"s{n}") for n in range(10)))
    made = plan([ask(f"s{n}", 1) for n in range(10)], [node("a", 20)], scheduler, late=lambda: next(calls))
    assert where(made) == {"s0": ("a",)} and scheduler.closed
    assert made.fault is not None and "deadline" in str(made.fault.error)


@pytest.mark.parametrize(("answer", "says"), [
    (RuntimeError("bang"), "bang"),
    ([1.0], "shape"),
    ([1.0, float("nan")], "not finite"),
    ([1.0, float("inf")], "not finite"),
    (["a", "b"], "not numbers"),
    (None, "shape"),
])
def test_a_selector_that_breaks_is_blamed_and_nothing_is_half_placed(answer: Any, says: str) -> None:
    made = plan([ask("s", 1), ask("t", 1)], [node("a", 4), node("b", 4)], selector=Scoring(answer))
    assert made.placements == ()
    assert made.fault is not None and made.fault.spec == "agentselector" and says in str(made.fault.error)
    assert set(made.holds.values()) == {BROKEN.replace("scheduler", "agentselector")}


def test_without_a_choice_the_selector_is_not_asked() -> None:
    assert where(plan([ask("s", 1)], [node("a", 4)], selector=Scoring(RuntimeError("never asked")))) == {"s": ("a",)}


def test_who_asks_for_nothing_is_placed_and_an_empty_queue_asks_nobody() -> None:
    assert where(plan([Request("s", "u", "", "", 1, 0.0, ({},))], [node("a", 0)])) == {"s": ("a",)}
    assert plan([], [node("a", 1)], Saying(RuntimeError("never asked"))) == Plan()
