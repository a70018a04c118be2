"""The laws of a receiver of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from backendai.spec.monitor_stats_v10 import SPEC, Metric, MetricKind, StatsMonitor
from backendai.testing.laws import Conformance, Weight, law
from backendai.testing.waiting import STILL_S, at_once, leaves_alone, lets_others_run

MANY = 10_000


class StatsMonitorConformance(Conformance[StatsMonitor]):
    """What a receiver of metrics keeps to. It is tried as its options say, so give it a receiver that may be written to.

    still_s: seconds that the process may stand still.
    """

    spec = SPEC
    still_s: float = STILL_S

    @law()
    async def test_it_takes_metrics(self, monitor: StatsMonitor) -> None:
        """It takes a batch of counters and gauges, with tags and without."""
        await monitor.report(make_metrics())

    @law()
    async def test_it_takes_nothing(self, monitor: StatsMonitor) -> None:
        """It takes an empty batch."""
        await monitor.report(())

    @law()
    async def test_it_takes_odd_text(self, monitor: StatsMonitor) -> None:
        """It takes tags in any script, empty ones, and ones with the separators of its own protocol."""
        tags = {"group": "대학원 | a:b,c=d#e\n", "state": ""}
        await monitor.report([Metric("backendai.sessions.started", MetricKind.COUNTER, 1.0, tags)])

    @law()
    async def test_it_takes_odd_numbers(self, monitor: StatsMonitor) -> None:
        """It takes zero, negative, huge and infinite values and what is not a number."""
        values = (0.0, -1.0, 1e308, 5e-324, math.inf, -math.inf, math.nan)
        await monitor.report([Metric("backendai.load", MetricKind.GAUGE, value) for value in values])

    @law()
    async def test_it_takes_many(self, monitor: StatsMonitor) -> None:
        """It takes ten thousand metrics within the hook's deadline."""
        await monitor.report(make_counters(MANY))

    @law()
    async def test_it_takes_batch_after_batch(self, monitor: StatsMonitor) -> None:
        """It takes one batch after the other."""
        for _ in range(3):
            await monitor.report(make_counters())

    @law(Weight.RECOMMENDED)
    async def test_it_takes_several_at_once(self, monitor: StatsMonitor) -> None:
        """It takes a batch while it still sends another."""
        await at_once(lambda: monitor.report(make_counters()))

    @law()
    async def test_it_leaves_metrics_alone(self, monitor: StatsMonitor) -> None:
        """It changes nothing in the batch, which others get too."""
        await leaves_alone(make_counters(), monitor.report)

    @law(Weight.RECOMMENDED)
    async def test_it_lets_others_run(self, monitor: StatsMonitor) -> None:
        """While it sends, the platform goes on: it blocks nobody."""
        await lets_others_run(lambda: monitor.report(make_counters()), self.still_s)


def make_metrics() -> Sequence[Metric]:
    """Make a batch of everything that there is."""
    return [Metric("backendai.sessions.waiting", kind, 3.0, tags) for kind in MetricKind for tags in ({}, {"group": "default"})]


def make_counters(count: int = 4) -> Sequence[Metric]:
    """Make a batch of the simplest kind."""
    return [Metric("backendai.sessions.started", MetricKind.COUNTER, float(number)) for number in range(count)]
