"""Room that is kept: for the head of the queue, for those with an advance reservation, for those for whom others make room."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from backendai.model.session import Arrange, Wishes, Zone
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import make_plan
from backendai.sokovan.snapshot import Agent, Booking, Lease, Request
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.backfill import Backfill
from backendai_scheduler.passing import Passing

from core.tests.sokovan.worlds import GPU, NOW, World, check, make_world, plugins

SEEDS = 250
BACKFILL: Any = Backfill()
SELECTOR: Any = Concentrated()


def run(world: World, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Let a world run in virtual time with limits that are true; return when sessions started, and when the first word was they would."""
    selector = plugins(Random(seed))[1]
    cluster, now = world.cluster(), NOW
    requests, ends = {r.id: r for r in world.waiting}, {lease.id: lease.ends_by or NOW for lease in world.holding}
    started: dict[str, float] = {}
    promised: dict[str, float] = {}
    while True:
        plan = make_plan(cluster.freeze(now), BACKFILL, selector)
        assert plan.fault is None
        for id, at in plan.starts.items():
            promised[id] = min(at, promised.get(id, at))
        for placement in plan.placements:
            request = requests[placement.session]
            started[request.id] = now
            ends[request.id] = now + (request.time_limit_s or 0.0)
            cluster.hold(Lease(request.id, request.user, request.project, request.domain, request.priority, now, request.kernels,
                               placement.agents, ends[request.id], units=placement.units))
        if not ends:
            return started, promised
        now = max(now, min(ends.values()))
        for id in [id for id, at in ends.items() if at <= now]:
            cluster.release(id)
            del ends[id]


def limited(world: World, random: Random) -> World:
    """Give everybody a time limit."""
    return replace(
        world, waiting=tuple(replace(r, time_limit_s=random.choice((10.0, 30.0, 80.0, 200.0))) for r in world.waiting),
        holding=tuple(replace(lease, ends_by=lease.ends_by or NOW + 70.0) for lease in world.holding))


def test_who_passes_the_head_never_delays_it() -> None:
    """While limits are true, whoever was told a moment has started by then."""
    told = 0
    for seed in range(SEEDS):
        random = Random(seed)
        world = limited(make_world(random, plain=True), random)
        started, promised = run(world, seed)
        told += len(promised)
        for id, at in promised.items():
            assert id in started and started[id] <= at, f"seed {seed}: {id} was to start at {at}, and started at {started.get(id)}"
    assert told > SEEDS / 4


def test_the_moment_is_the_first_at_which_it_fits() -> None:
    """Beside trying each moment at which somebody ends, with those who have ended gone."""
    told = 0
    for seed in range(400):
        random = Random(seed)
        world = limited(make_world(random, plain=True), random)
        if not world.waiting:
            continue
        world = replace(world, waiting=world.waiting[:1], holding=tuple(
            replace(lease, ends_by=NOW + random.randint(1, 9)) for lease in world.holding))
        plan = make_plan(world.freeze(), BACKFILL, SELECTOR)
        if plan.placements:
            continue
        fits = [at for at in sorted({lease.ends_by or 0.0 for lease in world.holding}) if make_plan(replace(
            world, holding=tuple(lease for lease in world.holding if (lease.ends_by or 0.0) > at)).freeze(), BACKFILL, SELECTOR).placements]
        assert list(plan.starts.values()) == fits[:1], f"seed {seed}"
        told += bool(fits)
    assert told > 20


def box(name: str, cores: int) -> Agent:
    return Agent(name, name, {"cpu": cores * SCALE}, {})


def ask(id: str, cores: int, limit: float | None = None, at: float = 0.0, **more: Any) -> Request:
    return Request(id, "u", "p", "d", more.pop("priority", 1), at, ({"cpu": cores * SCALE},), limit, **more)


def holds(id: str, cores: int, agent: str, ends_by: float | None, **more: Any) -> Lease:
    return Lease(id, "u", "p", "d", 1, 0.0, ({"cpu": cores * SCALE},), (agent,), ends_by, **more)


def cluster_of(*events: Agent | Request | Lease) -> Cluster:
    cluster = Cluster()
    for event in events:
        if isinstance(event, Agent):
            cluster.put_agent(event)
        elif isinstance(event, Request):
            cluster.wait(event)
        else:
            cluster.hold(event)
    return cluster


def placed(cluster: Cluster, now: float = NOW) -> dict[str, tuple[str, ...]]:
    return {p.session: p.agents for p in make_plan(cluster.freeze(now), BACKFILL, SELECTOR).placements}


def test_short_ones_use_the_place_of_the_head_and_long_ones_what_it_leaves() -> None:
    cluster = cluster_of(box("a", 8), holds("h", 4, "a", NOW + 100), ask("head", 6),
                         ask("long", 3, 101.0, 1.0), ask("short", 3, 100.0, 2.0), ask("forever", 1, None, 3.0))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert plan.starts == {"head": NOW + 100}
    assert {p.session for p in plan.placements} == {"short", "forever"}
    assert plan.holds["long"] == "Waits for 3 cores: the most that one agent has free now is 0 (agent a)."
    cluster.leave("short")
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert plan.holds["long"] == "Waits for its turn: the agents with room for it are kept for sessions ahead of it."


def test_without_ends_nobody_knows_when_the_head_starts_and_nothing_is_kept() -> None:
    cluster = cluster_of(box("a", 8), holds("h", 4, "a", None), ask("head", 6), ask("small", 3, None, 1.0))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert plan.starts == {} and {p.session for p in plan.placements} == {"small"}


def test_what_should_have_ended_already_is_expected_to_end_now() -> None:
    cluster = cluster_of(box("a", 8), holds("h", 4, "a", NOW - 5), ask("head", 6), ask("small", 3, 50.0, 1.0))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert plan.starts == {"head": NOW} and not plan.placements


def booked(begins: float, ends: float, cores: int = 6) -> Booking:
    return Booking("b", "course", "p", {"a": {"cpu": cores * SCALE}}, NOW + begins, NOW + ends)


@pytest.mark.parametrize(("limit", "starts"), [(50.0, True), (51.0, False), (None, False)])
def test_nobody_elses_session_runs_into_a_reservation(limit: float | None, starts: bool) -> None:
    cluster = cluster_of(box("a", 8), ask("s", 4, limit))
    cluster.set_bookings([booked(50, 100)])
    assert placed(cluster) == ({"s": ("a",)} if starts else {})
    small = cluster_of(box("a", 8), ask("s", 2, limit))
    small.set_bookings([booked(50, 100)])
    assert placed(small) == {"s": ("a",)}, "what is left of the agent is free"


def test_a_reservation_is_for_those_who_name_it_while_it_lasts() -> None:
    cluster = cluster_of(box("a", 8), box("c", 8), ask("in", 4, booking="b"), ask("more", 3, at=1.0, booking="b"), ask("out", 4, at=2.0))
    cluster.set_bookings([booked(10, 100)])
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert {p.session: p.agents for p in plan.placements} == {"out": ("c",)}
    assert plan.holds["in"] == "Waits for its reservation course to begin."
    plan = make_plan(cluster.freeze(NOW + 10), BACKFILL, SELECTOR)
    assert {p.session: p.agents for p in plan.placements} == {"in": ("a",), "out": ("c",)}
    assert "more" in plan.holds, "six cores are booked, not seven"
    assert make_plan(cluster.freeze(NOW + 100), BACKFILL, SELECTOR).holds["in"].startswith("Its reservation is over")


def test_who_is_in_a_reservation_already_is_counted_to_it() -> None:
    cluster = cluster_of(box("a", 8), holds("h", 4, "a", NOW + 90, booking="b"), ask("in", 3, booking="b"), ask("out", 2, at=1.0))
    cluster.set_bookings([booked(-10, 90)])
    assert placed(cluster) == {"out": ("a",)}, "two of six are left in it, and two outside"


def test_what_is_claimed_is_for_its_claimant() -> None:
    cluster = cluster_of(box("a", 8), holds("victim", 6, "a", None), ask("head", 6, claim=("a",)), ask("thief", 2, at=1.0, priority=9))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert not plan.placements and plan.claims == {"head": ("a",)}
    assert plan.holds["thief"].startswith("Waits for its turn")
    cluster.release("victim")
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert {p.session: p.agents for p in plan.placements} == {"head": ("a",), "thief": ("a",)} and not plan.claims


def test_a_selector_that_breaks_over_a_claim_is_blamed() -> None:
    class Broken:
        def scores(self, view: Any) -> Any:
            raise RuntimeError("bang")

    broken: Any = Broken()
    cluster = cluster_of(box("a", 2), box("c", 2), box("e", 2), holds("h", 2, "a", None), ask("head", 2, claim=("a",)))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, broken)
    assert not plan.placements and plan.fault is not None and plan.fault.spec == "agentselector"


def test_a_claim_on_an_agent_that_left_is_given_up() -> None:
    cluster = cluster_of(box("a", 8), box("c", 2), ask("head", 6, claim=("gone",)))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert {p.session for p in plan.placements} == {"head"}
    cluster = cluster_of(box("c", 2), ask("head", 6, claim=("gone",)))
    assert make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR).claims == {}


def test_what_was_just_placed_is_there_at_later_moments() -> None:
    cluster = cluster_of(box("a", 8), box("c", 9), holds("victim", 9, "c", None), ask("claimant", 9, claim=("c",), priority=9),
                         holds("h", 4, "a", NOW + 50), ask("new", 2, priority=8), ask("head", 6), ask("long", 2, at=1.0))
    scheduler: Any = Backfill(Passing(depth=2))  # the claimant has its place already
    plan = make_plan(cluster.freeze(NOW), scheduler, SELECTOR)
    assert {p.session for p in plan.placements} == {"new"}
    assert plan.starts == {"head": NOW + 50}, "beside the new one, but not beside the long one"


def test_of_an_agent_with_a_claim_on_devices_no_part_is_taken_before_it_is_clear_which() -> None:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {GPU: 3 * SCALE}, {}, devices={GPU: {"g0": SCALE, "g1": SCALE, "g2": SCALE}}))
    for n in range(3):
        cluster.hold(Lease(f"x{n}", "u", "p", "d", 1, 0.0, ({GPU: 600},), ("a",), units=({GPU: {f"g{n}": 600}},)))
    cluster.wait(Request("head", "u", "p", "d", 1, 0.0, ({GPU: SCALE},), claim=("a",)))
    cluster.wait(Request("thief", "u", "p", "d", 1, 1.0, ({GPU: 200},)))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert not plan.placements and plan.claims == {"head": ("a",)}
    cluster.release("x0")
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert [(p.session, p.units) for p in plan.placements] == [("head", ({GPU: {"g0": SCALE}},)), ("thief", ({GPU: {"g1": 200}},))]


def test_what_is_no_must_puts_nobody_off() -> None:
    """A gang that would rather be in one zone waits for room in any, and one in a reservation for what it needs there."""
    near = Wishes(zone=Zone.SAME, strict=False)
    cluster = cluster_of(replace(box("a", 2), labels={"zone": "x"}), replace(box("c", 2), labels={"zone": "y"}),
                         holds("h", 2, "a", NOW + 50),
                         replace(ask("head", 2, wishes=near), kernels=({"cpu": 2 * SCALE},) * 2))
    assert make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR).starts == {"head": NOW + 50}
    packed = Wishes(arrange=Arrange.PACK)
    cluster = cluster_of(box("a", 2), box("c", 2), replace(ask("in", 2, booking="b", wishes=packed), kernels=({"cpu": 2 * SCALE},) * 2))
    cluster.set_bookings([Booking("b", "b", "p", {"a": {"cpu": 2 * SCALE}, "c": {"cpu": 2 * SCALE}}, NOW, NOW + 9)])
    assert sorted(placed(cluster)["in"]) == ["a", "c"]


def test_worlds_in_which_limits_are_true_keep_the_rules() -> None:
    for seed in range(100):
        random = Random(seed)
        world = limited(make_world(random), random)
        check(world, make_plan(world.freeze(), BACKFILL, SELECTOR))
