"""Each law of an agent selector catches the selector that breaks it, and no other law does."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

SPEC = "agentselector_v10"
Scores = NDArray[np.float64]


class Good:
    """The agent with the most processors free."""

    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        return view.free[:, 0].astype(np.float64)


class Integers(Good):
    @hookimpl
    def scores(self, view: PlacementView) -> Any:
        return view.free[:, 0]


class Divider(Good):
    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        with np.errstate(all="ignore"):
            return view.free[:, 0] / view.capacity[:, 0]


class Waverer(Good):
    def __init__(self) -> None:
        self.last: Any = None

    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        key = (view.agents, view.free.tobytes(), view.request.tobytes())
        again, self.last = key == self.last, key
        return super().scores(view) * (-1.0 if again else 1.0)


class Rememberer(Good):
    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        self.seen.add(np.sort(view.free, axis=0).tobytes())
        return super().scores(view) * (-1.0 if len(self.seen) > 1 else 1.0)


class Taker(Good):
    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        scores = super().scores(view)
        if view.free.flags.writeable:
            view.free[0] -= view.request
        return scores


class Watcher(Good):
    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        time.monotonic()
        return super().scores(view)


class Slow(Good):
    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        while len(view.agents) > 5000:
            pass
        return super().scores(view)


class First(Good):
    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        return -np.arange(len(view.agents), dtype=np.float64)


class Miser(Good):
    """It takes it for granted that there is a mix which asks for something."""

    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        with np.errstate(all="ignore"):
            typical = 1.0 if view.mix is None else view.mix.sum() / view.mix.any()
        return super().scores(view) / typical


class Comparer(Good):
    """It says that it goes by rows, and compares them."""

    @hookimpl
    def scores(self, view: PlacementView) -> Scores:
        return super().scores(view) - view.free[:, 0].mean()

    @hookimpl
    def rowwise(self) -> bool:
        return True


class Picker(Good):
    """It picks the device of which least is free, enough or not."""

    @hookimpl
    def pick_device(self, request: int, free: NDArray[np.int64], view: PlacementView) -> int:
        return int(free.argmin())


MUTANTS = broken.general(SPEC, Good) | {
    "test_one_score_for_each_agent": Integers,
    "test_scores_are_finite": Divider,
    "test_same_view_same_scores": Waverer,
    "test_it_remembers_nothing": Rememberer,
    "test_it_leaves_the_view_alone": Taker,
    "test_it_is_pure": Watcher,
    "test_many_agents_are_quick": Slow,
    "test_it_bears_every_mix": Miser,
    "test_rowwise_is_true": Comparer,
    "test_the_device_that_it_picks_has_enough": Picker,
    "test_the_order_of_agents_does_not_matter": First,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)


def test_a_good_one_holds_all() -> None:
    for good in (Good, "agentselector_v10.concentrated", "agentselector_v10.fragmentation"):
        broken.holds_all(SPEC, good)
