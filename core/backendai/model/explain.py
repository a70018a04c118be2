"""How the platform explains itself: why a session waits, when it starts, what was decided, and how everything stands.

Times are seconds since the epoch, UTC; slots are plain numbers (cores, bytes). Agents, groups and sessions are called by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backendai.model.views import Agent, Measure


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that keeps a session from starting, in a sentence.

    kind: agents, wishes, slot, together, containers, room, quota, booking, turn, never, after or plugin. what: the slot, or what the
    quota limits.
    wanted: what the session needs of it. most: the most that one agent has free, or what the quota allows. used: of the quota.
    short: on how many agents it does not suffice, of so many. What does not belong to the kind is 0.
    """

    kind: str
    text: str
    what: str = ""
    wanted: int | float = 0
    most: int | float = 0
    used: int | float = 0
    short: int = 0
    agents: int = 0


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change with which a session would start now; it was tried. text: continues "It would start now ...".

    kind: slots, containers, limit, wishes, group or stop. change: what to ask for instead, by field; for stop the sessions' ids.
    """

    kind: str
    text: str
    change: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expected:
    """When a session will start. earliest, latest: None where nobody can say. text: on what that rests."""

    earliest: float | None
    latest: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan that was carried out. snapshot: SHA-256 of the moment that it was made from. scheduler, selector: plugin, package, version.

    placed: agents by session, both by id; the agents in the order of its containers. kept: the moment itself is there, to decide again.
    """

    id: int
    at: float
    group: str
    snapshot: str
    scheduler: str
    selector: str
    placed: Mapping[str, tuple[str, ...]]
    kept: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """An agent that could have taken a container. rank: by the selector's score, from 1. taken: it did."""

    agent: str
    rank: int
    score: float
    taken: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """A session as the scheduler tried it. session, name: None for one that you may not see. agents: where it was placed, none if not."""

    session: str | None
    name: str | None
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """A decision made again from the same moment. same: it came out as it had. differs: what is not as it was, in sentences.

    turns: the order in which sessions were tried, up to this one. choices: for each container of this one that had a choice, the best.
    """

    decision: Decision
    same: bool
    differs: tuple[str, ...]
    turns: tuple[Turn, ...]
    choices: tuple[tuple[Choice, ...], ...]


@dataclass(frozen=True, slots=True)
class Why:
    """Why a session is where it is, or why one that is only asked for would wait.

    session, name, state: empty for one that does not exist. text: that in a sentence. hold: why it waits, as the planner says it.
    position: in the order of its group, from 1, of so many who are waiting; None for one that is not in it. agents: where it is, or would
    start now. partial: there was no time to try everything.
    """

    session: str
    name: str
    state: str
    group: str
    text: str
    hold: str = ""
    position: int | None = None
    waiting: int = 0
    agents: tuple[str, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    expected: Expected | None = None
    decision: Decision | None = None
    replay: Replay | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A session in the queue. position: from 1; None for one that waits for a time or for others. since: when it was asked for."""

    position: int | None
    session: str
    name: str
    owner: str
    project: str
    priority: int
    slots: Mapping[str, int | float]
    since: float
    hold: str
    earliest: float | None
    latest: float | None


@dataclass(frozen=True, slots=True)
class Queue:
    """Who waits in a resource group, in the order in which they go. waiting: all of them. hidden: those that you may not see.

    items: those that you may. text: on what the expected starts rest.
    """

    group: str
    scheduler: str
    waiting: int
    hidden: int
    items: tuple[Entry, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Busy:
    """A session that holds capacity, with what all its containers use. usage: None while nothing was measured."""

    session: str
    name: str
    owner: str
    group: str
    state: str
    agents: tuple[str, ...]
    slots: Mapping[str, int | float]
    since: float
    usage: Measure | None


@dataclass(frozen=True, slots=True)
class Line:
    """A resource group in one line. capacity, used: of all its agents that can be used. waiting, running: sessions, whosever they are."""

    name: str
    scheduler: str
    agents: int
    well: int
    capacity: Mapping[str, int | float]
    used: Mapping[str, int | float]
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Overview:
    """How everything stands at one moment, as far as you may see it. agents: those that take no sessions first.

    hidden: sessions that hold something, and that you may not see.
    """

    at: float
    groups: tuple[Line, ...]
    agents: tuple[Agent, ...]
    busy: tuple[Busy, ...]
    queues: tuple[Queue, ...]
    hidden: int
