"""Every resource group in memory, kept true by what is committed, so that a look reads only what is new.

The database's ledger stays the only truth: what is planned from this is checked again where it is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush

import msgspec

from backendai.manager.held import Held
from backendai.manager.leases import Leases, lease_of
from backendai.manager.store.groups import Group
from backendai.manager.store.held import Change
from backendai.manager.store.placement import Node
from backendai.manager.store.quotas import Line, for_group
from backendai.model.session import SessionState
from backendai.sokovan.cluster import Cluster
from backendai.sokovan.snapshot import SESSIONS, Booking, Quota, Request
from backendai.spec.scheduler_v10 import Account

_claim_decoder = msgspec.json.Decoder(tuple[str, ...])


class Side:
    """One resource group: its mirror, and who waits there.

    aside: those that wait for a time or for other sessions, which no plan is to see. said: why each waits, as it was written last.
    bell: rung when a new plan may find something.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.cluster = Cluster()
        self.waiting: dict[str, Held] = {}
        self.aside: set[str] = set()
        self.ready: set[str] = set()  # those aside who may be let in, as far as was heard of them
        self.times: list[tuple[float, str]] = []  # a heap of when those aside may be let in
        self.said: dict[str, str] = {}
        self.unsaid: set[str] = set()  # those of whom nothing was written yet
        self.claimed: set[str] = set()  # those for whom room is kept
        self.arrays: dict[str, int] = {}  # how many of an array may run at once
        self.bell = asyncio.Event()
        self.cluster.set_options(group.options)

    def put_aside(self, id: str) -> None:
        """Keep a session from the plan until the next round lets it in."""
        self.cluster.leave(id)
        self.aside.add(id)
        self.ready.add(id)

    def leave(self, id: str) -> None:
        """Let a session wait no more."""
        if self.waiting.pop(id, None) is not None:
            self.aside.discard(id)
            self.ready.discard(id)
            self.claimed.discard(id)
            self.said.pop(id, None)
            self.unsaid.discard(id)
            self.cluster.leave(id)


class Mirror:
    """All groups, agents and waiting sessions that there are."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.sides: dict[str, Side] = {}
        self.nodes: dict[str, Node] = {}
        self.draining: set[str] = set()  # agents
        self._unmet: dict[str, int] = {}  # dependencies that are not met, by session
        self._groups: dict[str, str] = {}  # of sessions that wait
        self.released: set[str] = set()  # of whom a dependency was met since somebody looked at that: what was read before is old
        self._lines: tuple[Line, ...] = ()
        self.together: dict[str, str] = {}  # whose kernels must be on one agent, and why no network could be made between several

    @property
    def has_quotas(self) -> bool:
        """Tell whether there is any quota, so that it is worth reading them again."""
        return bool(self._lines)

    def forget(self) -> None:
        """Begin anew."""
        self.sides.clear()
        self.nodes.clear()
        self.draining.clear()
        self._unmet.clear()
        self._groups.clear()
        self.released.clear()

    def waits(self) -> set[str]:
        """Return the ids of all who wait."""
        return set(self._groups)

    def set_groups(self, groups: Mapping[str, Group]) -> None:
        """Take in which groups there are, and what their operators chose."""
        for id in self.sides.keys() - groups.keys():
            for session in list(self.sides.pop(id).waiting):
                self._groups.pop(session, None)
        for id, group in groups.items():
            if (side := self.sides.get(id)) is None:
                self.sides[id] = Side(group)
                self.sides[id].bell.set()
            elif side.group != group:
                side.group = group
                side.cluster.set_options(group.options)
                side.bell.set()

    def reload(self, held: Sequence[Held]) -> None:
        """Take in anew what is held. held: as the leases were loaded with."""
        for side in self.sides.values():
            fresh = Cluster()
            fresh.set_options(side.group.options)
            side.cluster = fresh
            side.bell.set()
            for id, one in side.waiting.items():
                if id not in side.aside:
                    fresh.wait(request_of(one, id in self.together))
        for node in self.nodes.values():
            self._put(node)
        for one in held:
            if (found := self.sides.get(one.group_id)) is not None:
                found.cluster.hold(lease_of(one, self._leases.booked), counted=True)

    def put_nodes(self, nodes: Iterable[Node]) -> None:
        """Take in agents as they are now."""
        for node in nodes:
            (self.draining.add if node.draining else self.draining.discard)(node.agent.id)
            before = self.nodes.get(node.agent.id)
            if before == node:
                continue
            if before is None or before.address != node.address:
                self.together.clear()  # there may be a way now
            if before is not None and (before.group_id != node.group_id or not node.connected):
                self._drop(before)
            self.nodes[node.agent.id] = node
            self._put(node)

    def drop_nodes(self, ids: Iterable[str]) -> None:
        """Forget agents that are no more."""
        for id in ids:
            self.draining.discard(id)
            if (node := self.nodes.pop(id, None)) is not None:
                self._drop(node)

    def take_in(self, entered: Sequence[tuple[Held, int]]) -> set[str]:
        """Take in sessions that were written a moment ago, each with how many others it waits for; return those that must be read."""
        released, self.released = self.released, set()
        for held, unmet in entered:
            if held.id not in self._groups and held.id not in released:
                self._unmet[held.id] = unmet
                self._wait(held)
        return {held.id for held, _ in entered} & released

    def enter(self, asked: Iterable[str], found: Iterable[Held], unmet: Mapping[str, int]) -> None:
        """Take in who waits of those that were *asked* for. found: them as they are now. unmet: how many others each waits for."""
        waiting = [held for held in found if held.state == SessionState.PENDING and not held.stop]
        self.leave(set(asked) - {held.id for held in waiting})
        for held in waiting:
            self._unmet[held.id] = unmet.get(held.id, 0)
            self._wait(held)

    def leave(self, ids: Iterable[str]) -> None:
        """Let sessions wait no more."""
        for id in list(ids):
            if (side := self.sides.get(self._groups.pop(id, ""))) is not None:
                side.leave(id)
            self._unmet.pop(id, None)
            self.together.pop(id, None)

    def note(self, changes: Iterable[Change], released: Iterable[str] = ()) -> None:
        """Follow what was committed. released: sessions that lack one dependency less."""
        for id in released:
            self.released.add(id)
            if id in self._unmet:
                self._unmet[id] = max(0, self._unmet[id] - 1)
            if (side := self.sides.get(self._groups.get(id, ""))) is not None:
                side.ready.add(id)
                side.unsaid.add(id)
                side.bell.set()
        for before, after in changes:
            side = self.sides.get(after.group_id)
            if after.state == SessionState.PENDING:
                if side is not None:
                    side.cluster.release(after.id)
                self._wait(replace(after, past=()))
            elif before.state == SessionState.PENDING:
                self.leave([after.id])
            if side is not None and (before.kernels != after.kernels or before.started_at != after.started_at):
                self._hold(side, before, after)

    def admit(self, side: Side, now: float) -> float | None:
        """Bring in those whose time has come; return when the next one's will, None when nobody waits for a time."""
        while side.times and side.times[0][0] <= now:
            side.ready.add(heappop(side.times)[1])
        for id in side.ready & side.aside:
            held = side.waiting[id]
            if self._unmet.get(id, 0):
                continue
            if held.not_before is not None and held.not_before > now:
                heappush(side.times, (held.not_before, id))
                continue
            side.aside.discard(id)
            side.cluster.wait(request_of(held, id in self.together))
        side.ready.clear()
        return side.times[0][0] if side.times else None

    def say(self, id: str, hold: str) -> str:
        """Return why a session waits, with what keeps it from lying on several agents."""
        return f"{hold} {self.together[id]}" if id in self.together else hold

    def unmet(self, id: str) -> int:
        """Return how many sessions one still waits for."""
        return self._unmet.get(id, 0)

    def set_quotas(self, lines: Sequence[Line]) -> None:
        """Take in the quotas as they are now."""
        self._lines = tuple(lines)
        for side in self.sides.values():
            self.state_quotas(side)

    def state_quotas(self, side: Side) -> None:
        """Tell a group's mirror of its quotas and of the arrays that limit themselves."""
        tightest: dict[tuple[str, str, str], Quota] = {}
        for line, soft in for_group(self._lines, side.group.id):
            key = line.scope, line.scope_id, line.what
            quota = Quota(*key, line.limit, line.used, soft)
            known = tightest.get(key)
            if known is None or quota.limit - quota.used < known.limit - known.used:
                tightest[key] = quota
        arrays = [Quota("array", id, SESSIONS, most, self._leases.arrays[id]) for id, most in side.arrays.items()]
        side.cluster.set_quotas([*tightest.values(), *arrays])

    def set_bookings(self, bookings: Mapping[str, Sequence[Booking]], now: float) -> None:
        """Take in the advance reservations, by group."""
        self._leases.booked = {booking.id: booking.ends for some in bookings.values() for booking in some}
        for id, side in self.sides.items():
            side.cluster.set_bookings([booking for booking in bookings.get(id, ()) if booking.ends > now])

    def set_accounts(self, accounts: Mapping[str, Mapping[str, Account]]) -> None:
        """Take in weights and past usage, by group."""
        for id, side in self.sides.items():
            side.cluster.set_accounts(accounts.get(id, {}))

    def _wait(self, held: Held) -> None:
        side = self.sides.get(held.group_id)
        if side is None:
            return
        self._groups[held.id] = held.group_id
        side.waiting[held.id] = held
        side.said[held.id] = held.hold
        if not held.hold:
            side.unsaid.add(held.id)
        side.put_aside(held.id)
        if held.claim:
            side.claimed.add(held.id)
        else:
            side.claimed.discard(held.id)
        array = held.asked.array
        if array is not None and array.most is not None and array.id not in side.arrays:
            side.arrays[array.id] = array.most
            self.state_quotas(side)
        side.bell.set()

    def _hold(self, side: Side, before: Held, after: Held) -> None:
        if after.holds:
            side.cluster.hold(lease_of(after, self._leases.booked))
        else:
            side.cluster.release(after.id)
        for kernel in (*before.holding, *after.holding):
            node = self.nodes.get(str(kernel.agent))
            if node is not None and node.group_id != after.group_id:  # it was moved to another group, which lends it now
                self._put(node)
        if not after.holds or sum(1 for _ in after.holding) < sum(1 for _ in before.holding):
            side.bell.set()

    def _put(self, node: Node) -> None:
        """Tell a group's mirror of an agent, with what we know it to have lent."""
        side = self.sides.get(node.group_id)
        if side is None or not node.connected:
            return
        id = node.agent.id
        try:
            last_used = side.cluster.agent(id).last_used
        except KeyError:
            last_used = 0
        side.cluster.put_agent(replace(node.agent, why=node.agent.why or node.closed, used=dict(self._leases.used[id]),
                                       kernels=self._leases.counts[id], last_used=last_used))
        side.bell.set()

    def _drop(self, node: Node) -> None:
        if (side := self.sides.get(node.group_id)) is not None:
            side.cluster.drop_agent(node.agent.id)
            side.bell.set()


def request_of(held: Held, together: bool = False) -> Request:
    """Return a waiting session as the brain sees it. together: its kernels must be on one agent, whether it asks for that or not."""
    spec = held.asked
    wishes = replace(spec.wishes, one_agent=True) if together else spec.wishes
    return Request(
        held.id, held.owner_id, held.project_id, held.domain_id, held.priority, held.created_at,
        tuple(kernel.amounts for kernel in held.kernels), spec.time_limit_s, wishes, spec.evicted is not None,
        _claim_decoder.decode(held.claim) if held.claim else (), spec.booking or "", held.array_id or "")
