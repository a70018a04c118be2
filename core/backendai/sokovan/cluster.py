"""The mutable mirror of one resource group: it hears each event, and freezes the moment for a plan.

The manager and the simulator keep one. Each event costs the same whatever the size of the cluster; freezing copies arrays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backendai.model.group import GroupOptions
from backendai.sokovan.fleet import Fleet, vectors
from backendai.sokovan.queue import Queue
from backendai.sokovan.snapshot import SESSIONS, Agent, Array, Booking, Ends, Lease, Quota, Request, Slots, Snapshot, frozen
from backendai.spec.scheduler_v10 import Account, Holding, QueueView


class Cluster:
    """One resource group as it stands: its agents, who waits, who holds what, and the rules."""

    def __init__(self, slots: Iterable[str] = ()) -> None:
        self._fleet = Fleet()
        self._queue = Queue()
        self._leases: dict[str, Lease] = {}
        self._ids: list[str] = []  # of leases, sorted
        self._holding: list[Holding] = []  # in the same order
        self._held: tuple[tuple[Holding, ...], dict[str, Lease]] | None = None  # for snapshots, while nothing changes
        self._ending = _Ending(0)
        self._quotas: dict[tuple[str, str, str], Quota] = {}
        self._bookings: tuple[Booking, ...] = ()
        self._usage: Mapping[str, float] = {}
        self._accounts: Mapping[str, Account] = {}
        self._options = GroupOptions()
        self._given: tuple[Array | None, NDArray[np.float64] | None] | None = None
        self._number = 0
        self._slots: tuple[str, ...] = ()
        self._known(slots)

    def put_agent(self, agent: Agent) -> None:
        """Take in an agent, or what has changed of one. Its ``used`` is stated anew: what all who hold have of it together."""
        self._known(agent.capacity)
        if self._fleet.put(agent):
            for lease in self._leases.values():
                if lease.units and agent.id in lease.agents:
                    for id, units in zip(lease.agents, lease.units, strict=True):
                        if id == agent.id:
                            self._fleet.lend(id, {}, units, 1, counted=True)
                    self._ends(lease)
        self._number = max(self._number, agent.last_used)

    def drop_agent(self, id: str) -> None:
        """Forget an agent that has left."""
        self._fleet.drop(id)

    def agent(self, id: str) -> Agent:
        """Return an agent with what it has lent by now, to be changed and put back; raise ``KeyError`` for a stranger."""
        return self._fleet.now(id)

    def wait(self, request: Request) -> None:
        """Let a session wait; one that waits already is taken in anew."""
        for kernel in request.kernels:
            self._known(kernel)
        self.leave(request.id)
        self._queue.add(request)

    def leave(self, id: str) -> None:
        """Let a session wait no more."""
        if (request := self._queue.remove(id)) is not None:
            self._fleet.freed(request.claim)

    def hold(self, lease: Lease, counted: bool = False) -> None:
        """Give a session what it holds from now on; it waits no more. counted: its agents' ``used`` and ``kernels`` have it already."""
        self.release(lease.id)
        self.leave(lease.id)
        at = bisect_left(self._ids, lease.id)
        kernels = vectors(lease.kernels, self._slots)
        self._ids.insert(at, lease.id)
        self._holding.insert(at, _holding(lease, kernels))
        self._leases[lease.id] = lease
        self._held = None
        if not counted:
            self._number += 1
        self._lend(lease, 1, counted)
        self._ends(lease)

    def release(self, id: str) -> None:
        """Take back what a session held."""
        if (known := self._leases.pop(id, None)) is None:
            return
        at = bisect_left(self._ids, id)
        del self._ids[at], self._holding[at]
        self._held = None
        self._lend(known, -1, False)
        self._ending.remove(id)

    def set_quotas(self, quotas: Iterable[Quota]) -> None:
        """State the quotas anew, with what is used of them by all who hold; ``hold`` and ``release`` move that."""
        self._quotas = dict(sorted(((quota.scope, quota.scope_id, quota.what), quota) for quota in quotas))

    def set_bookings(self, bookings: Iterable[Booking]) -> None:
        """State the advance reservations anew."""
        self._bookings = tuple(sorted(bookings, key=lambda booking: (booking.begins, booking.id)))
        for booking in self._bookings:
            for amounts in booking.agents.values():
                self._known(amounts)

    def set_accounts(self, accounts: Mapping[str, Account], usage: Mapping[str, float] | None = None) -> None:
        """State weights and past usage anew, as fair sharing sees them."""
        self._accounts, self._usage = dict(accounts), dict(usage or {})

    def set_options(self, options: GroupOptions) -> None:
        """State the group's options anew."""
        self._options = options

    def set_mix(self, mix: Sequence[tuple[Slots, float]]) -> None:
        """Tell what is typically asked for, instead of learning it from who waits."""
        for amounts, _ in mix:
            self._known(amounts)
        table = np.array([[amounts.get(name, 0) for name in self._slots] for amounts, _ in mix], dtype=np.int64)
        weights = np.array([weight for _, weight in mix], dtype=np.float64)
        self._given = (frozen(table.reshape(len(mix), len(self._slots))), weights / weights.sum()) if mix else None

    def freeze(self, now: float, lent: bool = False) -> Snapshot:
        """Return this moment. Waiting sessions are in the order of asking, agents and holders of ids, slots of names.

        lent: who waits is not copied, for whoever is done with the snapshot before the next event.
        """
        fleet, queue = self._fleet, self._queue
        agents = fleet.freeze()
        if self._held is None:
            self._held = tuple(self._holding), self._leases.copy()
        holding, leases = self._held
        view = QueueView(
            now=now, slots=self._slots, waiting=tuple(queue.views), holding=holding, nodes=agents.nodes,
            usage=self._usage, total=fleet.total, accounts=self._accounts)
        mix, weights = self._given or queue.mix()
        return Snapshot(
            view=view, rows=fleet.rows, names=fleet.names, capacity=fleet.capacity, free=agents.free, kernels=agents.kernels,
            last_used=agents.last_used, idle=fleet.idle, labels=fleet.labels,
            devices=agents.devices, device_names=fleet.device_names,
            device_capacity=fleet.device_capacity, waiting=queue.waiting if lent else queue.waiting.copy(),
            requests=queue.requests if lent else queue.requests.copy(),
            claims=queue.claims, booked=queue.booked, leases=leases,
            ends=self._ending.freeze(fleet.number_rows), freed=len(fleet.memory.freed), changed=len(fleet.memory.changed),
            memory=fleet.memory, agents=fleet.known(), asked=queue.asked(),
            quotas=tuple(self._quotas.values()), bookings=self._bookings, options=self._options, mix=mix, weights=weights)

    def _lend(self, lease: Lease, sign: int, counted: bool) -> None:
        units = lease.units or ({},) * len(lease.agents)
        number = self._number if sign > 0 and not counted else 0
        for agent, amounts, devices in zip(lease.agents, lease.kernels, units, strict=True):
            self._fleet.lend(agent, amounts, devices, sign, number, counted)
        if self._quotas and not counted:
            for key, amount in needs(lease, lease.kernels):
                if (quota := self._quotas.get(key)) is not None:
                    self._quotas[key] = Quota(*key, quota.limit, quota.used + sign * amount, quota.borrow)

    def _ends(self, lease: Lease) -> None:
        """Note when a session ends, if that is known."""
        self._ending.remove(lease.id)
        if lease.ends_by is not None:
            self._ending.add(lease, vectors(lease.kernels, self._slots), self._fleet.number, self._slots, self._fleet.agents)

    def _known(self, names: Iterable[str]) -> None:
        """Make sure that there is a column for each slot."""
        if any(name not in self._slots for name in names):
            self._slots = tuple(sorted({*self._slots, *names}))
            self._fleet.widen(self._slots)
            self._queue.widen(self._slots)
            self._holding = [_holding(lease, vectors(lease.kernels, self._slots)) for lease in map(self._leases.__getitem__, self._ids)]
            self._given = self._held = None
            self._ending = _Ending(len(self._slots))
            for lease in self._leases.values():
                self._ends(lease)


def needs(who: Request | Lease, kernels: Sequence[Slots]) -> list[tuple[tuple[str, str, str], int]]:
    """Return what a session counts for: the key of each quota that there may be, and the amount."""
    sums: dict[str, int] = {SESSIONS: 1}
    for kernel in kernels:
        for slot, amount in kernel.items():
            sums[slot] = sums.get(slot, 0) + amount
    scopes = (("user", who.user), ("project", who.project), ("domain", who.domain), ("array", who.array))
    return [((scope, id, what), amount) for scope, id in scopes if id for what, amount in sums.items()]


def take(now: float, waiting: Sequence[Request], agents: Sequence[Agent], holding: Sequence[Lease] = ()) -> Snapshot:
    """Freeze a moment that is told at once. What *holding* has is in the agents' ``used`` already."""
    cluster = Cluster()
    for agent in agents:
        cluster.put_agent(agent)
    for request in waiting:
        cluster.wait(request)
    for lease in holding:
        cluster.hold(lease, counted=True)
    return cluster.freeze(now)


def _holding(lease: Lease, kernels: tuple[tuple[int, ...], ...]) -> Holding:
    return Holding(lease.id, lease.user, lease.project, lease.priority, lease.started_at, kernels, lease.agents, lease.ends_by,
                   lease.domain)


class _Ending:
    """Held kernels whose end is known, as columns; who goes is replaced by the last."""

    def __init__(self, width: int) -> None:
        self._count = 0
        self._owner: list[str] = []
        self._units: list[tuple[tuple[int, int, int], ...]] = []
        self._places: dict[str, set[int]] = {}
        self._number: Array = np.zeros(16, dtype=np.int64)
        self._at: NDArray[np.float64] = np.zeros(16)
        self._amounts: Array = np.zeros((16, width), dtype=np.int64)

    def add(self, lease: Lease, kernels: Sequence[tuple[int, ...]], number: Callable[[str], int], slots: tuple[str, ...],
            agents: Mapping[str, Agent]) -> None:
        """Note when the kernels of a lease end."""
        units = lease.units or ({},) * len(kernels)
        for agent, kernel, devices in zip(lease.agents, kernels, units, strict=True):
            if (at := self._count) == len(self._at):
                self._number = np.concatenate((self._number, self._number))
                self._at = np.concatenate((self._at, self._at))
                self._amounts = np.concatenate((self._amounts, self._amounts))
            self._count += 1
            self._owner.append(lease.id)
            self._units.append(_indices(devices, agents.get(agent), slots))
            self._places.setdefault(lease.id, set()).add(at)
            self._number[at], self._at[at], self._amounts[at] = number(agent), lease.ends_by, kernel

    def remove(self, id: str) -> None:
        """Forget a session's kernels."""
        for at in sorted(self._places.pop(id, ()), reverse=True):
            self._count -= 1
            last, owner, units = self._count, self._owner.pop(), self._units.pop()
            if at != last:
                self._owner[at], self._units[at] = owner, units
                self._number[at], self._at[at], self._amounts[at] = self._number[last], self._at[last], self._amounts[last]
                self._places[owner].discard(last)
                self._places[owner].add(at)

    def freeze(self, rows: Array) -> Ends:
        """Return the columns, of the agents that have a row."""
        row = rows[self._number[:self._count]]
        there = row >= 0
        at = self._at[:self._count][there]
        at.setflags(write=False)
        units = tuple([units for units, ok in zip(self._units, there.tolist(), strict=True) if ok]) if any(self._units) else ()
        return Ends(frozen(row[there]), at, frozen(self._amounts[:self._count][there]), units)


def _indices(units: Mapping[str, Mapping[str, int]], agent: Agent | None, slots: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    found = []
    for slot, devices in units.items():
        names = sorted(agent.devices.get(slot, {})) if agent is not None else []
        found += [(slots.index(slot), names.index(device), amount) for device, amount in devices.items() if device in names]
    return tuple(found)
