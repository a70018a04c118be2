"""The laws of an agent selector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar

import numpy as np

from backendai.spec.agentselector_v10 import SPEC, AgentSelector, PlacementView
from backendai.testing.examples import for_all, show
from backendai.testing.laws import Conformance, NotHere, Violation, Weight, ensure, law
from backendai.testing.watch import cpu_limit, watching

SLOTS = ("cpu", "mem", "cuda.device")
FRACTION = 2  # the slot of which parts of devices are lent
MANY = 10_000
_ARRAYS = ("request", "capacity", "free", "kernels", "last_used", "mix", "weights")


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
            copies: dict[str, Any] = {name: getattr(view, name).copy() for name in _ARRAYS if getattr(view, name) is not None}
            writable = replace(view, devices={slot: table.copy() for slot, table in view.devices.items()}, **copies)
            selector.scores(writable)
            changed = [name for name in copies if not np.array_equal(getattr(view, name), copies[name])]
            changed += ["devices" for slot, table in view.devices.items() if not np.array_equal(table, writable.devices[slot])]
            ensure(not changed, f"it changed {', '.join(changed)}")

        for_all(make_mixed_view, holds)

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

    @law()
    async def test_it_bears_every_mix(self, selector: AgentSelector) -> None:
        """Where nothing is known of what is typical, or of devices, or little, every score is finite all the same."""

        def holds(view: PlacementView) -> None:
            scores = np.asarray(selector.scores(view), dtype=np.float64)
            ensure(scores.shape == (len(view.agents),) and np.isfinite(scores).all(), f"its scores are {_told(scores)}")

        for_all(make_odd_view, holds)

    @law()
    async def test_rowwise_is_true(self, selector: AgentSelector) -> None:
        """If it says that it goes by rows, an agent alone has the score, to the last bit, that it has among others."""
        if not _hook(selector, "rowwise")():
            raise NotHere("it does not say so")

        def holds(view: PlacementView) -> None:
            scores = np.array(selector.scores(view))
            for row in range(len(view.agents)):
                alone = np.array(selector.scores(_rows_of(view, [row])))
                ensure(np.array_equal(alone, scores[[row]]), f"{view.agents[row]} has {_told(alone)} alone, {scores[row]:g} among others")

        for_all(make_mixed_view, holds)

    @law()
    async def test_the_device_that_it_picks_has_enough(self, selector: AgentSelector) -> None:
        """If it picks devices, it returns the index of one of which as much is free as is asked for, always the same."""
        pick = _hook(selector, "pick_device")

        def holds(view: PlacementView) -> None:
            one, slot = _rows_of(view, [0]), next(iter(view.devices))
            free, request = one.devices[slot][0], int(one.request[slot])
            picked = pick(request, free, one)
            fine = isinstance(picked, int | np.integer) and 0 <= picked < len(free) and free[picked] >= request
            ensure(fine, f"it picked {picked!r} of {free.tolist()} for {request}")
            ensure(pick(request, free, one) == picked, "it picked another one the second time")

        for_all(make_fraction_view, holds)

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
    return Shuffled(view, _rows_of(view, order), order)


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


def make_mixed_view(random: Random) -> PlacementView:
    """Make a view whose agents lend parts of devices, with or without a mix."""
    view = make_fraction_view(random)
    if random.random() < 0.3:
        return view
    mix = np.array([[random.randint(0, 2) * 500 for _ in SLOTS] for _ in range(random.randint(1, 4))], dtype=np.int64)
    weights = np.array([random.random() for _ in mix])
    return replace(view, mix=_lent(mix), weights=_lent(weights / max(weights.sum(), 1e-9)))


def make_odd_view(random: Random) -> PlacementView:
    """Make a view that tells little: a mix of nothing, of one that asks for nothing, or without weight; no devices, or none on an agent."""
    view, rows = make_fraction_view(random), random.choice((0, 1, 3))
    mix = np.array([random.choice((0, 0, 300, 5000, 1 << 50)) for _ in range(rows * len(SLOTS))], dtype=np.int64)
    if random.random() < 0.7:
        weights = np.full(rows, random.choice((0.0, 1.0 / max(rows, 1))))
        view = replace(view, mix=_lent(mix.reshape(rows, len(SLOTS))), weights=_lent(weights))
    none = np.full((len(view.agents), random.choice((0, 1, 4))), -1, dtype=np.int64)
    return replace(view, devices=random.choice((view.devices, {}, {FRACTION: _lent(none)})))


def make_fraction_view(random: Random) -> PlacementView:
    """Make a view in which a part of a device is asked for, and agents have devices of which enough is free."""
    view = make_view(random)
    request = view.request.copy()
    request[FRACTION] = random.choice((100, 300, 500, 900))
    width = random.randint(1, 4)
    table = np.full((len(view.agents), width), -1, dtype=np.int64)
    for row in table:
        count = random.randint(1, width)
        row[:count] = [random.choice((0, 250, 500, 1000)) for _ in range(count)]
        row[random.randrange(count)] = random.choice((900, 1000))
    free, capacity = view.free.copy(), view.capacity.copy()
    free[:, FRACTION] = np.maximum(table, 0).sum(axis=1)
    capacity[:, FRACTION] = (table >= 0).sum(axis=1) * 1000
    return replace(view, request=_lent(request), free=_lent(free), capacity=_lent(capacity), devices={FRACTION: _lent(table)})


def _rows_of(view: PlacementView, rows: list[int]) -> PlacementView:
    return replace(view, agents=tuple(view.agents[row] for row in rows), capacity=_lent(view.capacity[rows]), free=_lent(view.free[rows]),
                   kernels=_lent(view.kernels[rows]), last_used=_lent(view.last_used[rows]),
                   devices={slot: _lent(table[rows]) for slot, table in view.devices.items()})


def _hook(selector: AgentSelector, name: str) -> Callable[..., Any]:
    """Return an optional hook; one that is left out cannot be tried."""
    if (hook := getattr(selector, name, None)) is None:
        raise NotHere(f"it has no {name}()")
    found: Callable[..., Any] = hook
    return found


def _rows(random: Random, count: int, amount: Callable[[], int]) -> Any:
    return np.array([[amount() for _ in SLOTS] for _ in range(count)], dtype=np.int64)


def _lent(array: Any) -> Any:
    """Return *array* as the platform lends it: not to be written to."""
    array.setflags(write=False)
    return array


def _told(scores: Any) -> str:
    return ", ".join(f"{score:g}" for score in scores.ravel()[:8])
