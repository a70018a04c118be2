"""Where sessions stand and when they will start, as the plugins themselves would have it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster, take
from backendai.sokovan.forecast import Forecast, Habits, forecast, ranks
from backendai.sokovan.plan import make_plan
from backendai.sokovan.record import Digester
from backendai.sokovan.snapshot import Agent, Booking, Lease, Quota, Request, Snapshot
from backendai.sokovan.trial import Trial, thaw
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.fifo import Fifo

NOW = 1000.0


def node(name: str, cpu: int, used: int = 0) -> Agent:
    return Agent(f"id-{name}", name, {"cpu": cpu * SCALE}, {"cpu": used * SCALE})


def ask(id: str, *cores: int, at: float = 0.0, limit: float | None = None, priority: int = 10, **more: Any) -> Request:
    return Request(id, "u", "p", "d", priority, at, tuple({"cpu": n * SCALE} for n in cores), limit, **more)


def held(id: str, cores: int, agent: str, ends_by: float | None = None, started_at: float = 0.0, **more: Any) -> Lease:
    return Lease(id, "u", "p", "d", 10, started_at, ({"cpu": cores * SCALE},), (f"id-{agent}",), ends_by, **more)


def tell(snapshot: Snapshot, *more: Any, **named: Any) -> dict[str, Forecast]:
    return dict(forecast(snapshot, Fifo(), Concentrated(), *more, **named))


def test_who_fits_starts_now_and_who_follows_starts_when_limits_say_so() -> None:
    snapshot = take(NOW, [ask("first", 4, at=1, limit=600), ask("second", 4, at=2), ask("third", 4, at=3)],
                    [node("a", 4, 4)], [held("running", 4, "a", ends_by=NOW + 60)])
    found = tell(snapshot)
    assert [found[id].latest for id in ("first", "second", "third")] == [NOW + 60, NOW + 660, None]
    assert found["first"].earliest is None, "nothing is known of how long sessions run"
    free = tell(take(NOW, [ask("one", 2)], [node("a", 4)]))
    assert free["one"] == Forecast(NOW, NOW)


def test_habits_bring_the_earliest_start_forward_and_never_the_latest() -> None:
    snapshot = take(NOW, [ask("first", 4, at=1, limit=600), ask("second", 4, at=2)],
                    [node("a", 4, 4)], [held("running", 4, "a", started_at=NOW - 100, ends_by=NOW + 900)])
    found = tell(snapshot, Habits(share=0.2, runs=12))
    assert found["first"] == Forecast(NOW + 100, NOW + 900)
    assert found["second"] == Forecast(NOW + 220, NOW + 1500)
    overdue = tell(snapshot, Habits(share=0.05, runs=12))
    assert overdue["first"].earliest == NOW + 1, "who has had the usual time already ends any moment"


def test_sessions_without_a_limit_end_by_habit_alone() -> None:
    snapshot = take(NOW, [ask("first", 4)], [node("a", 4, 4)], [held("running", 4, "a", started_at=NOW - 50)])
    assert tell(snapshot)["first"] == Forecast(None, None)
    assert tell(snapshot, Habits(1.0, 300.0, 12))["first"] == Forecast(NOW + 250, None)


def test_time_that_runs_out_leaves_the_rest_open() -> None:
    snapshot = take(NOW, [ask("a", 4, at=1, limit=60), ask("b", 4, at=2)], [node("a", 4)])
    found = tell(snapshot, late=iter([False, False, *[True] * 99]).__next__)
    assert found["b"] == Forecast(None, None)


def test_ranks_are_the_schedulers_order_also_behind_the_one_that_stops_it() -> None:
    waiting = [ask("big", 9, at=1), ask("late", 1, at=3), ask("urgent", 1, at=4, priority=50), ask("early", 1, at=2)]
    snapshot = take(NOW, waiting, [node("a", 4)])
    assert ranks(snapshot, Fifo()) == ("urgent", "big", "early", "late")

    class Failing:
        def attempts(self, view: Any) -> Iterator[Any]:
            raise ZeroDivisionError
            yield

    assert ranks(snapshot, Failing()) == ("big", "early", "late", "urgent"), "the order of asking is left"  # type: ignore[arg-type]  # a plugin, as wrong as can be


def test_a_thawed_moment_freezes_to_itself() -> None:
    cluster = Cluster()
    for agent in (node("a", 8), node("b", 4), Agent("id-c", "c", {"cpu": 4 * SCALE, "mem": 1 << 30}, {}, "It is cordoned.")):
        cluster.put_agent(agent)
    cluster.hold(held("one", 3, "a", ends_by=NOW + 5))
    cluster.wait(ask("two", 2, 2, at=4))
    cluster.set_quotas([Quota("user", "u", "cpu", 9 * SCALE, 3 * SCALE)])
    before = cluster.freeze(NOW)
    after = thaw(before).freeze(NOW)
    assert after.view == before.view
    assert (after.free == before.free).all() and (after.kernels == before.kernels).all() and (after.last_used == before.last_used).all()
    assert (after.idle, after.quotas, after.leases, after.requests) == (before.idle, before.quotas, before.leases, before.requests)


@pytest.mark.parametrize("seed", range(10))
def test_after_a_trial_everything_stands_as_before(seed: int) -> None:
    random, cluster = Random(seed), Cluster()
    for name in "abc":
        cluster.put_agent(Agent(f"id-{name}", name, {"cpu": 8 * SCALE, "gpu": 2 * SCALE}, {}, devices={"gpu": {"g0": SCALE, "g1": SCALE}}))
    for i in range(6):
        units = ({"gpu": {"g0": 100}},) if i % 2 else ()
        kernel = {"cpu": SCALE, **({"gpu": 100} if i % 2 else {})}
        cluster.hold(Lease(f"h{i}", "u", "p", "d", 10, 0.0, (kernel,), (f"id-{random.choice('abc')}",), random.choice((None, NOW + 9)),
                           units=units))
    for i in range(5):
        cluster.wait(ask(f"w{i}", random.randint(1, 9), at=float(i)))
    cluster.set_quotas([Quota("user", "u", "cpu", 99 * SCALE, 6 * SCALE)])
    cluster.set_bookings([Booking("b", "b", "d", {"id-a": {"cpu": SCALE}}, NOW - 1, NOW + 1)])
    snapshot = cluster.freeze(NOW)
    trial = Trial(snapshot, Fifo(), Concentrated())
    for _ in range(8):
        moment, plan = trial.plan(random.choice((None, snapshot.requests["w1"], ask("w1", 1), ask("new", 2))),
                                  random.choice(((), ("h1",), ("h0", "h3"))), random.random() < 0.5)
        again = thaw(moment).freeze(NOW)
        assert make_plan(again, Fifo(), Concentrated()).placements == plan.placements
        moment, _ = trial.plan()
        assert Digester().of(moment) == Digester().of(snapshot)


def test_a_trial_changes_nothing_but_what_it_is_told() -> None:
    snapshot = take(NOW, [ask("a", 4)], [node("a", 4, 4)], [held("running", 4, "a")])
    trial = Trial(snapshot, Fifo(), Concentrated())
    assert trial.start(ask("a", 4)) is None
    assert trial.start(ask("a", 4), without=("running",)) is not None
    assert trial.start(ask("a", 4)) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_latest_start_comes_true_when_everybody_uses_up_their_limit(seed: int) -> None:
    """Play the future out one second at a time, with nothing but plans, and compare."""
    random = Random(seed)
    waiting = [ask(f"w{i:02}", random.randint(1, 6), at=i, limit=float(random.randint(1, 20)), priority=random.choice((10, 20)))
               for i in range(8)]
    agents = [node("a", 6), node("b", 4)]
    found = tell(take(NOW, waiting, agents))
    cluster, left = Cluster(), {request.id: request for request in waiting}
    for agent in agents:
        cluster.put_agent(agent)
    for request in waiting:
        cluster.wait(request)
    ends: dict[str, float] = {}
    for second in range(200):
        now = NOW + second
        for id in [id for id, end in ends.items() if end <= now]:
            cluster.release(id)
            del ends[id]
        for placement in make_plan(cluster.freeze(now), Fifo(), Concentrated()).placements:
            request = left.pop(placement.session)
            ends[request.id] = now + float(request.time_limit_s or 0)
            cluster.hold(Lease(request.id, "u", "p", "d", request.priority, now, request.kernels, placement.agents, ends[request.id]))
            assert found[request.id].latest == now
    assert all(found[id].latest is None for id in left)
