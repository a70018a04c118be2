"""What every surface shows besides sessions: agents, images, accounts, tokens, plugins, usage, events.

Times are seconds since the epoch, UTC; sizes are bytes; slots are plain numbers (cores, bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backendai.model.group import GroupOptions


@dataclass(frozen=True, slots=True)
class Agent:
    """A node. why: what is wrong, empty when healthy. features, missing, limits: what its runtime can do, cannot (and why), enforces.

    cordoned: nothing new is placed on it. draining: and what can move is moved. labels: its own and its operator's.
    """

    id: str
    name: str
    connected: bool
    healthy: bool
    why: str
    version: str
    arch: str
    runtime: str
    engine: str
    default_image: str
    features: tuple[str, ...]
    missing: Mapping[str, str]
    limits: Mapping[str, str]
    capacity: Mapping[str, int | float]
    used: Mapping[str, int | float]
    free: Mapping[str, int | float]
    kernels: int
    last_seen: float
    created_at: float
    group: str = ""
    cordoned: bool = False
    draining: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """A resource group. scheduler, selector: names of plugins, empty for the manager's own. allow: who may use it, as it is written.

    options: in its idle rules *scope_id* is written out, too. waiting, running: sessions. capacity, used: of all its agents.
    decided_by: scheduler and selector, the manager's own where it names none.
    """

    id: str
    name: str
    scheduler: str
    selector: str
    options: GroupOptions
    allow: tuple[str, ...]
    agents: tuple[str, ...]
    waiting: int
    running: int
    capacity: Mapping[str, int | float]
    used: Mapping[str, int | float]
    created_at: float
    decided_by: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class SlotType:
    """A slot that agents lend. kind: count, bytes, unique or fraction. quantum: the smallest step, as a plain number."""

    name: str
    kind: str
    quantum: int | float
    unit: str
    title: str
    capacity: int | float
    used: int | float


@dataclass(frozen=True, slots=True)
class Preset:
    """A named bundle of slots. group: the only one that it is for; empty for every one."""

    id: str
    name: str
    slots: Mapping[str, int | float]
    group: str
    about: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What somebody may hold. scope: such as ``project:default/ml``. group: empty for all together. limit, used: plain numbers.

    what: a slot, ``sessions``, ``waiting``, ``kernels`` (of one session) or ``lifetime`` (seconds). used: None where nothing is held.
    borrow: of a project that may go beyond it, as far as its domain's quota goes.
    """

    id: str
    scope: str
    group: str
    what: str
    limit: int | float
    used: int | float | None
    borrow: bool = False


@dataclass(frozen=True, slots=True)
class Booking:
    """An advance reservation. agents: what is kept on each, by name. scope: whose sessions may use it. state: coming, open or over."""

    id: str
    name: str
    group: str
    scope: str
    agents: Mapping[str, Mapping[str, int | float]]
    begins: float
    ends: float
    state: str
    made_by: str


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What was held. What was not asked for is empty. hours: cores, devices or sessions times hours; for memory bytes times hours."""

    slot: str
    hours: float
    day: str = ""
    group: str = ""
    domain: str = ""
    project: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. subject: such as ``agent box``. mend: what was done about it, or what to do.

    mended: it was put right just now. grave: somebody should look at it.
    """

    subject: str
    what: str
    mend: str
    mended: bool = False
    grave: bool = True


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found. agents: by name, how many kernels were compared there; silent: agents that did not answer, with the reason."""

    findings: tuple[Finding, ...]
    agents: Mapping[str, int]
    silent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Image:
    """An image on an agent. id: the content's digest."""

    name: str
    agent: str
    id: str = ""
    size: int = 0
    created_at: float | None = None
    command: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Images:
    """What the agents have. silent: agents that did not answer, with the reason."""

    items: tuple[Image, ...]
    silent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a container used when it was looked at. None: could not be measured. Counters grow from the container's start.

    cpu_s: core seconds. memory, memory_peak: bytes. pids: processes. io_read, io_write: bytes from and to disks. net_rx, net_tx: bytes.
    devices: how busy the devices that it holds are, 0 to 1, by slot.
    """

    at: float
    cpu_s: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    pids: int | None = None
    io_read: int | None = None
    io_write: int | None = None
    net_rx: int | None = None
    net_tx: int | None = None
    devices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelStats:
    """What one container of a session uses. usage: None while nothing was measured."""

    kernel: str
    role: str
    index: int
    agent: str | None
    state: str
    usage: Measure | None


@dataclass(frozen=True, slots=True)
class SessionStats:
    """What a session uses, container by container."""

    session: str
    kernels: tuple[KernelStats, ...]


@dataclass(frozen=True, slots=True)
class User:
    """An account. role: ``superadmin``, ``domain-admin`` or ``user``. active: may sign in. uid, gid: inside containers.

    project: where sessions go that name none. projects: role by project's name, in the user's domain.
    """

    id: str
    name: str
    role: str
    email: str
    active: bool
    uid: int
    gid: int
    created_at: float
    domain: str = ""
    project: str = ""
    projects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Domain:
    """A tenant. weight: in fair sharing. borrow: its projects may use what the others leave unused. admins: names of users."""

    id: str
    name: str
    active: bool
    weight: float
    borrow: bool
    created_at: float
    admins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A project of a domain. weight: in fair sharing. role: yours in it, empty for none. members: how many it has."""

    id: str
    name: str
    domain: str
    active: bool
    weight: float
    created_at: float
    role: str = ""
    members: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a project. role: ``admin``, ``member`` or ``viewer``."""

    user: str
    role: str
    email: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its secret. user: whose, None for an agent's. scopes: what it is for; empty for all that its user may."""

    id: str
    name: str
    user: str | None
    agent: bool
    created_at: float
    expires_at: float | None
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewToken(Token):
    """A token with its secret, which is shown this once and stored as a hash."""

    token: str = ""


@dataclass(frozen=True, slots=True)
class Who:
    """You. uid, gid: inside containers. token: the id of the token that you sent. cluster: whom you talk to.

    project: where your sessions go that name none. projects: your role by project. scopes: what the token is for; empty for all.
    """

    id: str
    name: str
    role: str
    email: str
    uid: int
    gid: int
    token: str
    cluster: str
    version: str
    domain: str = ""
    project: str = ""
    projects: Mapping[str, str] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin of one process. state: up, off, skip or broken. why: when it is not up. where: ``manager``, or an agent's name."""

    id: str
    dist: str
    version: str
    state: str
    why: str
    where: str


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it wrote; bytes that are not UTF-8 are replaced."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class EventLine:
    """Something that happened. id: grows. subject: the id of what it happened to. data: what belongs to the type."""

    id: int
    at: float
    type: str
    subject: str
    data: Mapping[str, Any]
