"""How long from the request to a container that runs, beside the engine called by nobody but us."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import Any

import aiodocker

from tests.bench.load import Client, client
from tests.bench.table import Row, at_most, bound, show
from tests.parts.platform import LABEL, Platform

ROUNDS = 25
SLEEP = ("sleep", "300")


async def ours(api: Client) -> tuple[str, float]:
    """Return a new session and the seconds until it ran."""
    begun = time.perf_counter()
    session = await api.create(SLEEP)
    found = await api.until(session["id"], "running")
    taken = time.perf_counter() - begun
    if found["state"] != "RUNNING":
        raise RuntimeError(f"it did not start: {found['reason']}")
    return session["id"], taken


async def median_of_ours(platform: Platform) -> float:
    async with client(platform) as api:
        times = []
        for turn in range(ROUNDS + 3):
            session, taken = await ours(api)
            await api.remove(session)
            if turn >= 3:  # the first ones fill caches
                times.append(taken)
    return statistics.median(times) * 1000


async def docker_pair(platform: Platform) -> tuple[float, float]:
    """Return the medians of ours and of create + start by aiodocker of the same container, taken in turns."""
    mine, bare = [], []
    async with aiodocker.Docker(url=platform.docker) as docker, client(platform) as api:
        for turn in range(ROUNDS + 3):
            session, taken = await ours(api)
            twin = await twin_of(docker)
            begun = time.perf_counter()
            container = await docker.containers.create(twin, name=f"bai-test-twin-{turn}")
            await container.start()
            floor = time.perf_counter() - begun
            await container.delete(force=True)
            await api.remove(session)
            if turn >= 3:
                mine.append(taken)
                bare.append(floor)
    return statistics.median(mine) * 1000, statistics.median(bare) * 1000


async def twin_of(docker: aiodocker.Docker) -> dict[str, Any]:
    """Return the settings of our one container, without what makes it ours."""
    container = (await docker.containers.list(filters={"label": [LABEL]}))[0]
    shown = await container.show()
    settings = {key: value for key, value in shown["Config"].items() if key not in {"Labels", "Hostname"}}
    return {**settings, "HostConfig": shown["HostConfig"]}


def main() -> None:
    rows: list[Row] = []
    for runtime, aim, what in (("null", 25, "POST to running, a runtime that does nothing"), ("sandbox", 60, "POST to running, sandbox")):
        platform = Platform(runtime)
        try:
            platform.start()
            rows.append(bound(f"{what}, p50", asyncio.run(median_of_ours(platform)), aim, "ms"))
        finally:
            platform.remove()
    if url := os.environ.get("BACKENDAI_TEST_DOCKER"):
        platform = Platform("docker", os.environ["BACKENDAI_TEST_IMAGE"], url)
        try:
            platform.start()
            rows.append(at_most("POST to running, Docker, beside aiodocker's create + start", *asyncio.run(docker_pair(platform)), 1.15))
        finally:
            platform.remove()
    show(f"Starting a session ({ROUNDS} rounds)", rows)


if __name__ == "__main__":
    main()
