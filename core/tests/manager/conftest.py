"""A manager's parts on both databases, and its application on a real port."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from aiohttp import web
from backendai.manager import faults, streams
from backendai.manager.app import make_app, mount_webapps
from backendai.manager.auth import TokenCache
from backendai.manager.bus import Bus
from backendai.manager.config import MIB, ManagerConfig
from backendai.manager.context import Context
from backendai.manager.first import found_cluster
from backendai.manager.metrics import Metrics
from backendai.manager.operations import built_in
from backendai.manager.possible import Capacities
from backendai.manager.serve import ManagerHandle, serve_manager
from backendai.manager.store.engine import Tx, open_store
from backendai.manager.store.schema import agent_slots, agents
from backendai.manager.store.sessions import SessionLoader
from backendai.model.errors import Failure
from backendai.model.ids import make_id
from backendai.plugin.host import PluginHost
from backendai.spec import (
    agentselector_v10,
    hook_v20,
    monitor_error_v10,
    monitor_stats_v10,
    network_v10,
    scheduler_v10,
    webapp_v20,
)
from backendai.wire import link
from backendai.wire.frames import control
from backendai.wire.link import Advance, Desired, Hello, KernelOrder, KernelState, Message, Observed, Open, Report
from sqlalchemy import insert

from core.tests.manager.stage import Stage, staged

SPECS = (scheduler_v10.SPEC, agentselector_v10.SPEC, network_v10.SPEC, hook_v20.SPEC, webapp_v20.SPEC, monitor_stats_v10.SPEC,
         monitor_error_v10.SPEC)

DEADLINE_S = 10.0  # for what should take a moment


@dataclass
class Nodes:
    """The agents' side of ``Live``, played by the test: what they answer, and what they were told."""

    progress: dict[str, str] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    links: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    purged: list[str] = field(default_factory=list)

    async def ask(self, agent_id: str, verb: str, arguments: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        self.asked.append((agent_id, verb, arguments))
        answer = self.answers.get(agent_id, Failure("unavailable", "The agent is not connected."))
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]  # as the test prepared it

    def purge(self, agent_id: str, kernel_ids: tuple[str, ...]) -> None:
        self.purged += kernel_ids


@dataclass
class Served:
    """A manager's application on a real port, and a client of it."""

    context: Context
    nodes: Nodes
    url: str
    token: str
    http: aiohttp.ClientSession
    app: web.Application

    def routes(self) -> list[Any]:
        """Return every route of the application."""
        return list(self.app.router.routes())

    async def call(self, method: str, path: str, body: Any = None, *, token: str | None = None, status: int | None = None,
                   **headers: str) -> Any:
        """Send a request as the administrator or with *token*; return the decoded answer. status: what it must have."""
        head = {name.replace("_", "-"): value for name, value in headers.items()}
        head["Authorization"] = f"Bearer {token or self.token}"
        async with self.http.request(method, self.url + path, json=body, headers=head) as response:
            text = await response.text()
            if status is not None:
                assert response.status == status, f"{response.status}: {text}"
            return msgspec.json.decode(text) if text and "json" in response.content_type else text

    async def user(self, name: str, role: str = "user") -> str:
        """Make an account and return a token of it."""
        await self.call("POST", "/v1/users", {"name": name, "role": role}, status=201)
        made = await self.call("POST", "/v1/tokens", {"name": "test", "user": name}, status=201)
        return str(made["token"])

    async def outsider(self, name: str) -> str:
        """Make an account in a domain of its own and return a token of it."""
        await self.call("POST", "/v1/domains", {"name": f"of-{name}"}, status=201)
        await self.call("POST", "/v1/users", {"name": name, "domain": f"of-{name}"}, status=201)
        made = await self.call("POST", "/v1/tokens", {"name": "test", "user": name}, status=201)
        return str(made["token"])

    async def session(self, token: str | None = None, **what: Any) -> dict[str, Any]:
        """Ask for a batch session."""
        body = {"type": "batch", "command": ["true"], **what}
        return await self.call("POST", "/v1/sessions", body, token=token, status=201)  # type: ignore[no-any-return]  # a JSON object

    async def agent(self, name: str, **capacity: int) -> str:
        """Register an agent that is connected."""
        agent_id = self.context.new_id()

        async def job(tx: Tx) -> None:
            row = {"id": agent_id, "name": name, "version": "1", "arch": "x86_64", "runtime": "fake", "engine": "none", "info": "{}",
                   "connected": True, "why": "", "last_seen": self.context.clock(), "created_at": self.context.clock()}
            await tx.connection.execute(insert(agents), [row])
            await tx.connection.execute(insert(agent_slots), [
                {"agent_id": agent_id, "slot": slot.replace("_", "."), "capacity": amount, "used": 0}
                for slot, amount in (capacity or {"cpu": 4000, "mem": 4096 * MIB}).items()])

        await self.context.store.write(job)
        self.context.capacities.forget()
        return agent_id


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of an empty database, once on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    server: str = request.getfixturevalue("postgres_server")
    name = f"t{os.getpid()}_{abs(hash(request.node.nodeid))}"
    admin = await asyncpg.connect(server)
    await admin.execute(f'CREATE DATABASE "{name}"')
    try:
        yield server.replace("/postgres", f"/{name}", 1)
    finally:
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()


@asynccontextmanager
async def serving(config: ManagerConfig) -> AsyncIterator[Served]:
    """Serve a manager's application without its orchestrator and links."""
    async with AsyncExitStack() as stack:
        bus, nodes = Bus(), Nodes()
        store = await open_store(config.store_url, bus.publish)
        stack.push_async_callback(store.close)
        host = PluginHost(SPECS, config.plugins, lambda fault: faults.plugin_fault(context, fault))
        live: Any = nodes
        context = Context(config, store, host, bus, live, Metrics(), TokenCache(), SessionLoader(store), Capacities())
        context.heartbeat = context.clock()
        await host.start()
        stack.push_async_callback(host.stop)
        stack.push_async_callback(context.tasks.close, 5.0)
        context.cluster, token = await found_cluster(context)
        registry = built_in()
        app = make_app(context, registry, streams.routes(context))
        await mount_webapps(app, context, registry, "http://test")
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        http = await stack.enter_async_context(aiohttp.ClientSession())
        stack.callback(bus.end)
        port = runner.addresses[0][1]
        yield Served(context, nodes, f"http://127.0.0.1:{port}", token or "", http, app)


class Player:
    """An agent, played by a test over a real link. heard: what the manager said. orders: what it wants, by session's name."""

    def __init__(self, managed: Managed, name: str, token: str) -> None:
        self.managed = managed
        self.id = make_id(1, managed.count())
        self.name = name
        self.head = {"Authorization": f"Bearer {token}"}
        self.heard: list[Any] = []
        self.orders: dict[str, KernelOrder] = {}
        self.opened: asyncio.Queue[Open] = asyncio.Queue()
        self.socket: aiohttp.ClientWebSocketResponse
        self.news = asyncio.Event()

    async def dial_in(self, path: str = "/v1/link") -> aiohttp.ClientWebSocketResponse:
        return await self.managed.http.ws_connect(self.managed.url + path, headers=self.head, max_msg_size=0)

    async def connect(self, **hello: Any) -> aiohttp.ClientWebSocketResponse:
        """Link, and wait for everything that the manager wants."""
        socket = self.socket = await self.dial_in()
        self.heard.clear()
        await socket.send_bytes(self.hello(**hello))
        self.managed.tasks.append(asyncio.create_task(self._listen(socket)))
        await self.until(lambda: any(isinstance(said, Desired) and said.full for said in self.heard))
        return socket

    def hello(self, **more: Any) -> bytes:
        given: dict[str, Any] = {"protocol": link.PROTOCOL, "agent": self.id, "name": self.name, "version": "1", "arch": "x86_64",
                                 "cluster": "", "capacity": {"cpu": 64_000, "mem": 64 << 30}, "runtime": "played",
                                 "engine": "none", "default_image": "base", "features": ("pull", "build")} | more
        return link.encode(Hello(**given))

    async def refused(self, **hello: Any) -> str:
        socket = await self.dial_in()
        await socket.send_bytes(self.hello(**hello))
        return await self.farewell(socket)

    async def farewell(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        """Wait for the manager's close and return its reason."""
        async with asyncio.timeout(DEADLINE_S):
            if socket in self.managed.ends:
                return await self.managed.ends[socket]
            message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return str(message.extra)

    async def say(self, message: Message) -> None:
        await self.socket.send_bytes(link.encode(message))

    async def advance(self, kernel: str, text: str) -> None:
        await self.say(Advance(kernel, text))

    async def order(self, name: str) -> KernelOrder:
        await self.until(lambda: name in self.orders)
        return self.orders[name]

    async def runs(self, order: KernelOrder) -> None:
        await self.say(Report(1, (Observed(order.kernel, KernelState.RUNNING, container="c", started_at=1.0),)))

    async def ends(self, order: KernelOrder) -> None:
        await self.say(Report(1, (Observed(order.kernel, KernelState.GONE, exit_code=0, started_at=1.0, ended_at=2.0),)))

    async def dial(self) -> tuple[Open, aiohttp.ClientWebSocketResponse]:
        """Wait until the manager asks for a stream, and dial back."""
        async with asyncio.timeout(DEADLINE_S):
            wanted = await self.opened.get()
        return wanted, await self.dial_in(f"/v1/link/streams/{wanted.stream}")

    async def serve(self) -> None:
        """Run whatever is ordered, and answer whatever is asked, until cancelled."""
        done: set[tuple[str, Any]] = set()
        while True:
            for order in list(self.orders.values()):
                if (order.kernel, order.want) not in done:
                    done.add((order.kernel, order.want))
                    await (self.runs(order) if order.want is link.Want.RUN else self.ends(order))
            while not self.opened.empty():
                await self.answer(*await self.dial())
            await self.news.wait()
            self.news.clear()

    async def answer(self, wanted: Open, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Do what a verb wants, as plainly as can be."""
        if wanted.verb in ("exec", "put", "build"):
            while "eof" not in str((await socket.receive()).data):
                pass
        if wanted.verb in ("exec", "logs", "get"):
            await socket.send_bytes(b"\x01tar")
        if wanted.verb in ("pull", "build"):
            await socket.send_str(control(progress={"text": "half", "done": 1, "total": 2}))
        if wanted.verb == "state":
            state = {"state": "running", "dropped": False, "container": "c"}
            await socket.send_str(control(kernels=[{"kernel": order.kernel, **state} for order in self.orders.values()],
                                          containers=[{"kernel": order.kernel, "id": "c", "name": "c", "state": "running"}
                                                      for order in self.orders.values()]))
        if wanted.verb == "images":
            await socket.send_str(control(images=[{"name": "base", "id": "x"}]))
        await socket.send_str(control(exit=0) if wanted.verb == "exec" else control(done=True))

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await self.news.wait()
                self.news.clear()

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        end = self.managed.ends.setdefault(socket, asyncio.get_running_loop().create_future())
        while True:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                end.set_result(str(message.extra))
                return
            said = link.decode_from_manager(message.data)
            self.heard.append(said)
            if isinstance(said, Open):
                self.opened.put_nowait(said)
            elif isinstance(said, Desired):
                self.orders |= {order.name: order for order in said.put}
            self.news.set()


class Managed(Served):
    """A whole manager that listens, and the agents that a test plays."""

    def __init__(self, handle: ManagerHandle, http: aiohttp.ClientSession, agent_tokens: Sequence[str], stack: AsyncExitStack) -> None:
        super().__init__(handle.context, Nodes(), handle.url, handle.first_admin_token or "", http, web.Application())
        self.handle = handle
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: dict[aiohttp.ClientWebSocketResponse, asyncio.Future[str]] = {}
        self.agent_tokens = agent_tokens
        self._stack = stack
        self._players = 0

    def count(self) -> int:
        self._players += 1
        return self._players

    def player(self, name: str) -> Player:
        return Player(self, name, self.agent_tokens[self._players])

    async def running(self, **what: Any) -> tuple[Player, dict[str, Any], KernelOrder]:
        """Return an agent, and a session that runs on it."""
        agent = self.player("box")
        await agent.connect()
        session = await self.session(**what)
        order = await agent.order(session["name"])
        await agent.runs(order)
        return agent, await self.until(session, "running"), order

    async def until(self, session: dict[str, Any], state: str) -> dict[str, Any]:
        shown = await self.call("GET", f"/v1/sessions/{session['id']}?wait={state}&timeout_s={DEADLINE_S:g}", status=200)
        assert shown["state"] == "RUNNING" or state == "final", shown
        return shown  # type: ignore[no-any-return]  # a JSON object

    async def poll(self, condition: Callable[[], Any]) -> None:
        """Wait for something inside the manager that tells nobody."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - nobody sets an event for what a test looks at
                await asyncio.sleep(0.01)

    async def poll_agent(self, name: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(await self.call("GET", f"/v1/agents/{name}", status=200)):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def managed(config: ManagerConfig) -> AsyncIterator[Managed]:
    """A whole manager on SQLite."""
    async with AsyncExitStack() as outer, aiohttp.ClientSession() as http:
        stack = await outer.enter_async_context(AsyncExitStack())
        handle = await stack.enter_async_context(serve_manager(replace(config, drain_s=1.0)))
        it = Managed(handle, http, [await handle.make_agent_token(f"test{n}") for n in range(8)], stack)
        yield it
        for task in it.tasks:
            task.cancel()
        await asyncio.gather(*it.tasks, return_exceptions=True)


@pytest.fixture
async def stage(tmp_path: Path, db_url: str) -> AsyncIterator[Stage]:
    """A stage for the orchestrator, once on each database. At the end its accounts are held against each other."""
    async with staged(tmp_path, db_url) as it:
        yield it
        await it.check()


@pytest.fixture
def config(tmp_path: Path) -> ManagerConfig:
    """A manager on SQLite."""
    return ManagerConfig(data=tmp_path / "data")


@pytest.fixture
async def served(config: ManagerConfig) -> AsyncIterator[Served]:
    """A manager's application on SQLite."""
    async with serving(config) as it:
        yield it


@pytest.fixture
async def served_both(config: ManagerConfig, db_url: str) -> AsyncIterator[Served]:
    """A manager's application, once on each database."""
    async with serving(replace(config, db_url=db_url)) as it:
        yield it
