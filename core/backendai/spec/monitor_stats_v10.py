"""Where metrics go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from backendai.spec import Arity, OnError, Spec, hook


class MetricKind(StrEnum):
    COUNTER = "counter"  # value: what was added since the last report
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measurement. name: ``backendai.sessions.started``. tags: bounded sets of values only, never ids or names of people."""

    name: str
    kind: MetricKind
    value: float
    tags: Mapping[str, str] = field(default_factory=dict)


class StatsMonitor:
    """A receiver of metrics."""

    @hook(deadline_s=5.0, on_error=OnError.IGNORE)
    async def report(self, metrics: Sequence[Metric]) -> None:
        """Take a batch of metrics, about every ten seconds."""
        raise NotImplementedError


SPEC = Spec("monitor_stats", 10, StatsMonitor, Arity.MANY)
