"""What quotas let through, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from backendai.model.slots import SCALE
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Plan, make_plan
from backendai.sokovan.snapshot import SESSIONS, Agent, Lease, Quota, Request
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve
from backendai_agentselector.concentrated import Concentrated
from backendai_scheduler.fifo import Fifo

FIFO: Any = Fifo()
SELECTOR: Any = Concentrated()


def cluster_of(*requests: Request, quotas: tuple[Quota, ...] = (), held: tuple[Lease, ...] = ()) -> Cluster:
    cluster = Cluster()
    cluster.put_agent(Agent("a", "a", {"cpu": 8 * SCALE}, {}))
    for request in requests:
        cluster.wait(request)
    cluster.set_quotas(quotas)
    for lease in held:
        cluster.hold(lease)
    return cluster


def ask(id: str, cores: int, user: str = "u", at: float = 0.0, **more: Any) -> Request:
    return Request(id, user, "p", "d", 1, at, ({"cpu": cores * SCALE},), **more)


def plan_of(*requests: Request, quotas: tuple[Quota, ...] = (), held: tuple[Lease, ...] = ()) -> Plan:
    return make_plan(cluster_of(*requests, quotas=quotas, held=held).freeze(0.0), FIFO, SELECTOR)


def test_nobody_waits_behind_one_whom_a_quota_stops() -> None:
    """Even where nobody may pass who waits for room."""
    plan = plan_of(ask("s", 3), ask("t", 1, "v", 1.0), quotas=(Quota("user", "u", "cpu", 4 * SCALE, 2 * SCALE),))
    assert [p.session for p in plan.placements] == ["t"] and plan.order == ("t",)
    assert plan.holds == {"s": "Waits for the user's quota of cpu: 2 of 4 are in use, and it needs 3."}


def test_what_is_placed_in_the_plan_counts() -> None:
    requests = [ask(f"s{n}", 1, at=float(n)) for n in range(4)]
    plan = plan_of(*requests, ask("t", 1, "v", 9.0), quotas=(Quota("user", "u", SESSIONS, 2),))
    assert [p.session for p in plan.placements] == ["s0", "s1", "t"], "its likes of another user are not held back"
    assert plan.holds["s2"] == "Waits for the user's quota of running sessions: 2 of 2 are in use, and it needs 1."


@pytest.mark.parametrize(("quota", "says"), [
    (Quota("project", "p", "cpu", 2 * SCALE), "Asks for more than the project's quota of cpu allows: 3 of at most 2."),
    (Quota("domain", "d", SESSIONS, 0), "Asks for more than the domain's quota of running sessions allows: 1 of at most 0."),
])
def test_what_exceeds_a_quota_for_ever_is_told_so(quota: Quota, says: str) -> None:
    assert plan_of(ask("s", 3), quotas=(quota,)).holds == {"s": says}


def test_of_an_array_so_many_run_at_once() -> None:
    requests = [ask(f"s{n}", 1, at=float(n), array="r") for n in range(4)]
    held = (Lease("h", "u", "p", "d", 1, 0.0, ({"cpu": SCALE},), ("a",), array="r"),)
    plan = plan_of(*requests, ask("t", 1, at=9.0), quotas=(Quota("array", "r", SESSIONS, 2),), held=held)
    assert [p.session for p in plan.placements] == ["s0", "t"]
    assert plan.holds["s3"] == "Waits for others of its array to end: at most 2 may run at once."


def test_a_quota_that_may_be_exceeded_stops_nobody() -> None:
    assert plan_of(ask("s", 3), quotas=(Quota("project", "p", "cpu", SCALE, borrow=True),)).placements


def test_one_whom_a_quota_stops_has_no_room_kept_for_it() -> None:
    class Asking:
        outcomes: list[Outcome]

        def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
            self.outcomes = []
            for waiting in view.waiting:
                self.outcomes.append((yield Attempt(waiting.id)))
            self.outcomes.append((yield Reserve(view.waiting[-1].id)))

    scheduler: Any = Asking()
    quotas = (Quota("user", "u", SESSIONS, 1),)
    plan = make_plan(cluster_of(ask("s", 1), ask("t", 1, at=1.0), quotas=quotas).freeze(0.0), scheduler, SELECTOR)
    assert scheduler.outcomes == [Outcome.PLACED, Outcome.IMPOSSIBLE, Outcome.UNKNOWN] and plan.starts == {}


def test_a_claim_counts_for_everybody_else() -> None:
    quotas = (Quota("user", "u", "cpu", 5 * SCALE, 2 * SCALE),)
    held = (Lease("victim", "v", "p", "d", 1, 0.0, ({"cpu": 8 * SCALE},), ("a",)),)
    plan = plan_of(ask("head", 2, claim=("a",)), ask("t", 2, at=1.0), quotas=quotas, held=held)
    assert plan.holds["t"] == "Waits for the user's quota of cpu: 4 of 5 are in use, and it needs 2."
    plan = plan_of(ask("head", 2, claim=("a",)), ask("t", 2, at=1.0), quotas=quotas)
    assert [p.session for p in plan.placements] == ["head"]
