"""A session: what is asked, the states it passes, and what everyone may know of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from backendai.model.errors import Failure


class SessionType(StrEnum):
    INTERACTIVE = "interactive"  # idles until it is stopped
    BATCH = "batch"  # runs one command; its exit code is the session's


class SessionState(StrEnum):
    PENDING = "PENDING"
    SCHEDULED = "SCHEDULED"
    PREPARING = "PREPARING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class Result(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"


class Network(StrEnum):
    """What a session's containers can reach."""

    PRIVATE = "private"  # themselves
    OUTWARD = "outward"  # themselves and, through NAT, the outside


S = SessionState
FINAL = frozenset({S.TERMINATED, S.CANCELLED, S.FAILED})
PLACED = frozenset({S.SCHEDULED, S.PREPARING, S.STARTING, S.RUNNING, S.TERMINATING})  # holds capacity on an agent
TRANSITIONS: Mapping[SessionState, frozenset[SessionState]] = {
    S.PENDING: frozenset({S.SCHEDULED, S.CANCELLED, S.FAILED}),
    S.SCHEDULED: frozenset({S.PREPARING, S.STARTING, S.RUNNING, S.TERMINATING, S.PENDING, *FINAL}),
    S.PREPARING: frozenset({S.STARTING, S.RUNNING, S.TERMINATING, S.PENDING, *FINAL}),
    S.STARTING: frozenset({S.RUNNING, S.TERMINATING, S.PENDING, *FINAL}),
    S.RUNNING: frozenset({S.TERMINATING, S.TERMINATED, S.FAILED, S.PENDING}),
    S.TERMINATING: frozenset({S.TERMINATED, S.CANCELLED, S.FAILED, S.PENDING}),  # back to the queue: another attempt, or preempted
    S.TERMINATED: frozenset(),
    S.CANCELLED: frozenset(),
    S.FAILED: frozenset(),
}
# Seconds that a transient state may last before its owner acts. PENDING waits for capacity and may wait for ever, with a reason.
DEADLINES: Mapping[SessionState, float] = {S.SCHEDULED: 60.0, S.PREPARING: 1800.0, S.STARTING: 120.0, S.TERMINATING: 120.0}

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9._-]{0,62}")
_RESERVED_TARGETS = ("/", "/proc", "/sys", "/dev", "/.bai")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the agent's node inside the container. source, target: absolute paths."""

    source: str
    target: str
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Kernels of one role in a cluster. slots, image, command: None means the session's own."""

    role: str
    count: int = 1
    slots: Mapping[str, int] | None = None
    image: str | None = None
    command: tuple[str, ...] | None = None


class Arrange(StrEnum):
    """How the kernels of a cluster stand to each other."""

    PACK = "pack"  # on as few agents as can be
    SPREAD = "spread"  # on as many


class Zone(StrEnum):
    """How the kernels of a cluster stand to failure domains (the agents' label ``zone``)."""

    SAME = "same"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Wishes:
    """Where a session wants to be.

    agents: one of these (names). avoid: none of these. labels: what the agent's labels must say. one_agent: all kernels together.
    strict: what cannot be had is waited for; otherwise it is preferred and no more. ``one_agent`` is always strict.
    """

    agents: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    arrange: Arrange | None = None
    zone: Zone | None = None
    one_agent: bool = False
    strict: bool = True


class After(StrEnum):
    """When a dependency lets go."""

    OK = "afterok"  # it ended with success; otherwise the dependent is cancelled
    ANY = "afterany"  # it ended
    NOT_OK = "afternotok"  # it ended without success; otherwise the dependent is cancelled


@dataclass(frozen=True, slots=True)
class Dependency:
    """Waits for another session. session: its id."""

    session: str
    kind: After = After.OK


@dataclass(frozen=True, slots=True)
class Retry:
    """When a batch session that failed is tried again. count: further attempts. backoff_s: before the first, doubled each time.

    exit_codes: those that are worth another attempt; empty for every one but 0. A lost agent is always worth one.
    """

    count: int = 0
    backoff_s: float = 10.0
    exit_codes: tuple[int, ...] = ()


class Evicted(StrEnum):
    """What becomes of a session that makes room for a more urgent one."""

    REQUEUE = "requeue"
    END = "end"


@dataclass(frozen=True, slots=True)
class ArrayIndex:
    """A session's place in an array. id: the array's. most: how many may run at once, None for any number."""

    id: str
    index: int
    size: int
    most: int | None = None


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What its owner asked for; never changes once accepted.

    image: None means the default of the runtime it lands on. command: argv; empty in a batch session means the image's own.
    slots: amounts in internal units, for each kernel. time_limit_s: of running, None for none. grace_s: from SIGTERM to SIGKILL.
    cluster: the kernels, by role; empty for one kernel, ``main1``. bootstrap: a script that runs inside before the command.
    not_before: seconds since the epoch. evicted: None when it cannot be preempted. booking: the id of an advance reservation to use.
    """

    type: SessionType
    name: str
    image: str | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    priority: int = 10
    time_limit_s: float | None = None
    grace_s: float = 10.0
    network: Network = Network.PRIVATE
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None  # None: /home/work
    tags: tuple[str, ...] = ()
    cluster: tuple[Part, ...] = ()
    wishes: Wishes = Wishes()
    bootstrap: str = ""
    not_before: float | None = None
    after: tuple[Dependency, ...] = ()
    retry: Retry = Retry()
    evicted: Evicted | None = None
    booking: str | None = None
    array: ArrayIndex | None = None


@dataclass(frozen=True, slots=True)
class KernelView:
    """One container of a session. name: its role and number, such as ``main1``, which is its host name. agent: by name."""

    id: str
    name: str
    agent: str | None
    state: str
    exit_code: int | None
    slots: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Session:
    """A session as every surface shows it. Times are seconds since the epoch, UTC; slots are plain numbers (cores, bytes)."""

    id: str
    name: str
    owner: str  # the user's name
    type: SessionType
    image: str | None
    command: tuple[str, ...]
    state: SessionState
    result: Result | None
    exit_code: int | None
    reason: str  # why it is in this state, in a sentence; empty when there is nothing to say
    hold: str  # why it waits; empty when it does not
    agent: str | None  # the agent's name
    priority: int
    slots: Mapping[str, int | float]
    env: Mapping[str, str]
    network: Network
    mounts: tuple[Mount, ...]
    tags: tuple[str, ...]
    time_limit_s: float | None
    progress: str  # what it does right now, such as a pull's progress; empty when there is nothing to say
    created_at: float
    started_at: float | None
    ended_at: float | None
    project: str = ""
    domain: str = ""
    group: str = ""
    kernels: tuple[KernelView, ...] = ()  # of a cluster; empty where there is one kernel
    attempt: int = 1
    not_before: float | None = None
    after: tuple[Dependency, ...] = ()
    retry: Retry = Retry()
    evicted: Evicted | None = None
    array: ArrayIndex | None = None
    expires_at: float | None = None  # when it will be ended by a rule or its time limit
    expires_why: str = ""


def is_final(state: SessionState) -> bool:
    """Tell whether nothing more will happen to a session in *state*."""
    return state in FINAL


def check_session_name(name: str) -> str:
    """Return *name* if a session may bear it; raise ``Failure('bad-name')`` if not."""
    if _NAME.fullmatch(name) is None:
        raise Failure("bad-name", f"{name!r} cannot be a session's name; use a letter, then up to 62 letters, digits, '.', '_' or '-'.")
    return name


def check_mount(mount: Mount) -> Mount:
    """Return *mount* if its paths are usable; raise ``Failure('bad-mount')`` if not."""
    for path in (mount.source, mount.target):
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise Failure("bad-mount", f"{path!r} must be an absolute path without '..'.")
    target = "/" + "/".join(part for part in mount.target.split("/") if part not in {"", "."})
    if target in _RESERVED_TARGETS or target.startswith(tuple(f"{r}/" for r in _RESERVED_TARGETS[1:])):
        raise Failure("bad-mount", f"{mount.target} belongs to the container itself; mount below /home/work or /mnt instead.")
    return mount


def result_of(exit_code: int) -> Result:
    """A batch session succeeds when its command ends with 0."""
    return Result.SUCCESS if exit_code == 0 else Result.FAILURE
