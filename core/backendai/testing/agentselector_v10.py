"""The laws of an agent selector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

import numpy as np

from backendai.spec.agentselector_v10 import SPEC, AgentSelector, PlacementView
from backendai.testing.examples import for_all, show
from backendai.testing.laws import Conformance, Violation, Weight, ensure, law
from backendai.testing.watch import cpu_limit, watching

SLOTS = ("cpu", "mem", "cuda.device")
MANY = 10_000
_ARRAYS = ("request", "capacity", "free", "kernels", "last_used")


class AgentSelectorConformance(Conformance[AgentSelector]):
    """What an agent selector keeps to. many: how many agents there are where the time is taken."""

    spec = SPEC
    many: ClassVar[int] = MANY

    @law()
    async def test_one_score_for_each_agent(self, selector: AgentSelector) -> None:
        """It returns an array of float64 with one score for each agent."""

        def holds(view: PlacementView) -> None:
            scores: Any = selector.scores(view)
            ensure(isinstance(scores, np.ndarray), f"it returned {type(scores).__name__} and no array")
            ensure(scores.dtype == np.float64, f"its scores are {scores.dtype}, and should be float64")
            ensure(scores.shape == (len(view.agents),), f"its scores have the shape {scores.shape} for {len(view.agents)} agents")

        for_all(make_view, holds)

    @law()
    async def test_scores_are_finite(self, selector: AgentSelector) -> None:
        """Every score is a finite number, for agents without a slot and containers that ask for nothing, too."""

        def holds(view: PlacementView) -> None:
            scores = np.asarray(selector.scores(view), dtype=np.float64)
            ensure(np.isfinite(scores).all(), f"its scores are {_told(scores)}")

        for_all(make_bare_view, holds)

    @law()
    async def test_same_view_same_scores(self, selector: AgentSelector) -> None:
        """The same view gives the same scores."""

        def holds(view: PlacementView) -> None:
            first, second = (np.array(selector.scores(view)) for _ in range(2))
            ensure(np.array_equal(first, second), f"its scores were {_told(first)}, then {_told(second)}")

        for_all(make_view, holds)

    @law()
    async def test_it_remembers_nothing(self, selector: AgentSelector) -> None:
        """What it saw before changes nothing: asked about some containers in another order it gives each the same scores."""
        views = [make_view(Random(seed)) for seed in range(20)]
        async with self.started() as other:
            there = [np.array(selector.scores(view)) for view in views]
            back = [np.array(other.scores(view)) for view in reversed(views)][::-1]
        for view, first, second in zip(views, there, back, strict=True):
            ensure(np.array_equal(first, second),
                   f"its scores were {_told(first)}, and after other containers {_told(second)}, with {show(view)}")

    @law()
    async def test_it_leaves_the_view_alone(self, selector: AgentSelector) -> None:
        """It writes to none of the view's arrays."""

        def holds(view: PlacementView) -> None:
            writable = replace(view, **{name: getattr(view, name).copy() for name in _ARRAYS})
            selector.scores(writable)
            changed = [name for name in _ARRAYS if not np.array_equal(getattr(view, name), getattr(writable, name))]
            ensure(not changed, f"it changed {', '.join(changed)}")

        for_all(make_view, holds)

    @law()
    async def test_it_is_pure(self, selector: AgentSelector) -> None:
        """It looks at no clock, no file, no connection and no unseeded dice."""

        def holds(view: PlacementView) -> None:
            with watching() as seen:
                selector.scores(view)
            ensure(not seen, f"it called {seen[0] if seen else ''}")

        for_all(make_view, holds)

    @law()
    async def test_many_agents_are_quick(self, selector: AgentSelector) -> None:
        """It scores ten thousand agents within the hook's deadline."""
        view, limit = make_view(Random(2), self.many), SPEC.terms()["scores"].deadline_s or self.patience_s
        with cpu_limit(limit, lambda: Violation(f"{self.many} agents took more than {limit:g} s of computing")):
            selector.scores(view)

    @law(Weight.RECOMMENDED)
    async def test_the_order_of_agents_does_not_matter(self, selector: AgentSelector) -> None:
        """An agent's score is its own: where the agents stand in another order, each keeps its score."""

        def holds(case: Shuffled) -> None:
            scores = np.array(selector.scores(case.view))
            again = np.array(selector.scores(case.shuffled))
            ensure(np.allclose(scores[case.order], again, rtol=1e-9, atol=1e-12),
                   f"its scores {_told(scores[case.order])} became {_told(again)}")

        for_all(make_shuffled, holds)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A view in two orders. order: which of the first comes next in the second."""

    view: PlacementView
    shuffled: PlacementView
    order: list[int]


def make_shuffled(random: Random) -> Shuffled:
    """Make a view of agents that are all told apart by when they were used last, and turn it."""
    view = make_view(random, random.randint(2, 5), distinct=True)
    turn = random.randint(1, len(view.agents) - 1)
    order = [*range(turn, len(view.agents)), *range(turn)]
    return Shuffled(view, replace(view, agents=tuple(view.agents[at] for at in order), capacity=_lent(view.capacity[order]),
                                  free=_lent(view.free[order]), kernels=_lent(view.kernels[order]),
                                  last_used=_lent(view.last_used[order])), order)


def make_bare_view(random: Random) -> PlacementView:
    """Make a view in which agents may lack a slot and the container may ask for nothing."""
    view = make_view(random)
    columns = [random.random() < 0.7 for _ in SLOTS]
    rows = [random.random() < 0.7 for _ in view.agents]
    mask = np.outer(rows, columns).astype(np.int64)
    return replace(view, request=_lent(view.request * np.array(columns)), capacity=_lent(view.capacity * mask),
                   free=_lent(view.free * mask))


def make_view(random: Random, agents: int = 0, distinct: bool = False) -> PlacementView:
    """Make a view of some agents, all of which could take the container. distinct: no two were used last at the same time."""
    count = agents or random.randint(1, 5)
    request = np.array([random.randint(1, 4) * 1000 for _ in SLOTS], dtype=np.int64)
    used = _rows(random, count, lambda: random.randint(0, 8) * 1000)
    free = request + _rows(random, count, lambda: random.randint(0, 8) * 1000)
    last = random.sample(range(2 * count), count) if distinct else [random.randint(0, count) for _ in range(count)]
    kernels = [random.randint(0, 5) for _ in range(count)]
    return PlacementView(SLOTS, tuple(f"agent{number}" for number in range(count)), _lent(request), _lent(free + used), _lent(free),
                         _lent(np.array(kernels, dtype=np.int64)), _lent(np.array(last, dtype=np.int64)))


def _rows(random: Random, count: int, amount: Callable[[], int]) -> Any:
    return np.array([[amount() for _ in SLOTS] for _ in range(count)], dtype=np.int64)


def _lent(array: Any) -> Any:
    """Return *array* as the platform lends it: not to be written to."""
    array.setflags(write=False)
    return array


def _told(scores: Any) -> str:
    return ", ".join(f"{score:g}" for score in scores.ravel()[:8])
