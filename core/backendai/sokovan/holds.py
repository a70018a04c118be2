"""Why a session waits, in one sentence that says what would let it start.

Sentences name no other session: whoever reads one may not be allowed to see it.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np

from backendai.model.session import Wishes
from backendai.model.slots import SCALE, SlotKind, kind_of
from backendai.model.units import format_bytes
from backendai.sokovan.queue import wish_key
from backendai.sokovan.room import Cause, Refusal, Room
from backendai.sokovan.snapshot import SESSIONS, Snapshot
from backendai.sokovan.table import Bools, Table, Want, fits
from backendai.spec.scheduler_v10 import Amounts, Outcome, Waiting

NAMED = 3  # agents in one sentence


class _Placed(Protocol):
    @property
    def session(self) -> str: ...


class Sentences(Mapping[str, str]):
    """The hold of everybody who was not placed, worked out on demand from what is free when the plan is done.

    Sessions of one shape get one sentence: who found no room says so for those who were not tried any more.
    """

    def __init__(self, room: Room, placed: Iterable[_Placed], refused: Mapping[str, Refusal], failed: str | None) -> None:
        self._room, self._failed = room, failed
        self._waiting = room.snapshot.waiting
        self._placed = frozenset(one.session for one in placed)
        self._holds = Holds(room.snapshot, room)
        self._own = {id: refusal for id, refusal in refused.items() if refusal.avoid or refusal.cause is not Cause.ROOM}
        self._shapes = {self._waiting[id].shape: refused[id] for id in reversed(list(refused)) if id not in self._own}
        self._said: dict[int, str] = {}

    def items(self) -> ItemsView[str, str]:
        """Return all of them at once, which is quicker than one by one."""
        return self._all().items()

    def _all(self) -> dict[str, str]:
        placed, own, said = self._placed, self._own, self._said
        found = {}
        for waiting in self._room.snapshot.view.waiting:
            id, shape = waiting.id, waiting.shape
            if id in placed:
                continue
            found[id] = self[id] if shape not in said or id in own else said[shape]
        return found

    def __getitem__(self, id: str) -> str:
        waiting = self._waiting[id]
        if id in self._placed:
            raise KeyError(id)
        if (refusal := self._own.get(id)) is not None:
            return self._holds.of(waiting, refusal)
        if (said := self._said.get(waiting.shape)) is not None:
            return said
        if (refusal := self._shapes.get(waiting.shape)) is None:
            said = self._holds.turn() if self._failed is None else self._holds.broken(self._failed)
        else:
            said = self._holds.of(waiting, refusal)
        self._said[waiting.shape] = said
        return said

    def __iter__(self) -> Iterator[str]:
        return iter([waiting.id for waiting in self._room.snapshot.view.waiting if waiting.id not in self._placed])

    def __len__(self) -> int:
        return len(self._waiting) - len(self._placed)

    def __repr__(self) -> str:
        return repr(dict(self))


class Holds:
    """Sentences about one snapshot. Sessions that ask for the same get the same, worked out once."""

    def __init__(self, snapshot: Snapshot, room: Room | None = None) -> None:
        self._snapshot, self._room = snapshot, room
        self._slots = snapshot.view.slots
        self._said: dict[object, str] = {}

    def nobody(self) -> str:
        """Say that no agent can be used at all."""
        idle = self._snapshot.idle
        if not idle:
            return "No agent is connected."
        some = [f"{name}: {why.rstrip('.')}" for name, why in idle[:NAMED]]
        more = [f"and {len(idle) - NAMED} more"] if len(idle) > NAMED else []
        return f"No agent can take it: {'; '.join(some + more)}."

    def turn(self) -> str:
        """Say that the scheduler did not try it."""
        return "Waits for its turn: a session ahead of it in the queue waits for room."

    def broken(self, spec: str) -> str:
        """Say that a plugin failed."""
        return f"The {spec} plugin failed; ask your administrator to look at `bai plugin ls` and the manager's log."

    def of(self, waiting: Waiting, refusal: Refusal) -> str:
        """Say why an attempt failed."""
        request = self._snapshot.requests[waiting.id]
        if refusal.cause is Cause.QUOTA:
            return self._quota(refusal)
        if refusal.cause is Cause.BOOKING:
            return self._booking(request.booking)
        key = (waiting.kernels, wish_key(request.wishes), refusal.outcome, bool(refusal.avoid), request.booking)
        if key not in self._said:
            self._said[key] = self._no_room(waiting.kernels, request.wishes, refusal, request.booking)
        return self._said[key]

    def _quota(self, refusal: Refusal) -> str:
        short = refusal.quota
        assert short is not None  # a refusal for this cause has one
        quota = short.quota
        what = "running sessions" if quota.what == SESSIONS else quota.what
        number = str if quota.what == SESSIONS else lambda amount: _bare(quota.what, amount)
        if quota.scope == "array":
            return f"Waits for others of its array to end: at most {quota.limit} may run at once."
        if short.need > quota.limit:
            return f"Asks for more than the {quota.scope}'s quota of {what} allows: {number(short.need)} of at most {number(quota.limit)}."
        return (f"Waits for the {quota.scope}'s quota of {what}: {number(short.used)} of {number(quota.limit)} are in use, "
                f"and it needs {number(short.need)}.")

    def _booking(self, id: str) -> str:
        assert self._room is not None  # only a plan refuses for this cause
        if self._room.ahead.inside(id) is not None:
            return "Its time limit is longer than what is left of its reservation; ask for a shorter one."
        if (booking := self._room.ahead.comes(id)) is not None:
            return f"Waits for its reservation {booking.name} to begin."
        return "Its reservation is over or was given up; stop it, and start it again without one."

    def _no_room(self, kernels: tuple[Amounts, ...], wishes: Wishes, refusal: Refusal, booking: str) -> str:
        room = self._room
        assert room is not None  # only a plan refuses
        mask = room.masks.of(wishes) if wishes.strict else room.masks.everyone
        if not mask.any():
            return f"No agent is as it asks for ({_asked(wishes)}); it waits for one that is."
        place = room.ahead.inside(booking) if booking else None
        never = refusal.outcome is Outcome.IMPOSSIBLE
        table = room.ahead.empty if never else room.ahead.raw if place is None else place.tables[0]
        here = mask if place is None else mask & place.mask
        number = int(here.sum())
        if not number:
            return "No agent of its reservation is there and as it asks for; it waits for one that is."
        begin, have, none = (("Needs", "has at all", "no agent is that large; it waits for one that is") if never else
                             ("Waits for", "has free now", "no agent has both free now"))
        lacking = next((a for a in dict.fromkeys(kernels) if not fits([table], Want.of(a, {}), here).any()), None)
        some = "" if number == len(here) else f" Of {len(here)} agents {number} are as it asks for."
        if lacking is None:
            return self._all_or_kept(kernels, wishes, room, table, mask, never) + some
        wanted = {self._slots[i]: amount for i, amount in enumerate(lacking) if amount}
        for i, (name, amount) in enumerate(zip(self._slots, lacking, strict=True)):
            if not amount:
                continue
            column = np.where(here, table.free[:, i], -1)
            best = int(np.argmax(column))
            if column[best] < amount:
                asked, most = _apart(name, amount, int(column[best]))
                more = " It waits for a larger one." if never else ""
                agent = self._snapshot.names[best]
                return f"{begin} {_of(name, asked)}: the most that one agent {have} is {most} (agent {agent}).{more}{some}"
        *first, last = [_of(name, _bare(name, amount)) for name, amount in wanted.items()]  # one alone would have been said above
        together = f"{', '.join(first)} and {last}"
        return f"{begin} {together} on one agent; {none.replace('both', 'both' if len(wanted) == 2 else 'all of them')}.{some}"

    def _all_or_kept(self, kernels: tuple[Amounts, ...], wishes: Wishes, room: Room, table: Table, mask: Bools, never: bool) -> str:
        """Say what lacks although each kernel has an agent that has enough of everything."""
        wants = [room.want(amounts) for amounts in kernels]
        for want in dict.fromkeys(wants):
            if want.parts and not fits([table], want, mask).any():
                index, amount = want.parts[0]
                name = self._slots[index]
                number = _bare(name, amount)
                kind = f"{number} of one {name}" if amount < SCALE else f"{_of(name, number)}, each of them whole,"
                return f"{'Needs' if never else 'Waits for'} {kind} on one agent; it is free in parts only."
        if len(kernels) > 1:
            ways = " on one agent" if wishes.one_agent else " as it asks for" if wishes.strict and (wishes.zone or wishes.arrange) else ""
            if never:
                return f"Needs room for all of its {len(kernels)} containers at once{ways}; the agents that are there are too few for it."
            return f"Waits for room for all of its {len(kernels)} containers at once{ways}."
        return "Waits for its turn: the agents with room for it are kept for sessions ahead of it."


def _asked(wishes: Wishes) -> str:
    parts = [f"{name}={value}" for name, value in sorted(wishes.labels.items())]
    parts += [f"one of {', '.join(wishes.agents[:NAMED])}"] if wishes.agents else []
    parts += [f"not {', '.join(wishes.avoid[:NAMED])}"] if wishes.avoid else []
    return "; ".join(parts)


def _of(name: str, number: str) -> str:
    """Write an amount of a slot for people: ``4 cores``, ``512m of memory``, ``2 cuda.device``."""
    if name == "cpu":
        return f"{number} core" if number == "1" else f"{number} cores"
    return f"{number} of memory" if name == "mem" else f"{number} {name}"


def _bare(name: str, amount: int) -> str:
    if kind_of(name) is SlotKind.BYTES:
        return format_bytes(amount)
    return str(amount // SCALE) if amount % SCALE == 0 else f"{amount / SCALE:.3f}".rstrip("0")


def _apart(name: str, asked: int, most: int) -> tuple[str, str]:
    """Write two amounts, the first of which is larger, so that one sees it: 16 GiB and the 15.99 that a machine of 16 has."""
    pair = _bare(name, asked), _bare(name, most)
    for step, letter in ((1 << 20, "m"), (1 << 10, "k"), (1, "")):
        if pair[0] == pair[1]:
            pair = f"{-(-asked // step)}{letter}", f"{most // step}{letter}"
    return pair
