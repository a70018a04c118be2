"""One moment of the queue and the cluster, frozen: what a decision is made from, and may be made from again.

Amounts are integers in internal units (bytes, thousandths). A slot of the kind ``fraction`` has devices of 1000 each: who asks for less
than 1000 gets a part of one device, others get whole devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backendai.model.group import GroupOptions
from backendai.model.session import Wishes
from backendai.spec.scheduler_v10 import Amounts, QueueView, Waiting

if TYPE_CHECKING:
    from backendai.sokovan.memory import Memory

Slots = Mapping[str, int]
Units = Mapping[str, Mapping[str, int]]  # fraction slot to device to amount, of one kernel
Array = NDArray[np.int64]
SESSIONS = "sessions"  # what a quota limits, when it is no slot
PLAIN = Wishes()


@dataclass(frozen=True, slots=True)
class Request:
    """A session in the queue. kernels: what each of its containers needs, by slot; a slot left out is 0.

    user, project, domain: ids. claim: agents kept for its kernels, in order, while others make room. booking: the id of the advance
    reservation that it runs in. array: an id by which quotas of the scope ``array`` count it.
    """

    id: str
    user: str
    project: str
    domain: str
    priority: int
    submitted_at: float
    kernels: tuple[Slots, ...]
    time_limit_s: float | None = None
    wishes: Wishes = PLAIN
    preemptible: bool = False
    claim: tuple[str, ...] = ()
    booking: str = ""
    array: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A session that holds capacity. agents: where each of its kernels is. units: of each kernel; empty where no slot has devices.

    ends_by: when it must have ended, None if nobody knows. idle_s: for how long nobody has used it, None if nobody knows.
    """

    id: str
    user: str
    project: str
    domain: str
    priority: int
    started_at: float
    kernels: tuple[Slots, ...]
    agents: tuple[str, ...]
    ends_by: float | None = None
    preemptible: bool = False
    units: tuple[Units, ...] = ()
    booking: str = ""
    array: str = ""
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it stands. why: what keeps it from taking sessions, empty when nothing does.

    kernels: how many containers it holds. last_used: the number of the placement that it received last, 0 for never.
    labels: ``zone`` is its failure domain. devices: fraction slot to device to capacity.
    """

    id: str
    name: str
    capacity: Slots
    used: Slots
    why: str = ""
    kernels: int = 0
    last_used: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    devices: Units = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Booking:
    """An advance reservation: from *begins* until *ends* the amounts on its agents are for the sessions that name it.

    scope_id: whose sessions may: a domain, a project or a user. agents: by id.
    """

    id: str
    name: str
    scope_id: str
    agents: Mapping[str, Slots]
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class Quota:
    """What somebody may hold. scope: domain, project, user or array. what: a slot or ``sessions`` (a number of them).

    used: by all that hold. borrow: of a project that may go beyond it, as far as its domain's own quotas allow.
    """

    scope: str
    scope_id: str
    what: str
    limit: int
    used: int = 0
    borrow: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """When held kernels end, those that do. row: int64 [N], of the agent. at: float64 [N]. amounts: int64 [N, S].

    units: of each, slot index, device index and amount; empty where nobody has any. The order means nothing.
    """

    row: Array
    at: NDArray[np.float64]
    amounts: Array
    units: tuple[tuple[tuple[int, int, int], ...], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a plan is made from. The arrays are read-only and have a row for each agent that may be used, in the order of ids.

    view: what the scheduler sees. rows: of agents, by id. names, labels: of the agents. capacity, free: [A, S]. kernels, last_used: [A].
    idle: agents that cannot be used now, each with the reason. devices: what is free of each device, by slot index, [A, D], padded with -1.
    device_names: by slot index, for each agent. waiting, requests: who waits, by id; claims, booked: those of them that have a claim or a
    booking. leases: who holds. agents: as they were given. asked: the kernels of every
    waiting session, each list once; perhaps some that nobody asks for any more. mix, weights: as the selector sees them. memory: what
    only saves work; freed, changed: how long its logs were.
    """

    view: QueueView
    rows: Mapping[str, int]
    names: tuple[str, ...]
    capacity: Array
    free: Array
    kernels: Array
    last_used: Array
    idle: tuple[tuple[str, str], ...]
    labels: tuple[Mapping[str, str], ...]
    devices: Mapping[int, Array]
    device_names: Mapping[int, tuple[tuple[str, ...], ...]]
    device_capacity: Mapping[int, Array]
    waiting: Mapping[str, Waiting]
    requests: Mapping[str, Request]
    claims: tuple[str, ...]
    booked: tuple[str, ...]
    leases: Mapping[str, Lease]
    ends: Ends
    agents: tuple[Agent, ...]
    asked: Mapping[tuple[Amounts, ...], None]
    freed: int
    changed: int
    options: GroupOptions
    quotas: tuple[Quota, ...] = ()
    bookings: tuple[Booking, ...] = ()
    mix: Array | None = None
    weights: NDArray[np.float64] | None = None
    memory: Memory | None = field(default=None, compare=False, repr=False)


def frozen(array: Array) -> Array:
    """Return *array*, which nobody else has, made read-only."""
    array.setflags(write=False)
    return array
