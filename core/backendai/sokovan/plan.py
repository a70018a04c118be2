"""Who goes where: the conversation with a scheduler, whole sessions or nothing, and a sentence for everybody who waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace

from backendai.sokovan.allowance import Short
from backendai.sokovan.holds import Holds, Sentences
from backendai.sokovan.preempt import victims
from backendai.sokovan.room import Cause, Found, Refusal, Room
from backendai.sokovan.scoring import SelectorFailed
from backendai.sokovan.snapshot import Snapshot, Units
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView, Reserve, Scheduler, Waiting


@dataclass(frozen=True, slots=True)
class Placement:
    """A session and the agents of its kernels, in order. units: of each kernel; empty where no kernel has any."""

    session: str
    agents: tuple[str, ...]
    units: tuple[Units, ...] = ()


@dataclass(frozen=True, slots=True)
class Eviction:
    """A session that must end to make room. for_session: who needs it."""

    victim: str
    for_session: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A plugin broke the plan off. spec: ``scheduler`` or ``agentselector``. What was placed before stands."""

    spec: str
    hook: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Plan:
    """Every waiting session is either placed or has a hold: a sentence that says why it waits, worked out when it is asked for.

    claims: every claim that stands after this plan: sessions, and the agents to be kept for their kernels while others end. starts: when
    sessions for which room is kept will start, seconds since the epoch. order: sessions as the scheduler tried them.
    """

    placements: tuple[Placement, ...] = ()
    holds: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    evictions: tuple[Eviction, ...] = ()
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()


class Misbehaviour(Exception):
    """A scheduler did what its contract forbids."""


def make_plan(snapshot: Snapshot, scheduler: Scheduler, selector: AgentSelector, late: Callable[[], bool] = lambda: False) -> Plan:
    """Decide who of the waiting goes where. The same snapshot and plugins give the same plan.

    late: tells that the scheduler has had its time; the edge's clock, for plugins that do not come to an end.
    """
    view = snapshot.view
    if not view.waiting:
        return Plan()
    if not view.nodes:
        return Plan(holds={w.id: Holds(snapshot).nobody() for w in view.waiting})
    try:
        room = Room(snapshot, selector)
    except SelectorFailed as error:
        fault = Fault("agentselector", error.hook, error.error)
        return Plan(holds={w.id: Holds(snapshot).broken(fault.spec) for w in view.waiting}, fault=fault)
    aside = set_aside(room)
    if aside:
        view = replace(view, waiting=tuple([w for w in view.waiting if w.id not in aside]))
    talk = Talk(room, aside)
    try:
        if talk.redeem():
            view = replace(view, waiting=tuple([w for w in view.waiting if w.id not in talk.placed]))
    except SelectorFailed as error:
        fault_found: Fault | None = Fault("agentselector", error.hook, error.error)
    else:
        fault_found = talk.hold(view, scheduler, late)
    agents = room.agents
    placements = tuple([Placement(id, tuple([agents[row] for row in found.rows]), room.units(found)) for id, found in talk.placed.items()])
    holds = Sentences(room, placements, talk.refused, None if fault_found is None else fault_found.spec)
    claims = {id: snapshot.requests[id].claim for id in snapshot.claims if id not in talk.placed and room.claim_stands(id)}
    claims |= {id: tuple([agents[row] for row in rows]) for id, rows in talk.claims.items()}
    return Plan(placements, holds, fault_found, tuple(talk.evictions), claims, talk.starts, tuple(talk.tried))


def set_aside(room: Room) -> dict[str, Refusal]:
    """Return who is not to be tried at all: waiting for a quota, or for the window of an advance reservation."""
    shot = room.snapshot
    reclaim = shot.options.preemption.reclaim
    over: Mapping[str, Short] = room.allowance.over(shot.view.waiting, shot.requests)
    found = {id: Refusal(Outcome.BLOCKED, Cause.QUOTA, short) for id, short in over.items()
             if not reclaim or room.allowance.borrows(shot.requests[id], shot.waiting[id].kernels) is not False}
    for id in shot.booked:
        if room.ahead.inside(shot.requests[id].booking) is None:
            found[id] = Refusal(Outcome.BLOCKED, Cause.BOOKING)
    return found


class Talk:
    """One conversation with a scheduler, and what came of it."""

    def __init__(self, room: Room, aside: Mapping[str, Refusal]) -> None:
        self._room = room
        self._waiting = room.snapshot.waiting
        self._done: set[str] = set()
        self._urged = False  # whether somebody has been asked to make room
        options = room.snapshot.options.preemption
        self._preempts, self._reclaims = options.enabled or options.reclaim, options.reclaim
        self.tried: list[str] = []
        self.placed: dict[str, Found] = {}
        self.refused: dict[str, Refusal] = dict(aside)
        self.evictions: list[Eviction] = []
        self.claims: dict[str, tuple[int, ...]] = {}
        self.starts: dict[str, float] = {}

    def redeem(self) -> bool:
        """Place those whose claims can be followed, and tell whether there were any.

        Their room is nobody else's, so whoever the scheduler has go first could wait for it in vain, and they for their turn.
        """
        for id in self._room.snapshot.claims:
            if id not in self.refused and self._room.claim_stands(id):
                found = self._room.place(self._waiting[id], frozenset())
                if isinstance(found, Found):
                    self._done.add(id)
                    self.tried.append(id)
                    self.placed[id] = found
        return bool(self.placed)

    def hold(self, view: QueueView, scheduler: Scheduler, late: Callable[[], bool]) -> Fault | None:
        """Answer the scheduler's wishes until it has no more; return what broke it off, if anything did."""
        try:
            talk = scheduler.attempts(view)
            wish = next(talk, None)
            while wish is not None:
                if late():
                    talk.close()
                    raise Misbehaviour("no end within its deadline")
                wish = _send(talk, self._reserve(wish) if isinstance(wish, Reserve) else self._try(wish))
        except SelectorFailed as error:
            return Fault("agentselector", error.hook, error.error)
        except Exception as error:  # a plugin may raise anything; its blame is the caller's business
            return Fault("scheduler", "attempts", error)
        return None

    def _try(self, attempt: Attempt) -> Outcome:
        if not isinstance(attempt, Attempt):
            raise Misbehaviour(f"it yielded {attempt!r}, which is neither Attempt nor Reserve")
        id = attempt.session
        waiting = self._waiting.get(id)
        if waiting is None or id in self._done or id in self.refused:
            raise Misbehaviour(f"it yielded {id!r}, which does not wait or was tried already")
        self._done.add(id)
        self.tried.append(id)
        found = self._room.place(waiting, attempt.avoid)
        if isinstance(found, Found):
            self.placed[id] = found
            return Outcome.PLACED
        self.refused[id] = found
        if self._preempts and not self._urged and (found.outcome is Outcome.BLOCKED or (self._reclaims and found.cause is Cause.QUOTA)):
            self._urge(waiting)
        return found.outcome

    def _urge(self, waiting: Waiting) -> None:
        """Have others make room for the first who is blocked; an advance reservation is all that those have who use one."""
        if self._room.snapshot.requests[waiting.id].booking:
            return
        self._urged = True
        if waiting.id in self._room.snapshot.claims:
            return
        found = victims(self._room, waiting)
        if found is not None:
            self.evictions += [Eviction(victim, waiting.id) for victim in found.ids]
            self.claims[waiting.id] = found.rows
            self._room.claim(waiting, found.rows)

    def _reserve(self, reserve: Reserve) -> Outcome:
        id = reserve.session
        if id not in self._done or (refusal := self.refused.get(id)) is None or id in self.starts:
            raise Misbehaviour(f"it reserved for {id!r}, whose attempt was not blocked")
        if id in self.claims or id in self._room.snapshot.claims:
            return Outcome.RESERVED
        if refusal.outcome is not Outcome.BLOCKED or refusal.cause is not Cause.ROOM or self._room.snapshot.requests[id].booking:
            return Outcome.UNKNOWN
        start = self._room.reserve(self._waiting[id])
        if start is None:
            return Outcome.UNKNOWN
        self.starts[id] = start
        return Outcome.RESERVED


def _send(talk: Generator[Attempt | Reserve, Outcome, None], outcome: Outcome) -> Attempt | Reserve | None:
    try:
        return talk.send(outcome)
    except StopIteration:
        return None
