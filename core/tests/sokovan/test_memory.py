"""What one plan tells the next saves work and decides nothing."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from backendai.sokovan.plan import make_plan
from backendai.sokovan.snapshot import Agent, Lease, Request
from backendai_scheduler.backfill import Backfill

from core.tests.sokovan.test_worlds import Everybody
from core.tests.sokovan.worlds import NOW, Rowwise, World, make_world

SELECTOR: Any = Rowwise()


def happen(random: Random, cluster: Any, world: World, plan: Any, now: float) -> None:
    """Carry out a plan, or a part of it, and let something else happen."""
    requests = {request.id: request for request in world.waiting}
    for p in plan.placements:
        if random.random() < 0.7:
            r: Request = requests[p.session]
            cluster.hold(Lease(r.id, r.user, r.project, r.domain, r.priority, now, r.kernels, p.agents, random.choice((None, now + 40)),
                               r.preemptible, p.units, r.booking))
    for id, agents in plan.claims.items():
        if random.random() < 0.7:
            cluster.wait(replace(requests[id], claim=agents))
    leases = sorted(cluster.freeze(now).leases)
    what = random.random()
    if what < 0.5 and leases:
        cluster.release(random.choice(leases))
    elif what < 0.6 and requests:
        cluster.leave(random.choice(sorted(requests)))
    elif what < 0.7:
        agent: Agent = cluster.agent(random.choice(world.agents).id)
        cluster.put_agent(replace(agent, why=random.choice(("", "It is away."))))
    elif what < 0.8:
        agent = cluster.agent(random.choice(world.agents).id)
        cluster.put_agent(replace(agent, capacity={**agent.capacity, "cpu": random.randint(0, 6) * 1000}))
    elif what < 0.9:
        agent = cluster.agent(random.choice(world.agents).id)
        cluster.put_agent(replace(agent, labels={"kind": random.choice("pq"), "zone": random.choice("xy")}))
    else:
        cluster.set_bookings(world.bookings if random.random() < 0.5 else ())


def test_a_plan_that_remembers_is_the_plan_that_does_not() -> None:
    remembered = 0
    for seed in range(120):
        random = Random(seed)
        world = make_world(random)
        cluster, now = world.cluster(), NOW
        for _ in range(12):
            scheduler: Any = Backfill() if random.random() < 0.5 else Everybody(random.randrange(9))
            snapshot = cluster.freeze(now)
            remembered += len(snapshot.memory.blocked) if snapshot.memory else 0
            plan = make_plan(snapshot, scheduler, SELECTOR)
            assert plan == make_plan(replace(snapshot, memory=None), scheduler, SELECTOR), f"seed {seed}"
            happen(random, cluster, world, plan, now)
            now += random.choice((0.0, 1.0, 30.0))
    assert remembered > 500
