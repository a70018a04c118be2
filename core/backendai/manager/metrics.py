"""What the manager counts, for Prometheus and for monitor plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.schema import agents, sessions
from backendai.model.session import SessionState
from backendai.plugin.errors import PluginFault
from backendai.spec.monitor_stats_v10 import SPEC as STATS
from backendai.spec.monitor_stats_v10 import Metric, MetricKind

if TYPE_CHECKING:
    from backendai.manager.context import Context

REPORT_S = 10.0  # as the contract of ``monitor_stats`` says
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


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
        ProcessCollector(registry=r)
        self._operations: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def operation(self, name: str, outcome: str, seconds: float) -> None:
        """Count one operation."""
        if (found := self._operations.get((name, outcome))) is None:  # looking labels up costs as much as counting
            found = self._operations[name, outcome] = self.requests.labels(name, outcome), self.seconds.labels(name)
        count, histogram = found
        count.inc()
        histogram.observe(seconds)

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
    by_health = select(agents.c.connected, agents.c.why == "", func.count()).group_by(agents.c.connected, agents.c.why == "")

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
