"""What everybody has used, for fair sharing: seconds of the whole cluster, of which what lies a half-life back counts half."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from backendai.sokovan.snapshot import Agent, Lease
from backendai.spec.scheduler_v10 import Account

REFRESH_S = 300.0  # of virtual time, between two looks of the scheduler at what was used


class _Meter:
    """One account. It holds *rate* shares of the cluster since *since*, and had used *usage* by then."""

    __slots__ = ("rate", "since", "usage")

    def __init__(self, now: float) -> None:
        self.usage, self.rate, self.since = 0.0, 0.0, now

    def advance(self, now: float, half_life_s: float) -> float:
        """Count up to *now*: the integral of rate * 2^(-(now - t) / half-life), and what was there before, decayed."""
        kept = 0.5 ** ((now - self.since) / half_life_s)
        self.usage = self.usage * kept + self.rate * half_life_s / math.log(2) * (1 - kept)
        self.since = now
        return self.usage


class Shares:
    """The accounts of domains, projects, and users in projects. A session's share is that of its dominant slot."""

    def __init__(self, agents: Sequence[Agent], half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._total: dict[str, int] = {}
        for agent in agents:
            for slot, amount in agent.capacity.items():
                self._total[slot] = self._total.get(slot, 0) + amount
        self._meters: dict[str, _Meter] = {}

    def move(self, lease: Lease, now: float, sign: int) -> None:
        """Begin (1) or end (-1) counting a lease."""
        sums: dict[str, int] = {}
        for kernel in lease.kernels:
            for slot, amount in kernel.items():
                sums[slot] = sums.get(slot, 0) + amount
        share = max((amount / self._total[slot] for slot, amount in sums.items()), default=0.0)
        for name in {lease.domain, lease.project, f"{lease.project}/{lease.user}"}:
            meter = self._meters.get(name)
            if meter is None:
                meter = self._meters[name] = _Meter(now)
            meter.advance(max(now, meter.since), self._half_life_s)
            meter.rate = max(0.0, meter.rate + sign * share)

    def accounts(self, now: float) -> Mapping[str, Account]:
        """Return what each has used by *now*."""
        return {name: Account(usage=meter.advance(max(now, meter.since), self._half_life_s)) for name, meter in self._meters.items()}
