"""The group in miniature does as the book says, and as the platform's own brain does."""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any

import numpy as np
import pytest
from backendai.plugin.discovery import find
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import make_plan
from backendai.sokovan.snapshot import Agent, Lease, Request
from backendai.spec import scheduler_v10
from backendai.spec.agentselector_v10 import PlacementView
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve
from backendai.testing.toy_group import Job, ToyGroup

NAMES = ("backfill", "drf", "fairshare", "fifo", "lifo")
END = 60


def scheduler(name: str) -> Any:
    return next(one.factory() for one in find(scheduler_v10.SPEC) if one.id == f"scheduler_v10.{name}" and one.factory is not None)


class FirstAgent:
    """The first with room, as the group in miniature does."""

    def scores(self, view: PlacementView) -> Any:
        return np.zeros(len(view.agents))


def by_the_brain(name: str, size: int, jobs: list[Job]) -> dict[str, int]:
    """Play the same on the platform's own cluster; return when each session starts."""
    cluster, plugin, started = Cluster(("slot",)), scheduler(name), dict[str, int]()
    cluster.put_agent(Agent("agent0", "agent0", {"slot": size}, {}))
    running: dict[str, int] = {}
    for now in range(END):
        for id in [id for id, ends in running.items() if ends <= now]:
            cluster.release(id)
            del running[id]
        for job in jobs:
            if job.at == now:
                cluster.wait(Request(job.id, job.user, "project0", "", job.priority, float(now), ({"slot": job.size},), job.runs))
        plan = make_plan(cluster.freeze(float(now)), plugin, FirstAgent())  # type: ignore[arg-type]  # it has the one hook that is required
        assert plan.fault is None
        for placed in plan.placements:
            job = next(job for job in jobs if job.id == placed.session)
            started[job.id], running[job.id] = now, now + (job.runs or END)
            cluster.hold(Lease(job.id, job.user, "project0", "", job.priority, float(now), ({"slot": job.size},), placed.agents,
                               float(running[job.id])))
    return started


@pytest.mark.parametrize("name", NAMES)
def test_it_does_as_the_brain_does(name: str) -> None:
    """On one agent, where nobody has to choose where, every session starts in the same second."""
    for seed in range(25):
        random = Random(seed)
        jobs = [Job(f"job{number:02}", random.randint(0, 8), random.randint(1, 4) * 1000, random.randint(1, 9),
                    f"user{random.randint(0, 2)}", random.randint(1, 2)) for number in range(12)]
        toy = ToyGroup([4000])
        toy.run(scheduler(name), jobs, END)
        assert toy.started == by_the_brain(name, 4000, jobs), f"seed {seed}"


class Patient:
    """As they come, with a place kept for whoever finds no room; it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Outcome] = []

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        for waiting in view.waiting:
            self.told.append((yield Attempt(waiting.id)))
            if self.told[-1] is Outcome.BLOCKED:
                self.told.append((yield Reserve(waiting.id)))


def look(jobs: list[Job], sizes: tuple[int, ...] = (4000,)) -> list[Outcome]:
    patient = Patient()
    ToyGroup(sizes).run(patient, jobs, 1)  # type: ignore[arg-type]  # it has the one hook that is required
    return patient.told


def test_what_fits_nowhere_is_impossible() -> None:
    assert look([Job("large", 0, 5000, 1)]) == [Outcome.IMPOSSIBLE]


def test_who_delays_nobody_may_pass() -> None:
    told = look([Job("busy", 0, 3000, 9), Job("head", 0, 4000, 5), Job("long", 0, 1000, 10), Job("short", 0, 1000, 9)])
    assert told == [Outcome.PLACED, Outcome.BLOCKED, Outcome.RESERVED, Outcome.BLOCKED, Outcome.RESERVED, Outcome.PLACED]


def test_nobody_can_tell_when_what_never_ends_will_end() -> None:
    assert look([Job("busy", 0, 3000, None), Job("head", 0, 4000, 5)]) == [Outcome.PLACED, Outcome.BLOCKED, Outcome.UNKNOWN]


def test_it_knows_who_found_no_room_first_and_when_there_would_be_some() -> None:
    group = ToyGroup([4000])
    group.run(scheduler("fifo"), [Job("busy", 0, 3000, 9), Job("head", 0, 4000, 5)], 1)
    assert group.head == ("head", 9)
