"""Which waiting session goes next, and who may overtake.

A scheduler is a conversation: a generator that yields one wish at a time and is sent what became of it. So it may go on, stop, or
change its mind after each placement, and fair sharing can count what it has just granted. It is a pure function of its view: no
input or output, no clock (the view has ``now``), no randomness; the same view gives the same wishes.

There are two wishes. ``Attempt`` places a session now. ``Reserve`` keeps for a session that found no room the place where it will
start first; from then on nobody gets room that would delay it. The platform works out where and when that is, so a scheduler decides
only who deserves it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from backendai.spec import Arity, Spec, hook

Amounts = tuple[int, ...]  # one amount for each name in ``QueueView.slots``, in internal units


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session that waits. kernels: what each of its containers needs. submitted_at: seconds since the epoch.

    user, project, domain: ids. priority: a higher one is more urgent. time_limit_s: how long it may run, None for no limit.
    shape: a number that sessions share which ask for the same in everything that placing depends on: when one of them is blocked, so
    are its likes, and need not be tried, unless they are to end sooner. 0 where it is not known.
    """

    id: str
    user: str
    project: str
    priority: int
    submitted_at: float
    kernels: tuple[Amounts, ...]
    time_limit_s: float | None = None
    domain: str = ""
    shape: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """A session that holds capacity. kernels: what each of its containers has. agents: where each of them is.

    started_at, ends_by: seconds since the epoch; ends_by is when it must have ended, None if unknown.
    """

    id: str
    user: str
    project: str
    priority: int
    started_at: float
    kernels: tuple[Amounts, ...]
    agents: tuple[str, ...]
    ends_by: float | None = None
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """An agent that may be used. capacity, free: amounts; free never exceeds capacity."""

    id: str
    capacity: Amounts
    free: Amounts


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody's part in fair sharing. weight: the share that it should have, relative to its siblings.

    usage: what it has used, as seconds of the whole group's capacity, in which what lies a half-life back counts half.
    """

    weight: float = 1.0
    usage: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueView:
    """One resource group at one moment.

    now: seconds since the epoch. slots: the names that amounts go by. waiting: in the order of submission. holding: who has capacity.
    nodes: every agent that may be used. total: the capacity of them all. usage: how much each user has used before, 0 and up,
    comparable among users; who is left out has used nothing. accounts: by the id of a domain, by the id of a project, and by
    ``PROJECT/USER`` (ids); who is left out has weight 1 and has used nothing.
    """

    now: float
    slots: tuple[str, ...]
    waiting: Sequence[Waiting]
    holding: Sequence[Holding] = ()
    nodes: Sequence[Node] = ()
    usage: Mapping[str, float] = field(default_factory=dict)
    total: Amounts = ()
    accounts: Mapping[str, Account] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Try to place this session now. avoid: agents that it must not take."""

    session: str
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reserve:
    """Keep room for this session, whose attempt was blocked, from the moment at which it can start first.

    Later attempts are blocked where they would delay it: those that end before then by their time limit may use its place, the
    others only what it leaves.
    """

    session: str


class Outcome(Enum):
    """What became of a wish."""

    PLACED = "placed"
    BLOCKED = "blocked"  # not enough is free now
    IMPOSSIBLE = "impossible"  # no room would help: too large for the agents there are, or a rule of the site holds it back
    RESERVED = "reserved"  # the answer to ``Reserve``: its place is kept
    UNKNOWN = "unknown"  # the answer to ``Reserve`` when nobody can say when it would start, so nothing is kept


class Promise(Enum):
    """What a scheduler may give its word on, where time limits are true. The conformance kit takes it at its word."""

    NOBODY_STARVES = "nobody starves"  # who fits the agents starts in the end, however many ask later with the same priority
    EARLIER_FIRST = "earlier first"  # of a user's sessions that are alike in all else, the earlier is tried first
    HEAD_UNDELAYED = "head undelayed"  # the first that finds no room starts no later than if nobody after it were placed


class Scheduler:
    """The order of one resource group's queue."""

    @hook(first=True, deadline_s=1.0)
    def attempts(self, view: QueueView) -> Generator[Attempt | Reserve, Outcome, None]:
        """Yield the next session to try, receive its outcome, until nobody else should go.

        Yield only sessions of ``view.waiting``, each attempted at most once. Whoever is not yielded waits for the next view.
        """
        raise NotImplementedError

    @hook(first=True, deadline_s=1.0, optional=True)
    def promises(self) -> frozenset[Promise]:
        """Return what it gives its word on. Left out, it promises nothing."""
        raise NotImplementedError


SPEC = Spec("scheduler", 10, Scheduler, Arity.ONE)
