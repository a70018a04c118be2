"""Placements per second as they are written: planned, granted under both ledgers, recorded, and told to the agents."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.table import Row, bound, show
from tests.parts.postgres import databases

AGENTS = 100
SESSIONS = 3000


async def rate(db: str) -> float:
    """Return placements per second of a queue that is there when the agents come."""
    with TemporaryDirectory() as folder:
        stages = importlib.import_module("core.tests.manager.stage")  # a stage of the tests is a whole manager without a port
        async with stages.staged(Path(folder), db) as stage:
            await fill(stage)
            for number in range(AGENTS):
                await stage.box(f"box{number:04}", cpu=SESSIONS // AGENTS, mem=64)
            begun = time.perf_counter()
            await stage.orchestrator.look_once()
            while any(planner.side.bell.is_set() for planner in stage.orchestrator._planners.values()):
                await stage.orchestrator.look_once(False)
            taken = time.perf_counter() - begun
            placed = sum(state == "SCHEDULED" for state, *_ in (await stage.states()).values())
            if placed < SESSIONS:
                raise RuntimeError(f"only {placed} were placed")
            return float(placed / taken)


async def fill(stage: Any) -> None:
    """Ask for all sessions, many at a time."""
    for _ in range(SESSIONS // 100):
        await asyncio.gather(*(stage.ask() for _ in range(100)))


def main() -> None:
    rows: list[Row] = [bound("SQLite", asyncio.run(rate("")), 1000, "placements/s", low=False)]
    if server := os.environ.get("BACKENDAI_TEST_PG"):
        name = f"bench_{os.getpid()}"
        databases(server, f"CREATE DATABASE {name}")
        try:
            rows.append(bound("PostgreSQL", asyncio.run(rate(server.replace("/postgres", f"/{name}", 1))), 1000, "placements/s", low=False))
        finally:
            databases(server, f"DROP DATABASE {name} WITH (FORCE)")
    show(f"{SESSIONS} waiting sessions placed on {AGENTS} agents and written down", rows)


if __name__ == "__main__":
    main()
