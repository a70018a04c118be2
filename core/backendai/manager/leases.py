"""What is held right now, in memory: a mirror of the kernels' table that every commit of ours keeps true."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from backendai.manager.held import Held, Kernel
from backendai.manager.store.held import Change
from backendai.model.session import SessionState
from backendai.sokovan.snapshot import Lease


class Leases:
    """Sessions that hold capacity, by session and by kernel."""

    def __init__(self) -> None:
        self.by_session: dict[str, Lease] = {}
        self.by_kernel: dict[str, str] = {}  # to the session's id
        self.counts: Counter[str] = Counter()  # containers by agent
        self.used: defaultdict[str, Counter[str]] = defaultdict(Counter)  # amounts by agent and slot
        self.arrays: Counter[str] = Counter()  # sessions by array
        self.booked: dict[str, float] = {}  # when reservations end, by id
        self.nets: dict[str, str] = {}  # plans of networks between nodes, by session, as text

    def load(self, held: Iterable[Held]) -> None:
        """Begin anew with what the database says."""
        self.by_session, self.by_kernel, self.counts = {}, {}, Counter()
        self.used.clear()
        self.arrays.clear()
        self.nets.clear()
        for one in held:
            self._add(one)

    def note(self, changes: Iterable[Change]) -> None:
        """Follow what was committed."""
        for before, after in changes:
            if before.kernels == after.kernels and before.started_at == after.started_at:
                continue
            for kernel in before.holding:
                if self.by_kernel.pop(kernel.id, None) is not None:
                    self._count(kernel, -1)
            if self.by_session.pop(before.id, None) is not None:
                self.arrays[before.array_id or ""] -= 1
                self.nets.pop(before.id, None)
            if after.holds:
                self._add(after)

    def _add(self, held: Held) -> None:
        self.by_session[held.id] = lease_of(held, self.booked)
        self.arrays[held.array_id or ""] += 1
        if held.net:
            self.nets[held.id] = held.net
        for kernel in held.holding:
            self.by_kernel[kernel.id] = held.id
            self._count(kernel, 1)

    def _count(self, kernel: Kernel, sign: int) -> None:
        agent = str(kernel.agent)
        self.counts[agent] += sign
        for name, amount in kernel.amounts.items():
            self.used[agent][name] += sign * amount


def lease_of(held: Held, booked: Mapping[str, float]) -> Lease:
    """Return what a session holds, as the brain sees it. booked: when reservations end."""
    limit = held.asked.time_limit_s
    ends_by = None if limit is None or held.started_at is None else held.started_at + limit
    if (over := booked.get(held.asked.booking or "")) is not None:
        ends_by = over if ends_by is None else min(ends_by, over)
    holding = tuple(held.holding)
    spec = held.asked
    return Lease(
        held.id, held.owner_id, held.project_id, held.domain_id, held.priority, held.started_at or held.created_at,
        tuple(kernel.amounts for kernel in holding), tuple(str(kernel.agent) for kernel in holding), ends_by,
        preemptible=spec.evicted is not None, units=tuple(kernel.devices for kernel in holding), booking=spec.booking or "",
        array=held.array_id or "")


def is_under_way(held: Held) -> bool:
    """Tell whether a session is still on its way to running, so that its progress is worth showing."""
    return held.state in (SessionState.SCHEDULED, SessionState.PREPARING, SessionState.STARTING)
