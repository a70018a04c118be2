"""Soft state: what the agents said a moment ago, and the conversations with them. A restart loses it, and nothing is lost by that."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from backendai.model.errors import KINDS, Failure
from backendai.wire.frames import MAX_DATA, STDIN, Verb, control, pack, read_control
from backendai.wire.link import Open, Purge, Usage

if TYPE_CHECKING:
    from backendai.manager.link import AgentLink

DIAL_S = 15.0  # from asking an agent for a stream to its dialling back


class Conversation:
    """One stream with an agent. name: what to call the agent when speaking to the user. over: set once there is nothing more to say."""

    def __init__(self, socket: web.WebSocketResponse, name: str, over: asyncio.Event) -> None:
        self._socket = socket
        self.name = name
        self.over = over

    async def send(self, data: bytes) -> None:
        """Send *data* on channel 0; wait while the agent does not take it."""
        for i in range(0, len(data), MAX_DATA):
            await self.forward(pack(STDIN, data[i : i + MAX_DATA]))

    async def say(self, **fields: Any) -> None:
        """Send a control."""
        await self.forward(control(**fields))

    async def forward(self, message: str | bytes) -> None:
        """Send a whole message as it is; raise ``Failure('unavailable')`` when the agent has gone."""
        try:
            await (self._socket.send_str(message) if isinstance(message, str) else self._socket.send_bytes(message))
        except (ConnectionError, RuntimeError) as error:
            raise self._lost() from error

    async def listen(self) -> AsyncIterator[bytes | dict[str, Any]]:
        """Yield binary messages whole and controls read, the last word included.

        Raise ``Failure`` when the last word is an error, or when it never comes.
        """
        last = False
        while not last:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                yield message.data
                continue
            if message.type is not WSMsgType.TEXT:
                self.over.set()
                raise self._lost()
            fields = read_control(message.data)
            if last := bool({"exit", "done", "error"} & fields.keys()):
                self.over.set()
            if error := fields.get("error"):
                code = str(error.get("code"))
                raise Failure(code if code in KINDS else "internal", str(error.get("message")))
            yield fields

    def _lost(self) -> Failure:
        return Failure("unavailable", f"The agent {self.name} went away in the middle; see `bai agents`.")


class _Meeting:
    """Where who asked for a stream and the agent that dials back find each other. over: the stream has ended."""

    def __init__(self) -> None:
        self.socket: asyncio.Future[web.WebSocketResponse] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()


class Live:
    """What is known of this very moment. progress: by session. usage: by kernel. links: by agent."""

    def __init__(self) -> None:
        self.progress: dict[str, str] = {}
        self.usage: dict[str, Usage] = {}
        self.links: dict[str, AgentLink] = {}
        self.ended = False
        self._awaited: dict[str, _Meeting] = {}
        self._met: set[_Meeting] = set()

    def purge(self, agent_id: str, kernel_ids: tuple[str, ...]) -> None:
        """Tell the agent to delete these kernels' logs; one that is away is told at its next hello."""
        if kernel_ids and (link := self.links.get(agent_id)) is not None:
            link.send(Purge(kernel_ids))

    async def ask(self, agent_id: str, verb: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the controls that the agent answers, in one; raise ``Failure`` when it cannot or is late."""
        answer: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s), self.open(agent_id, verb, arguments) as conversation:
                async for message in conversation.listen():
                    if isinstance(message, dict):
                        answer |= message
        except TimeoutError:
            raise Failure("deadline", f"The agent did not answer within {timeout_s:g} s; try again.") from None
        return answer

    @asynccontextmanager
    async def open(self, agent_id: str, verb: str, arguments: Mapping[str, Any]) -> AsyncIterator[Conversation]:
        """Begin a conversation; raise ``Failure('unavailable')`` when the agent is away or does not dial back."""
        link = self.links.get(agent_id)
        if link is None or self.ended:
            raise Failure("unavailable", "The agent is not connected now; see `bai agents`, and try again.")
        stream, meeting = secrets.token_hex(16), _Meeting()
        self._awaited[stream] = meeting
        self._met.add(meeting)
        try:
            link.send(Open(stream, Verb(verb), arguments))
            try:
                async with asyncio.timeout(DIAL_S):
                    socket = await meeting.socket
            except TimeoutError:
                raise Failure("unavailable", f"The agent {link.name} did not dial back within {DIAL_S:g} s; try again.") from None
            yield Conversation(socket, link.name, meeting.over)
        finally:
            self._awaited.pop(stream, None)
            self._met.discard(meeting)
            meeting.over.set()

    async def met(self, stream: str, socket: web.WebSocketResponse, request: web.Request) -> None:
        """Lend the *socket* on which an agent dialled back to who awaits *stream*, and return when they are done."""
        meeting = self._awaited.pop(stream, None)
        if meeting is None:
            raise Failure("not-found", "Nobody waits for this stream.")
        await socket.prepare(request)
        if not meeting.socket.done():
            meeting.socket.set_result(socket)
            await meeting.over.wait()

    def end(self) -> None:
        """Close every link and end every conversation; the process is stopping."""
        self.ended = True
        for link in list(self.links.values()):
            link.close("the manager is stopping")
        for meeting in self._met:
            meeting.over.set()
