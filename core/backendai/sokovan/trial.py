"""What would be if: a frozen moment, thawed, with one thing changed and planned again by the same plugins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from backendai.sokovan.cluster import Cluster
from backendai.sokovan.plan import Placement, Plan, make_plan
from backendai.sokovan.snapshot import Agent, Request, Snapshot
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Scheduler


def agents_of(snapshot: Snapshot) -> list[Agent]:
    """Return the agents of *snapshot* with what they have lent at that moment."""
    view, found = snapshot.view, []
    rows = {node.id: row for row, node in enumerate(view.nodes)}
    held: dict[str, Counter[str]] = {}
    for lease in snapshot.leases.values():
        for id, kernel in zip(lease.agents, lease.kernels, strict=True):
            held.setdefault(id, Counter()).update(kernel)
    for agent in snapshot.agents:
        used = dict(held.get(agent.id, {}))
        if (row := rows.get(agent.id)) is not None:  # it may have lent more than the sessions that are known here
            for slot, capacity, free in zip(view.slots, snapshot.capacity[row].tolist(), snapshot.free[row].tolist(), strict=True):
                used[slot] = max(used.get(slot, 0), capacity - free)
            agent = replace(agent, kernels=int(snapshot.kernels[row]), last_used=int(snapshot.last_used[row]))
        found.append(replace(agent, used={slot: amount for slot, amount in used.items() if amount}))
    return found


def thaw(snapshot: Snapshot) -> Cluster:
    """Return a mirror that stands as *snapshot* does, to be changed."""
    view = snapshot.view
    cluster = Cluster(view.slots)
    for agent in agents_of(snapshot):
        cluster.put_agent(agent)
    for lease in snapshot.leases.values():
        cluster.hold(lease, counted=True)
    for request in snapshot.requests.values():
        cluster.wait(request)
    cluster.set_quotas(snapshot.quotas)
    cluster.set_bookings(snapshot.bookings)
    cluster.set_accounts(view.accounts, view.usage)
    cluster.set_options(snapshot.options)
    if snapshot.mix is not None and snapshot.weights is not None:
        mix = [dict(zip(view.slots, row, strict=True)) for row in snapshot.mix.tolist()]
        cluster.set_mix(list(zip(mix, snapshot.weights.tolist(), strict=True)))
    return cluster


class Trial:
    """One moment and its plugins, to try things on. late: tells that there is no more time; then nothing more is tried."""

    def __init__(self, snapshot: Snapshot, scheduler: Scheduler, selector: AgentSelector, late: Callable[[], bool] = lambda: False) -> None:
        self.snapshot = snapshot
        self.scheduler = scheduler
        self._selector = selector
        self._cluster: Cluster | None = None  # as the snapshot stands, between one trial and the next
        self.late = late

    def plan(self, request: Request | None = None, without: Iterable[str] = (), bookings: bool = True) -> tuple[Snapshot, Plan]:
        """Plan this moment again. request: waits, too, or in place of its namesake. without: sessions that hold nothing any more.

        bookings: whether advance reservations stand.
        """
        cluster = self._cluster = self._cluster or thaw(self.snapshot)
        gone = [self.snapshot.leases[id] for id in without]
        before = [cluster.agent(id) for id in dict.fromkeys(agent for lease in gone for agent in lease.agents)]
        for lease in gone:
            cluster.release(lease.id)
        if request is not None:
            cluster.wait(request)
        if not bookings:
            cluster.set_bookings(())
        moment = cluster.freeze(self.snapshot.view.now)
        if request is not None:
            cluster.leave(request.id)
            if self.snapshot.requests.get(request.id, request).claim:
                moment = replace(moment, memory=None)  # what was kept for it is free now, and no plan before could know
            if (known := self.snapshot.requests.get(request.id)) is not None:
                cluster.wait(known)
        for lease in gone:
            cluster.hold(lease)
        for agent in before:  # with the number of its last placement, too
            cluster.put_agent(agent)
        if not bookings:
            cluster.set_bookings(self.snapshot.bookings)
        return moment, make_plan(moment, self.scheduler, self._selector, self.late)

    def start(self, request: Request, without: Iterable[str] = (), bookings: bool = True) -> Placement | None:
        """Return where a session would start now, None when it would not, or there is no time to find out."""
        if self.late():
            return None
        _, plan = self.plan(request, without, bookings)
        return next((placement for placement in plan.placements if placement.session == request.id), None)
