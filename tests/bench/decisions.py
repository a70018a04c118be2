"""How quick the brain decides: quotas, order, selector and explain records on, ten kinds of slots, one core, no database.
Times are of computing, as other work may share the core.

A decision is a session placed. The queue has forty different requests of three hundred users in thirty projects of five domains, each
project and user with quotas.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Generator
from operator import attrgetter
from random import Random
from typing import Any

import numpy as np
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import Agent, Lease, Quota, Request
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve
from backendai_agentselector.concentrated import Concentrated

from tests.bench.table import Row, bound, show

GIB = 1 << 30
KINDS = ("cpu", "mem", "cuda.device", "rocm.device", "tpu", "ib", "nvme", "lic.a", "lic.b", "shm.mem")
PENDING = 10_000
NOW = 1_800_000_000.0


class Order:
    """Strict order by priority, then submission, with room kept for the first who waits."""

    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        """Try each shape until it is blocked."""
        blocked: dict[int, float] = {}
        kept = False
        for waiting in sorted(view.waiting, key=attrgetter("priority"), reverse=True):
            limit = waiting.time_limit_s or float("inf")
            if (least := blocked.get(waiting.shape)) is not None and limit >= least:
                continue
            if (yield Attempt(waiting.id)) is Outcome.BLOCKED:
                blocked[waiting.shape] = limit
                if not kept:
                    kept = (yield Reserve(waiting.id)) is Outcome.RESERVED


class Rows(Concentrated):
    """The selector by default; it goes by agents one by one."""

    def rowwise(self) -> bool:
        """Say so."""
        return True


def agent(number: int, random: Random, used: float) -> Agent:
    gpus = 8 if number % 2 else 0
    capacity = {"cpu": 96 * SCALE, "mem": 768 * GIB, "cuda.device": gpus * SCALE, "ib": 4 * SCALE, "nvme": 4 * SCALE,
                **dict.fromkeys(KINDS[7:9], 16 * SCALE), "shm.mem": 64 * GIB}
    taken = {"cpu": int(96 * used) * SCALE, "mem": int(768 * used) * GIB, "cuda.device": int(gpus * used) * SCALE}
    return Agent(f"a{number:06}", f"node{number}", capacity, taken, labels={"zone": f"z{number % 20}"})


def kinds(random: Random) -> list[dict[str, int]]:
    found = []
    for number in range(40):
        amounts = {"cpu": random.choice((1, 2, 4, 8)) * SCALE, "mem": random.choice((2, 4, 8, 16, 32)) * GIB}
        if number % 2:
            amounts["cuda.device"] = random.choice((1, 1, 2, 4)) * SCALE
        if number % 5 == 0:
            amounts["nvme"] = SCALE
        found.append(amounts)
    return found


def request(number: int, random: Random, some: list[dict[str, int]]) -> Request:
    user = random.randrange(300)
    return Request(f"s{number:08}", f"u{user}", f"p{user % 30}", f"d{user % 5}", random.choice((10, 10, 10, 20)), NOW - PENDING + number,
                   (random.choice(some),), random.choice((None, 3600.0, 86400.0)))


def quotas() -> list[Quota]:
    much = 1 << 50
    return [*(Quota("project", f"p{n}", what, much) for n in range(30) for what in ("cpu", "cuda.device", "sessions")),
            *(Quota("domain", f"d{n}", what, much) for n in range(5) for what in ("cpu", "mem", "sessions")),
            *(Quota("user", f"u{n}", "sessions", much) for n in range(0, 300, 10))]


def cluster(agents: int, used: float, pending: int, seed: int = 1) -> tuple[Cluster, Random, list[dict[str, int]]]:
    random = Random(seed)
    made = Cluster(KINDS)
    for number in range(agents):
        made.put_agent(agent(number, random, used))
    made.set_quotas(quotas())
    some = kinds(random)
    for number in range(pending):
        made.wait(request(number, random, some))
    return made, random, some


def once(made: Cluster) -> Plan:
    scheduler: Any = Order()
    selector: Any = Rows()
    plan = make_plan(made.freeze(NOW), scheduler, selector)
    if plan.fault is not None:
        raise plan.fault.error
    dict(plan.holds.items())  # the explain records
    return plan


def timed(run: Callable[[], object]) -> float:
    gc.collect()
    begun = time.process_time()
    run()
    return time.process_time() - begun


def rate(agents: int) -> float:
    """Return the seconds of computing for one decision, the best of three."""
    best = float("inf")
    for _ in range(3):
        made, _, _ = cluster(agents, 0.3, PENDING if agents >= 2000 else agents * 4)
        made.freeze(NOW)
        begun = time.process_time()
        placed = len(once(made).placements)
        best = min(best, (time.process_time() - begun) / placed)
    return best


def wake_ups(agents: int, count: int = 200) -> list[float]:
    """Return the seconds of each look at a full cluster when one more session has come."""
    made, random, some = cluster(agents, 1.0, PENDING)
    for number in range(agents):
        has = {"cpu": 48 * SCALE, "mem": 300 * GIB}
        made.hold(Lease(f"h{number:06}", f"u{number % 300}", f"p{number % 30}", f"d{number % 5}", 10, NOW - 100.0, (has,),
                        (f"a{number:06}",), NOW + random.randrange(100, 100_000)), counted=True)
    once(made)
    taken = []
    for number in range(count):
        new = request(PENDING + number, random, some)
        begun = time.process_time()
        made.wait(new)
        once(made)
        taken.append(time.process_time() - begun)
        made.leave(new.id)
    return taken


def gang(agents: int, kernels: int) -> float:
    made, _, some = cluster(agents, 0.3, 0)
    made.wait(Request("gang", "u0", "p0", "d0", 10, NOW, (some[1],) * kernels))
    made.freeze(NOW)
    return statistics.median(timed(lambda: once(made)) for _ in range(5))


def main() -> None:
    costs = {agents: rate(agents) for agents in (500, 5000, 15000)}
    waits = wake_ups(5000)
    rows: list[Row] = [
        bound("decisions at 5,000 agents", 1 / costs[5000], 10_000, "/s", low=False),
        bound("cost of one, 15,000 agents to 500", costs[15000] / costs[500], 3, "x"),
        bound("wake-up, 10,000 pending, p50", statistics.median(waits) * 1000, 20, "ms"),
        bound("wake-up, 10,000 pending, p99", float(np.quantile(waits, 0.99)) * 1000, 20, "ms"),
        bound("gang of 1,000 kernels, 5,000 agents", gang(5000, 1000) * 1000, 100, "ms"),
    ]
    for agents, cost in costs.items():
        print(f"  {agents} agents: {cost * 1e6:.1f} us for one decision, {1 / cost:.0f}/s")
    show("decisions: ten kinds of slots, quotas, order, selector, explain records; one core", rows)


if __name__ == "__main__":
    main()
