"""A manager's parts on both databases, and its application on a real port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
from aiohttp import web
from backendai.manager import faults
from backendai.manager.app import make_app, mount_webapps
from backendai.manager.auth import TokenCache
from backendai.manager.bus import Bus
from backendai.manager.config import MIB, ManagerConfig
from backendai.manager.context import Context
from backendai.manager.first import found_cluster
from backendai.manager.metrics import Metrics
from backendai.manager.operations import built_in
from backendai.manager.operations.enqueue import Capacities
from backendai.manager.store.engine import Tx, open_store
from backendai.manager.store.schema import agent_slots, agents
from backendai.manager.store.sessions import SessionLoader
from backendai.model.errors import Failure
from backendai.plugin.host import PluginHost
from backendai.spec import (
    agentselector_v10,
    hook_v20,
    monitor_error_v10,
    monitor_stats_v10,
    scheduler_v10,
    webapp_v20,
)
from sqlalchemy import insert

SPECS = (scheduler_v10.SPEC, agentselector_v10.SPEC, hook_v20.SPEC, webapp_v20.SPEC, monitor_stats_v10.SPEC, monitor_error_v10.SPEC)


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
        return agent_id


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server: the one that the environment names, or one of our own."""
    if url := os.environ.get("BAI_TEST_POSTGRES_URL"):
        yield url
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's server is not installed")
        pytest.skip("PostgreSQL's server is not installed")
    with tempfile.TemporaryDirectory(prefix="bai-pg-", dir="/tmp") as folder:
        yield from _own_server(found[-1].parent, Path(folder))


def _own_server(programs: Path, folder: Path) -> Iterator[str]:
    as_user = None
    if os.geteuid() == 0:
        as_user = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
        shutil.chown(folder, as_user)
    data = folder / "data"

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, user=as_user, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    run(str(programs / "initdb"), "-D", str(data), "-U", "bai", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=on -c max_connections=50"
    control = str(programs / "pg_ctl")
    run(control, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://bai@/postgres?host={folder}"
    finally:
        run(control, "-D", str(data), "-m", "immediate", "-w", "stop")


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
        app = make_app(context, registry)
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
