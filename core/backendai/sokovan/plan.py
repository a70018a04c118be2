"""Who goes where: the conversation with a scheduler, whole sessions or nothing, and a sentence for everybody who waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from backendai.sokovan.holds import Holds
from backendai.sokovan.room import BadScores, Room
from backendai.sokovan.snapshot import Snapshot, Units
from backendai.spec.agentselector_v10 import AgentSelector
from backendai.spec.scheduler_v10 import Attempt, Outcome, Reserve, Scheduler, Waiting


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
    """Every waiting session is either placed or has a hold: a sentence that says why it waits.

    claims: sessions and the agents to be kept for their kernels while those evicted end. starts: when sessions for which room is kept
    will start, seconds since the epoch. order: sessions as the scheduler tried them.
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
    view, holds = snapshot.view, Holds(snapshot)
    if not view.waiting:
        return Plan()
    if not view.nodes:
        return Plan(holds={w.id: holds.nobody() for w in view.waiting})
    talk = _Talk(snapshot, Room(snapshot, selector), holds)
    fault = talk.hold(scheduler, late)
    for waiting in view.waiting:
        if waiting.id not in talk.placed and waiting.id not in talk.holds:
            talk.holds[waiting.id] = holds.turn() if fault is None else holds.broken(fault.spec)
    return Plan(tuple(Placement(id, agents) for id, agents in talk.placed.items()), talk.holds, fault, order=tuple(talk.tried))


class _Talk:
    """One conversation with a scheduler, and what came of it."""

    def __init__(self, snapshot: Snapshot, room: Room, holds: Holds) -> None:
        self._view = snapshot.view
        self._room = room
        self._holds = holds
        self._left: dict[str, Waiting] = {w.id: w for w in snapshot.view.waiting}
        self.tried: list[str] = []
        self.placed: dict[str, tuple[str, ...]] = {}
        self.holds: dict[str, str] = {}

    def hold(self, scheduler: Scheduler, late: Callable[[], bool]) -> Fault | None:
        """Answer the scheduler's attempts until it has no more; return what broke it off, if anything did."""
        try:
            talk = scheduler.attempts(self._view)
            attempt = next(talk, None)
            while attempt is not None:
                if late():
                    talk.close()
                    raise Misbehaviour("no end within its deadline")
                attempt = _send(talk, Outcome.UNKNOWN if isinstance(attempt, Reserve) else self._try(attempt))
        except BadScores as error:
            return Fault("agentselector", "scores", error)
        except _SelectorFailed as error:
            return Fault("agentselector", "scores", error.error)
        except Exception as error:  # a plugin may raise anything; its blame is the caller's business
            return Fault("scheduler", "attempts", error)
        return None

    def _try(self, attempt: Attempt) -> Outcome:
        if not isinstance(attempt, Attempt):
            raise Misbehaviour(f"it yielded {attempt!r}, which is no Attempt")
        waiting = self._left.pop(attempt.session, None)
        if waiting is None:
            raise Misbehaviour(f"it yielded {attempt.session!r}, which does not wait or was tried already")
        self.tried.append(waiting.id)
        try:
            found = self._room.place(waiting.kernels, attempt.avoid)
        except BadScores:
            raise
        except Exception as error:
            raise _SelectorFailed(error) from error
        if isinstance(found, Outcome):
            self.holds[waiting.id] = self._holds.of(waiting.kernels, self._room.free, found, attempt.avoid)
            return found
        self.placed[waiting.id] = found
        return Outcome.PLACED


class _SelectorFailed(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _send(talk: Generator[Attempt | Reserve, Outcome, None], outcome: Outcome) -> Attempt | Reserve | None:
    try:
        return talk.send(outcome)
    except StopIteration:
        return None
