"""An authenticated ``GET /v1/sessions/{id}`` at 32 connections, beside a bare aiohttp handler with an answer of the same size.

Each connection asks for a session of its own.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.bench.table import Row, at_least, show

CONNECTIONS = 32
ROUNDS = 5
REQUESTS = 4000  # in one round
READY_S = 60.0

MANAGER = """
import asyncio, json, sys
from pathlib import Path
from backendai.manager.config import ManagerConfig
from backendai.manager.serve import serve_manager

async def main():
    async with serve_manager(ManagerConfig(data=Path(sys.argv[1]))) as manager:
        print(json.dumps({"url": manager.url, "token": manager.first_admin_token}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
BARE = """
import asyncio, json, sys
from aiohttp import web

body = b"x" * int(sys.argv[1])

async def answer(request):
    return web.Response(body=body, content_type="application/json")

async def main():
    app = web.Application()
    app.router.add_get("/{id}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Connection(asyncio.Protocol):
    """One connection that sends the same request again and again; cheap, so that the server is what is measured."""

    def __init__(self, request: bytes, left: Iterator[int], taken: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._left = left
        self._taken = taken
        self._received = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._received.lower().index(b"content-length:") + 15
        if len(self._received) < head + 4 + int(self._received[at : self._received.index(b"\r", at)]):
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(self._received.decode(errors="replace")))
            return
        self._taken.append(time.perf_counter() - self._begun)
        self._received.clear()
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server closed"))

    def _next(self) -> None:
        if next(self._left, None) is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(self._request)


def _same(connection: Connection) -> Connection:
    return connection


async def one_round(url: str, requests: Sequence[bytes]) -> tuple[float, list[float]]:
    """Return requests per second, and the seconds that each took."""
    host, port = url.removeprefix("http://").split(":")
    taken: list[float] = []
    left = iter(range(REQUESTS))
    begun = time.perf_counter()
    connections = [Connection(request, left, taken) for request in requests]
    for connection in connections:
        await asyncio.get_running_loop().create_connection(partial(_same, connection), host, int(port))
    await asyncio.gather(*(connection.done for connection in connections))
    return REQUESTS / (time.perf_counter() - begun), taken


@contextmanager
def served(program: str, argument: str) -> Iterator[dict[str, str]]:
    """Run a server of our own until the block ends; yield what it says of itself."""
    with subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(READY_S)


def ask(url: str, token: str, body: bytes | None = None) -> bytes:
    """Send one request and return the answer's body."""
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=READY_S) as answer:
        return bytes(answer.read())


def request_for(path: str, token: str = "") -> bytes:
    head = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n{head}\r\n".encode()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bai-test-get-", dir="/tmp") as folder, served(MANAGER, folder) as ours:
        wanted = b'{"type": "batch", "command": ["true"]}'
        paths = [f"/v1/sessions/{json.loads(ask(ours['url'] + '/v1/sessions', ours['token'], wanted))['id']}" for _ in range(CONNECTIONS)]
        size = len(ask(ours["url"] + paths[0], ours["token"]))
        with served(BARE, str(size)) as bare:
            sides = {"ours": (ours["url"], [request_for(path, ours["token"]) for path in paths]),
                     "bare": (bare["url"], [request_for("/x")] * CONNECTIONS)}
            rates: dict[str, list[float]] = {"ours": [], "bare": []}
            latencies: dict[str, list[float]] = {"ours": [], "bare": []}
            for turn in range(ROUNDS + 1):
                for side, (url, requests) in sides.items():
                    rate, taken = asyncio.run(one_round(url, requests))
                    if turn:  # the first fills caches
                        rates[side].append(rate)
                        latencies[side] += taken
    rows: list[Row] = [at_least("requests", statistics.median(rates["ours"]), statistics.median(rates["bare"]), 0.2)]
    for what, percentile in (("latency, median", 50), ("latency, p99", 99)):
        both = [statistics.quantiles(latencies[side], n=100)[percentile - 1] * 1000 for side in ("ours", "bare")]
        rows.append(Row(what, f"{both[0]:.1f} ms", f"{both[1]:.1f} ms", f"{both[0] / both[1]:.2f}", "", True))
    show(f"GET /v1/sessions/{{id}}, {size} bytes, {CONNECTIONS} connections, {ROUNDS} rounds of {REQUESTS} by turns", rows)


if __name__ == "__main__":
    main()
