"""What the manager counts, for Prometheus and for monitor plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.admission import name_lines, plain_quota
from backendai.manager.store.quotas import ASKED, Line, read_quotas
from backendai.manager.store.schema import agent_slots, agents, sessions
from backendai.model.session import SessionState
from backendai.plugin.errors import PluginFault
from backendai.spec.monitor_stats_v10 import SPEC as STATS
from backendai.spec.monitor_stats_v10 import Metric, MetricKind

if TYPE_CHECKING:
    from backendai.manager.context import Context

REPORT_S = 10.0  # as the contract of ``monitor_stats`` says
_LONG = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
PHASES = {"PENDING": "queued", "SCHEDULED": "scheduled", "PREPARING": "preparing", "STARTING": "starting"}
_WAY = (*PHASES, "RUNNING")
_BEYOND = {state: frozenset(_WAY[at + 1:]) for at, state in enumerate(PHASES)}


class Metrics:
    """Counters of one manager, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("backendai_requests", "Operations by outcome", ["operation", "outcome"], registry=r)
        self.seconds = Histogram("backendai_request_seconds", "Time taken by operations", ["operation"], buckets=_SECONDS,
                                 registry=r)
        self.sessions = Gauge("backendai_sessions", "Sessions by state", ["state"], registry=r)
        self.agents = Gauge("backendai_agents", "Agents by state", ["state"], registry=r)
        self.faults = Counter("backendai_plugin_faults", "Failures of plugins", ["plugin", "hook"], registry=r)
        self.errors = Counter("backendai_unexpected_errors", "Errors that nobody expected", registry=r)
        self.scheduling = Histogram("backendai_scheduling_seconds", "From asking for a session to its placement", buckets=_SECONDS,
                                    registry=r)
        self.phases = Histogram("backendai_session_phase_seconds", "Time that starting sessions spent in each phase", ["phase"],
                                buckets=_LONG, registry=r)
        self.planning = Histogram("backendai_planning_seconds", "Time taken by a plan and its commit", ["group"], buckets=_SECONDS,
                                  registry=r)
        self.decisions = Counter("backendai_decisions", "What became of sessions in plans", ["group", "outcome"], registry=r)
        self.waiting = Gauge("backendai_waiting_sessions", "Sessions in the queue", ["group"], registry=r)
        self.slots = Gauge("backendai_slots", "Cores, devices or bytes of agents", ["group", "slot", "amount"], registry=r)
        self.quotas = Gauge("backendai_quota", "Limits of owners, and what is used", ["scope", "group", "what", "amount"], registry=r)
        ProcessCollector(registry=r)
        self._since: dict[str, tuple[str, float]] = {}  # of sessions that are on their way
        self._operations: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def operation(self, name: str, outcome: str, seconds: float) -> None:
        """Count one operation."""
        if (found := self._operations.get((name, outcome))) is None:  # looking labels up costs as much as counting
            found = self._operations[name, outcome] = self.requests.labels(name, outcome), self.seconds.labels(name)
        count, histogram = found
        count.inc()
        histogram.observe(seconds)

    def moved(self, id: str, before: str, after: str, created_at: float, now: float) -> None:
        """Note that a session has changed its state."""
        state, since = self._since.pop(id, (before, created_at if before == SessionState.PENDING else None))
        if since is not None and state == before and before in PHASES and after in _BEYOND[before]:
            self.phases.labels(PHASES[before]).observe(max(0.0, now - since))
        if after in PHASES:
            self._since[id] = (after, now)

    def planned(self, group: str, seconds: float, **outcomes: int) -> None:
        """Count a plan that was committed. outcomes: how many sessions were placed, missed, refused, evicted."""
        self.planning.labels(group).observe(seconds)
        for outcome, count in outcomes.items():
            if count:
                self.decisions.labels(group, outcome).inc(count)

    def fault(self, fault: PluginFault) -> None:
        """Count a plugin's failure."""
        self.faults.labels(fault.plugin, fault.hook).inc()


async def exposition(context: Context) -> bytes:
    """Return everything in Prometheus' text format."""
    await measure(context)
    return generate_latest(context.metrics.registry)


async def measure(context: Context) -> None:
    """Bring the gauges up to date."""
    by_state = select(sessions.c.state, func.count()).group_by(sessions.c.state)
    well = agents.c.why == literal_column("''")  # PostgreSQL takes a bound value that comes twice for two different ones
    by_health = select(agents.c.connected, well, func.count()).group_by(agents.c.connected, well)

    async def job(connection: AsyncConnection) -> tuple[dict[str, int], list[tuple[bool, bool, int]]]:
        states = {row[0]: row[1] for row in await connection.execute(by_state)}
        return states, [(bool(c), bool(h), n) for c, h, n in await connection.execute(by_health)]

    states, nodes = await context.store.read(job)
    for state in SessionState:
        context.metrics.sessions.labels(state.value).set(states.get(state.value, 0))
    counts = {"healthy": 0, "unhealthy": 0, "away": 0}
    for connected, healthy, count in nodes:
        counts["away" if not connected else "healthy" if healthy else "unhealthy"] += count
    for state_name, count in counts.items():
        context.metrics.agents.labels(state_name).set(count)
    await _measure_groups(context)


async def _measure_groups(context: Context) -> None:
    """Bring what belongs to resource groups and to owners up to date; what is gone is forgotten."""
    queued = (select(sessions.c.group_id, func.count()).where(sessions.c.state == SessionState.PENDING.value)
              .group_by(sessions.c.group_id))
    sums = (select(agents.c.group_id, agent_slots.c.slot, func.sum(agent_slots.c.capacity), func.sum(agent_slots.c.used))
            .select_from(agent_slots.join(agents, agent_slots.c.agent_id == agents.c.id)).group_by(agents.c.group_id, agent_slots.c.slot))

    async def job(connection: AsyncConnection) -> tuple[list[Any], list[Any], list[tuple[Line, str, str]]]:
        lines = await read_quotas(connection)
        names = await name_lines(connection, lines)
        return (list(await connection.execute(queued)), list(await connection.execute(sums)),
                [(line, *names[line.id]) for line in lines])

    waiting, slots, lines = await context.store.read(job)
    groups = {id: group.name for id, group in (await context.groups.all(context.store)).items()}
    metrics, counts = context.metrics, dict(map(tuple, waiting))
    for gauge in (metrics.waiting, metrics.slots, metrics.quotas):
        gauge.clear()
    for id, name in groups.items():
        metrics.waiting.labels(name).set(counts.get(id, 0))
    for id, slot, capacity, used in slots:
        for amount, value in (("capacity", capacity), ("used", used)):
            metrics.slots.labels(groups.get(id, id), slot, amount).set(plain_quota(slot, int(value)))
    for line, scope, group in lines:
        metrics.quotas.labels(scope, group, line.what, "limit").set(plain_quota(line.what, line.limit))
        if line.what not in ASKED:
            metrics.quotas.labels(scope, group, line.what, "used").set(plain_quota(line.what, line.used))


async def report_for_ever(context: Context) -> None:
    """Tell the monitor plugins what has changed, every ten seconds."""
    before: dict[tuple[str, tuple[str, ...]], float] = {}
    while True:
        await asyncio.sleep(REPORT_S)
        await measure(context)
        await context.host.all(STATS).report(_collect(context, before))


def _collect(context: Context, before: dict[tuple[str, tuple[str, ...]], float]) -> Sequence[Metric]:
    """Return gauges as they are, and of counters what was added since *before*, which is brought up to date."""
    found = []
    for family in context.metrics.registry.collect():
        name = family.name.replace("_", ".", 1)
        for sample in family.samples:
            if family.type == "gauge":
                found.append(Metric(name, MetricKind.GAUGE, sample.value, dict(sample.labels)))
            elif family.type == "counter" and sample.name.endswith("_total"):
                key = (name, tuple(sample.labels.values()))
                added, before[key] = sample.value - before.get(key, 0.0), sample.value
                if added:
                    found.append(Metric(name, MetricKind.COUNTER, added, dict(sample.labels)))
    return found
