"""One moment of the queue and the cluster, frozen: what a decision is made from, and may be made from again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.spec.scheduler_v10 import Amounts, Holding, Node, QueueView, Waiting

Slots = Mapping[str, int]
Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Request:
    """A session in the queue. kernels: what each of its containers needs, by slot, in internal units; a slot left out is 0."""

    id: str
    user: str
    priority: int
    submitted_at: float
    kernels: tuple[Slots, ...]
    time_limit_s: float | None = None
    project: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A session that holds capacity. agents: where each of its kernels is."""

    id: str
    user: str
    priority: int
    started_at: float
    kernels: tuple[Slots, ...]
    agents: tuple[str, ...]
    ends_by: float | None = None
    project: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it stands. why: what keeps it from taking sessions, empty when nothing does.

    kernels: how many containers it holds. last_used: the number of the placement that it received last, 0 for never.
    """

    id: str
    name: str
    capacity: Slots
    used: Slots
    why: str = ""
    kernels: int = 0
    last_used: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a plan is made from. The arrays are read-only and have a row for each agent that may be used, in the order of ids.

    view: what the scheduler sees. names: the agents' names. capacity, free: [A, S]. kernels, last_used: [A]. idle: agents that
    cannot be used now, each with the reason.
    """

    view: QueueView
    names: tuple[str, ...]
    capacity: Array
    free: Array
    kernels: Array
    last_used: Array
    idle: tuple[tuple[str, str], ...]


def take(now: float, waiting: Sequence[Request], agents: Sequence[Agent], holding: Sequence[Lease] = ()) -> Snapshot:
    """Freeze the moment. Waiting sessions are ordered by submission, agents and holding sessions by id, slots by name."""
    slots = tuple(sorted({name for agent in agents for name in agent.capacity} | {name for r in waiting for k in r.kernels for name in k}))
    usable = sorted((agent for agent in agents if not agent.why), key=lambda agent: agent.id)
    capacity = _table([_vector(agent.capacity, slots) for agent in usable], len(slots))
    used = _table([_vector(agent.used, slots) for agent in usable], len(slots))
    free = _frozen(np.clip(capacity - used, 0, capacity))  # a shrunk agent may hold more than it has
    nodes = tuple(Node(agent.id, tuple(c), tuple(f)) for agent, c, f in zip(usable, capacity.tolist(), free.tolist(), strict=True))
    view = QueueView(
        now=now, slots=slots, nodes=nodes,
        waiting=tuple(Waiting(r.id, r.user, r.project, r.priority, r.submitted_at, tuple(_vector(k, slots) for k in r.kernels),
                              r.time_limit_s) for r in sorted(waiting, key=lambda r: (r.submitted_at, r.id))),
        holding=tuple(Holding(lease.id, lease.user, lease.project, lease.priority, lease.started_at,
                              tuple(_vector(k, slots) for k in lease.kernels), lease.agents, lease.ends_by)
                      for lease in sorted(holding, key=lambda lease: lease.id)))
    return Snapshot(
        view=view, names=tuple(agent.name for agent in usable), capacity=capacity, free=free,
        kernels=_frozen(np.array([agent.kernels for agent in usable], dtype=np.int64)),
        last_used=_frozen(np.array([agent.last_used for agent in usable], dtype=np.int64)),
        idle=tuple(sorted((agent.name, agent.why) for agent in agents if agent.why)))


def _vector(amounts: Slots, slots: tuple[str, ...]) -> Amounts:
    return tuple([amounts.get(name, 0) for name in slots])


def _table(rows: Sequence[Amounts], width: int) -> Array:
    return _frozen(np.array(rows, dtype=np.int64).reshape(len(rows), width))


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array
