"""Rules that end interactive sessions which nobody uses: judged in one batch, stored, announced, and then done.

The rules themselves are pure (``judge``): the deadline of a session follows from what is known of its use, and moves when it is used.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backendai.model.group import IdleRule
from backendai.model.slots import SCALE, SlotKind, Slots, kind_of
from backendai.model.units import format_seconds
from backendai.wire.link import Usage

MOST_SAMPLES = 400  # in one window, about; more would not move a deadline by a hundredth of it
NOTICE_S = 60.0  # a session is never ended by a rule sooner than this after that was announced, if its rule warns at all


@dataclass(frozen=True, slots=True)
class Use:
    """What is known of a session's use.

    scopes: ids of its owner, project and domain. slots: of all its kernels. active_at: when somebody was last seen using it.
    limit_at: when its own time limit ends it, None for never. series: what its kernels used, oldest first.
    """

    scopes: frozenset[str]
    slots: Slots
    started_at: float
    active_at: float | None = None
    limit_at: float | None = None
    series: Sequence[Sample] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """What a session has used up to a moment. cpu_s: core seconds, growing. memory_s: byte seconds, growing. memory: bytes now.

    cpu_s is None where it cannot be measured, and so is memory. busy_s: seconds in which the devices of a slot were busy, growing.
    """

    at: float
    cpu_s: float | None
    memory_s: float
    memory: int | None
    busy_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """When a session will be ended, and why, as a sentence that is true then. warn_s: how long before it is announced."""

    at: float
    why: str
    warn_s: float


def judge(use: Use, rules: Iterable[IdleRule], now: float) -> Verdict | None:
    """Return the first end that a rule has in store for a session, None when no rule ends it as things stand."""
    found = [verdict for rule in rules if not rule.scope_id or rule.scope_id in use.scopes
             if (verdict := _apply(rule, use, now)) is not None]
    return min(found, key=lambda verdict: verdict.at, default=None)


def _apply(rule: IdleRule, use: Use, now: float) -> Verdict | None:
    least, length = use.started_at + rule.grace_s, format_seconds(rule.after_s)
    if rule.kind == "lifetime":
        return Verdict(max(least, use.started_at + rule.after_s), f"It ran for {length}, the longest that is allowed here.", rule.warn_s)
    if rule.kind == "network":
        last = max(use.started_at, use.active_at or 0.0)
        return Verdict(max(least, last + rule.after_s), f"Nobody was connected to it for {length}.", rule.warn_s)
    at = None if rule.kind != "utilization" else idle_at(use, rule, max(now, least))
    shares = " and ".join(f"{share * 100:g} % of its {name}" for name, share in rule.thresholds.items())
    return None if at is None else Verdict(at, f"It used less than {shares} over {length}.", rule.warn_s)


def idle_at(use: Use, rule: IdleRule, begin: float) -> float | None:
    """Return the first moment from *begin* on at which the means over *rule.after_s* are below every threshold.

    It assumes that nothing is computed from the last sample on and memory stays as it is: the deadline of a session that is left
    alone from now on. None: what it holds in memory is too much, or nothing that the rule names can be measured. The window must be
    covered by samples, so nothing is judged on half of one.
    """
    if not use.series:
        return None
    begin = max(begin, use.series[0].at + rule.after_s)
    end = max(begin, use.series[-1].at + rule.after_s)
    if not _is_idle(use, rule, end):
        return None
    low, high = begin, end
    if _is_idle(use, rule, low):
        return low
    while high - low > 1.0:  # second by second is finer than samples are
        middle = (low + high) / 2
        low, high = (low, middle) if _is_idle(use, rule, middle) else (middle, high)
    return high


def _is_idle(use: Use, rule: IdleRule, at: float) -> bool:
    known = False
    for name, threshold in rule.thresholds.items():
        mean = _mean(use, name, at - rule.after_s, at)
        if mean is not None:
            known = True
            if mean >= threshold:
                return False
    return known


def _mean(use: Use, name: str, begin: float, end: float) -> float | None:
    """Return the share of its slot *name* that a session used from *begin* to *end*, None when that cannot be said."""
    given = use.slots.get(name, 0)
    last = use.series[-1]
    if not given or end <= begin:
        return None
    if name in last.busy_s:
        return (_at(use.series, end, name) - _at(use.series, begin, name)) / (end - begin)
    if name not in ("cpu", "mem"):
        return None
    if kind_of(name) is SlotKind.BYTES:
        if last.memory is None:
            return None
        ahead = max(0.0, end - last.at) * last.memory
        return (last.memory_s + ahead - _at(use.series, begin, "memory_s")) / (end - begin) / given
    if last.cpu_s is None:
        return None
    return (_at(use.series, end, "cpu_s") - _at(use.series, begin, "cpu_s")) / (end - begin) / (given / SCALE)


def _at(series: Sequence[Sample], at: float, what: str) -> float:
    """Return a growing count at a moment, in between two samples by a straight line."""
    index = bisect_left(series, at, key=lambda sample: sample.at)
    if index in (0, len(series)):
        return _count(series[min(index, len(series) - 1)], what)
    before, after = series[index - 1], series[index]
    part = (at - before.at) / (after.at - before.at)
    return _count(before, what) + part * (_count(after, what) - _count(before, what))


def _count(sample: Sample, what: str) -> float:
    return float((getattr(sample, what) if what in ("cpu_s", "memory_s") else sample.busy_s.get(what)) or 0.0)


@dataclass(slots=True)
class Window:
    """The samples of one session, as far back as any rule looks."""

    samples: list[Sample] = field(default_factory=list)

    def add(self, now: float, usages: Iterable[Usage | None], longest_s: float) -> None:
        """Take in what the kernels of the session used until *now*; forget what lies further back than *longest_s*."""
        known = [usage for usage in usages if usage is not None]
        cpu = [usage.cpu_s for usage in known if usage.cpu_s is not None]
        memory = [usage.memory for usage in known if usage.memory is not None]
        last = self.samples[-1] if self.samples else None
        if last is not None and now <= last.at:
            return
        total = None if not cpu else sum(cpu)
        if last is not None and last.cpu_s is not None:
            total = max(last.cpu_s, total or 0.0)  # a kernel that has gone takes nothing back
        held = 0.0 if last is None else last.memory_s + (now - last.at) * (last.memory or 0)
        if len(self.samples) > 1 and self.samples[-1].at - self.samples[-2].at < longest_s / MOST_SAMPLES:
            self.samples.pop()  # counts grow, so nothing is lost but how they did within a step
        self.samples.append(Sample(now, total, held, sum(memory) if memory else None, self._busy(now, known)))
        while len(self.samples) > 2 and self.samples[1].at <= now - longest_s:
            self.samples.pop(0)


    def _busy(self, now: float, known: Sequence[Usage]) -> dict[str, float]:
        """Add up how long the devices were busy; what nobody measured since the last sample is taken to have been idle."""
        last = self.samples[-1] if self.samples else None
        counts = dict(last.busy_s) if last is not None else {}
        for slot in {slot for usage in known for slot in usage.devices}:
            shares = [usage.devices[slot] for usage in known if slot in usage.devices]
            passed = 0.0 if last is None else now - last.at
            counts[slot] = counts.get(slot, 0.0) + passed * sum(shares) / len(shares)
        return counts


def longest(rules: Mapping[str, Iterable[IdleRule]]) -> float:
    """Return how far back any rule looks, in seconds."""
    return max((rule.after_s for some in rules.values() for rule in some if rule.kind == "utilization"), default=0.0)
