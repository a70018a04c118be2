"""Put load on a platform over a few kept connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from tests.parts.platform import FINAL, Platform

T = TypeVar("T")


class Client:
    """The API over kept connections."""

    def __init__(self, http: aiohttp.ClientSession, image: str) -> None:
        self._http = http
        self._image = image

    async def create(self, command: Sequence[str], **more: Any) -> dict[str, Any]:
        """Ask for a batch session."""
        body = {"type": "batch", "command": list(command), "slots": {"cpu": 0.01, "mem": "32m"}, **more}
        if self._image:
            body["image"] = self._image
        return await self.call("POST", "/v1/sessions", body)

    async def until(self, session: str, state: str) -> dict[str, Any]:
        """Wait until a session is ``running`` or ``final``."""
        while True:
            found = await self.call("GET", f"/v1/sessions/{session}?wait={state}&timeout_s=30")
            if found["state"] in FINAL or (state == "running" and found["state"] == "RUNNING"):
                return found

    async def remove(self, session: str) -> None:
        """Stop and remove a session, and wait until its container is gone."""
        await self.call("POST", f"/v1/sessions/{session}/stop", {"grace_s": 0})
        await self.until(session, "final")
        await self.call("DELETE", f"/v1/sessions/{session}")

    async def drained(self) -> None:
        """Wait until every session has ended."""
        while (await self.call("GET", "/v1/sessions?limit=1"))["items"]:  # noqa: ASYNC110 - a client over HTTP has no event to wait for
            await asyncio.sleep(0.02)

    async def text(self, path: str) -> str:
        """Return what an address says in plain text."""
        async with self._http.get(path) as answer:
            return (await answer.read()).decode()

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with self._http.request(method, path, json=body) as answer:
            found = await answer.json(content_type=None) if answer.status != 204 else {}
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {found}")
            return found or {}


@asynccontextmanager
async def client(platform: Platform, connections: int = 32) -> AsyncIterator[Client]:
    """Yield a client of *platform*."""
    connector = aiohttp.TCPConnector(limit=connections)
    head = {"Authorization": f"Bearer {platform.token}"}
    async with aiohttp.ClientSession(platform.url, connector=connector, headers=head, timeout=aiohttp.ClientTimeout(total=120)) as http:
        yield Client(http, platform.image)


async def workers(count: int, jobs: Sequence[Callable[[], Awaitable[T]]]) -> tuple[list[T], float]:
    """Run *jobs* by so many workers; return their results and the seconds it took."""
    waiting = iter(jobs)
    results: list[T] = []

    async def work() -> None:
        for job in waiting:
            result = await job()
            results.append(result)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())
    return results, time.perf_counter() - begun
