"""The messages on the link between an agent and a manager, in MessagePack over one WebSocket that the agent opens.

The manager says what should be (``Desired``), the agent says what is (``Observed``), and neither relies on a message having arrived:
after every connect the agent tells everything that it has and the manager answers with the whole desired set.

    agent    Hello ->                         path /v1/link, header ``Authorization: Bearer AGENT_TOKEN``
    manager  <- Welcome, Desired(full=True)   or a close with a reason
    agent    Report, Beat, Advance ->
    manager  <- Desired(full=False), Purge, Open

An ``Open`` asks the agent to dial back: one new WebSocket to ``/v1/link/streams/{stream}`` for one stream (see ``frames``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from backendai.model.network import NetPlan
from backendai.model.session import Mount, Network
from backendai.model.slots import SlotDecl

PROTOCOL = 1


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of everything on the link."""


class Want(StrEnum):
    """What the manager wants of a kernel. A kernel that is absent from the desired set is to be removed; its logs stay until purged."""

    RUN = "run"
    STOP = "stop"


class KernelState(StrEnum):
    """What the agent sees of a kernel."""

    ACCEPTED = "accepted"  # in the journal
    PREPARING = "preparing"  # the image is being fetched
    STARTING = "starting"  # the container is being made
    RUNNING = "running"
    EXITED = "exited"  # ended; its output is complete in the agent's log file; what it used is being removed
    GONE = "gone"  # ended or never run, and nothing is left of it but its log


class Peer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One kernel of a session as the others see it.

    host: the name by which they reach it, role and idx in one, such as ``main1``. agent: the id of the agent that has it.
    idx: counts from 1 within the role. address: in the session's network, empty where the agent chooses it.
    """

    host: str
    kernel: str
    agent: str
    role: str
    idx: int
    address: str = ""


class KernelOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container that the manager wants on this agent.

    kernel, session, owner: ids. name: the session's. want: RUN, or STOP with grace_s seconds from SIGTERM to SIGKILL.
    image: None for the runtime's default. command: argv. idle: keep it alive doing nothing until stopped.
    slots: internal units. user: (uid, gid) inside. time_limit_s: of running, counted and enforced by the agent.
    prepare_s, start_s: deadlines for fetching the image and for making the container.

    role, idx: which kernel of its session this is; ``hostname`` is both in one. peers: all kernels of the session in order, this one
    included; empty for a session of one. net: the session's network where its kernels lie on several agents; without it, and with
    peers, the agent makes a network of its own for them. bootstrap: a script that runs inside as the user, in the image's /bin/sh
    unless it names another program, before the command; the kernel is STARTING until it has ended, for at most bootstrap_s seconds, and
    fails with it. units: for a FRACTION slot, how much of which device the manager chose. attempt: how
    often the session has been placed, this time included.
    """

    kernel: str
    session: str
    name: str
    owner: str
    want: Want = Want.RUN
    image: str | None = None
    command: tuple[str, ...] = ()
    idle: bool = False
    env: Mapping[str, str] = {}
    slots: Mapping[str, int] = {}
    user: tuple[int, int] = (1000, 1000)
    hostname: str = "main1"
    workdir: str | None = None
    network: Network = Network.PRIVATE
    mounts: tuple[Mount, ...] = ()
    time_limit_s: float | None = None
    grace_s: float = 10.0
    prepare_s: float = 1800.0
    start_s: float = 120.0
    role: str = "main"
    idx: int = 1
    peers: tuple[Peer, ...] = ()
    net: NetPlan | None = None
    bootstrap: str = ""
    bootstrap_s: float = 600.0
    units: Mapping[str, Mapping[str, int]] = {}
    attempt: int = 1


class Observed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent knows of one kernel.

    exit_code: once exited; None when it never ran or the runtime lost it. error: why it could not be prepared, started or kept, as a
    sentence for the user; its code is a key of ``model.errors.KINDS``. why: why it ended, when it was not by itself: ``stopped``,
    ``time-limit`` or ``out-of-memory``. Times are seconds since the epoch.
    """

    kernel: str
    state: KernelState
    container: str = ""
    image: str = ""
    exit_code: int | None = None
    why: str = ""
    error: str = ""
    code: str = ""
    started_at: float | None = None
    ended_at: float | None = None


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """See ``backendai.spec.runtime_v10.Usage``; at is the moment of measuring, seconds since the epoch.

    devices: how busy the devices that it holds are, 0 to 1, by slot; a slot that nobody measures is left out.
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
    devices: Mapping[str, float] = {}


class Hello(Message, frozen=True, tag="hello"):
    """The agent's first word.

    agent: its own lasting id. name: unique in the cluster. cluster: the id of the cluster whose kernels it holds, empty for none.
    capacity: internal units. runtime: the plugin's name. engine, features, missing, limits, default_image: from its ``Capabilities``.
    kernels: everything it has. logs: kernels of which only the log is left. why: empty when healthy, else what is wrong.

    address: by which the nodes of other agents reach this node, empty where they cannot. slots: what its accelerator plugins declare.
    devices: for each FRACTION slot, how much of which device can be lent in all, in internal units. labels: as its operator set them.
    networks: the ``network_v10`` plugins that work here, by which sessions may lie on this agent and others.
    """

    protocol: int
    agent: str
    name: str
    version: str
    arch: str
    cluster: str
    capacity: Mapping[str, int]
    runtime: str
    engine: str
    default_image: str
    features: tuple[str, ...] = ()
    missing: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}
    kernels: tuple[Observed, ...] = ()
    logs: tuple[str, ...] = ()
    plugins: tuple[Mapping[str, str], ...] = ()
    why: str = ""
    address: str = ""
    slots: tuple[SlotDecl, ...] = ()
    devices: Mapping[str, Mapping[str, int]] = {}
    labels: Mapping[str, str] = {}
    networks: tuple[str, ...] = ()


class Welcome(Message, frozen=True, tag="welcome"):
    """The manager takes the agent in. purge: kernels of ``Hello.logs`` whose log nobody needs any more. beat_s: seconds between beats."""

    cluster: str
    purge: tuple[str, ...] = ()
    beat_s: float = 5.0


class Desired(Message, frozen=True, tag="desired"):
    """What should be. full: this is all of it; otherwise *put* replaces or adds and *drop* takes away.

    generation: grows by one with each message to this agent; a gap means a loss, and the agent connects anew.
    """

    generation: int
    full: bool
    put: tuple[KernelOrder, ...] = ()
    drop: tuple[str, ...] = ()


class Purge(Message, frozen=True, tag="purge"):
    """Delete the logs of these kernels."""

    kernels: tuple[str, ...]


class Report(Message, frozen=True, tag="report"):
    """What has changed since the last report. generation: the newest ``Desired`` that was in force."""

    generation: int
    kernels: tuple[Observed, ...]


class Advance(Message, frozen=True, tag="advance"):
    """How far a long step of a kernel is, for people. Losing one does no harm."""

    kernel: str
    text: str


class Beat(Message, frozen=True, tag="beat"):
    """A sign of life. why: empty when the runtime is healthy, else what is wrong. usage: by kernel. node: the machine's own.

    devices: as in ``Hello``; one that has fallen ill is missing.
    """

    why: str = ""
    capacity: Mapping[str, int] = {}
    usage: Mapping[str, Usage] = {}
    node: Usage | None = None
    devices: Mapping[str, Mapping[str, int]] = {}


class Open(Message, frozen=True, tag="open"):
    """Dial back for a stream. verb: see ``frames.Verb``. arguments: what the verb takes, plain data."""

    stream: str
    verb: str
    arguments: Mapping[str, Any] = {}


FromAgent = Hello | Report | Beat | Advance
FromManager = Welcome | Desired | Purge | Open

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_manager: msgspec.msgpack.Decoder[FromManager] = msgspec.msgpack.Decoder(FromManager)


def encode(message: Message) -> bytes:
    """Return *message* as one WebSocket frame's payload."""
    return _encoder.encode(message)


def decode_from_agent(data: bytes) -> FromAgent:
    """Read a frame that an agent sent; raise ``msgspec.DecodeError`` on anything else."""
    try:
        return _from_agent.decode(data)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None


def decode_from_manager(data: bytes) -> FromManager:
    """Read a frame that a manager sent; raise ``msgspec.DecodeError`` on anything else."""
    try:
        return _from_manager.decode(data)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None
