"""Between the store and the brain: the queue in memory, the plugins of choice, and the site's vetoes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backendai.manager import faults
from backendai.manager.context import Context
from backendai.manager.held import Held
from backendai.manager.settle import Settler
from backendai.manager.sights import Sight, labels_of
from backendai.manager.store.held import Change
from backendai.manager.store.placement import Moment, Node
from backendai.manager.store.schema import DEFAULT
from backendai.plugin.errors import Missing, PluginFault
from backendai.sokovan.cluster import take
from backendai.sokovan.plan import Fault, Plan, make_plan
from backendai.sokovan.snapshot import Request
from backendai.spec import agentselector_v10, scheduler_v10

PLAN_S = 1.0  # as the contract of ``scheduler`` says


@dataclass(frozen=True, slots=True)
class Proposal:
    """What should be committed. placed: sessions, each with the agents of its kernels. refused: reasons by session, which then fails."""

    placed: tuple[tuple[Held, tuple[str, ...]], ...] = ()
    holds: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class Planner:
    """Knows who waits, so that each look reads only what is new."""

    def __init__(self, context: Context, settler: Settler) -> None:
        self._context = context
        self._settler = settler
        self._queue: dict[str, tuple[Held, Request]] = {}
        self._last_used: dict[str, int] = {}
        self._number = 0
        self._nodes: Sequence[Node] = ()
        context.sights.source = self.sight

    def knows(self, id: str) -> bool:
        """Tell whether a waiting session was read already."""
        return id in self._queue

    def hold_of(self, id: str) -> str:
        """Return why a session waits, as it was last written."""
        return self._queue[id][0].hold

    def forget(self) -> None:
        """Begin anew."""
        self._queue.clear()

    def refresh(self, moment: Moment) -> None:
        """Take in who came, and drop who no longer waits."""
        self._nodes = moment.nodes
        fresh = {held.id: (held, _request(held)) for held in moment.fresh}
        self._queue = {id: known for id in moment.waiting if (known := self._queue.get(id) or fresh.get(id)) is not None}

    def placed(self, changes: Sequence[Change]) -> None:
        """Follow what was committed."""
        now = self._context.clock()
        for before, after in changes:
            self._queue.pop(before.id, None)
            for kernel in after.holding:
                self._number += 1
                self._last_used[str(kernel.agent)] = self._number
            if after.holds:
                self._context.metrics.scheduling.observe(max(0.0, now - before.created_at))

    def said(self, holds: Mapping[str, str]) -> None:
        """Remember which holds were written."""
        for id, said in holds.items():
            if (known := self._queue.get(id)) is not None:
                self._queue[id] = (replace(known[0], hold=said), known[1])

    async def propose(self, nodes: Sequence[Node]) -> Proposal:
        """Plan until no plugin objects any more. An objection leaves room, so the others are planned again without that session."""
        vetoed: dict[str, str] = {}
        refused: dict[str, str] = {}
        allowed: set[tuple[str, tuple[str, ...]]] = set()
        names = {node.agent.id: node.agent.name for node in nodes}
        notices = self._settler.notices
        while True:
            plan = self._plan(nodes, vetoed.keys() | refused.keys())
            asked = {p.session: p.agents for p in plan.placements if (p.session, p.agents) not in allowed}
            told = {id: [names[agent] for agent in agents] for id, agents in asked.items()}
            no = await notices.ask("predicate", told)
            vetoed |= no
            never = await notices.ask("pre_start_session", {id: agents for id, agents in told.items() if id not in no})
            refused |= never
            if not no and not never:
                break
            allowed |= {(id, agents) for id, agents in asked.items() if id not in no and id not in never}
        return Proposal(tuple((self._queue[p.session][0], p.agents) for p in plan.placements), {**plan.holds, **vetoed}, refused)

    def _plan(self, nodes: Sequence[Node], without: set[str]) -> Plan:
        try:
            sight = self.sight(DEFAULT, nodes, without)
        except Missing as error:
            said = f"{error}; ask your administrator to look at `bai plugin ls`."
            return Plan(holds={id: said for id in self._queue if id not in without})
        until = time.monotonic() + PLAN_S
        plan = make_plan(sight.snapshot, sight.scheduler, sight.selector, lambda: time.monotonic() > until)
        if plan.fault is not None:
            self._blame(plan.fault)
        return plan

    def sight(self, group: str, nodes: Sequence[Node] | None = None, without: Collection[str] = ()) -> Sight:
        """Freeze the queue and the cluster as they are now; raise ``Missing`` when a plugin of choice is not there."""
        host, config, leases = self._context.host, self._context.config, self._settler.leases
        scheduler = host.one(scheduler_v10.SPEC, config.scheduler)
        selector = host.one(agentselector_v10.SPEC, config.selector)
        waiting = [request for held, request in self._queue.values() if held.id not in without]
        agents = [replace(node.agent, kernels=leases.counts[node.agent.id], last_used=self._last_used.get(node.agent.id, 0))
                  for node in (self._nodes if nodes is None else nodes) if node.connected]
        snapshot = take(self._context.clock(), waiting, agents, tuple(leases.by_session.values()))
        return Sight(group, snapshot, scheduler, selector, labels_of(host, config.scheduler, config.selector))

    def _blame(self, fault: Fault) -> None:
        """Count a fault that the host could not see, as it came while the plugin was being iterated."""
        if isinstance(fault.error, PluginFault):
            return
        spec, name = ((scheduler_v10.SPEC, self._context.config.scheduler) if fault.spec == "scheduler"
                      else (agentselector_v10.SPEC, self._context.config.selector))
        id = f"{spec.id}.{name}"
        dist = next((f"{row.dist} {row.version}" for row in self._context.host.rows if row.id == id), "")
        error = PluginFault(id, dist, fault.hook, f"{type(fault.error).__name__}: {fault.error}")
        error.__cause__ = fault.error
        faults.plugin_fault(self._context, error)


def _request(held: Held) -> Request:
    return Request(held.id, held.owner_id, held.project_id, held.domain_id, held.priority, held.created_at,
                   tuple(kernel.amounts for kernel in held.kernels), held.asked.time_limit_s)
