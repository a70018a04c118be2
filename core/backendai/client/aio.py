"""The SDK for asyncio."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import msgspec

from backendai.client import calls
from backendai.client.call import Call, failure
from backendai.client.calls import NewSession
from backendai.client.http import CONNECT_S, KEEP_ALIVE, nobody, told
from backendai.client.settings import find_login
from backendai.client.sync import is_there
from backendai.model.errors import Failure
from backendai.model.explain import Overview, Queue, Why
from backendai.model.session import Session, SessionState
from backendai.model.views import EventLine, Images, Ran, SessionStats, Who
from backendai.wire.frames import MAX_DATA, STDIN, Deframer, control, pack, read_control, unpack

T = TypeVar("T")
CLOSE_S = 10.0
FOR_EVER = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)  # streams last as long as they last


class Process:
    """A command that runs in a session. Iterate over it for its output, as (1 or 2, bytes); then ``exit_code`` is known."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.exit_code: int | None = None

    async def write(self, data: bytes) -> None:
        """Give *data* to its standard input; wait while it does not read."""
        for start in range(0, len(data), MAX_DATA):
            await self._socket.send_bytes(pack(STDIN, data[start : start + MAX_DATA]))

    async def end_input(self) -> None:
        """End its standard input."""
        await self._socket.send_str(control(eof=True))

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal a new size."""
        await self._socket.send_str(control(resize=[rows, columns]))

    async def signal(self, name: str) -> None:
        """Send it a signal, such as ``SIGINT``."""
        await self._socket.send_str(control(signal=name))

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield output until it ends; raise ``Failure`` when the connection breaks off before that."""
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                yield unpack(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                words = read_control(message.data)
                if "error" in words:
                    raise told(words["error"])
                if "exit" in words:
                    self.exit_code = int(words["exit"])
                    return
        raise Failure("unreachable", "The connection broke off; whether the command goes on is not known.")

    async def wait(self) -> int:
        """Pass over the rest of the output and return the exit code."""
        async for _ in self:
            continue
        assert self.exit_code is not None  # it is known when the output has ended
        return self.exit_code


class AsyncClient:
    """A manager, for asyncio; use it as ``async with AsyncClient() as client``. The methods are those of ``Client``."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        login = find_login(url, token)
        self._url = login.url
        self._token = login.token
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AsyncClient:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=FOR_EVER)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def do(self, call: Call[T]) -> T:
        """Send a call and return its typed answer."""
        limit = aiohttp.ClientTimeout(total=call.answer_s, sock_connect=CONNECT_S)
        try:
            async with self._send(call, timeout=limit) as answer:
                return call.read(await answer.read())
        except Failure as failed:
            if not (call.repeatable and isinstance(failed.__cause__, aiohttp.ServerDisconnectedError)):
                raise
        async with self._send(call, timeout=limit) as answer:  # a kept connection was closed while this went out
            return call.read(await answer.read())

    @asynccontextmanager
    async def _send(self, call: Call[Any], data: Any = None, headers: Mapping[str, str] | None = None,
                    timeout: aiohttp.ClientTimeout = FOR_EVER) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._http is None:
            raise RuntimeError("use it as `async with AsyncClient() as client`")
        given = {**call.headers(self._token), **(headers or {})}
        target, body = self._url + call.target, data or call.payload()
        try:
            async with self._http.request(call.method, target, data=body, headers=given, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise failure(answer.status, await answer.read())
                yield answer
        except aiohttp.ClientConnectorError as error:
            raise nobody(self._url, error.os_error) from error
        except TimeoutError as error:
            raise Failure("deadline", f"{self._url} did not answer within {call.answer_s:g} s; try again.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Failure("unreachable", f"The connection to {self._url} broke off ({type(error).__name__}); try again.") from error

    async def whoami(self) -> Who:
        """Return who you are to this cluster."""
        return await self.do(calls.whoami())

    async def create(self, new: NewSession, key: str = "") -> Session:
        """Ask for a session. key: the same twice makes one session only; made up when left out."""
        return await self.do(calls.create_session(new, key))

    async def session(self, session: str) -> Session:
        """Return a session as it is now."""
        return await self.do(calls.get_session(session))

    async def sessions(self, all: bool = False, state: SessionState | None = None, **whose: Any) -> AsyncIterator[Session]:
        """Yield your sessions, newest first, page by page. all: ended ones, too. whose: project, user, everyone=True."""
        cursor: str | None = None
        while True:
            page = await self.do(calls.list_sessions(all, state, cursor, **whose))
            for session in page.items:
                yield session
            if (cursor := page.next) is None:
                return

    async def wait(self, session: str, state: str = "final") -> Session:
        """Return a session once it is ``running`` (or past that) or ``final``; bound it with ``asyncio.timeout``."""
        while True:
            found = await self.do(calls.get_session(session, state, calls.MOST_WAIT_S))
            if is_there(found, state):
                return found

    async def stop(self, session: str, grace_s: float | None = None) -> Session:
        """Ask a session to end; it does so by itself. grace_s: from SIGTERM to SIGKILL."""
        return await self.do(calls.stop_session(session, grace_s))

    async def remove(self, session: str, force: bool = False) -> None:
        """Forget a session that has ended. force: stop it first."""
        await self.do(calls.remove_session(session, force))

    async def stats(self, session: str) -> SessionStats:
        """Return what a session uses."""
        return await self.do(calls.stats_of_session(session))

    async def why(self, session: str, replay: bool = False) -> Why:
        """Say why a session waits, what would let it start and when it will. replay: make the decision that placed it again."""
        return await self.do(calls.why_session(session, replay))

    async def dry_run(self, new: NewSession) -> Why:
        """Say what would become of a session, without asking for it; raise what ``create`` would."""
        return await self.do(calls.dry_run(new))

    async def queue(self, group: str | None = None) -> tuple[Queue, ...]:
        """Return who waits in each resource group, in the order in which they go."""
        return await self.do(calls.get_queue(group))

    async def overview(self) -> Overview:
        """Return how everything stands, as far as you may see it."""
        return await self.do(calls.get_overview())

    async def logs(self, session: str, follow: bool = False, tail: int | None = None,
                   attempt: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the output as (1 for standard output or 2 for standard error, bytes). follow: until the session has ended."""
        cutter = Deframer()
        async with self._send(calls.logs_of_session(session, follow, tail, attempt)) as answer:
            async for piece in answer.content.iter_any():
                for frame in cutter.feed(piece):
                    yield frame

    async def exec(self, session: str, argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None,
                   workdir: str | None = None, timeout_s: float | None = None) -> Ran:
        """Run a command to its end, at most 8 MiB of output; ``open`` has terminals and streams."""
        return await self.do(calls.exec_in_session(session, argv, stdin, env, None, workdir, timeout_s))

    @asynccontextmanager
    async def open(self, session: str, argv: Sequence[str], env: Mapping[str, str] | None = None, user: str | None = None,
                   workdir: str | None = None, tty: bool = False, rows: int = 24, columns: int = 80) -> AsyncIterator[Process]:
        """Run a command with its streams. tty: on a terminal of that size. Leaving the block before its end hangs up."""
        if self._http is None:
            raise RuntimeError("use it as `async with AsyncClient() as client`")
        call = calls.open_exec(session)
        start = {"argv": list(argv), "env": dict(env or {}), "user": user, "workdir": workdir, "tty": tty, "rows": rows, "columns": columns}
        try:
            socket = await self._http.ws_connect(self._url + call.target, headers=call.headers(self._token), max_msg_size=2 * MAX_DATA,
                                                 timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S))
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refusal(call, error.status) from error
        except aiohttp.ClientConnectorError as error:
            raise nobody(self._url, error.os_error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failure("unreachable", f"The connection to {self._url} broke off ({type(error).__name__}); try again.") from error
        _keep_alive(socket)
        try:
            await socket.send_str(control(start=start))
            yield Process(socket)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Failure("unreachable", "The connection broke off; whether the command goes on is not known.") from error
        finally:
            await socket.close()

    async def _refusal(self, call: Call[Any], status: int) -> Failure:
        """Return why a WebSocket was refused; its handshake tells the status only, so it is asked for as a page."""
        try:
            async with self._send(call):
                return failure(status, b"")
        except Failure as why:
            return why

    async def get_archive(self, session: str, path: str) -> AsyncIterator[bytes]:
        """Yield a path of a running session as a tar."""
        async with self._send(calls.archive_of_session(session, path)) as answer:
            async for piece in answer.content.iter_any():
                yield piece

    async def put_archive(self, session: str, path: str, tar: AsyncIterable[bytes]) -> None:
        """Unpack a tar at the folder *path* of a running session."""
        async with self._send(calls.archive_of_session(session, path, put=True), tar, {"Content-Type": "application/x-tar"}):
            return

    async def images(self) -> Images:
        """Return the images of every connected agent."""
        return await self.do(calls.list_images())

    async def pull(self, image: str, agent: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Fetch an image onto one agent or all, and yield progress; the last has ``done`` and ``agents``."""
        async with self._send(calls.pull_image(image, agent)) as answer:
            async for line in answer.content:
                given: dict[str, Any] = json.loads(line)
                if "error" in given:
                    raise told(given["error"])
                yield given

    async def events(self, follow: bool = True, after: int | None = None) -> AsyncIterator[EventLine]:
        """Yield what happens from now on, or after the event with the id *after*; without *follow* what has happened already."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        async with self._send(calls.watch_events(follow), headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data:"):
                    yield msgspec.json.decode(line[5:], type=EventLine)


def _keep_alive(websocket: aiohttp.ClientWebSocketResponse) -> None:
    """Let the network notice a peer that is gone; a ping's answer would wait behind data that a slow reader has not taken."""
    if (raw := websocket.get_extra_info("socket")) is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
