"""The connection to the engine: every request has a deadline, and every failure becomes a sentence for people."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from aiodocker import Docker, DockerError
from backendai.model.errors import Failure

T = TypeVar("T")
CONNECT_S = 5.0
SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "{runtime}/docker.sock", "/run/podman/podman.sock", "{runtime}/podman/podman.sock")
NOT_CONNECTED = 900  # aiodocker's status for it
NO_WORD = 0  # ours for an error without a text
HINT = "see `systemctl status docker` on the agent's machine"


class Engine:
    """One engine on this node, spoken to over its unix socket.

    doubted: what did not answer in time, until a container has been started again; such an engine may still answer a ping.
    """

    def __init__(self, url: str = "") -> None:
        self._url = url
        self._client: Docker | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lost = False  # the last connection failed; the engine may listen elsewhere by now
        self.socket = ""
        self.doubted = ""

    @property
    def used(self) -> bool:
        """Whether anything was ever asked."""
        return self._client is not None

    async def close(self) -> None:
        """Let go of all connections; the next request makes new ones."""
        session, self._session, self._client = self._session, None, None
        if session is not None:
            await session.close()

    async def get(self, path: str, *, within_s: float, params: dict[str, Any] | None = None) -> Any:
        """Return the JSON answer to a GET."""
        return await self.ask("GET", path, within_s=within_s, params=params)

    async def ask(self, method: str, path: str, *, within_s: float, params: dict[str, Any] | None = None, data: Any = None) -> Any:
        """Return the JSON answer, None when it is empty.

        Raise ``DockerError`` when the engine refuses, ``Failure('unavailable')`` when it cannot be reached or is late.
        """
        async with self.open(method, path, within_s=within_s, params=params, data=None if data is None else json.dumps(data).encode(),
                             headers={"Content-Type": "application/json"}) as response, self._guard(path, within_s):
            body = await response.read()
        return json.loads(body) if body.strip() else None

    @asynccontextmanager
    async def open(self, method: str, path: str, *, within_s: float, params: dict[str, Any] | None = None, data: Any = None,
                   headers: dict[str, str] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a response whose head came within *within_s*; reading its body is up to the caller."""
        client = await self._connected()
        asked = client._query(path, method, params=params, data=data, headers=headers, timeout=aiohttp.ClientTimeout(connect=CONNECT_S))
        async with AsyncExitStack() as stack:
            async with self._guard(path, within_s):
                response = await stack.enter_async_context(asked)
            try:
                yield response
            finally:
                response.release() if response.content.is_eof() else response.close()

    async def hijack(self, path: str, body: dict[str, Any], *, within_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the raw two-way stream that a POST is upgraded to."""
        client = await self._connected()
        if client.api_version == "auto":
            await self.get("_ping", within_s=within_s)
        payload = json.dumps(body).encode()
        head = (f"POST /{client.api_version}/{path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(payload)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        async with self._guard(path, within_s):
            reader, writer = await asyncio.open_unix_connection(self.socket)
            try:
                writer.write(head.encode() + payload)
                await writer.drain()
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status = int(answer.split(None, 2)[1])
                if status not in (101, 200):
                    raise DockerError(status, _message(await reader.read(65536)))
            except BaseException:
                writer.close()
                raise
        return reader, writer

    async def _connected(self) -> Docker:
        if self._client is not None and self._lost and find_socket(self._url) != self.socket:
            await self.close()
        if self._client is None:
            self.socket = find_socket(self._url)
            connector = aiohttp.UnixConnector(self.socket, limit=0)  # every followed log holds a connection
            self._session = aiohttp.ClientSession(connector=connector)
            self._client = Docker(url="unix://localhost", connector=connector, session=self._session)
        self._lost = False
        return self._client

    @asynccontextmanager
    async def _guard(self, what: str, within_s: float) -> AsyncIterator[None]:
        """Give the block *within_s* seconds, and translate what keeps it from an answer."""
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError as error:
            self.doubted = f"it did not answer within {within_s:g} s"
            raise Failure("unavailable", f"The container engine does not answer ({self.doubted}); {HINT}.", detail=what) from error
        except DockerError as error:
            if error.status != NOT_CONNECTED:
                raise
            self._lost = True
            if self._client is not None:
                self._client.api_version = "auto"  # it may come back as another version
            raise Failure("unavailable", unreachable(self.socket), detail=str(error)) from error
        except json.JSONDecodeError as error:  # Podman refuses some things without a word, which aiodocker cannot read
            raise DockerError(NO_WORD, "It gave no reason") from error
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise Failure("unavailable", f"The connection to the container engine broke off; {HINT}.", detail=repr(error)) from error


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> Sequence[T]:
    """Await all *calls* at once and return their answers in order; the first failure ends the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def find_socket(url: str) -> str:
    """Return the path of the engine's socket: as configured, as ``DOCKER_HOST`` says, or where one is usually found."""
    if url := url or os.environ.get("DOCKER_HOST", ""):
        if not url.startswith("unix://"):
            raise Failure("unavailable", f"The engine must be on this machine, at unix:///PATH; {url} is not.")
        return url.removeprefix("unix://")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/run")
    for place in SOCKETS:
        path = place.format(runtime=runtime)
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - pathlib would hide which errors mean no
                return path
        except OSError:
            continue  # not there, or not for us to see
    raise Failure("unavailable", "There is no container engine: install Docker 20.10 or newer, or run `podman system service`.")


def unreachable(path: str) -> str:
    """Return why nobody answers at the socket *path*, and what to do."""
    if os.path.lexists(path) and not os.access(path, os.W_OK):
        return f"This user may not use the container engine at {path}; add the user to the socket's group, such as docker."
    return f"The container engine cannot be reached at {path}; {HINT}."


def refused(error: DockerError, what: str) -> Failure:
    """Return what to tell people when the engine refuses to do *what* for a reason that nobody foresaw."""
    return Failure("runtime-fault", f"The container engine could not {what}: {sentence(error.message)}", detail=str(error))


def sentence(message: str) -> str:
    """Return an engine's message on one line, with a full stop."""
    text = " ".join(message.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _message(body: bytes) -> str:
    start = body.find(b"{")
    try:
        return str(json.loads(body[start : body.rfind(b"}") + 1])["message"])
    except (ValueError, KeyError):
        return body.decode(errors="replace")
