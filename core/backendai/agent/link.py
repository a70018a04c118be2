"""The one connection to the manager: opened by us, kept up for ever, and everything told anew each time."""

from __future__ import annotations

import asyncio
import logging
import platform
import random
import time
from collections.abc import Callable

import aiohttp
import msgspec

from backendai import __version__
from backendai.agent.journal import Fact
from backendai.agent.node import Node
from backendai.agent.reconcile import Reconciler
from backendai.spec.runtime_v10 import Capabilities
from backendai.wire.link import (
    PROTOCOL,
    Advance,
    Beat,
    Desired,
    FromManager,
    Hello,
    Open,
    Purge,
    Report,
    Welcome,
    decode_from_manager,
    encode,
)

log = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
CONNECT_S, WELCOME_S, SEND_S = 10.0, 15.0, 30.0
PING_S = 20.0  # a manager that answers no ping for half of that is taken for lost
LINGER_S = 0.004  # before a report, so that it takes along what follows at once


class Refused(Exception):
    """The manager, or the agent itself, does not want this connection; the text says why."""


class Link:
    """Keep a link up. joined: set while the manager has taken us in. why: of the last connection that failed."""

    def __init__(self, node: Node, reconciler: Reconciler, http: aiohttp.ClientSession, cluster: Fact,
                 open: Callable[[Open], None]) -> None:
        self._node = node
        self._reconciler = reconciler
        self._http = http
        self._cluster = cluster
        self._open = open
        self._generation = 0
        self._told: Capabilities | None = None
        self.joined = asyncio.Event()
        self.why = ""

    async def run(self) -> None:
        """Connect, converse, and connect again with growing, jittered pauses, for ever."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._converse()
                why = "the manager closed the link"
            except aiohttp.WSServerHandshakeError as error:
                hint = "it does not know this token; make one with `bai token create --agent NAME`"
                why = f"it answered {error.status}: {hint if error.status in (401, 403) else error.message}"
            except (aiohttp.ClientError, TimeoutError, OSError, Refused, msgspec.MsgspecError) as error:
                why = str(error) or type(error).__name__
            if self.joined.is_set():
                pause = FIRST_PAUSE_S
                self.joined.clear()
            if why != self.why:
                log.warning("no link to %s: %s", self._node.config.manager_url, why)
            self.why = why
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _converse(self) -> None:
        url = f"{self._node.config.manager_url.rstrip('/')}/v1/link"
        async with asyncio.timeout(CONNECT_S):
            socket = await self._http.ws_connect(url, max_msg_size=0, heartbeat=PING_S, timeout=aiohttp.ClientWSTimeout(ws_close=1.0))
        try:
            self._node.outbox.take()  # the hello says it all
            await socket.send_bytes(encode(self._hello(self._node.config.address or _own_address(socket))))
            async with asyncio.timeout(WELCOME_S):
                welcome = await _receive(socket)
            if not isinstance(welcome, Welcome):
                raise Refused(f"the manager said {type(welcome).__name__} instead of a welcome")
            self._take_in(welcome)
            sender = asyncio.create_task(self._send(socket, welcome.beat_s))
            try:
                await self._listen(socket)
            finally:
                sender.cancel()
                await asyncio.wait([sender])
        finally:
            await socket.close()

    def _hello(self, address: str) -> Hello:
        node, capabilities = self._node, self._node.health.capabilities
        self._told = capabilities
        can = capabilities or Capabilities(engine="", default_image="")
        missing = {**can.missing, **({"init": node.no_init} if node.no_init else {}),
                   **{f"network-{name}": why for name, why in node.networks.lacking.items()}}
        networks = tuple(sorted(node.networks.drivers.keys() - node.networks.lacking.keys()))
        return Hello(
            protocol=PROTOCOL, agent=node.id, name=node.config.name, version=__version__, arch=platform.machine(), cluster=node.cluster,
            capacity=node.devices.allocator.capacity(), runtime=node.runtime_name, engine=can.engine, default_image=can.default_image,
            features=tuple(sorted(can.features)), missing=missing, limits=can.limits, kernels=self._reconciler.observed(),
            logs=self._reconciler.logs(), plugins=node.plugins, why=node.health.why, address=address, slots=node.devices.declarations(),
            devices=node.devices.allocator.fractions(), labels=node.config.labels, networks=networks)

    def _take_in(self, welcome: Welcome) -> None:
        node = self._node
        if welcome.cluster != node.cluster:
            if node.cluster and self._reconciler.kernels:
                raise Refused(f"this agent holds kernels of the cluster {node.cluster}, and the manager is of {welcome.cluster}")
            self._cluster.write(welcome.cluster)
            node.cluster = welcome.cluster
        self._reconciler.purge(welcome.purge)
        self._generation = 0
        self.joined.set()
        self.why = ""
        log.info("linked to %s", node.config.manager_url)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            match await _receive(socket):
                case Desired() as desired:
                    if not desired.full and desired.generation <= self._generation:
                        continue  # late or said twice
                    if not desired.full and (not self._generation or desired.generation != self._generation + 1):
                        raise Refused(f"a message was lost before generation {desired.generation}; connecting anew")
                    try:
                        self._reconciler.apply(desired)
                    except OSError as error:
                        self._node.health.doubt(error)
                        raise
                    self._generation = desired.generation
                case Purge(kernels):
                    self._reconciler.purge(kernels)
                case Open() as wanted:
                    self._open(wanted)
                case Welcome():
                    raise Refused("the manager said welcome twice")

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, beat_s: float) -> None:
        """Say what the outbox holds, and beat; end the link when the other side does not take it, or when a new hello is due."""
        outbox, due = self._node.outbox, 0.0
        try:
            while self._told == self._node.health.capabilities:
                try:
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await outbox.wake.wait()
                        await asyncio.sleep(LINGER_S)
                except TimeoutError:
                    pass  # it is time to beat
                reports, advances, beat = outbox.take()
                async with asyncio.timeout(SEND_S):
                    kernels = self._reconciler.kernels
                    if observed := tuple(kernels[id].entry.observed() for id in reports if id in kernels):
                        await socket.send_bytes(encode(Report(self._generation, observed)))
                    for kernel, text in advances.items():
                        await socket.send_bytes(encode(Advance(kernel, text)))
                    if beat or time.monotonic() >= due:
                        due = time.monotonic() + beat_s
                        await socket.send_bytes(encode(self._beat()))
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            log.info("the link does not take our words: %s", error)
        finally:
            await socket.close()

    def _beat(self) -> Beat:
        node = self._node
        allocator = node.devices.allocator
        return Beat(node.health.why, allocator.capacity(), node.usage, node.machine, allocator.fractions())


def _own_address(socket: aiohttp.ClientWebSocketResponse) -> str:
    """Return our end of the connection to the manager: an address of this node that others can reach where they reach the manager."""
    name = socket.get_extra_info("sockname")
    return str(name[0]) if name else ""


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> FromManager:
    message = await socket.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        return decode_from_manager(message.data)
    if message.type is aiohttp.WSMsgType.ERROR:
        raise Refused(f"the link broke: {socket.exception()}")
    said = message.extra if message.type is aiohttp.WSMsgType.CLOSE else ""
    raise Refused(f"the manager closed the link{f': {said}' if said else ''}")
