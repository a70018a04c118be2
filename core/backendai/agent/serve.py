"""The agent as one thing to start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp
import msgspec

from backendai.agent import init
from backendai.agent.accelerators import meminfo
from backendai.agent.config import AgentConfig
from backendai.agent.devices import Devices
from backendai.agent.health import Health, explain, is_passing
from backendai.agent.journal import Fact, Journal, lock
from backendai.agent.link import Link
from backendai.agent.networks import Networks
from backendai.agent.node import Node
from backendai.agent.reconcile import Reconciler
from backendai.agent.streams import Streams
from backendai.model.errors import Failure
from backendai.model.ids import make_id
from backendai.plugin.errors import Missing, PluginFault
from backendai.plugin.host import PluginHost
from backendai.spec import accelerator_v21, network_v10, runtime_v10
from backendai.spec.runtime_v10 import ContainerState, Runtime
from backendai.wire.link import Usage

log = logging.getLogger(__name__)
AUTO = ("docker", "sandbox")
END_S = 10.0  # for everything to let go
DEVICES_S = 60.0  # between two looks at the devices
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class AgentHandle:
    """A running agent. reconciler, link, streams: for those who look closely."""

    id: str
    name: str
    runtime: str
    reconciler: Reconciler
    link: Link
    streams: Streams

    async def joined(self, timeout_s: float = 30.0) -> None:
        """Return once a manager has taken the agent in; raise ``Failure('unreachable')`` with the reason when it does not."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.link.joined.wait()
        except TimeoutError:
            raise Failure("unreachable", f"The agent could not join: {self.link.why or 'the manager does not answer'}.") from None


@asynccontextmanager
async def serve_agent(config: AgentConfig) -> AsyncIterator[AgentHandle]:
    """Run an agent until the block ends. Containers go on without it where their runtime lets them; the next one takes them over."""
    config = replace(config, data=config.data.absolute())  # containers mount from there
    config.make_folders()
    held = lock(config.data)
    host = PluginHost((accelerator_v21.SPEC, runtime_v10.SPEC, network_v10.SPEC), config.settings())
    try:
        await host.start()
        try:
            node = await _make_node(config, host)
            headers = {"Authorization": f"Bearer {config.token}"}
            async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http, _run(node, http) as handle:
                yield handle
        finally:
            await host.stop()
    finally:
        os.close(held)


@asynccontextmanager
async def _run(node: Node, http: aiohttp.ClientSession) -> AsyncIterator[AgentHandle]:
    reconciler = Reconciler(node)
    streams = Streams(node, reconciler, http)
    link = Link(node, reconciler, http, Fact(node.config.data / "cluster"), streams.open)

    def heard() -> None:
        node.outbox.beat()
        if not node.health.why:
            reconciler.wake()

    node.health.heard = heard

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for part in (reconciler.run(), link.run(), _measure(node, reconciler), _refresh(node)):
                group.create_task(part)

    task = asyncio.create_task(work())
    try:
        async with _ended_by(task):
            yield AgentHandle(node.id, node.config.name, node.runtime_name, reconciler, link, streams)
    finally:
        task.cancel()
        await streams.close()
        await asyncio.wait([task], timeout=END_S)
        failure = task.exception() if task.done() and not task.cancelled() else None
    if failure is not None:  # while the block ended by itself
        raise failure


@asynccontextmanager
async def _ended_by(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """End the block when *task* fails, by raising what failed; once the block is being left, nothing is cancelled any more."""
    caller = asyncio.current_task()
    assert caller is not None  # a coroutine runs in a task
    before, inside, struck = caller.cancelling(), True, False

    def strike(done: asyncio.Task[None]) -> None:
        nonlocal struck
        if inside and not done.cancelled():
            struck = True
            caller.cancel("the agent has failed")

    task.add_done_callback(strike)
    try:
        yield
    except asyncio.CancelledError:
        if struck:
            struck = False
            if caller.uncancel() <= before:  # nobody else wants the caller to end
                task.result()
        raise
    finally:
        inside = False
        if struck:
            caller.uncancel()


async def _make_node(config: AgentConfig, host: PluginHost) -> Node:
    identity, runtime_fact = Fact(config.data / "id"), Fact(config.data / "runtime")
    if not identity.read():
        identity.write(make_id(time.time_ns() // 1_000_000, secrets.randbits(80)))
    journal, health = Journal(config.kernels, config.fsync), Health()
    holds = bool(any(config.kernels.glob("*.json")))
    name = await choose_runtime(host, config.runtime, runtime_fact.read(), holds)
    runtime = host.one(runtime_v10.SPEC, name)
    runtime_fact.write(name)
    try:
        health.well(await runtime.probe())
    except (Failure, PluginFault) as error:
        health.ill(error)
    devices = Devices(host.each(accelerator_v21.SPEC))
    await devices.discover()
    networks = Networks(runtime, host.each(network_v10.SPEC), identity.read())
    await networks.look()
    node = Node(config, identity.read(), Fact(config.data / "cluster").read(), name, runtime, devices, networks, journal, health,
                plugins=tuple({"id": row.id, "dist": row.dist, "version": row.version, "state": row.state.value, "why": row.why}
                              for row in host.rows))
    try:
        node.init = await init.build_init(config.data)
    except (init.NoInit, OSError) as error:
        node.no_init = f"{error}; idle sessions run `sleep infinity` of their image"
        log.warning("%s", node.no_init)
    return node


async def choose_runtime(host: PluginHost, wanted: str, before: str, holds: bool) -> str:
    """Return the runtime's name. before: the last one; while the agent holds kernels on it there is no other choice."""
    if holds and before:
        if wanted not in ("auto", before):
            raise Failure("conflict", f"This agent still holds kernels on the runtime {before}; end them before you change to {wanted}.")
        wanted = before
    if wanted != "auto":
        try:
            host.one(runtime_v10.SPEC, wanted)
        except Missing as missing:
            raise Failure("unavailable", f"The runtime {wanted} cannot be used: {missing}; see `bai plugin ls`.") from missing
        return wanted
    reasons = []
    for name in AUTO:
        try:
            await host.one(runtime_v10.SPEC, name).probe()
        except (Failure, PluginFault, Missing) as error:
            reasons.append(f"{name}: {error if isinstance(error, Missing) else explain(error)}")
        else:
            return name
    raise Failure("unavailable", "No container runtime works on this machine. " + " ".join(reasons))


async def _measure(node: Node, reconciler: Reconciler) -> None:
    """Measure what runs, and the machine itself, for ever."""
    while True:
        running = {kernel.container.id: kernel.id for kernel in list(reconciler.kernels.values())
                   if kernel.container is not None and kernel.container.state is ContainerState.RUNNING}
        node.machine = machine_usage()
        try:
            found = await _usage(node.runtime, running) if running and not node.health.why else {}
            busy = await node.devices.busy({id: reconciler.kernels[id].entry.grants or () for id in found if id in reconciler.kernels})
            node.usage = {id: msgspec.structs.replace(usage, devices=busy[id]) if id in busy else usage for id, usage in found.items()}
        except (Failure, PluginFault) as error:
            if is_passing(error):
                node.health.doubt(error)
                reconciler.lookout.ask()
        await asyncio.sleep(node.config.stats_s)


async def _usage(runtime: Runtime, running: dict[str, str]) -> dict[str, Usage]:
    found = await runtime.stats(list(running))
    at = time.time()
    return {running[id]: Usage(at, u.cpu_s, u.memory, u.memory_peak, u.pids, u.io_read, u.io_write, u.net_rx, u.net_tx)
            for id, u in found.items() if id in running}


def machine_usage() -> Usage:
    """Measure the machine: CPU seconds since it started, and memory in use."""
    info = meminfo()
    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123 - one line of a long file
        ticks = [int(word) for word in file.readline().split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for disks
    return Usage(time.time(), cpu_s=busy * TICK_S, memory=info["MemTotal"] - info["MemAvailable"])


async def _refresh(node: Node) -> None:
    """Look at the devices now and then, for ever: one may fall ill."""
    while True:
        await asyncio.sleep(DEVICES_S)
        if await node.devices.discover():
            node.outbox.beat()
