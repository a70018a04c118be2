"""Where there is room while a plan is being made: what has been granted since is gone, and who found none once need not look again.

The selector's scores are kept for each kind of container; when it says that they go by agents one by one, only agents that have
changed are scored again.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from backendai.model.session import Arrange, Wishes
from backendai.sokovan import gang
from backendai.sokovan.ahead import Ahead
from backendai.sokovan.allowance import Allowance, Short
from backendai.sokovan.ground import Ground
from backendai.sokovan.masks import Masks, must
from backendai.sokovan.memory import Memory
from backendai.sokovan.queue import wish_key
from backendai.sokovan.scoring import Scorer
from backendai.sokovan.snapshot import PLAIN, Array, Request, Snapshot, Units
from backendai.sokovan.stay import FOREVER, Stay
from backendai.sokovan.table import Bools, Parts, Table, Want, count, fits
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Amounts, Outcome, Waiting

NOBODY: frozenset[str] = frozenset()


class Cause(Enum):
    """Why there was no room."""

    ROOM = "room"
    QUOTA = "quota"
    BOOKING = "booking"  # its reservation's window is not open, or too short for it


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a session was not placed. quota: which, and by how much. avoid: agents that the scheduler kept from it.

    now: what is free now was too little; otherwise what is kept for later may be what lacks.
    """

    outcome: Outcome
    cause: Cause
    quota: Short | None = None
    avoid: frozenset[str] = NOBODY
    now: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The agents of a session's kernels, as rows, and what each has of devices."""

    rows: tuple[int, ...]
    parts: tuple[Parts, ...] = ()


@dataclass(slots=True)
class _Blocked:
    window: int  # how many later moments counted when there was no room
    refusal: Refusal = field(repr=False)


class Room:
    """The free slots of a snapshot, less what is kept for others and what has been granted since."""

    def __init__(self, snapshot: Snapshot, selector: AgentSelector) -> None:
        self.snapshot = snapshot
        self.agents = tuple(snapshot.rows)
        self.scorer = Scorer(snapshot, selector, self.agents)
        self.masks = Masks(snapshot)
        self.allowance = Allowance(snapshot)
        self.stays: list[Stay] = []
        self._memory = None if snapshot.bookings else snapshot.memory  # what is kept by time is no matter of what was given back
        facts = snapshot.memory or Memory()
        self._wants, self._ever, self._fewest = facts.wants, facts.ever, facts.fewest
        self.ahead = Ahead(snapshot, self.want)
        self._blocked: dict[int, _Blocked] = {}  # by shape
        self._shut: tuple[frozenset[str], Bools] = NOBODY, np.ones(len(self.agents), dtype=bool)  # avoided last, and the others
        self._urged = False  # whether somebody has been asked to make room
        self._unknown: set[object] = set()  # who has no moment at which it certainly could start

    def want(self, amounts: Amounts) -> Want:
        """Return what a container needs, the same object for the same amounts."""
        if (known := self._wants.get(amounts)) is None:
            known = self._wants[amounts] = Want.of(amounts, self.snapshot.devices)
        return known

    def place(self, waiting: Waiting, avoid: frozenset[str] = NOBODY) -> Found | Refusal:
        """Grant every kernel a place, or grant nothing and say why not."""
        window = self._window(waiting.time_limit_s)
        if not avoid and (known := self._blocked.get(waiting.shape)) is not None and window >= known.window:
            return known.refusal
        request = self.snapshot.requests[waiting.id]
        if request.claim:
            self._lift(request.id, -1)
        found = self._place(waiting, request, avoid, window)
        if isinstance(found, Refusal):
            if not avoid and not request.claim and found.cause is Cause.ROOM:
                self._blocked[waiting.shape] = _Blocked(0 if found.now else window, found)
            if request.claim:
                self._lift(request.id, 1)
        else:
            self.allowance.spend(waiting.kernels, request)
            if request.claim:
                self._blocked.clear()  # it may have left what was kept for it
        return found

    def _lift(self, id: str, sign: int) -> None:
        """Let a session have what is claimed for it (sign -1), or keep it again."""
        for row in self.ahead.lift(id, sign):
            self.scorer.touch(row)
        self.allowance.lift(id, sign)

    def _place(self, waiting: Waiting, request: Request, avoid: frozenset[str], window: int) -> Found | Refusal:
        if (short := self.allowance.short(waiting.kernels, request)) is not None:
            return Refusal(Outcome.IMPOSSIBLE, Cause.QUOTA, short)  # no room would help it, and its likes may start
        until = FOREVER if waiting.time_limit_s is None else self.snapshot.view.now + waiting.time_limit_s
        if request.booking:
            return self._inside(waiting, request, until)
        if request.claim:
            found = self._claimed(waiting, request, window, until) or self._wished(waiting.kernels, request.wishes, window, avoid, until)
            return found or Refusal(self._outcome(waiting.kernels, request.wishes), Cause.ROOM, avoid=avoid)
        key, untouched = (waiting.kernels, wish_key(request.wishes)), not self.stays and not self._urged
        if self._memory is not None and not avoid:
            known = self._memory.still(key, waiting.kernels, self.snapshot.freed, self.ahead.now, self.want, untouched)
            if known is not None:
                return Refusal(known, Cause.ROOM, now=True)
        found = self._wished(waiting.kernels, request.wishes, window, avoid, until)
        if found is not None:
            return found
        outcome = self._outcome(waiting.kernels, request.wishes)
        now = not avoid and (not window or self._none_now(waiting.kernels))
        if self._memory is not None and untouched and now:
            self._memory.blocked[key] = self.snapshot.freed, outcome
        return Refusal(outcome, Cause.ROOM, avoid=avoid, now=now)

    def _none_now(self, kernels: tuple[Amounts, ...]) -> bool:
        """Tell whether counting shows that there is no room now, whatever is kept for later."""
        if len(set(kernels)) > 1:
            return False
        want = self.want(kernels[0])
        return not fits((self.ahead.now,), want).any() if len(kernels) == 1 else int(
            count((self.ahead.now,), want).sum()) < len(kernels)

    def _window(self, limit: float | None) -> int:
        """Return how many later moments count for a session that starts now."""
        times = self.ahead.times
        return 0 if not times else len(times) if limit is None else bisect_left(times, self.snapshot.view.now + limit)

    def reserve(self, waiting: Waiting) -> float | None:
        """Keep room for a blocked session from when it can start first; return that moment, or None where nobody knows it."""
        request = self.snapshot.requests[waiting.id]
        wants = [self.want(amounts) for amounts in waiting.kernels]
        wishes = must(request.wishes)
        key = (waiting.kernels, wish_key(request.wishes), waiting.time_limit_s)
        if key in self._unknown:
            return None
        start = self.ahead.reserve(waiting, wants, wishes, self.masks.of(wishes), self.masks.zones(wishes),
                                   self.fewest(waiting.kernels, wishes), self.stays)
        if start is not None:  # those with no room now have none then either; others must be asked again
            self._blocked = {key: known for key, known in self._blocked.items() if known.window == 0}
            self.scorer.forget()
        else:
            self._unknown.add(key)
        return start

    def claim_stands(self, id: str) -> bool:
        """Tell whether the agents claimed for a session are there and could hold its kernels."""
        rows, kernels = self.snapshot.rows, self.snapshot.waiting[id].kernels
        agents = self.snapshot.requests[id].claim
        return len(agents) == len(kernels) and all(
            agent in rows and bool((self.snapshot.capacity[rows[agent]] >= self.want(amounts).vector).all())
            for agent, amounts in zip(agents, kernels, strict=True))

    def claim(self, waiting: Waiting, rows: tuple[int, ...]) -> None:
        """Keep agents for a session from now on, while others make room."""
        self._urged = True
        self.allowance.claim(waiting.id, waiting.kernels, self.snapshot.requests[waiting.id])
        self.ahead.claim(waiting.id, [(row, self.want(amounts)) for row, amounts in zip(rows, waiting.kernels, strict=True)])
        for row in rows:
            self.scorer.touch(row)

    def units(self, found: Found) -> tuple[Units, ...]:
        """Name the devices of what was found; empty where there are none."""
        if not any(found.parts):
            return ()
        names, slots = self.snapshot.device_names, self.snapshot.view.slots
        result: list[Units] = []
        for row, parts in zip(found.rows, found.parts, strict=True):
            units: dict[str, dict[str, int]] = {}
            for index, device, amount in parts:
                units.setdefault(slots[index], {})[names[index][row][device]] = amount
            result.append(units)
        return tuple(result)

    def _wished(self, kernels: tuple[Amounts, ...], wishes: Wishes, window: int, avoid: frozenset[str], until: float) -> Found | None:
        """Try with all wishes, then, where they are no must, with fewer."""
        plain = wishes is PLAIN or wishes == PLAIN
        stages = [(wishes, 0 if plain else 1)]
        if not plain and not wishes.strict:
            stages += [(Wishes(one_agent=wishes.one_agent, arrange=wishes.arrange, strict=False), 0)]
        if plain and not avoid and len(kernels) == 1:
            return self._one(self.want(kernels[0]), window, until)
        shut = self._others(avoid) if avoid else None
        wants = [self.want(amounts) for amounts in kernels]
        for stage, (some, masked) in enumerate(stages):
            mask = self.masks.of(some) if masked else self.masks.everyone
            name = (wish_key(wishes), stage) if masked else 0
            ground = _Lent(self, name, mask, window, until, shut)
            if len(wants) == 1:
                if (row := ground.best(wants[0])) is None:
                    continue
                ground.take(row, wants[0])
                rows = [row]
            else:
                least = self.fewest(kernels, some)
                rows = gang.find(ground, wants, some, self.masks.zones(some), least) or []
            if rows:
                return self._grant(ground, rows, wants)
        return None

    def _others(self, avoid: frozenset[str]) -> Bools:
        """Return the agents that need not be avoided; a scheduler avoids the same many times."""
        if self._shut[0] != avoid:
            self._shut = avoid, np.array([agent not in avoid for agent in self.agents], dtype=bool)
        return self._shut[1]

    def _one(self, want: Want, window: int, until: float) -> Found | None:
        """Do what ground does, for the one container that nearly every session has, with less ado."""
        tables = (self.ahead.now, *self.ahead.tables[:window]) if window else (self.ahead.now,)
        row = self.scorer.best(want, 0, self.masks.everyone, tables, None)
        if row is None:
            return None
        if want.parts:
            ground = _Lent(self, 0, self.masks.everyone, window, until, None)
            ground.take(row, want)
            return self._grant(ground, [row], [want])
        for table in tables:
            table.take(row, want)
        self.ahead.follow(row, want, (), 1)
        self.scorer.note(row, 1)
        self.stays.append(Stay(row, want, (), until))
        return Found((row,))

    def _grant(self, ground: Ground, rows: list[int], wants: list[Want]) -> Found:
        """Settle on what the ground has taken. Containers may have been put down in another order than they were asked for."""
        parts: dict[tuple[int, Want], list[Parts]] = {}
        any_parts = False
        for row, want, devices in ground.taken:
            parts.setdefault((row, want), []).append(devices)
            any_parts |= bool(devices)
        return Found(tuple(rows), tuple(parts[row, want].pop(0) for row, want in zip(rows, wants, strict=True)) if any_parts else ())

    def _claimed(self, waiting: Waiting, request: Request, window: int, until: float) -> Found | None:
        """Try the agents that are kept for it, each kernel on its own."""
        rows = [self.snapshot.rows.get(agent, -1) for agent in request.claim]
        if -1 in rows or len(rows) != len(waiting.kernels):
            return None
        ground = _Lent(self, None, self.masks.of(must(request.wishes)), window, until, None)
        wants = [self.want(amounts) for amounts in waiting.kernels]
        for row, want in zip(rows, wants, strict=True):
            if not ground.fits(want)[row]:
                ground.undo(0)
                return None
            ground.take(row, want)
        return self._grant(ground, rows, wants)

    def _inside(self, waiting: Waiting, request: Request, until: float) -> Found | Refusal:
        """Use an advance reservation: what is left of it, on its agents, while its window is open."""
        place = self.ahead.inside(request.booking)
        if place is None or (waiting.time_limit_s is not None and until > place.ends):
            never = place is None and not self.ahead.comes(request.booking)
            return Refusal(Outcome.IMPOSSIBLE if never else Outcome.BLOCKED, Cause.BOOKING)
        wishes = must(request.wishes)
        ground = _Inside(self, place.tables, self.masks.of(wishes) & place.mask, min(until, place.ends))
        wants = [self.want(amounts) for amounts in waiting.kernels]
        rows = gang.find(ground, wants, wishes, self.masks.zones(wishes), self.fewest(waiting.kernels, wishes))
        if rows is None:
            return Refusal(Outcome.BLOCKED, Cause.ROOM)
        return self._grant(ground, rows, wants)

    def _outcome(self, kernels: tuple[Amounts, ...], wishes: Wishes) -> Outcome:
        return Outcome.BLOCKED if self.ever(kernels, wishes) else Outcome.IMPOSSIBLE

    def ever(self, kernels: tuple[Amounts, ...], wishes: Wishes) -> bool:
        """Tell whether it would fit, were nobody else there."""
        wishes = must(wishes)
        key = (kernels, wish_key(wishes))
        if (known := self._ever.get(key)) is None:
            mask, wants = self.masks.of(wishes), [self.want(amounts) for amounts in kernels]
            empty = self.ahead.empty
            if len(wants) == 1:
                known = bool(fits([empty], wants[0], mask).any())
            else:
                ground = Ground([empty.copy()], mask)
                known = gang.find(ground, wants, wishes, self.masks.zones(wishes), self.fewest(kernels, wishes)) is not None
            self._ever[key] = known
        return known

    def fewest(self, kernels: tuple[Amounts, ...], wishes: Wishes) -> int:
        """Return the smallest number of agents on which the containers fit, were nobody else there."""
        if wishes.arrange is not Arrange.PACK or not wishes.strict:
            return 1
        key = (kernels, wish_key(wishes))
        if (known := self._fewest.get(key)) is None:
            loose = Wishes(arrange=Arrange.PACK, strict=False)
            ground = Ground([self.ahead.empty.copy()], self.masks.of(wishes))
            rows = gang.find(ground, [self.want(amounts) for amounts in kernels], loose, None, 1)
            known = self._fewest[key] = len(set(rows)) if rows else 1
        return known


class _Lent(Ground):
    """The room itself as ground. name: of the mask, by which scores are kept; None where the selector has no say."""

    def __init__(self, room: Room, name: object, mask: Bools, window: int, until: float, shut: Bools | None) -> None:
        super().__init__((room.ahead.now, *room.ahead.tables[:window]), mask if shut is None else mask & shut)
        self._room, self._name, self._all, self._until, self._shut = room, name, mask, until, shut

    def best(self, want: Want, among: Bools | None = None) -> int | None:
        """Return the agent that the selector likes best, of those that could."""
        if self._shut is not None:
            among = self._shut if among is None else among & self._shut
        return self._room.scorer.best(want, self._name, self._all, self.tables, among)

    def take(self, row: int, want: Want) -> None:
        """Take from the room."""
        super().take(row, want)
        parts = self._taken[-1][2]
        self._room.ahead.follow(row, want, parts, 1)
        self._room.scorer.note(row, 1)
        self._room.stays.append(Stay(row, want, parts, self._until))

    def undo(self, mark: int) -> None:
        """Give back to the room."""
        for row, want, parts in reversed(self._taken[mark:]):
            self._room.ahead.follow(row, want, parts, -1)
            self._room.scorer.note(row, -1)
            self._room.stays.pop()
        super().undo(mark)

    def _choose(self, row: int, free: Array, amount: int) -> tuple[int, ...]:
        return self._room.scorer.choose(row, free, amount, self.tables[0])


class _Inside(Ground):
    """What is left of an advance reservation. What the others see of it does not change: it was kept from them before."""

    def __init__(self, room: Room, tables: tuple[Table, ...], mask: Bools, until: float) -> None:
        super().__init__(tables, mask)
        self._room, self._until = room, until

    def best(self, want: Want, among: Bools | None = None) -> int | None:
        """Return the agent that the selector likes best, of those that could."""
        return self._room.scorer.of(want, self.fits(want, among), self.tables[1])

    def take(self, row: int, want: Want) -> None:
        """Take from the reservation."""
        super().take(row, want)
        self._room.scorer.note(row, 1)
        self._room.stays.append(Stay(row, want, self._taken[-1][2], self._until))

    def undo(self, mark: int) -> None:
        """Give back to the reservation."""
        for row, _, _ in reversed(self._taken[mark:]):
            self._room.scorer.note(row, -1)
            self._room.stays.pop()
        super().undo(mark)

