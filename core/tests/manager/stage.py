"""A stage for the orchestrator: a real store, a clock that the test turns, links that only keep what they are given, and played agents.

Nothing happens by itself here. The test says when messages arrive, when the orchestrator looks, and how late it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from backendai.manager.access import Caller
from backendai.manager.auth import TokenCache
from backendai.manager.bus import Bus
from backendai.manager.config import ManagerConfig
from backendai.manager.context import Context
from backendai.manager.first import found_cluster, make_agent_token
from backendai.manager.live import Live
from backendai.manager.metrics import Metrics
from backendai.manager.operations import sessions as operations
from backendai.manager.operations.asking import CreateSession
from backendai.manager.operations.enqueue import create
from backendai.manager.orchestrator import Orchestrator
from backendai.manager.possible import Capacities
from backendai.manager.serve import SPECS
from backendai.manager.store.engine import open_store
from backendai.manager.store.held import find_holding
from backendai.manager.store.schema import agent_slots, agents, events, sessions, tokens, users
from backendai.manager.store.sessions import SessionLoader
from backendai.manager.worker import Worker
from backendai.model.errors import Failure
from backendai.model.ids import make_id
from backendai.model.session import TRANSITIONS, SessionState, SessionType
from backendai.plugin.host import PluginHost
from backendai.spec.hook_v20 import User
from backendai.wire.link import (
    PROTOCOL,
    Beat,
    Desired,
    FromManager,
    Hello,
    KernelOrder,
    KernelState,
    Observed,
    Purge,
    Report,
    Want,
    Welcome,
)
from backendai.wire.tokens import hash_token
from sqlalchemy import select

T = TypeVar("T")
K = KernelState
WAY = (K.ACCEPTED, K.PREPARING, K.STARTING, K.RUNNING)
CORE = 1000
GIB = 1 << 30


class Inline(Worker):
    """Decides at once and in place, so that a seed is one story."""

    def __init__(self, name: str) -> None:
        self.busy = False

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    def close(self) -> None:
        pass


class Wire:
    """One connection as the manager sees it. broken: nothing that is sent arrives any more. closed: why the manager ended it."""

    def __init__(self, box: Box) -> None:
        self.agent_id = box.id
        self.token = box.token
        self.name = box.name
        self.inbox: deque[FromManager] = deque()
        self.broken = False
        self.closed = ""

    def send(self, message: FromManager) -> None:
        if not self.broken:
            self.inbox.append(message)

    def close(self, reason: str) -> None:
        self.closed = self.closed or reason


@dataclass
class Played:
    """A kernel as an agent has it."""

    order: KernelOrder
    seen: Observed
    dropped: bool = False


@dataclass(eq=False)
class Box:
    """An agent. kernels: its journal. untold: kernels of which the manager has not heard the newest. heard: all that it said.

    full: its disk takes nothing more. lossy: its link was tampered with. torn: it has found that out, or cannot write down what it is
    told, and hangs up.
    """

    stage: Stage
    id: str
    name: str
    capacity: Mapping[str, int]
    why: str = ""
    kernels: dict[str, Played] = field(default_factory=dict)
    wire: Wire | None = None
    generation: int = 0
    untold: set[str] = field(default_factory=set)
    cluster: str = ""
    token: str = ""
    heard: list[FromManager] = field(default_factory=list)
    networks: tuple[str, ...] = ("null",)
    full: bool = False
    lossy: bool = False
    torn: bool = False

    async def connect(self) -> None:
        """Say hello on a new link. A refusal is raised."""
        self.token = self.token or await self.stage.make_token(self.name)
        wire, self.wire = Wire(self), None
        self.lossy = self.torn = False
        self.untold.clear()
        hello = Hello(PROTOCOL, self.id, self.name, "1", "x86_64", self.cluster, self.capacity, "played", "none", "base", why=self.why,
                      address=f"{self.name}.example", networks=self.networks,
                      kernels=tuple(played.seen for played in self.kernels.values()))
        await self.stage.orchestrator.hello(wire, hello)
        self.wire, self.generation = wire, 0
        self.cluster = self.stage.context.cluster

    async def leave(self) -> None:
        """End the link, and let the manager know."""
        if self.wire is not None:
            wire, self.wire = self.wire, None
            await self.stage.orchestrator.gone(wire)

    async def beat(self, why: str | None = None, capacity: Mapping[str, int] | None = None) -> None:
        self.why = self.why if why is None else why
        self.capacity = self.capacity if capacity is None else capacity
        await self.stage.orchestrator.beat(self.id, Beat(self.why, self.capacity))

    def hear(self) -> int:
        """Take in what has arrived; return how much that was."""
        count = 0
        while self.wire is not None and self.wire.inbox and not self.torn:
            message = self.wire.inbox.popleft()
            self.heard.append(message)
            count += 1
            if isinstance(message, Desired):
                assert self.lossy or message.full or message.generation == self.generation + 1, "a link that works loses nothing"
                if not message.full and message.generation <= self.generation:
                    continue  # said twice
                self.torn = (not message.full and message.generation != self.generation + 1) or not self._apply(message)
                self.generation = self.generation if self.torn else message.generation
            else:
                assert isinstance(message, Welcome | Purge), message
        return count

    def _apply(self, desired: Desired) -> bool:
        """Take in what is wanted; tell whether it could all be written down."""
        for order in desired.put:
            if self.full and (order.kernel not in self.kernels or self.kernels[order.kernel].order != order):
                self.why = "No space is left on the device."
                return False
            played = self.kernels.setdefault(order.kernel, Played(order, Observed(order.kernel, K.ACCEPTED)))
            played.order = order
            self.untold.add(order.kernel)
        gone = self.kernels.keys() - {order.kernel for order in desired.put} if desired.full else set()
        for kernel in {*desired.drop, *gone}:
            if kernel in self.kernels:
                self.kernels[kernel].dropped = True
        return True

    def speak(self) -> int:
        """Report what has changed."""
        told = self.words()
        if told and self.wire is not None and not self.wire.broken:
            self.stage.orchestrator.reported(self.id, Report(self.generation, told))
        return len(told)

    def words(self) -> tuple[Observed, ...]:
        """Return what has changed since the last time."""
        told = tuple(self.kernels[kernel].seen for kernel in sorted(self.untold) if kernel in self.kernels)
        self.untold.clear()
        return told

    def see(self, kernel: str, state: KernelState, **more: Any) -> None:
        """Have a kernel be in *state*."""
        played = self.kernels[kernel]
        if state is K.RUNNING:
            self.stage.ran[f"{played.order.session}.{played.order.hostname}.{played.order.attempt}"] += 1
            more = {"started_at": self.stage.now, "container": "c", **more}
        if state in (K.EXITED, K.GONE) and played.seen.ended_at is None:
            more = {"ended_at": self.stage.now, **more}
        played.seen = msgspec.structs.replace(played.seen, state=state, **more)
        self.untold.add(kernel)

    def step(self, kernel: str, exit_code: int = 0) -> bool:
        """Bring a kernel one step on, as an agent does; tell whether there was one. A full disk lets nothing happen."""
        played = self.kernels[kernel]
        if self.full:
            return False
        state, wanted = played.seen.state, played.order.want is Want.RUN and not played.dropped
        if state is K.GONE:
            if played.dropped:
                del self.kernels[kernel]
            return played.dropped
        if state is K.EXITED:
            self.see(kernel, K.GONE)
        elif not wanted:
            if state is K.RUNNING:
                self.see(kernel, K.EXITED, exit_code=143, why="stopped")
            else:
                self.see(kernel, K.GONE)
        elif state is not K.RUNNING:
            self.see(kernel, WAY[WAY.index(state) + 1])
        elif played.order.idle:
            return False
        else:
            self.see(kernel, K.EXITED, exit_code=exit_code)
        return True

    def reboot(self) -> None:
        """Come up again without containers, with the journal."""
        for kernel, played in self.kernels.items():
            if played.seen.state in (K.STARTING, K.RUNNING):
                self.see(kernel, K.GONE, error="The container was lost when the machine stopped.", code="runtime-fault")


class Stage:
    """A manager without a port, and the agents of a test. ran: how often each session's command was begun."""

    def __init__(self, config: ManagerConfig, host: PluginHost) -> None:
        self.config = config
        self.host = host
        self.now = 1_800_000_000.0
        self.boxes: list[Box] = []
        self.ran: Counter[str] = Counter()
        self.context: Context
        self.orchestrator: Orchestrator
        self.caller: Caller

    async def start(self) -> None:
        """Begin as a new process does, with what the database says."""
        bus = Bus()
        store = await open_store(self.config.store_url, bus.publish, lambda: self.now)
        self.context = Context(self.config, store, self.host, bus, Live(), Metrics(), TokenCache(), SessionLoader(store), Capacities(),
                               clock=lambda: self.now)
        self.context.tasks.at_home()
        self.context.cluster, _ = await found_cluster(self.context)
        row = (await store.read(lambda connection: connection.execute(select(users)))).one()
        self.caller = Caller(User(row.id, row.name, row.role, row.email))
        self.orchestrator = Orchestrator(self.context, Inline)
        await self.orchestrator.begin()

    async def kill(self) -> None:
        """End as a process does that is killed: what is not committed is lost, and nobody says goodbye."""
        store = self.context.store
        writer, store._task = store._task, None
        if writer is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await store.close()
        await self.context.tasks.close(0.0)
        self.context.prospects.close()
        for box in self.boxes:
            box.wire = None

    async def box(self, name: str, cpu: int = 4, mem: int = 16, **more: Any) -> Box:
        """Return an agent that has joined."""
        box = Box(self, make_id(1, len(self.boxes) + 1), name, {"cpu": cpu * CORE, "mem": mem * GIB}, **more)
        self.boxes.append(box)
        await box.connect()
        box.hear()
        return box

    async def make_token(self, name: str) -> str:
        """Make a token for an agent and return its id."""
        secret = await make_agent_token(self.context, name)
        query = select(tokens.c.id).where(tokens.c.hash == hash_token(secret))
        return str((await self.context.store.read(lambda connection: connection.execute(query))).scalar_one())

    async def ask(self, cpu: float = 1, mem: str = "1g", **more: Any) -> str:
        """Ask for a batch session and return its id."""
        given: dict[str, Any] = {"type": SessionType.BATCH, "command": ("true",), "slots": {"cpu": cpu, "mem": mem}, **more}
        if given["type"] is SessionType.INTERACTIVE:
            given["command"] = ()
        self.now += 0.001  # who asks later comes later
        return (await create(self.context, self.caller, CreateSession(**given))).id

    async def stop(self, id: str) -> None:
        await operations.stop(self.context, self.caller, operations.StopSession(id))

    async def look(self) -> None:
        """Let everything arrive that was sent, and the orchestrator look, until nothing changes any more."""
        for _ in range(30):
            before = await self.states()
            for box in self.boxes:
                box.speak()
            await self.orchestrator.write_reports()
            await self.orchestrator.look_once()
            heard = sum([box.hear() for box in self.boxes])
            if not heard and not any(box.untold for box in self.boxes) and before == await self.states():
                return
        raise AssertionError("it does not come to rest")

    async def later(self, seconds: float) -> None:
        """Let time pass, with what agents say while it does, and look."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 10.0)
            for box in self.boxes:
                if box.wire is not None and not box.wire.broken:
                    await box.beat()
        await self.look()

    async def states(self) -> dict[str, tuple[str, str, str | None]]:
        query = select(sessions.c.id, sessions.c.state, sessions.c.hold, sessions.c.agent_id).order_by(sessions.c.id)
        rows = await self.context.store.read(lambda connection: connection.execute(query))
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    async def row(self, id: str) -> Any:
        """Return a session's row."""
        return (await self.context.store.read(lambda connection: connection.execute(select(sessions).where(sessions.c.id == id)))).one()

    async def state(self, id: str) -> str:
        return str((await self.row(id)).state)

    def on(self, id: str) -> tuple[Box, str]:
        """Return the agent that has a session's newest kernel, and the kernel."""
        found = [(box, kernel) for box in self.boxes for kernel, played in box.kernels.items()
                 if played.order.session == id and not played.dropped]
        assert len(found) == 1, found
        return found[0]

    def kernels(self, id: str) -> dict[str, tuple[Box, str]]:
        """Return the agents and ids of a session's newest kernels, by name."""
        return {played.order.hostname: (box, kernel) for box in self.boxes for kernel, played in box.kernels.items()
                if played.order.session == id and not played.dropped}

    async def say(self, id: str, name: str, state: KernelState, **more: Any) -> Any:
        """Have the agent of one kernel say that it is in *state*; return the session's row then."""
        box, kernel = self.kernels(id)[name]
        box.see(kernel, state, **more)
        await self.look()
        return await self.row(id)

    async def see(self, id: str, state: KernelState, **more: Any) -> Any:
        """Have the agent say that a session's kernel is in *state*; return the session's row then."""
        box, kernel = self.on(id)
        box.see(kernel, state, **more)
        await self.look()
        return await self.row(id)

    async def running(self, **what: Any) -> str:
        """Return a session that runs."""
        id = await self.ask(**what)
        await self.look()
        assert (await self.see(id, K.RUNNING)).state == "RUNNING"
        return id

    async def ledger(self) -> dict[tuple[str, str], int]:
        """Return what is used, by agent and slot, without zeros."""
        rows = (await self.context.store.read(lambda connection: connection.execute(select(agent_slots)))).all()
        return {(row.agent_id, row.slot): row.used for row in rows if row.used}

    async def told(self, id: str) -> list[str]:
        """Return the states that the event log says a session was in."""
        query = select(events.c.type).where(events.c.subject == id).order_by(events.c.id)
        rows = await self.context.store.read(lambda connection: connection.execute(query))
        kinds = [row[0].removeprefix("session.").upper() for row in rows]
        return ["PENDING" if kind == "CREATED" else kind for kind in kinds if kind in ("CREATED", *SessionState)]

    async def check(self) -> None:
        """Hold the accounts against each other."""
        held = await self.context.store.read(lambda connection: find_holding(connection))
        sums: Counter[tuple[str, str]] = Counter()
        for one in held:
            assert one.main.agent is not None and one.main.agent == one.agent_id
            for kernel in one.holding:
                sums.update({(str(kernel.agent), name): amount for name, amount in kernel.amounts.items()})
        assert await self.ledger() == {key: amount for key, amount in sums.items() if amount}
        leases = self.orchestrator._settler.leases
        assert leases.by_session.keys() == {one.id for one in held}
        assert leases.by_kernel == {kernel.id: one.id for one in held for kernel in one.holding}
        assert +leases.counts == Counter(kernel.agent for one in held for kernel in one.holding)
        self.check_mirror(sums)
        for id, (state, hold, agent) in (await self.states()).items():
            path = await self.told(id)
            assert path[0] == "PENDING" and path[-1] == state, (id, path, state)
            assert all(SessionState(b) in TRANSITIONS[SessionState(a)] for a, b in pairwise(path)), path
            assert not hold or state == "PENDING"
            assert agent is None or state != "PENDING"
        assert all(count <= 1 for count in self.ran.values()), "a command is begun at most once"

    def check_mirror(self, sums: Mapping[tuple[str, str], int]) -> None:
        """See that the planners believe of each agent what the ledger says."""
        mirror = self.orchestrator._mirror
        for id, node in mirror.nodes.items():
            if node.connected and (side := mirror.sides.get(node.group_id)) is not None:
                used = {(id, name): amount for name, amount in side.cluster.agent(id).used.items() if amount}
                assert used == {key: amount for key, amount in sums.items() if key[0] == id and amount}

    async def connected(self) -> set[str]:
        """Return the names of the agents that the database says are here."""
        query = select(agents.c.name).where(agents.c.connected.is_(True))
        return {row[0] for row in await self.context.store.read(lambda connection: connection.execute(query))}


@asynccontextmanager
async def plugins(config: ManagerConfig) -> AsyncIterator[PluginHost]:
    """The plugins that are installed, started."""
    host = PluginHost(SPECS, config.plugins)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


@asynccontextmanager
async def staged(data: Path, db_url: str = "", host: PluginHost | None = None, **config: Any) -> AsyncIterator[Stage]:
    """A stage on a database. host: plugins that several stages share."""
    settings = replace(ManagerConfig(data=data, db_url=db_url, network="null"), **config)
    async with AsyncExitStack() as stack:
        stage = Stage(settings, host or await stack.enter_async_context(plugins(settings)))
        try:
            await stage.start()
            yield stage
        finally:
            await stage.kill()


async def refused(attempt: Callable[[], Any]) -> Failure:
    """Return why *attempt* is refused."""
    try:
        await attempt()
    except Failure as failure:
        return failure
    raise AssertionError("it was not refused")


def orders(box: Box) -> Sequence[KernelOrder]:
    """Return everything that an agent was ever told to have, in order."""
    return [order for message in box.heard if isinstance(message, Desired) for order in message.put]
