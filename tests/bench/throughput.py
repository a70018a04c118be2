"""Sessions per second through one manager, with a runtime that does nothing."""

from __future__ import annotations

import asyncio
import os
import time

from tests.bench.load import client
from tests.bench.load import workers as spread
from tests.bench.table import Row, bound, show
from tests.parts.platform import Platform
from tests.parts.postgres import databases

SESSIONS = 2000
CONNECTIONS = 32


async def rate(platform: Platform) -> float:
    """Return sessions per second from the first request until none is active."""
    async with client(platform, CONNECTIONS) as api:
        await spread(CONNECTIONS, [lambda: api.create(["true"])] * 100)  # fills caches
        await api.drained()
        begun = time.perf_counter()
        await spread(CONNECTIONS, [lambda: api.create(["true"])] * SESSIONS)
        await api.drained()
        return SESSIONS / (time.perf_counter() - begun)


def measure(db: str) -> float:
    platform = Platform("null", names=("east",), db=db)
    try:
        platform.start()
        return asyncio.run(rate(platform))
    finally:
        platform.remove(sweep=False)


def main() -> None:
    rows: list[Row] = [bound("SQLite", measure(""), 300, "sessions/s", low=False)]
    if server := os.environ.get("BACKENDAI_TEST_PG"):
        name = f"bench_{os.getpid()}"
        databases(server, f"CREATE DATABASE {name}")
        try:
            rows.append(bound("PostgreSQL", measure(server.replace("/postgres", f"/{name}", 1)), 200, "sessions/s", low=False))
        finally:
            databases(server, f"DROP DATABASE {name} WITH (FORCE)")
    show(f"{SESSIONS} sessions from POST to their final state, {CONNECTIONS} connections, one manager", rows)


if __name__ == "__main__":
    main()
