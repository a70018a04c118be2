"""Which waiting session goes next, and who may overtake.

A scheduler is a conversation: a generator that yields one attempt at a time and is sent what became of it. So it may go on, stop, or
change its mind after each placement, and fair sharing can count what it has just granted. It is a pure function of its view: no
input or output, no clock (the view has ``now``), no randomness; the same view gives the same attempts.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from backendai.spec import Arity, Spec, hook

Amounts = tuple[int, ...]  # one amount for each name in ``QueueView.slots``, in internal units


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session that waits. kernels: what each of its containers needs. submitted_at: seconds since the epoch.

    user, project: ids. priority: a higher one is more urgent. time_limit_s: how long it may run, None for no limit.
    """

    id: str
    user: str
    project: str
    priority: int
    submitted_at: float
    kernels: tuple[Amounts, ...]
    time_limit_s: float | None = None


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


@dataclass(frozen=True, slots=True)
class Node:
    """An agent that may be used. capacity, free: amounts; free never exceeds capacity."""

    id: str
    capacity: Amounts
    free: Amounts


@dataclass(frozen=True, slots=True)
class QueueView:
    """One resource group at one moment.

    now: seconds since the epoch. slots: the names that amounts go by. waiting: in the order of submission. holding: who has capacity.
    nodes: every agent that may be used. usage: how much each user has used before, 0 and up, comparable among users; who is left
    out has used nothing.
    """

    now: float
    slots: tuple[str, ...]
    waiting: tuple[Waiting, ...]
    holding: tuple[Holding, ...] = ()
    nodes: tuple[Node, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Try to place this session now. avoid: agents that it must not take, such as those reserved for somebody ahead."""

    session: str
    avoid: frozenset[str] = frozenset()


class Outcome(Enum):
    """What became of an attempt."""

    PLACED = "placed"
    BLOCKED = "blocked"  # not enough is free now
    IMPOSSIBLE = "impossible"  # never fits the agents there are


class Scheduler:
    """The order of one resource group's queue."""

    @hook(first=True, deadline_s=1.0)
    def attempts(self, view: QueueView) -> Generator[Attempt, Outcome, None]:
        """Yield the next session to try, receive its outcome, until nobody else should go.

        Yield only sessions of ``view.waiting``, each at most once. Whoever is not yielded waits for the next view.
        """
        raise NotImplementedError


SPEC = Spec("scheduler", 10, Scheduler, Arity.ONE)
