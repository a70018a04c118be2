"""Runs: a trace small enough to be worked out by hand, and what holds for every trace."""

from __future__ import annotations

import math
from collections.abc import Generator
from random import Random

import pytest
from backendai.model.errors import Failure
from backendai.model.group import GroupOptions, Preemption
from backendai.sokovan.snapshot import Lease
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve, Scheduler
from backendai.testing.simulate.events import simulate
from backendai.testing.simulate.record import Record
from backendai.testing.simulate.scene import Choice
from backendai.testing.simulate.space import Oversubscribed, Space

from core.tests.testing.simulate.plans import Easy, First, Greedy, Strict, job, random_jobs, scene

HAND = [job("a", 0, 10, 2), job("b", 1, 10, 4), job("c", 2, 5, 2), job("d", 3, 20, 2)]  # on two nodes of two: b needs both


def starts(record: Record) -> dict[str, float]:
    return {task.request.id: start for task, start in zip(record.scene.tasks, record.starts, strict=True)}


def test_strictly_in_order_the_large_one_keeps_all_waiting() -> None:
    assert starts(simulate(scene(HAND, 2, 2), Strict(), First())) == {"a": 0, "b": 10, "c": 20, "d": 20}


def test_whoever_fits_starts_and_the_large_one_starves() -> None:
    assert starts(simulate(scene(HAND, 2, 2), Greedy(), First())) == {"a": 0, "b": 27, "c": 2, "d": 7}


@pytest.mark.parametrize("load", [1, 0.5, 0.25])
def test_jobs_come_so_many_times_as_fast(load: float) -> None:
    record = simulate(scene(HAND, 9, 2, Choice(load=load)), Greedy(), First())
    assert starts(record) == {"a": 0, "b": 1 / load, "c": 2 / load, "d": 3 / load}


def test_events_of_one_second_are_one() -> None:
    """Who came within the second starts at the end of it, in the order of the scheduler, not in that of coming."""
    jobs = [job("late", 0.2, 5, 2), job("early", 0.8, 5, 2, priority=90)]
    record = simulate(scene(jobs, 1, 2), Easy(), First())
    assert starts(record) == {"early": 0.8, "late": 5.8}
    assert len(record.plan_s) == 2


def test_a_job_that_takes_no_time_ends_when_it_starts() -> None:
    record = simulate(scene([job("a", 3, 0, 2), job("b", 3, 0, 2)], 1, 2), Strict(), First())
    assert record.ends == [3, 3]


def test_a_limit_ends_what_takes_longer() -> None:
    record = simulate(scene([job("a", 0, 100, 1, limit_s=40.0), job("b", 0, 10, 1)], 1, 2), Strict(), First())
    assert record.ends == [40, 10]
    assert record.scene.notes == ("1 job is ended by its time limit before it is done.",)


def test_a_job_larger_than_the_nodes_is_left_out_with_a_note() -> None:
    record = simulate(scene([job("a", 0, 1, 5), job("b", 0, 1, 1)], 2, 2), Strict(), First())
    assert starts(record) == {"b": 0}
    assert record.scene.notes == ("1 job asked for more than the nodes could ever hold, and was left out.",)


@pytest.mark.parametrize("scheduler", [Strict(), Greedy(), Easy()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("seed", range(6))
def test_every_job_ends_and_nothing_is_given_twice(scheduler: Scheduler, seed: int) -> None:
    random = Random(seed)
    made = scene(random_jobs(random, 120, 9), 3, 4)
    record = simulate(made, scheduler, First())
    assert not any(map(math.isnan, record.ends))
    changes: list[tuple[float, int]] = []
    for task, start, end in zip(made.tasks, record.starts, record.ends, strict=True):
        assert start >= task.request.submitted_at
        assert end == start + task.duration_s
        changes += [(start, task.size), (end, -task.size)]
    held = 0
    for at in sorted({at for at, _ in changes}):
        held += sum(size for when, size in changes if when == at)
        assert 0 <= held <= made.capacity
    assert record.used[-1] == record.queue[-1] == 0


def test_the_same_seed_runs_the_same() -> None:
    def run(seed: int) -> Record:
        return simulate(scene(random_jobs(Random(1), 80, 6), 2, 4, Choice(sample=0.5, seed=seed)), Easy(), First())

    assert (run(3).starts, run(3).used) == (run(3).starts, run(3).used)
    assert starts(run(3)).keys() != starts(run(4)).keys()


def test_who_cannot_start_yet_needs_no_plan() -> None:
    """While a fills the node nothing can change, so who comes is not worth a plan."""
    jobs = [job("a", 0, 100, 2), *(job(f"j{i}", 5 + i, 1, 2) for i in range(20))]
    record = simulate(scene(jobs, 1, 2), Strict(), First())
    assert [at for at in record.starts if at < 100] == [0]
    assert len(record.plan_s) == 1 + 20


@pytest.mark.parametrize("scheduler", [Strict(), Greedy(), Easy()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("seed", range(8))
def test_plans_that_are_left_out_would_have_changed_nothing(scheduler: Scheduler, seed: int) -> None:
    """Where preemption is on, every arrival is worth a plan; here nobody may be preempted, so that is the only difference."""
    made = scene(random_jobs(Random(seed), 150, 6), 2, 4, Choice(limit=("exact", "x3")[seed % 2]))
    few = simulate(made, scheduler, First())
    many = simulate(made, scheduler, First(), GroupOptions(preemption=Preemption(enabled=True)))
    assert few.starts == many.starts
    assert len(few.plan_s) < len(many.plan_s)


def test_an_interrupt_leaves_what_there_is() -> None:
    def tell(ended: int, now: float) -> None:
        if ended == 2:
            raise KeyboardInterrupt

    record = simulate(scene(HAND, 2, 2), Strict(), First(), tell=tell)
    assert record.stopped and record.ended == 2
    assert [math.isnan(end) for end in record.ends] == [False, False, True, True]


def test_an_urgent_job_has_another_make_room_which_begins_anew() -> None:
    """On one node of two: a starts at 0 and is told at 5 to end within 3 s; b has 8 to 18; a runs again, all of it, from 18 to 38."""
    jobs = [job("a", 0, 20, 2, priority=1, preemptible=True), job("b", 5, 10, 2, priority=9), job("c", 6, 1, 2, priority=0)]
    group = GroupOptions(preemption=Preemption(enabled=True, grace_s=3.0))
    record = simulate(scene(jobs, 1, 2), Easy(), First(), group)
    assert starts(record) == {"a": 0, "b": 8, "c": 38}
    assert (record.ends, record.attempts, record.evictions) == ([38, 18, 39], [2, 1, 1], 1)
    assert starts(simulate(scene(jobs, 1, 2), Easy(), First())) == {"a": 0, "b": 20, "c": 30}


class Wrong(Scheduler):
    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        yield Attempt("ghost")


def test_a_plugin_that_fails_is_named_with_the_moment() -> None:
    with pytest.raises(Failure, match=r"The scheduler failed in attempts\(\) at 0 s of the trace, with 1 waiting: Misbehaviour: .*ghost"):
        simulate(scene(HAND, 2, 2), Wrong(), First())


def test_giving_a_node_more_than_it_has_is_no_result() -> None:
    space = Space(scene(HAND, 2, 2).agents)
    agent = scene(HAND, 2, 2).agents[0].id
    space.take(Lease("a", "", "", "", 0, 0, ({"cpu": 2000},), (agent,)))
    with pytest.raises(Oversubscribed, match="after b"):
        space.take(Lease("b", "", "", "", 0, 0, ({"cpu": 1},), (agent,)))


def test_two_jobs_of_one_id_are_refused() -> None:
    with pytest.raises(Failure, match="Two jobs of the trace have one id"):
        simulate(scene([job("a", 0, 1, 1), job("a", 1, 1, 1)], 1, 1), Strict(), First())
