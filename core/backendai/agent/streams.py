"""What a manager asks to see or do inside: for each request one connection that we open, and one conversation on it."""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, cast

import aiohttp

from backendai.agent.container import AGENT, CLUSTER, KERNEL
from backendai.agent.health import explain
from backendai.agent.node import Node, describe
from backendai.agent.output import Output
from backendai.agent.reconcile import Reconciler
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import ByteStream, ContainerState, ExecStream, Image, Progress
from backendai.wire.frames import MAX_DATA, STDIN, STDOUT, Verb, control, pack, read_control, unpack
from backendai.wire.link import Open

log = logging.getLogger(__name__)
MOST = 512  # streams at once; more are turned away
CONNECT_S = 10.0
KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
LAST_WORDS_S = 5.0
LONG_S: Mapping[Verb, float] = {  # seconds that a whole conversation may take; the others live as long as both sides do
    Verb.GET: 3600.0, Verb.PUT: 3600.0, Verb.PULL: 3600.0, Verb.BUILD: 3600.0, Verb.IMAGES: 60.0, Verb.REMOVE_IMAGE: 150.0,
    Verb.STATE: 60.0}
Socket = aiohttp.ClientWebSocketResponse
Arguments = Mapping[str, Any]


class Streams:
    """Owner of every conversation; they do not depend on the link over which they were asked for."""

    def __init__(self, node: Node, reconciler: Reconciler, http: aiohttp.ClientSession) -> None:
        self._node = node
        self._reconciler = reconciler
        self._http = http
        self.tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[Verb, Callable[[Socket, Arguments], Awaitable[None]]] = {
            Verb.EXEC: self._exec, Verb.LOGS: self._logs, Verb.GET: self._get, Verb.PUT: self._put, Verb.DIAL: self._dial,
            Verb.IMAGES: self._images, Verb.PULL: self._pull, Verb.REMOVE_IMAGE: self._remove_image, Verb.BUILD: self._build,
            Verb.STATE: self._state}

    def open(self, wanted: Open) -> None:
        """Dial back for *wanted*."""
        task = asyncio.create_task(self._serve(wanted))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """End every conversation."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def _serve(self, wanted: Open) -> None:
        url = f"{self._node.config.manager_url.rstrip('/')}/v1/link/streams/{wanted.stream}"
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await self._http.ws_connect(
                    url, max_msg_size=2 * MAX_DATA, timeout=aiohttp.ClientWSTimeout(ws_close=LAST_WORDS_S))
            _keep_alive(socket)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("stream %s could not be opened: %s", wanted.stream, error)
            return
        try:
            try:
                verb = Verb(wanted.verb)
                if len(self.tasks) > MOST:
                    raise Failure("too-many", "This agent serves too many streams; try again later.")
                async with asyncio.timeout(LONG_S.get(verb)):
                    await self._verbs[verb](socket, wanted.arguments)
            except (aiohttp.ClientError, ConnectionError) as error:
                log.debug("stream %s: the other side went: %s", wanted.stream, error)
            except Exception as error:
                if not isinstance(error, Failure):
                    log.warning("stream %s (%s) failed", wanted.stream, wanted.verb, exc_info=error)
                code = error.code if isinstance(error, Failure) else _code(error)
                with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_S):
                        await socket.send_str(control(error={"code": code, "message": explain(error)}))
        finally:
            await socket.close()

    def _running(self, arguments: Arguments) -> str:
        """Return the container of the kernel that is spoken of; raise ``Failure('conflict')`` unless it runs."""
        kernel = self._reconciler.kernels.get(str(arguments["kernel"]))
        if kernel is None or kernel.container is None or kernel.container.state is not ContainerState.RUNNING:
            raise Failure("conflict", "The session does not run now; see `bai ps -a`.")
        return kernel.container.id

    def _optional(self, hook: str) -> Callable[..., Any]:
        if (found := getattr(self._node.runtime, hook, None)) is None:
            raise Failure("unsupported", f"The runtime {self._node.runtime_name} of this agent cannot do that.")
        return cast(Callable[..., Any], found)

    async def _exec(self, socket: Socket, arguments: Arguments) -> None:
        user = arguments.get("user")
        tty = bool(arguments.get("tty"))
        stream = await self._node.runtime.exec(
            self._running(arguments), tuple(arguments["argv"]), dict(arguments.get("env") or {}),
            None if user is None else (int(user[0]), int(user[1])), arguments.get("workdir"), tty)
        try:
            if tty and arguments.get("rows") and arguments.get("columns"):
                await stream.resize(int(arguments["rows"]), int(arguments["columns"]))
            outward = asyncio.create_task(_exec_output(socket, stream))
            inward = asyncio.create_task(_exec_input(socket, stream))
            try:
                await asyncio.wait([outward, inward], return_when=asyncio.FIRST_COMPLETED)
                if not outward.done() and inward.exception() is not None:  # it may have ended while we wrote
                    await asyncio.wait([outward], timeout=LAST_WORDS_S)
                    await (outward if outward.done() else inward)
                if outward.done():
                    await outward
                elif tty:
                    await stream.signal("SIGHUP")  # as a terminal does that is hung up
            finally:
                await _end(outward, inward)
        finally:
            await stream.close()

    async def _logs(self, socket: Socket, arguments: Arguments) -> None:
        id = str(arguments["kernel"])
        if (kernel := self._reconciler.kernels.get(id)) is not None:
            output = kernel.output
        elif id in self._reconciler.logs():
            output = Output(self._node.log_path(id), 0)
            output.done = True
        else:
            raise Failure("not-found", "This agent has no output of that session any more.")

        async def give() -> None:
            async with aclosing(cast(Any, output.read(bool(arguments.get("follow")), arguments.get("tail")))) as pieces:
                async for channel, data in pieces:
                    await _send(socket, channel, data)
            await socket.send_str(control(done=True))

        await _while_open(socket, give())

    async def _get(self, socket: Socket, arguments: Arguments) -> None:
        async def give() -> None:
            async with aclosing(cast(Any, self._node.runtime.get_archive(self._running(arguments), str(arguments["path"])))) as pieces:
                async for data in pieces:
                    await _send(socket, STDOUT, data)
            await socket.send_str(control(done=True))

        await _while_open(socket, give())

    async def _put(self, socket: Socket, arguments: Arguments) -> None:
        async with aclosing(cast(Any, _body(socket))) as body:
            await self._node.runtime.put_archive(self._running(arguments), str(arguments["path"]), body)
        await socket.send_str(control(done=True))

    async def _dial(self, socket: Socket, arguments: Arguments) -> None:
        stream = await self._node.runtime.dial(self._running(arguments), int(arguments["port"]))
        tasks = asyncio.create_task(_dial_output(socket, stream)), asyncio.create_task(_dial_input(socket, stream))
        try:
            await asyncio.gather(*tasks)
            await socket.send_str(control(done=True))
        finally:
            await _end(*tasks)
            await stream.close()

    async def _images(self, socket: Socket, arguments: Arguments) -> None:
        found: list[Image] = list(await self._optional("images")())
        images = [{"name": i.name, "id": i.id, "size": i.size, "created_at": i.created_at, "command": list(i.command),
                   "labels": dict(i.labels)} for i in found]
        await socket.send_str(control(images=images))
        await socket.send_str(control(done=True))

    async def _state(self, socket: Socket, arguments: Arguments) -> None:
        """Tell what the journal has, and what the runtime has that bears our label, so that somebody may compare."""
        kernels = [{"kernel": id, "state": kernel.entry.state.value, "dropped": kernel.entry.dropped, "container": kernel.entry.container}
                   for id, kernel in self._reconciler.kernels.items()]
        found = await self._node.runtime.list({AGENT: self._node.id})
        containers = [{"id": c.id, "name": c.name, "state": c.state.value, "kernel": c.labels.get(KERNEL, ""),
                       "cluster": c.labels.get(CLUSTER, "")} for c in found]
        await socket.send_str(control(kernels=kernels, containers=containers))
        await socket.send_str(control(done=True))

    async def _pull(self, socket: Socket, arguments: Arguments) -> None:
        await _with_progress(socket, lambda report: self._node.runtime.ensure_image(str(arguments["image"]), report))

    async def _remove_image(self, socket: Socket, arguments: Arguments) -> None:
        await self._optional("remove_image")(str(arguments["image"]))
        await socket.send_str(control(done=True))

    async def _build(self, socket: Socket, arguments: Arguments) -> None:
        build = self._optional("build_image")
        async with aclosing(cast(Any, _body(socket))) as body:
            await _with_progress(socket, lambda report: build(str(arguments["name"]), body, report), reads=True)


def _keep_alive(socket: Socket) -> None:
    """Let the network notice a peer that is gone; a ping's answer would wait behind data that a slow reader has not taken."""
    if (raw := socket.get_extra_info("socket")) is not None:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(sockets, name):
                raw.setsockopt(sockets.IPPROTO_TCP, getattr(sockets, name), value)


def _code(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "deadline"
    return "invalid-request" if isinstance(error, KeyError | ValueError) else "runtime-fault"


async def _send(socket: Socket, channel: int, data: bytes) -> None:
    for i in range(0, len(data), MAX_DATA):
        await socket.send_bytes(pack(channel, data[i : i + MAX_DATA]))


async def _messages(socket: Socket) -> AsyncIterator[bytes | dict[str, Any]]:
    """Yield what arrives: data for the process, or a control; end with the connection."""
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            yield read_control(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            channel, data = unpack(message.data)
            if channel == STDIN:
                yield data


async def _body(socket: Socket) -> AsyncIterator[bytes]:
    """Yield what arrives until its end was said; a connection that breaks off is no end."""
    async for message in _messages(socket):
        if isinstance(message, bytes):
            yield message
        elif message.get("eof"):
            return
    raise ConnectionResetError("the other side went before the end of its data")


async def _exec_output(socket: Socket, stream: ExecStream) -> None:
    while (piece := await stream.read()) is not None:
        await _send(socket, *piece)
    await socket.send_str(control(exit=await stream.exit_code()))


async def _exec_input(socket: Socket, stream: ExecStream) -> None:
    """Pass on what is said to the process; return when the other side has gone."""
    async for message in _messages(socket):
        if isinstance(message, bytes):
            await stream.write(message)
        elif "resize" in message:
            rows, columns = message["resize"]
            await stream.resize(int(rows), int(columns))
        elif "signal" in message:
            await stream.signal(str(message["signal"]))
        elif message.get("eof"):
            await stream.end_input()


async def _dial_output(socket: Socket, stream: ByteStream) -> None:
    while data := await stream.read():
        await _send(socket, STDOUT, data)
    await socket.send_str(control(eof=True))


async def _dial_input(socket: Socket, stream: ByteStream) -> None:
    async for data in _body(socket):
        await stream.write(data)
    await stream.end_output()


async def _while_open(socket: Socket, work: Any) -> None:
    """Do *work*, and stop at once when the other side goes."""
    task, watch = asyncio.create_task(work), asyncio.create_task(_drop_messages(socket))
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    finally:
        await _end(task, watch)


async def _drop_messages(socket: Socket) -> None:
    async for _ in socket:
        pass  # nothing is expected; reading notices the end


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _with_progress(socket: Socket, begin: Callable[[Callable[[Progress], None]], Awaitable[Any]], reads: bool = False) -> None:
    """Do what *begin* begins and pass on the newest progress as fast as the other side takes it. reads: it reads the socket itself."""
    newest: list[Progress] = []
    news = asyncio.Event()

    def report(progress: Progress) -> None:
        newest[:] = [progress]
        news.set()

    async def work() -> None:
        task = asyncio.ensure_future(begin(report))
        task.add_done_callback(lambda _: news.set())
        try:
            while not task.done() or newest:
                await news.wait()
                news.clear()
                if newest:
                    at = newest.pop()
                    await socket.send_str(control(progress={"text": describe(at), "done": at.done, "total": at.total}))
            await task
        finally:
            await _end(task)
        await socket.send_str(control(done=True))

    await (work() if reads else _while_open(socket, work()))
