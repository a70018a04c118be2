"""Schedulers and small scenes for the tests of the simulator."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from random import Random

import numpy as np
from backendai.spec.agentselector_v10 import PlacementView
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve, Scheduler
from backendai.testing.simulate.scene import Choice, Scene, set_up
from backendai.testing.simulate.trace import Job, Kind, Trace
from numpy.typing import NDArray


class Strict(Scheduler):
    """The oldest first; who waits for room keeps all others waiting."""

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        for waiting in view.waiting:
            if (yield Attempt(waiting.id)) is Outcome.BLOCKED:
                return


class Greedy(Scheduler):
    """Whoever fits, the oldest first."""

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        for waiting in view.waiting:
            yield Attempt(waiting.id)


class Easy(Scheduler):
    """The oldest first; room is kept for the first that waits, and who does not delay it goes on."""

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        head = True
        for waiting in sorted(view.waiting, key=lambda w: -w.priority):
            if (yield Attempt(waiting.id)) is Outcome.BLOCKED and head:
                head = False
                yield Reserve(waiting.id)


class First:
    """The first node with room."""

    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        return -np.arange(len(view.agents), dtype=np.float64)


def job(name: str, at: float, lasts: float, size: int, **more: object) -> Job:
    return Job(name, str(more.pop("user", "kim")), at, lasts, ({"cpu": size * 1000},), **more)  # type: ignore[arg-type]


def scene(jobs: Sequence[Job], nodes: int, size: int, choice: Choice | None = None) -> Scene:
    return set_up(Trace("made up", tuple(jobs), "cpu", splits=True), [Kind(nodes, {"cpu": size * 1000})], choice)


def random_jobs(random: Random, count: int, most: int) -> list[Job]:
    at, jobs = 0.0, []
    for i in range(count):
        at += random.choice((0, 0.25, 1, 7))
        lasts = random.choice((0, 0.5, 3, 20, 90))
        jobs.append(job(f"j{i}", at, lasts, random.randint(1, most), user=random.choice("abc"), priority=random.choice((5, 10))))
    return jobs
