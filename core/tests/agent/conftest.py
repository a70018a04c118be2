"""An engine whose containers outlive the agent, a manager that listens on a real port, and agents between them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from backendai.agent.config import AgentConfig
from backendai.agent.serve import AgentHandle, serve_agent
from backendai.model.errors import Failure
from backendai.model.ids import make_id
from backendai.plugin import host
from backendai.plugin.discovery import Candidate, find
from backendai.spec import Spec, hookimpl, network_v10, runtime_v10
from backendai.spec.runtime_v10 import (
    ByteStream,
    Capabilities,
    Container,
    ContainerSpec,
    ContainerState,
    Event,
    ExecStream,
    Image,
    LogChunk,
    Network,
    NetworkSpec,
    Progress,
    Report,
    Usage,
)
from backendai.testing.null_network import NullNetwork
from backendai.wire import link
from backendai.wire.link import Beat, Desired, Hello, KernelOrder, KernelState, Observed, Open, Want, Welcome

TOKEN = "baa_test"
CLUSTER = make_id(1, 1)
DEADLINE_S = 20.0


@dataclass
class Box:
    """One container of the engine."""

    spec: ContainerSpec
    container: Container
    output: list[tuple[int, bytes]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False  # who follows its output is cut off

    def become(self, **changes: Any) -> None:
        self.container = replace(self.container, **changes)
        self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def say(self, text: bytes, stream: int = 1) -> None:
        self.output.append((stream, text))
        self.tell()

    def end(self, code: int | None, **more: Any) -> None:
        self.become(state=ContainerState.EXITED, exit_code=code, ended_at=time.time(), **more)


class Engine:
    """Where containers live. A command is a list of words: ``say TEXT``, ``fail``, ``exit N``; anything else runs until it is stopped.

    wedged: no call is answered. broken: by hook, the error to raise. calls: how often each hook was called. slow: by hook, an event
    to wait for.
    """

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.wedged = False
        self.broken: dict[str, Exception] = {}
        self.slow: dict[str, asyncio.Event] = {}
        self.calls: list[str] = []
        self.at_once = self.most_at_once = 0
        self.networks: dict[str, tuple[NetworkSpec, Network]] = {}
        self.listeners: set[asyncio.Queue[Event]] = set()
        self.graces: list[float] = []

    async def enter(self, hook: str) -> None:
        self.calls.append(hook)
        if self.wedged:
            raise Failure("unavailable", "The engine does not answer.")
        if hook in self.broken:
            raise self.broken[hook]
        if hook in self.slow:
            await self.slow[hook].wait()

    def box(self, id: str) -> Box:
        if id not in self.boxes:
            raise Failure("not-found", "There is no such container.")
        return self.boxes[id]

    def of(self, kernel: str) -> Box:
        return self.boxes[f"id-bai-{kernel}"]

    def end(self, box: Box, code: int | None, **more: Any) -> None:
        box.end(code, **more)
        for listener in self.listeners:
            listener.put_nowait(Event(box.container.id, ContainerState.EXITED))

    def run(self, box: Box) -> None:
        box.become(state=ContainerState.RUNNING, started_at=time.time())
        words = iter(box.spec.argv[2:] if box.spec.argv[1:2] == ("--",) else box.spec.argv)
        for word in words:
            if word == "say":
                box.say(next(words).encode())
            elif word == "complain":
                box.say(next(words).encode(), 2)
            elif word == "exit":
                self.end(box, int(next(words)))


class ToyExec:
    """Echo what is written, in capitals; end with 5 once the input has ended."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.said: list[str] = []

    async def read(self) -> tuple[int, bytes] | None:
        piece = await self.pieces.get()
        return None if piece is None else (1, piece)

    async def write(self, data: bytes) -> None:
        self.pieces.put_nowait(data.upper())

    async def end_input(self) -> None:
        self.pieces.put_nowait(None)

    async def resize(self, rows: int, columns: int) -> None:
        self.said.append(f"{rows}x{columns}")
        self.pieces.put_nowait(f"{rows}x{columns}".encode())

    async def signal(self, signal: str) -> None:
        self.said.append(signal)

    async def exit_code(self) -> int:
        return 5

    async def close(self) -> None:
        self.said.append("closed")


class ToyPort:
    """Echo bytes."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self, limit: int = 65536) -> bytes:
        return await self.pieces.get()

    async def write(self, data: bytes) -> None:
        self.pieces.put_nowait(data)

    async def end_output(self) -> None:
        self.pieces.put_nowait(b"")

    async def close(self) -> None:
        pass


class ToyRuntime:
    """The plugin in front of the engine, with every hook of the contract."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.execs: list[ToyExec] = []
        self.archives: dict[str, bytes] = {}

    @hookimpl
    async def probe(self) -> Capabilities:
        await self.engine.enter("probe")
        return Capabilities("toy 1", "toy:latest", frozenset({"pull", "survives"}), parallel_starts=3)

    @hookimpl
    async def ensure_image(self, image: str, report: Report) -> Image:
        report(Progress("Fetching", 1 << 20, 4 << 20))
        await self.engine.enter("ensure_image")
        if image == "missing":
            raise Failure("bad-image", "There is no image missing; see `bai image ls`.")
        return Image(image, "sha256:1")

    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        await self.engine.enter("create")
        id = f"id-{container.name}"
        self.engine.boxes.setdefault(id, Box(container, Container(id, container.name, ContainerState.CREATED, container.labels)))
        return id

    @hookimpl
    async def start(self, id: str) -> None:
        self.engine.at_once += 1
        self.engine.most_at_once = max(self.engine.most_at_once, self.engine.at_once)
        try:
            await self.engine.enter("start")
            await asyncio.sleep(0)
            if (box := self.engine.box(id)).container.state is ContainerState.CREATED:
                self.engine.run(box)
        finally:
            self.engine.at_once -= 1

    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        self.engine.graces.append(grace_s)
        await self.engine.enter("stop")
        if (box := self.engine.boxes.get(id)) is None:
            return
        if "stubborn" in box.spec.argv:
            await asyncio.sleep(grace_s)
        if box.container.state is ContainerState.RUNNING:
            self.engine.end(box, 137 if "stubborn" in box.spec.argv else 143)

    @hookimpl
    async def remove(self, id: str) -> None:
        await self.engine.enter("remove")
        self.engine.boxes.pop(id, None)

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        await self.engine.enter("list")
        return [box.container for box in self.engine.boxes.values() if labels.items() <= box.container.labels.items()]

    @hookimpl
    async def create_network(self, network: NetworkSpec) -> Network:
        await self.engine.enter("create_network")
        addresses = dict(network.addresses) or {host: f"10.0.0.{at}" for at, host in enumerate(network.hosts, 2)}
        made = network, Network(f"id-{network.name}", network.name, network.labels, addresses)
        return self.engine.networks.setdefault(made[1].id, made)[1]

    @hookimpl
    async def remove_network(self, id: str) -> None:
        await self.engine.enter("remove_network")
        if any(box.spec.net is not None and box.spec.net.network == id for box in self.engine.boxes.values()):
            raise Failure("unavailable", "Containers are in this network.")
        self.engine.networks.pop(id, None)

    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        await self.engine.enter("list_networks")
        return [found for _, found in self.engine.networks.values() if labels.items() <= found.labels.items()]

    @hookimpl
    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self.engine.listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.engine.listeners.discard(queue)

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> ExecStream:
        await self.engine.enter("exec")
        self.execs.append(ToyExec())
        return self.execs[-1]

    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        await self.engine.enter("logs")
        box = self.engine.box(id)
        while True:
            changed = box.changed
            while offset < len(box.output):
                stream, data = box.output[offset]
                offset += 1
                yield LogChunk(stream, data, offset)
            if not follow or box.cut or box.container.state is ContainerState.EXITED:
                return
            await changed.wait()

    @hookimpl
    async def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        if path not in self.archives:
            raise Failure("not-found", f"There is no {path} in the container.")
        yield self.archives[path]

    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        self.archives[path] = b"".join([piece async for piece in data])

    @hookimpl
    async def stats(self, ids: Sequence[str]) -> Mapping[str, Usage]:
        await self.engine.enter("stats")
        return {id: Usage(cpu_s=1.5, memory=4096) for id in ids}

    @hookimpl
    async def dial(self, id: str, port: int) -> ByteStream:
        return ToyPort()

    @hookimpl
    async def images(self) -> Sequence[Image]:
        return [Image("toy:latest", "sha256:1", 123)]


def make_order(number: int = 1, *command: str, **more: Any) -> KernelOrder:
    """Return an order for a kernel of that number; without a command it idles."""
    kernel = make_id(number, number)
    given: dict[str, Any] = {"command": command, "idle": not command, "grace_s": 0.5, "slots": {"cpu": 100, "mem": 1 << 20}} | more
    return KernelOrder(kernel, make_id(number, number + 1000), f"s{number}", "owner", **given)


class Manager:
    """What a manager does on the link, and what it has heard."""

    def __init__(self) -> None:
        self.cluster = CLUSTER
        self.orders: dict[str, KernelOrder] = {}
        self.purge: tuple[str, ...] = ()
        self.generation = 0
        self.hellos: list[Hello] = []
        self.beats: list[Beat] = []
        self.observed: dict[str, Observed] = {}
        self.history: list[Observed] = []
        self.advances: list[link.Advance] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.refuses = ""  # with this reason
        self.tells = True  # its whole desired set after the welcome
        self.streams: dict[str, asyncio.Future[web.WebSocketResponse]] = {}
        self.over = asyncio.Event()
        self.url = ""
        self._news = asyncio.Event()

    async def serve_link(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            match link.decode_from_agent(message.data):
                case Hello() as hello:
                    self.hellos.append(hello)
                    if self.refuses:
                        await socket.close(code=1008, message=self.refuses.encode())
                        break
                    self.observed = {seen.kernel: seen for seen in hello.kernels}
                    self.history += hello.kernels
                    await socket.send_bytes(link.encode(Welcome(self.cluster, self.purge, beat_s=0.2)))
                    self.sockets.append(socket)
                    if self.tells:
                        await self.send(Desired(self.next(), True, tuple(self.orders.values())), socket)
                case link.Report(_, kernels):
                    self.history += kernels
                    self.observed |= {seen.kernel: seen for seen in kernels}
                case Beat() as beat:
                    self.beats.append(beat)
                case link.Advance() as advance:
                    self.advances.append(advance)
            self._news.set()
            self._news = asyncio.Event()
        return socket

    async def stream(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self.streams[request.match_info["stream"]].set_result(socket)
        await self.over.wait()
        return socket

    def next(self) -> int:
        self.generation += 1
        return self.generation

    async def send(self, message: link.Message, socket: web.WebSocketResponse | None = None) -> None:
        with suppress(ConnectionError):  # an agent that has just gone is told anew when it comes back
            await (socket or self.sockets[-1]).send_bytes(link.encode(message))

    async def put(self, *orders: KernelOrder) -> None:
        self.orders |= {order.kernel: order for order in orders}
        await self.send(Desired(self.next(), False, orders))

    async def stop(self, order: KernelOrder, **more: Any) -> None:
        await self.put(msgspec.structs.replace(order, want=Want.STOP, **more))

    async def drop(self, *kernels: str) -> None:
        for kernel in kernels:
            del self.orders[kernel]
        await self.send(Desired(self.next(), False, (), kernels))

    async def open(self, verb: str, **arguments: Any) -> web.WebSocketResponse:
        stream = f"stream{len(self.streams)}"
        self.streams[stream] = asyncio.get_running_loop().create_future()
        await self.send(Open(stream, verb, arguments))
        async with asyncio.timeout(DEADLINE_S):
            return await self.streams[stream]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what the agent will say."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await self._news.wait()

    async def until_state(self, state: KernelState, *orders: KernelOrder) -> Observed:
        await self.until(lambda: all(o.kernel in self.observed and self.observed[o.kernel].state is state for o in orders))
        return self.observed[orders[0].kernel]


@asynccontextmanager
async def listening(manager: Manager) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/v1/link", manager.serve_link)
    app.router.add_get("/v1/link/streams/{stream}", manager.stream)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = int(manager.url.rpartition(":")[2] or 0) if manager.url else 0
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    manager.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        manager.over.set()
        for socket in manager.sockets:
            await socket.close()
        manager.sockets.clear()
        await runner.cleanup()


async def poll(condition: Callable[[], Any]) -> None:
    """Wait for something inside this process that tells nobody."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for what a test looks at
            await asyncio.sleep(0.01)


class World:
    """An engine, a manager, and as many lives of an agent as a test needs."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.engine = Engine()
        self.runtime = ToyRuntime(self.engine)
        self.manager = Manager()
        self.order, self.poll, self.listening = make_order, poll, listening

    def config(self, **more: Any) -> AgentConfig:
        given: dict[str, Any] = {"runtime": "toy", "name": "box", "resync_s": 0.3, "stats_s": 0.2} | more
        return AgentConfig(self.data, self.manager.url, TOKEN, **given)

    @asynccontextmanager
    async def agent(self, **more: Any) -> AsyncIterator[AgentHandle]:
        async with serve_agent(self.config(**more)) as handle:
            yield handle

    def left(self) -> list[str]:
        """Return what is on the node besides logs."""
        folders = [path for name in ("kernels", "scratch") for path in (self.data / name).iterdir()]
        return [*self.engine.boxes, *self.engine.networks, *map(str, folders)]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    world = World(tmp_path / "agent")

    def found(spec: Spec[Any], disabled: Any = ()) -> list[Candidate]:
        if spec is network_v10.SPEC:
            return [Candidate(spec, "null", "nets", "1", NullNetwork)]  # a real one would ask this machine
        if spec is not runtime_v10.SPEC:
            return find(spec, disabled)
        return [Candidate(spec, "toy", "toys", "1", lambda: world.runtime)]

    monkeypatch.setattr(host, "find", found)
    async with listening(world.manager):
        yield world


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that containers may mount from, as pytest's own may not be."""
    folder = Path(tempfile.mkdtemp(prefix="agent-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def real_world(open_folder: Path) -> AsyncIterator[World]:
    """A world whose agents have the runtimes of this machine."""
    world = World(open_folder / "agent")
    async with listening(world.manager):
        yield world
