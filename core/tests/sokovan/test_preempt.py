"""Who makes room for whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from random import Random
from typing import Any

import pytest
from backendai.model.group import GroupOptions, Preemption
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import Agent, Lease, Quota, Request
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.backfill import Backfill
from backendai_scheduler.fifo import Fifo

from core.tests.sokovan.worlds import GPU, NOW, Rowwise, check, make_world

BACKFILL: Any = Backfill()
SELECTOR: Any = Concentrated()


def holds(id: str, cores: int, agent: str, priority: int = 1, ran: float = 100.0, **more: Any) -> Lease:
    kernels = more.pop("kernels", ({"cpu": cores * SCALE},))
    return Lease(id, "v", more.pop("project", "p"), "d", priority, NOW - ran, kernels, (agent,) * len(kernels),
                 preemptible=more.pop("preemptible", True), **more)


def ask(id: str, *cores: int, priority: int = 5, **more: Any) -> Request:
    return Request(id, "u", more.pop("project", "q"), "d", priority, 0.0, tuple({"cpu": n * SCALE} for n in cores), **more)


def plan_of(agents: dict[str, int], leases: list[Lease], *waiting: Request, quotas: tuple[Quota, ...] = (), scheduler: Any = BACKFILL,
            **options: Any) -> Plan:
    cluster = Cluster()
    for name, cores in agents.items():
        cluster.put_agent(Agent(name, name, {"cpu": cores * SCALE}, {}))
    for lease in leases:
        cluster.hold(lease)
    for request in waiting:
        cluster.wait(request)
    cluster.set_quotas(quotas)
    cluster.set_options(GroupOptions(preemption=Preemption(**{"enabled": True, **options})))
    return make_plan(cluster.freeze(NOW), scheduler, SELECTOR)


def victims(plan: Plan) -> set[str]:
    return {eviction.victim for eviction in plan.evictions}


def test_the_least_important_goes_then_the_youngest_then_the_fewest() -> None:
    agents = {"a": 4, "b": 4, "c": 4}
    low = [holds("x", 4, "a", 2), holds("y", 4, "b", 1, 500.0), holds("z", 4, "c", 1, 400.0)]
    plan = plan_of(agents, low, ask("head", 4))
    assert victims(plan) == {"z"} and plan.claims == {"head": ("c",)}
    assert not plan.placements and plan.evictions[0].for_session == "head"
    many = [holds("x1", 1, "a", 1, 10.0), holds("x2", 3, "a", 1, 10.0), holds("y", 4, "b", 1, 10.0), holds("z", 4, "c", 2)]
    assert victims(plan_of(agents, many, ask("head", 4))) == {"y"}, "of as much work, one rather than two"


def test_nobody_goes_who_is_not_needed() -> None:
    leases = [holds("x1", 1, "a", 1), holds("x2", 3, "a", 2), holds("x3", 2, "a", 3)]
    assert victims(plan_of({"a": 6}, leases, ask("head", 3))) == {"x2"}
    assert victims(plan_of({"a": 7}, leases, ask("head", 4))) == {"x2"}, "one is free"


@pytest.mark.parametrize(("change", "least_run_s"), [
    ({"preemptible": False}, 0.0), ({"priority": 5}, 0.0), ({"ran": 10.0}, 11.0), ({"booking": "b"}, 0.0)])
def test_some_are_safe(change: dict[str, Any], least_run_s: float) -> None:
    plan = plan_of({"a": 4}, [holds("x", 4, "a", **{"priority": 1, **change})], ask("head", 4), least_run_s=least_run_s)
    assert not plan.evictions and not plan.claims
    plan = plan_of({"a": 4}, [holds("x", 4, "a", 1)], ask("head", 4), enabled=False)
    assert not plan.evictions


def test_nobody_goes_where_it_would_not_help() -> None:
    leases = [holds("x", 2, "a", 1), holds("safe", 2, "a", 9)]
    assert not plan_of({"a": 4}, leases, ask("head", 3)).evictions
    assert not plan_of({"a": 4}, leases, ask("head", 2, 2)).evictions


def test_a_gang_has_just_enough_made_for_it() -> None:
    leases = [holds(f"x{n}", 2, "ab"[n % 2], n % 3, 10.0 * n) for n in range(4)]
    plan = plan_of({"a": 4, "b": 4}, leases, ask("head", 2, 2))
    assert victims(plan) == {"x0", "x3"}, "the two of the lowest priority"
    assert sorted(plan.claims["head"]) == ["a", "b"]


def test_only_the_first_who_is_blocked_has_room_made_and_once() -> None:
    leases = [holds("x", 2, "a"), holds("y", 2, "a", 2)]
    plan = plan_of({"a": 4}, leases, ask("head", 2), ask("next", 2, priority=4))
    assert plan.evictions[0].for_session == "head" and victims(plan) == {"x"}
    again = plan_of({"a": 4}, leases, ask("head", 2, claim=("a",)), ask("next", 2, priority=4))
    assert victims(again) == {"y"} or not again.evictions, "who has a claim waits for those who go already"
    assert "head" in again.claims


def test_what_is_left_beside_a_claim_is_not_taken_by_the_next() -> None:
    plan = plan_of({"a": 4}, [holds("x", 3, "a")], ask("head", 3), Request("thief", "u", "q", "d", 1, 1.0, ({"cpu": SCALE},)))
    assert victims(plan) == {"x"}
    assert not plan.placements, "which core is whose is open until the victim has gone"
    plan = plan_of({"a": 4}, [], ask("head", 3, claim=("a",)), Request("thief", "u", "q", "d", 1, 1.0, ({"cpu": SCALE},)))
    assert {p.session for p in plan.placements} == {"head", "thief"}


def test_who_has_a_claim_is_placed_whoever_goes_first() -> None:
    """The one ahead waits for what is kept for the claimant, and its scheduler tries nobody behind it: so neither would ever start."""
    plan = plan_of({"a": 4}, [], ask("head", 4, priority=9), ask("claimant", 2, claim=("a",)), scheduler=Fifo())
    assert {p.session for p in plan.placements} == {"claimant"} and not plan.claims
    assert "head" in dict(plan.holds.items())


def quota(scope_id: str, limit: int, used: int, borrow: bool = True, scope: str = "project") -> Quota:
    return Quota(scope, scope_id, "cpu", limit * SCALE, used * SCALE, borrow)


def test_who_lent_takes_back_from_those_beyond_their_own_whatever_their_priority() -> None:
    leases = [holds("x", 2, "a", 9, project="p"), holds("y", 2, "a", 9, project="r")]
    quotas = quota("p", 1, 2), quota("r", 2, 2), quota("q", 2, 0)
    plan = plan_of({"a": 4}, leases, ask("head", 2, priority=1), quotas=quotas, enabled=False, reclaim=True)
    assert victims(plan) == {"x"}
    assert not plan_of({"a": 4}, leases, ask("head", 2, priority=1), quotas=quotas, enabled=False).evictions
    beyond = quota("p", 1, 2), quota("r", 2, 2), quota("q", 1, 0)
    plan = plan_of({"a": 4}, leases, ask("head", 2, priority=1), quotas=beyond, enabled=False, reclaim=True)
    assert not plan.evictions, "it would be a borrower itself"


def test_a_quota_of_the_domain_that_others_borrowed_is_freed() -> None:
    leases = [holds("x", 2, "a", 9, project="p"), holds("y", 2, "a", 9, project="r")]
    quotas = quota("p", 1, 2), quota("r", 2, 2), quota("q", 2, 0), quota("d", 4, 4, False, "domain")
    plan = plan_of({"a": 9}, leases, ask("head", 2, priority=1), quotas=quotas, enabled=False, reclaim=True)
    assert victims(plan) == {"x"} and plan.claims == {"head": ("a",)}


def test_of_one_agent_the_choice_is_as_good_as_any() -> None:
    """Beside every choice by brute force: no higher priority is asked to go than must, and nobody for nothing."""
    found = 0
    for seed in range(400):
        random = Random(seed)
        agents = {f"a{n}": random.randint(3, 8) for n in range(random.randint(1, 3))}
        free, leases = dict(agents), []
        for n in range(random.randint(1, 6)):
            agent, cores = random.choice(list(agents)), random.randint(1, 3)
            if free[agent] >= cores:
                free[agent] -= cores
                leases.append(holds(f"x{n}", cores, agent, random.randint(0, 4), random.randint(1, 9) * 10.0))
        need = random.randint(2, 8)
        if any(left >= need for left in free.values()):
            continue
        plan = plan_of(agents, leases, ask("head", need, priority=3))
        ways = [some for size in range(1, len(leases) + 1) for some in combinations(leases, size)
                if all(lease.priority < 3 for lease in some) and any(
                    free[a] + sum(x.kernels[0]["cpu"] // SCALE for x in some if x.agents[0] == a) >= need for a in agents)]
        assert bool(ways) == bool(plan.evictions), f"seed {seed}"
        if ways:
            found += 1
            chosen = [lease for lease in leases if lease.id in victims(plan)]
            assert any([x.id for x in some] == [x.id for x in chosen] for some in ways)
            assert max(x.priority for x in chosen) == min(max(x.priority for x in some) for some in ways), f"seed {seed}"
            assert not any({x.id for x in some} < victims(plan) for some in ways), f"seed {seed}: somebody goes for nothing"
    assert found > 50


def test_once_the_victims_are_gone_the_head_starts() -> None:
    """In any world: carry out the evictions, and the plan that follows places who they were for, on what was claimed."""
    carried = 0
    for seed in range(700):
        random = Random(seed)
        world = replace(make_world(random), options=GroupOptions(preemption=Preemption(True, True)))
        selector: Any = Rowwise()
        cluster = world.cluster()
        plan = make_plan(cluster.freeze(NOW), BACKFILL, selector)
        check(world, plan)
        if not plan.evictions:
            continue
        head, carried = plan.evictions[0].for_session, carried + 1
        requests = {request.id: request for request in world.waiting}
        for p in plan.placements:
            r = requests[p.session]
            cluster.hold(Lease(r.id, r.user, r.project, r.domain, r.priority, NOW, r.kernels, p.agents, units=p.units, booking=r.booking))
        for eviction in plan.evictions:
            cluster.release(eviction.victim)
        claimant = requests[head]
        cluster.wait(replace(claimant, claim=plan.claims[head]))
        after = make_plan(cluster.freeze(NOW), BACKFILL, selector)
        assert head in {p.session for p in after.placements}, f"seed {seed}: {after.holds[head]}"
    assert carried > 20


def test_devices_are_freed_by_name() -> None:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {GPU: 2 * SCALE}, {}, devices={GPU: {"g0": SCALE, "g1": SCALE}}))
    for n, device in enumerate(("g0", "g0", "g1", "g1")):
        cluster.hold(Lease(f"x{n}", "v", "p", "d", n, NOW - 10, ({GPU: 500},), ("a",), preemptible=True, units=({GPU: {device: 500}},)))
    cluster.wait(Request("head", "u", "q", "d", 9, 0.0, ({GPU: SCALE},)))
    cluster.set_options(GroupOptions(preemption=Preemption(enabled=True)))
    plan = make_plan(cluster.freeze(NOW), BACKFILL, SELECTOR)
    assert victims(plan) == {"x0", "x1"}, "both halves of one device, not a half of each"
