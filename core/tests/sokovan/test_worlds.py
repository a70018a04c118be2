"""What every plan keeps to, in worlds with devices, wishes, quotas, bookings, claims and preemption."""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any

import numpy as np
import pytest
from backendai.sokovan.plan import make_plan
from backendai.spec.agentselector_v10 import PlacementView
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve
from backendai_agentselector.concentrated import Concentrated
from numpy.typing import NDArray

from core.tests.sokovan.worlds import Rowwise, check, make_world, plan_of, plugins, shuffled

SEEDS = 300


def test_every_plan_keeps_the_rules() -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        world = make_world(random)
        try:
            check(world, plan_of(world, random))
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {error}")


def test_the_order_of_telling_does_not_matter() -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        world = make_world(random)
        decide = plugins(random)
        plan = make_plan(world.freeze(), *decide)
        assert make_plan(shuffled(world, random).freeze(), *decide) == plan == make_plan(world.freeze(), *decide), f"seed {seed}"


class Often:
    """Scores as the selector by default does, and says nothing about how."""

    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        """Score them all."""
        return Concentrated().scores(view)


class Everybody:
    """Tries everybody, in an order of its own, and keeps room for some who are blocked. It skips nobody."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        """Try them all."""
        random = Random(self._seed)
        for waiting in random.sample(list(view.waiting), len(view.waiting)):
            if (yield Attempt(waiting.id)) is Outcome.BLOCKED and random.random() < 0.4:
                yield Reserve(waiting.id)


def test_scores_that_are_kept_decide_like_scores_that_are_not() -> None:
    """A selector that goes by agents one by one is asked less often, and nobody notices."""
    for seed in range(SEEDS):
        world = make_world(Random(seed))
        scheduler: Any = Everybody(seed)
        often: Any = Often()
        seldom: Any = Rowwise()
        plan = make_plan(world.freeze(), scheduler, seldom)
        check(world, plan)
        assert make_plan(world.freeze(), scheduler, often) == plan, f"seed {seed}"


def test_whoever_is_blocked_once_would_be_blocked_again() -> None:
    """What the brain remembers of those without room changes nothing: a plan that forgets is the same."""
    for seed in range(SEEDS):
        world = make_world(Random(seed))
        scheduler: Any = Everybody(seed)
        selector: Any = Rowwise()
        plan = make_plan(world.freeze(), scheduler, selector)
        apart = world.freeze()
        for number, waiting in enumerate(apart.view.waiting, 1):
            object.__setattr__(waiting, "shape", -number)  # a shape of its own, so that nothing is known of it by others
        assert make_plan(apart, scheduler, selector) == plan, f"seed {seed}"
