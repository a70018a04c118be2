"""What an idle platform costs: memory and processor, empty and with ten thousand sessions behind it."""

from __future__ import annotations

import asyncio

import psutil

from tests.bench.load import client
from tests.bench.load import workers as spread
from tests.bench.table import Row, bound, show
from tests.parts.platform import Platform

FINISHED = 10_000
WATCH_S = 20.0
MIB = 1024 * 1024


def resident(platform: Platform) -> float:
    """Return MiB that ``bai up`` and its children hold."""
    process = psutil.Process(platform.running["up"].pid)
    return float(sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))) / MIB


def busy(platform: Platform) -> float:
    """Return percent of one core over a while of doing nothing."""
    process = psutil.Process(platform.running["up"].pid)
    process.cpu_percent()
    return float(process.cpu_percent(WATCH_S))


async def finish_many(platform: Platform) -> None:
    async with client(platform) as api:
        await spread(32, [lambda: api.create(["true"])] * FINISHED)
        await api.drained()


def main() -> None:
    rows: list[Row] = []
    platform = Platform("sandbox")
    try:
        platform.start()
        busy(platform)  # whatever the start still has to do
        rows.append(bound("bai up, idle: memory", resident(platform), 120, "MiB"))
        rows.append(bound("bai up, idle: processor", busy(platform), 1.0, "% of a core"))
    finally:
        platform.remove()
    platform = Platform("null")
    try:
        platform.start()
        asyncio.run(finish_many(platform))
        rows.append(bound(f"after {FINISHED:,} sessions: memory", resident(platform), 150, "MiB"))
        rows.append(bound(f"after {FINISHED:,} sessions: processor", busy(platform), 1.0, "% of a core"))
        platform.kill("up")
        platform.start()
        rows.append(bound("and started anew: memory", resident(platform), 150, "MiB"))
    finally:
        platform.remove(sweep=False)  # ten thousand need not go one by one
    show("Idle", rows)


if __name__ == "__main__":
    main()
