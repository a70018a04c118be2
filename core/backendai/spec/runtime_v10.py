"""How a container lives.

A runtime turns a neutral container spec into a container of its engine and answers for its whole life. It never sees a session and
keeps nothing of its own that it could not rebuild from its engine: the labels it was given come back in ``list``, and they are the
caller's memory.

Every hook is safe to repeat: creating a container whose name exists returns it, starting a running one and removing an absent one
do nothing. A hook that cannot do its work raises ``backendai.model.errors.Failure`` with a sentence for the user.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from backendai.spec import Arity, Spec, hook


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the engine can do on this node, probed and never assumed.

    engine: such as ``docker 20.10.24``. default_image: what to run when no image is named. features: a subset of ``FEATURES``.
    missing: for a feature that is absent, why it is and how to mend it. limits: how each limit is enforced, such as
    ``{"mem": "cgroup v1"}`` or ``{"mem": "rlimit"}``. parallel_starts: how many containers may be created or started at once.
    """

    engine: str
    default_image: str
    features: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    parallel_starts: int = 20


FEATURES = frozenset({
    "pull",  # fetches images from registries
    "build",  # builds an image from a recipe folder
    "network-private",  # containers have a network of their own
    "network-outward",  # which may reach the outside
    "network-session",  # or a network with others, which they know by name: create_network, remove_network, list_networks
    "memory", "cpu", "pids",  # the limit is enforced, not only asked for
    "user",  # runs as a chosen uid
    "read-only-root",
    "survives",  # containers outlive the calling process
})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long step is. done, total: bytes, None while unknown."""

    text: str
    done: int | None = None
    total: int | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on this node.

    name: the reference to run it by. id: the content's digest. size: bytes. created_at: seconds since the epoch.
    command: the argv that it runs by itself. labels: as its author set them.
    """

    name: str
    id: str
    size: int = 0
    created_at: float | None = None
    command: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the node inside the container. source, target: absolute; a source that is a file is mounted as a file."""

    source: str
    target: str
    readonly: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits; None for none. cpu: thousandths of a core. memory, shm: bytes, and memory includes swap. pids: tasks."""

    cpu: int | None = None
    memory: int | None = None
    pids: int | None = 4096
    shm: int | None = None
    nofile: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file. source, target: paths on the node and inside. permissions: some of ``rwm``."""

    source: str
    target: str
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class Edits:
    """What devices need in a container, in the shape of a CDI specification. gids: extra groups. cdi: qualified CDI names."""

    devices: tuple[DeviceNode, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    gids: tuple[int, ...] = ()
    caps: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A private network of several containers on this node, before it exists.

    name: unique on the engine, ``[a-z0-9-]+``. hosts: the names by which its containers know one another, in order. labels: come back
    from ``list_networks``. outward: its containers may reach the outside, through NAT. Where they lie on several nodes, bridge is what
    a network plugin has made on this one, subnet (CIDR), addresses (by host name) and gateway (the node's own) are chosen, and mtu is
    what fits through, in bytes, 0 for the usual. Without a bridge the engine chooses.
    """

    name: str
    hosts: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    outward: bool = False
    bridge: str = ""
    subnet: str = ""
    gateway: str = ""
    mtu: int = 0
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """A network as its engine knows it. id: the handle. addresses: by host name."""

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network. network: the id of one. address: the container's own there."""

    network: str
    address: str


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything about a container before it exists.

    name: unique on the engine, ``[a-z0-9-]+``. image: a reference or the ``Image.name`` that ``ensure_image`` returned.
    argv: replaces the image's entry point and command; empty runs the image's own. user: (uid, gid) inside. workdir: absolute.
    labels: come back from ``list``. network: ``private`` (its own and nothing else) or ``outward`` (and the outside, through NAT).
    read_only_root: the image's files cannot be written. seccomp: False only where the operator allowed it.
    scratch: a folder of the node which this container alone may write; a runtime may keep its writable layer there.
    net: the session network that it joins; ``network`` says as that does whether it is outward. hosts: addresses by name, in any image.
    """

    name: str
    image: str
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    user: tuple[int, int] = (1000, 1000)
    workdir: str = "/home/work"
    hostname: str = "main1"
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    limits: Limits = Limits()
    edits: Edits = Edits()
    network: str = "private"
    read_only_root: bool = False
    seccomp: bool = True
    scratch: str | None = None
    net: Endpoint | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Container:
    """A container as its engine knows it now.

    id: the handle for every other hook. exit_code: once exited; 128 + n for a death by signal n, None where the engine lost it.
    out_of_memory: the engine saw its memory limit strike. pid: of its first process on the node, while it runs.
    started_at, ended_at: seconds since the epoch. error: why the engine could not run it.
    """

    id: str
    name: str
    state: ContainerState
    labels: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    out_of_memory: bool = False
    pid: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a container; the news is only a hint to look. state: what it became."""

    container: str
    state: ContainerState


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of output. stream: 1 stdout, 2 stderr. next: pass it as ``offset`` to go on just after this piece."""

    stream: int
    data: bytes
    next: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container has used. Counters only grow while it runs.

    cpu_s: CPU seconds. memory, memory_peak: bytes in use. pids: tasks. io_read, io_write, net_rx, net_tx: bytes; None: not known.
    """

    cpu_s: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    pids: int | None = None
    io_read: int | None = None
    io_write: int | None = None
    net_rx: int | None = None
    net_tx: int | None = None


class ExecStream(Protocol):
    """A process inside a container, from outside. Close it in every case; closing does not end the process."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (1 stdout or 2 stderr, data), or None at the end. With a terminal everything is stdout."""

    async def write(self, data: bytes) -> None:
        """Send *data* to its standard input; wait while the process does not read."""

    async def end_input(self) -> None:
        """Close its standard input."""

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the new size; nothing happens without a terminal."""

    async def signal(self, signal: str) -> None:
        """Send ``SIGINT``, ``SIGTERM`` or another signal to the process."""

    async def exit_code(self) -> int:
        """Wait for the end of the process; 128 + n for a death by signal n, 126 or 127 when it could not be run."""

    async def close(self) -> None:
        """Let go of the stream."""


class ByteStream(Protocol):
    """A connection to a port inside a container."""

    async def read(self, limit: int = 65536) -> bytes:
        """Return some bytes, empty once the other side has ended."""

    async def write(self, data: bytes) -> None:
        """Send *data*; wait while the other side does not read."""

    async def end_output(self) -> None:
        """End our direction and go on reading."""

    async def close(self) -> None:
        """End both directions."""


class Runtime:
    """A container engine on one node."""

    @hook(first=True, deadline_s=10.0)
    async def probe(self) -> Capabilities:
        """Ask the engine whether it works, what it is and what it can do. Raise ``Failure('unavailable')`` while it does not answer."""
        raise NotImplementedError

    @hook(first=True, deadline_s=None)
    async def ensure_image(self, image: str, report: Report) -> Image:
        """Make sure that *image* is on this node, fetching it if need be, and say how far it is through *report*.

        Raise ``Failure('bad-image')`` when there is no such image, with what to do about it.
        """
        raise NotImplementedError

    @hook(first=True, deadline_s=60.0)
    async def create(self, container: ContainerSpec) -> str:
        """Create *container* without running it and return its id. A container of that name is returned as it is."""
        raise NotImplementedError

    @hook(first=True, deadline_s=60.0)
    async def start(self, id: str) -> None:
        """Run the container; return once its first process runs. Raise ``Failure('runtime-fault')`` when that cannot be executed."""
        raise NotImplementedError

    @hook(first=True, deadline_s=None)
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        """Send *signal*, wait up to *grace_s* seconds for the end, then kill. An ended or absent container is left alone."""
        raise NotImplementedError

    @hook(first=True, deadline_s=60.0)
    async def remove(self, id: str) -> None:
        """Remove the container, its writable layer and whatever was made for it; kill it if it runs."""
        raise NotImplementedError

    @hook(first=True, deadline_s=30.0)
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """Return every container that bears all *labels*, the ended ones included."""
        raise NotImplementedError

    @hook(deadline_s=None)
    def events(self, labels: Mapping[str, str]) -> AsyncIterator[Event]:
        """Tell of starts and ends as they happen, until closed. Nothing may be lost by a reader who also calls ``list`` now and then."""
        raise NotImplementedError

    @hook(first=True, deadline_s=30.0)
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> ExecStream:
        """Run *argv* inside a running container. user, workdir: None for the container's own."""
        raise NotImplementedError

    @hook(deadline_s=None)
    def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        """Give the container's output from *offset* (0 or a ``LogChunk.next``), in order and complete; *follow*: until it has ended."""
        raise NotImplementedError

    @hook(deadline_s=None)
    def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Give *path* as a tar stream whose root is its last part. Raise ``Failure('not-found')`` when it is not there."""
        raise NotImplementedError

    @hook(first=True, deadline_s=None)
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        """Unpack a tar stream into the folder *path*, owned by the container's user. Raise ``Failure('not-found')`` without that folder."""
        raise NotImplementedError

    @hook(first=True, deadline_s=20.0)
    async def stats(self, ids: Sequence[str]) -> Mapping[str, Usage]:
        """Return the use of each running container of *ids*; leave out those that are gone."""
        raise NotImplementedError

    @hook(first=True, deadline_s=15.0)
    async def dial(self, id: str, port: int) -> ByteStream:
        """Connect to a TCP port on the loopback of a running container; nothing needs to be published."""
        raise NotImplementedError

    @hook(first=True, optional=True, deadline_s=30.0)
    async def images(self) -> Sequence[Image]:
        """Return the images on this node."""
        raise NotImplementedError

    @hook(first=True, optional=True, deadline_s=120.0)
    async def remove_image(self, image: str) -> None:
        """Delete an image from this node. Raise ``Failure('conflict')`` while containers need it."""
        raise NotImplementedError

    @hook(first=True, optional=True, deadline_s=None)
    async def build_image(self, name: str, context: AsyncIterator[bytes], report: Report) -> Image:
        """Build an image from a tar stream that has a ``Dockerfile`` at its root, or for engines without builds, a root filesystem."""
        raise NotImplementedError

    @hook(first=True, optional=True, deadline_s=60.0)
    async def create_network(self, network: NetworkSpec) -> Network:
        """Create a network and return it. One of that name is returned as it is."""
        raise NotImplementedError

    @hook(first=True, optional=True, deadline_s=60.0)
    async def remove_network(self, id: str) -> None:
        """Remove a network and whatever was made for it. Raise ``Failure('unavailable')`` while containers are in it."""
        raise NotImplementedError

    @hook(first=True, optional=True, deadline_s=30.0)
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        """Return every network that bears all *labels*."""
        raise NotImplementedError


SPEC = Spec("runtime", 10, Runtime, Arity.ONE)
