"""The agents' side of the manager: one link each, and a new connection for every stream that they were asked for."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from backendai.manager import faults
from backendai.manager.answering import CLOSE_S, keep_alive
from backendai.manager.auth import authenticate_agent
from backendai.manager.context import Context
from backendai.model.errors import Failure
from backendai.wire.link import PROTOCOL, Advance, Beat, FromAgent, Hello, Message, Report, decode_from_agent, encode

if TYPE_CHECKING:
    from backendai.manager.orchestrator import Orchestrator

log = logging.getLogger(__name__)
SILENCE_S = 30.0  # an agent beats every 5 s
SEND_S = 20.0  # for one message to leave
BACKLOG = 32 * 1024 * 1024  # bytes that wait to be sent; an agent that takes no more is cut off, and hears everything anew
MAX_MESSAGE = 64 * 1024 * 1024  # a hello of some 100,000 kernels
MAX_FRAME = 16 * 1024 * 1024  # of a stream: the list of an agent's images is one message


class AgentLink:
    """The connection of one agent. agent_id, name: as its hello says. token: the id of that which it came with."""

    def __init__(self, socket: web.WebSocketResponse, hello: Hello, token: str) -> None:
        self.agent_id = hello.agent
        self.token = token
        self.name = hello.name
        self.reason = ""
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._news = asyncio.Event()
        self.writer = asyncio.create_task(self._write(), name=f"link-{hello.name}")

    def send(self, message: Message) -> None:
        """Queue *message*; a link on which too much waits is closed."""
        if self.reason:
            return
        data = encode(message)
        self._queue.append(data)
        self._queued += len(data)
        self._news.set()
        if self._queued > BACKLOG:
            self.close("the agent does not read what it is sent")

    def close(self, reason: str) -> None:
        """End the link; what waits is not sent any more."""
        self.reason = self.reason or reason
        self.writer.cancel()

    async def _write(self) -> None:
        """Send what is queued; end when the agent does not take it."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                data = self._queue.popleft()
                self._queued -= len(data)
                try:
                    async with asyncio.timeout(SEND_S):
                        await self._socket.send_bytes(data)
                except (ConnectionError, RuntimeError, TimeoutError) as error:
                    self.reason = self.reason or f"the agent does not take what it is sent: {str(error) or type(error).__name__}"
                    return


def routes(context: Context, orchestrator: Orchestrator) -> list[web.RouteDef]:
    """Return the routes that agents use."""

    async def link(request: web.Request) -> web.StreamResponse:
        token = await authenticate_agent(context, request)
        if context.live.ended:
            raise Failure("unavailable", "The manager is stopping.")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False, timeout=CLOSE_S)
        await socket.prepare(request)
        keep_alive(request)
        reason = await _serve(context, orchestrator, request, socket, token)
        await _hang_up(request, socket, WSCloseCode.POLICY_VIOLATION, reason)
        return socket

    async def stream(request: web.Request) -> web.StreamResponse:
        await authenticate_agent(context, request)
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME, compress=False, timeout=CLOSE_S)
        keep_alive(request)
        await context.live.met(request.match_info["stream"], socket, request)
        await _hang_up(request, socket)
        return socket

    return [web.get("/v1/link", link), web.get("/v1/link/streams/{stream}", stream)]


async def _hang_up(request: web.Request, socket: web.WebSocketResponse, code: int = WSCloseCode.OK, reason: str = "") -> None:
    """Close *socket* with a reason; cut off an agent that does not take it, with whatever it has not read."""
    message = reason.encode()[:120].decode(errors="ignore").encode()  # a close frame has no room for more
    try:
        async with asyncio.timeout(2 * CLOSE_S):
            await socket.close(code=code, message=message)
    except (ConnectionError, TimeoutError):
        pass  # it is cut off below
    if socket.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE) and request.transport is not None:
        request.transport.abort()


async def _serve(context: Context, orchestrator: Orchestrator, request: web.Request, socket: web.WebSocketResponse, token: str) -> str:
    """Converse with an agent until either side ends it; return why."""
    try:
        hello = await _receive(socket)
        if not isinstance(hello, Hello):
            return "the first message must be a hello"
    except msgspec.MsgspecError as error:
        return f"the hello is not understood, so the versions differ; this manager speaks protocol {PROTOCOL}: {error}"
    except (ConnectionError, TimeoutError):
        return "there was no hello"
    if hello.protocol != PROTOCOL:
        older = "agent" if hello.protocol < PROTOCOL else "manager"
        return f"the agent speaks protocol {hello.protocol} and this manager {PROTOCOL}; upgrade the {older}"
    link = AgentLink(socket, hello, token)
    reader = asyncio.create_task(_read(context, orchestrator, request, socket, link, hello), name=f"link-{hello.name}-read")
    try:
        await asyncio.wait([link.writer, reader], return_when=asyncio.FIRST_COMPLETED)
        if reader.done():
            link.close(reader.result())
    finally:
        for task in (link.writer, reader):
            task.cancel()
        await asyncio.gather(link.writer, reader, return_exceptions=True)
        await orchestrator.gone(link)
        log.info("link ended", extra={"agent": link.agent_id, "fields": {"name": link.name, "why": link.reason}})
    return link.reason


async def _read(context: Context, orchestrator: Orchestrator, request: web.Request, socket: web.WebSocketResponse, link: AgentLink,
                hello: Hello) -> str:
    """Pass on what the agent says until it ends; return why it did."""
    try:
        await orchestrator.hello(link, hello)
        log.info("linked", extra={"agent": link.agent_id, "fields": {"name": link.name, "kernels": len(hello.kernels)}})
        while True:
            match await _receive(socket):
                case Report() as report:
                    orchestrator.reported(link.agent_id, report)
                case Beat() as beat:
                    await authenticate_agent(context, request)  # its token may have been revoked
                    await orchestrator.beat(link.agent_id, beat)
                case Advance() as advance:
                    orchestrator.advance(link.agent_id, advance)
                case Hello():
                    return "the agent said hello twice"
    except Failure as failure:
        return failure.message
    except msgspec.MsgspecError as error:
        return f"a message was not understood: {error}"
    except ConnectionError as error:
        return str(error)
    except TimeoutError:
        return f"the agent said nothing for {SILENCE_S:g} s"
    except Exception as error:
        faults.unexpected(context, error, {"agent": link.name})
        return "something broke on the manager's side"


async def _receive(socket: web.WebSocketResponse) -> FromAgent:
    async with asyncio.timeout(SILENCE_S):
        message = await socket.receive()
    if message.type is WSMsgType.BINARY:
        return decode_from_agent(message.data)
    raise ConnectionResetError("the agent closed the link")
