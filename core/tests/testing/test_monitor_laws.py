"""Each law of a monitor catches the monitor that breaks it, and no other law does."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from backendai.spec import hookimpl
from backendai.spec.monitor_error_v10 import ErrorReport
from backendai.spec.monitor_stats_v10 import Metric, MetricKind

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

STATS, ERROR = "monitor_stats_v10", "monitor_error_v10"


class Stats:
    """Write lines as a simple receiver takes them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.busy = False
        self.batches = 0

    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        await asyncio.sleep(0)
        self.lines += [f"{m.name}:{m.value}|{'c' if m.kind is MetricKind.COUNTER else 'g'}" for m in metrics]


class NoGauges(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        if any(m.kind is MetricKind.GAUGE and m.tags for m in metrics):
            raise TypeError("gauges are not known")


class NotEmpty(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        metrics[0]


class Ascii(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            str(dict(metric.tags)).encode("ascii")


class Whole(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            math.floor(metric.value)


class Small(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        if len(metrics) > 1000:
            raise OSError("message too long")


class Once(Stats):
    """Lose the connection after the first batch, unless the next comes at once."""

    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        self.batches += 1
        await asyncio.sleep(0)
        if self.batches == 3:
            raise OSError("connection reset")


class Single(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        if self.busy:
            raise RuntimeError("still sending")
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False


class Taker(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        if isinstance(metrics, list):
            metrics.clear()


class Blocker(Stats):
    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        if not self.busy:
            time.sleep(0.25)  # noqa: ASYNC251 - the crime
        self.busy = True


class Errors:
    """Write one line for each error."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.busy = False

    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        await asyncio.sleep(0)
        self.lines.append(f"{report.message} {report.error!r} {dict(report.context)}")


class Contextual(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if report.error is None and not report.context:
            raise KeyError("session")


class Causeless(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if report.error is not None and report.error.__cause__ is not None:
            raise TypeError("a cause")


class Traced(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if isinstance(report.error, Exception):
            assert report.error.__traceback__ is not None


class Obedient(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if report.error is not None and not isinstance(report.error, Exception):
            raise report.error


class Strict(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        report.message.encode()


class Stripper(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if report.error is not None:
            report.error.args = ()


class SingleErrors(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if self.busy:
            raise RuntimeError("still sending")
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False


class BlockingErrors(Errors):
    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        if not self.busy:
            time.sleep(0.25)  # noqa: ASYNC251 - the crime
        self.busy = True


STATS_MUTANTS = broken.general(STATS, Stats) | {
    "test_it_takes_metrics": NoGauges,
    "test_it_takes_nothing": NotEmpty,
    "test_it_takes_odd_text": Ascii,
    "test_it_takes_odd_numbers": Whole,
    "test_it_takes_many": Small,
    "test_it_takes_batch_after_batch": Once,
    "test_it_takes_several_at_once": Single,
    "test_it_leaves_metrics_alone": Taker,
    "test_it_lets_others_run": Blocker,
}
ERROR_MUTANTS = broken.general(ERROR, Errors) | {
    "test_it_takes_a_message": Contextual,
    "test_it_takes_an_error": Causeless,
    "test_it_takes_an_error_never_raised": Traced,
    "test_it_takes_exits": Obedient,
    "test_it_takes_odd_text": Strict,
    "test_it_leaves_the_report_alone": Stripper,
    "test_it_takes_several_at_once": SingleErrors,
    "test_it_lets_others_run": BlockingErrors,
}


@pytest.mark.parametrize(("law", "mutant"), broken.cases(STATS, STATS_MUTANTS))
def test_a_law_of_metrics_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(STATS, law, mutant, still_s=0.2 if mutant is Blocker else None)


@pytest.mark.parametrize(("law", "mutant"), broken.cases(ERROR, ERROR_MUTANTS))
def test_a_law_of_errors_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(ERROR, law, mutant, still_s=0.2 if mutant is BlockingErrors else None)


def test_good_ones_hold_all() -> None:
    broken.holds_all(STATS, Stats)
    broken.holds_all(ERROR, Errors)
