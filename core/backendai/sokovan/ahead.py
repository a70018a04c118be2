"""What is kept for somebody: claims, advance reservations, and the place of the first who waits.

Room is looked at at several moments: now, and at each moment to come at which something that is kept begins. Between two of them room
only grows, as sessions end. Whoever would still be there at such a moment must fit what is free then as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.model.session import Wishes
from backendai.sokovan import gang
from backendai.sokovan.fleet import vector
from backendai.sokovan.ground import Ground
from backendai.sokovan.snapshot import Array, Booking, Lease, Snapshot
from backendai.sokovan.stay import FOREVER, Stay
from backendai.sokovan.table import Bools, Parts, Table, Want, count
from backendai.spec.scheduler_v10 import Amounts, Waiting

TRIES = 32  # moments at which a place for the head is looked for, after the first at which it would fit
LATER = 1e18  # seconds since the epoch, after every end that is known
Kept = list[tuple[int, Want]]


@dataclass(frozen=True, slots=True)
class Place:
    """An advance reservation whose window is open. tables: what is left of it, and what is free."""

    tables: tuple[Table, ...]
    mask: Bools
    ends: float


@dataclass(frozen=True, slots=True)
class _Reserved:
    begins: float
    ends: float
    kept: Kept


class Ahead:
    """The moments that count. now: what is free for everybody. times, tables: the later moments, in order, and what is free then."""

    def __init__(self, snapshot: Snapshot, want: Callable[[Amounts], Want]) -> None:
        self._snapshot, self._want = snapshot, want
        self._rows = snapshot.rows
        self.now = self._raw = Table.now(snapshot)
        self.times: list[float] = []
        self.tables: list[Table] = []
        self._claims: dict[str, Kept] = {}
        self._parts: dict[str, list[tuple[Table, list[Parts]]]] = {}  # of claims, as kept in each table
        self._reserved: list[_Reserved] = []
        self._places: dict[str, Place] = {}
        self._empty: Table | None = None
        self._doubt = False  # whether somebody could not be told a moment: then a quick look comes first
        self._final: tuple[int, Table] | None = None  # with the number of stays that it was made for
        if snapshot.claims or snapshot.bookings:
            self._keep()

    @property
    def empty(self) -> Table:
        """Return what would be free if nobody were there."""
        if self._empty is None:
            self._empty = Table.empty(self._snapshot)
        return self._empty

    @property
    def raw(self) -> Table:
        """Return what is free, whomever it is kept for."""
        return self._raw

    def follow(self, row: int, want: Want, parts: Parts, sign: int) -> None:
        """Follow what was taken from what is free for everybody."""
        if self._raw is not self.now:
            self._raw.take(row, want, parts, sign)

    def inside(self, booking: str) -> Place | None:
        """Return what is left of an advance reservation whose window is open."""
        return self._places.get(booking)

    def comes(self, booking: str) -> Booking | None:
        """Return an advance reservation that is open or to come."""
        return next((b for b in self._snapshot.bookings if b.id == booking and b.ends > self._snapshot.view.now), None)

    def claim(self, id: str, kept: Kept) -> None:
        """Keep agents for a session from now on, also where others are yet to leave."""
        if self._raw is self.now:
            self._raw = self.now.copy()
        self._claims[id] = kept
        self._parts[id] = [(table, [table.keep(row, want, whole=True) for row, want in kept]) for table in (self.now, *self.tables)]

    def lift(self, id: str, sign: int) -> list[int]:
        """Let a session have what is claimed for it (sign -1) or keep it again; return the agents."""
        kept = self._claims.get(id, [])
        for table, parts in self._parts.get(id, ()):
            for (row, want), devices in zip(kept, parts, strict=True):
                table.take(row, want, devices, sign)
        return [row for row, _ in kept]

    def reserve(self, waiting: Waiting, wants: Sequence[Want], wishes: Wishes, mask: Bools, zones: Array | None, fewest: int,
                stays: Sequence[Stay]) -> float | None:
        """Keep room for a session from when it can start first; return that moment, None if nobody knows it."""
        lasts = FOREVER if waiting.time_limit_s is None else waiting.time_limit_s
        free = self.now.free
        asked = sorted({index for want in wants for index, _ in want.pairs})
        rank = -(free[:, asked] / np.maximum(free[:, asked].max(axis=0, initial=1), 1)).sum(axis=1)  # what is busy now is missed least
        for at in self._starts(wants, wishes, mask, zones, fewest, stays):
            table, claimed = self._moment(at, stays)
            after = [later for time, later in zip(self.times, self.tables, strict=True) if at < time < at + lasts]
            ground = Ground((table, *after), mask, rank)
            if (rows := gang.find(ground, wants, wishes, zones, fewest)) is not None:
                place = bisect_right(self.times, at)
                self.times.insert(place, at)
                self.tables.insert(place, table)
                self._reserved.append(_Reserved(at, at + lasts, list(zip(rows, wants, strict=True))))
                for id, parts in claimed.items():
                    self._parts[id].append((table, parts))
                return at
        return None

    def moment(self, at: float, stays: Sequence[Stay] = ()) -> Table:
        """Return what will be free at a moment, as far as ends are known: less what is kept for somebody then."""
        return self._moment(at, stays)[0]

    def _moment(self, at: float, stays: Sequence[Stay]) -> tuple[Table, dict[str, list[Parts]]]:
        table, ends = self._raw.copy(), self._snapshot.ends
        gone = np.flatnonzero(ends.at <= at)
        np.add.at(table.free, ends.row[gone], ends.amounts[gone])
        for i in gone.tolist() if ends.units else ():
            for index, device, amount in ends.units[i]:
                table.devices[index][ends.row[i], device] += amount
        for stay in stays:
            if stay.until <= at:
                table.take(stay.row, stay.want, stay.parts, -1)
        np.minimum(table.free, self._snapshot.capacity, out=table.free)
        claimed = {id: [table.keep(row, want, whole=True) for row, want in kept] for id, kept in self._claims.items()}
        for booking in self._snapshot.bookings:
            if booking.begins <= at < booking.ends:
                for row, want in self._left_of(booking, at):
                    table.keep(row, want)
        for reserved in self._reserved:
            if reserved.begins <= at < reserved.ends:
                for row, want in reserved.kept:
                    table.keep(row, want)
        return table, claimed

    def _keep(self) -> None:
        snapshot, now = self._snapshot, self._snapshot.view.now
        self._raw = self.now.copy()
        self._inside: dict[str, list[Lease]] = {booking.id: [] for booking in snapshot.bookings}
        for lease in snapshot.leases.values() if snapshot.bookings else ():
            if lease.booking in self._inside:
                self._inside[lease.booking].append(lease)
        for booking in snapshot.bookings:
            if booking.begins <= now < booking.ends:
                self._open(booking)
        for time in sorted({booking.begins for booking in snapshot.bookings if booking.begins > now}):
            self.times.append(time)
            self.tables.append(self.moment(time))
        for id in snapshot.claims:
            agents = snapshot.requests[id].claim
            kernels = snapshot.waiting[id].kernels
            self.claim(id, [(self._rows[agent], self._want(amounts)) for agent, amounts in zip(agents, kernels, strict=False)
                            if agent in self._rows])

    def _open(self, booking: Booking) -> None:
        """Keep what is left of a reservation from everybody else, and lay it out for those who may use it."""
        left = Table(np.zeros_like(self._raw.free), {index: np.minimum(table, 0) for index, table in self._raw.devices.items()})
        mask = np.zeros(len(self._rows), dtype=bool)
        for row, want in self._left_of(booking, self._snapshot.view.now):
            mask[row] = True
            parts = self.now.keep(row, want)
            left.take(row, want, parts, -1)
        self._places[booking.id] = Place((left, self._raw), mask, booking.ends)

    def _left_of(self, booking: Booking, at: float) -> Kept:
        """Return what of a reservation nobody uses at a moment, by agent."""
        slots = self._snapshot.view.slots
        left = {agent: list(vector(amounts, slots)) for agent, amounts in booking.agents.items() if agent in self._rows}
        for lease in self._inside[booking.id]:
            if lease.ends_by is None or lease.ends_by > at:
                for agent, kernel in zip(lease.agents, lease.kernels, strict=True):
                    if agent in left:
                        left[agent] = [max(0, a - kernel.get(name, 0)) for a, name in zip(left[agent], slots, strict=True)]
        return [(self._rows[agent], self._want(tuple(amounts))) for agent, amounts in sorted(left.items())]

    def _starts(self, wants: Sequence[Want], wishes: Wishes, mask: Bools, zones: Array | None, fewest: int,
                stays: Sequence[Stay]) -> list[float]:
        """Return the moments at which a session might start first, in order."""
        now, ends = self._snapshot.view.now, self._snapshot.ends
        bounded = wishes.one_agent or wishes.zone is not None or wishes.arrange is not None
        if not (self._snapshot.bookings or self._reserved or bounded or any(want.parts for want in wants)) and len(set(wants)) == 1:
            first = self._counted(wants[0], len(wants), mask, stays)
            return [] if first is None else [max(now, first)]
        more = [stay.until for stay in stays if stay.until < FOREVER]
        more += [booking.ends for booking in self._snapshot.bookings] + [r.ends for r in self._reserved if r.ends < FOREVER]
        times = np.unique(np.maximum(np.concatenate((ends.at, np.array([now, *more]))), now)).tolist()
        low, high = 0, len(times)
        while low < high:  # room grows with time, but for what is kept; that is looked at one by one
            middle = (low + high) // 2
            ground = Ground((self.moment(times[middle], stays),), mask)
            if gang.find(ground, wants, wishes, zones, fewest) is not None:
                high = middle
            else:
                low = middle + 1
        return list(times[low:low + TRIES])

    def _counted(self, want: Want, number: int, mask: Bools, stays: Sequence[Stay]) -> float | None:
        """Return when *number* containers of one kind fit first: how many each agent takes is counted after each end."""
        asked = [index for index, _ in want.pairs]
        amounts = np.array([amount for _, amount in want.pairs], dtype=np.int64)
        if self._doubt and int(count([self._last(stays)], want, mask).sum()) < number:
            return None
        self._doubt = True  # until it has an answer
        row, at, given = self._all_ends(stays)
        given = given[:, asked]
        if not mask.all():
            mine = mask[row]
            row, at, given = row[mine], at[mine], given[mine]
        before = count([self.now], want, mask)
        total = int(before.sum())
        if total >= number:
            self._doubt = False
            return self._snapshot.view.now
        if not len(row):
            return None
        order = np.lexsort((at, row))
        row, at, sums = row[order], at[order], np.cumsum(given[order], axis=0)
        begins = np.empty(len(row), dtype=bool)  # whether an agent's first end is there
        begins[0] = True
        np.not_equal(row[1:], row[:-1], out=begins[1:])
        first = begins.nonzero()[0]
        base = (sums - given[order])[first]  # what had been added up before each agent
        free = self.now.free[:, asked][row] + sums - base[np.cumsum(begins) - 1]
        room = np.maximum((free // amounts).min(axis=1), 0)
        last = np.empty_like(room)
        last[1:] = room[:-1]
        last[first] = before[row[first]]
        time = np.argsort(at, kind="stable")
        enough = np.cumsum((room - last)[time]) >= number - total
        found = int(enough.argmax())
        self._doubt = not enough[found]
        return float(at[time[found]]) if enough[found] else None

    def _last(self, stays: Sequence[Stay]) -> Table:
        """Return what is free once everybody has gone whose end is known."""
        if self._final is None or self._final[0] != len(stays):
            self._final = len(stays), self._moment(LATER, stays)[0]
        return self._final[1]

    def _all_ends(self, stays: Sequence[Stay]) -> tuple[Array, NDArray[np.float64], Array]:
        ends, some = self._snapshot.ends, [stay for stay in stays if stay.until < FOREVER]
        if not some:
            return ends.row, ends.at, ends.amounts
        return (np.concatenate((ends.row, np.array([stay.row for stay in some], dtype=np.int64))),
                np.concatenate((ends.at, np.array([stay.until for stay in some]))),
                np.concatenate((ends.amounts, np.array([stay.want.amounts for stay in some], dtype=np.int64))))
