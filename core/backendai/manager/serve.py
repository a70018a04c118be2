"""Wiring: start a manager, and stop it again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from backendai.manager import faults, first, link, streams
from backendai.manager.app import make_app, mount_webapps
from backendai.manager.auth import TokenCache
from backendai.manager.bus import Bus
from backendai.manager.config import ManagerConfig
from backendai.manager.context import Context
from backendai.manager.live import Live
from backendai.manager.metrics import Metrics, report_for_ever
from backendai.manager.operations import built_in
from backendai.manager.operations.images import learn_for_ever
from backendai.manager.orchestrator import Orchestrator
from backendai.manager.possible import Capacities
from backendai.manager.store.decisions import forget, thin
from backendai.manager.store.engine import open_store
from backendai.manager.store.sessions import SessionLoader
from backendai.manager.sweep import Sweeper
from backendai.manager.usage import count_for_ever
from backendai.model.errors import Failure
from backendai.plugin.host import PluginHost
from backendai.spec import (
    Reject,
    agentselector_v10,
    hook_v20,
    monitor_error_v10,
    monitor_stats_v10,
    network_v10,
    scheduler_v10,
    webapp_v20,
)

log = logging.getLogger(__name__)
PRUNE_S = 3600.0
THIN_S = 60.0
RESTART_S = 1.0  # before a loop that failed is begun again
SPECS = (scheduler_v10.SPEC, agentselector_v10.SPEC, network_v10.SPEC, hook_v20.SPEC, webapp_v20.SPEC, monitor_stats_v10.SPEC,
         monitor_error_v10.SPEC)


@dataclass(frozen=True, slots=True)
class ManagerHandle:
    """A manager that serves. url: its address. cluster: its id. first_admin_token: only when the cluster was made just now."""

    context: Context
    url: str
    first_admin_token: str | None

    @property
    def cluster(self) -> str:
        return self.context.cluster

    async def make_agent_token(self, name: str) -> str:
        """Make a token for an agent of this name; one that was made here before under the name is revoked."""
        return await first.make_agent_token(self.context, name)

    async def make_admin_token(self, name: str) -> str:
        """Make a token of this name for the first administrator; one that was made here before under the name is revoked."""
        return await first.make_admin_token(self.context, name)

    async def knows_token(self, token: str) -> bool:
        """Tell whether somebody may sign in with this token now."""
        return await first.knows_token(self.context, token)


@asynccontextmanager
async def serve_manager(config: ManagerConfig) -> AsyncIterator[ManagerHandle]:
    """Serve until the block ends; then finish what is in flight, and let go of everything.

    Raise ``Failure`` with the reason when the address or the database is taken, or a plugin vetoes the start.
    """
    async with AsyncExitStack() as stack:
        context = await make_context(config, stack)
        context.cluster, first_token = await first.found_cluster(context)
        try:
            await context.host.all(hook_v20.SPEC).activate_manager()
        except Reject as veto:
            raise Failure("rejected", veto.reason) from veto
        orchestrator = Orchestrator(context)
        url = await _listen(context, orchestrator, stack)
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "orchestrator": orchestrator.run, "prune": lambda: _prune(context), "thin": lambda: _thin(context),
            "usage": lambda: count_for_ever(context), "idle": Sweeper(context).run,
            "images": lambda: learn_for_ever(context)}
        if context.host.each(monitor_stats_v10.SPEC):
            loops["report"] = lambda: report_for_ever(context)
        for name, run in loops.items():
            task = asyncio.create_task(_supervise(context, name, run), name=name)
            stack.push_async_callback(_end, task)
        log.info("serving", extra={"fields": {"url": url, "cluster": context.cluster}})
        try:
            yield ManagerHandle(context, url, first_token)
        finally:
            context.bus.end()
            context.live.end()


async def make_context(config: ManagerConfig, stack: AsyncExitStack) -> Context:
    """Open the store and start the plugins; *stack* closes them in reverse."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    bus = Bus()
    store = await open_store(config.store_url, bus.publish)
    stack.push_async_callback(store.close)
    host = PluginHost(SPECS, config.plugins, lambda fault: faults.plugin_fault(context, fault))
    context = Context(config, store, host, bus, Live(), Metrics(), TokenCache(), SessionLoader(store), Capacities())
    context.tasks.at_home()
    context.heartbeat = context.clock()
    await host.start()
    stack.push_async_callback(host.stop)
    stack.callback(context.prospects.close)
    stack.push_async_callback(context.tasks.close, config.drain_s)
    return context


async def _listen(context: Context, orchestrator: Orchestrator, stack: AsyncExitStack) -> str:
    """Begin to answer requests; return the address."""
    config, registry = context.config, built_in()
    app = make_app(context, registry, [*link.routes(context, orchestrator), *streams.routes(context)])
    bound = _bind(config)
    host, port = bound.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    await mount_webapps(app, context, registry, url)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=config.drain_s,
                           handler_cancellation=True)  # nobody waits on for a client that has gone
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.SockSite(runner, bound).start()
    return url


def _bind(config: ManagerConfig) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family, backlog=1024)
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else str(error.strerror)  # a name that is none has a number below zero
        said = f"{config.host}:{config.port} cannot be served: {why}; choose another --listen."
        raise Failure("conflict", said) from error


async def _supervise(context: Context, name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Keep a loop going: one failure is reported, and costs a second."""
    while True:
        try:
            await run()
        except* Failure as expected:
            log.warning("%s begins again: %s", name, expected.exceptions[0])
        except* Exception as error:
            faults.unexpected(context, error, {"loop": name})
        await asyncio.sleep(RESTART_S)


async def _prune(context: Context) -> None:
    while True:
        await context.store.prune(context.config.events_kept, context.config.events_kept_s)
        await context.store.write(lambda tx: forget(tx, context.clock() - context.config.events_kept_s))
        await asyncio.sleep(PRUNE_S)


async def _thin(context: Context) -> None:
    while True:
        await asyncio.sleep(THIN_S)
        await context.store.write(thin)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
