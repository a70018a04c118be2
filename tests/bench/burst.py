"""A hundred sessions at once, beside the bare runtime called in parallel by as many workers."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiodocker
from backendai.plugin.host import PluginHost, Settings
from backendai.spec import runtime_v10
from backendai.spec.runtime_v10 import ContainerSpec, Limits

from tests.bench.load import Client, client, workers
from tests.bench.start import twin_of
from tests.bench.table import Row, at_least, show
from tests.parts.platform import Platform

SESSIONS = 100
WORKERS = 20
TURNS = 3
MIB = 1024 * 1024


async def ours(platform: Platform) -> float:
    """Return sessions per second, from the first request to the last end."""
    async with client(platform, SESSIONS) as api:
        async def one() -> str:
            session = await api.create(["true"])
            return str((await api.until(session["id"], "final"))["result"])

        results, taken = await workers(SESSIONS, [one] * SESSIONS)
        await clear(api, platform)
    if results != ["success"] * SESSIONS:
        raise RuntimeError(f"not all of them succeeded: {results}")
    return SESSIONS / taken


async def clear(api: Client, platform: Platform) -> None:
    for session in platform.sessions():
        await api.call("DELETE", f"/v1/sessions/{session['id']}")


async def bare_sandbox() -> float:
    """Return containers per second of the sandbox plugin alone: create, start, wait for the end, remove."""
    with tempfile.TemporaryDirectory(prefix="bai-test-bare-", dir="/tmp") as folder:
        host = PluginHost((runtime_v10.SPEC,), Settings(options={"runtime_v10.sandbox": {"state_dir": folder}}), lambda fault: None)
        await host.start()
        try:
            runtime = host.one(runtime_v10.SPEC, "sandbox")
            image = (await runtime.probe()).default_image
            await runtime.ensure_image(image, lambda progress: None)

            async def one(number: int) -> None:
                limits = Limits(cpu=1000, memory=32 * MIB)
                identity = await runtime.create(ContainerSpec(f"bare-{number}", image, ("true",), limits=limits))
                await runtime.start(identity)
                async for _ in runtime.logs(identity, 0, True):  # ends with the container
                    continue
                await runtime.remove(identity)

            _, taken = await workers(WORKERS, [lambda n=n: one(n) for n in range(SESSIONS)])  # type: ignore[misc]  # binds n
        finally:
            await host.stop()
    return SESSIONS / taken


async def settings_of_ours(platform: Platform) -> dict[str, Any]:
    """Return the settings of the container that a session gets, but for what makes it ours."""
    async with client(platform) as api, aiodocker.Docker(url=platform.docker) as docker:
        session = await api.create(["sleep", "300"])
        await api.until(session["id"], "running")
        settings = await twin_of(docker)
        await api.remove(session["id"])
    return lasting(settings)


def lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the mounts of folders that are gone; what all containers share, such as the init, is still there."""
    own = settings["HostConfig"]
    binds = [bind for bind in own.get("Binds") or () if Path(bind.split(":")[0]).exists()]
    mounts = [mount for mount in own.get("Mounts") or () if Path(mount.get("Source", "/")).exists()]
    return {**settings, "Cmd": ["true"], "HostConfig": {**own, "Binds": binds, "Mounts": mounts}}


async def bare_docker(url: str, settings: dict[str, Any]) -> float:
    """Return containers per second by aiodocker alone."""
    async with aiodocker.Docker(url=url) as docker:
        async def one() -> None:
            container = await docker.containers.create(settings)
            await container.start()
            await container.wait()
            await container.delete()

        _, taken = await workers(WORKERS, [one] * SESSIONS)
    return SESSIONS / taken


def by_turns(platform: Platform, bare: Callable[[], float]) -> tuple[float, float]:
    """Return the medians of our rate and of the bare runtime's, taken by turns."""
    platform.start()
    asyncio.run(ours(platform))  # fills caches
    pairs = [(asyncio.run(ours(platform)), bare()) for _ in range(TURNS)]
    return statistics.median(mine for mine, _ in pairs), statistics.median(floor for _, floor in pairs)


def main() -> None:
    platform = Platform("sandbox")
    try:
        rows: list[Row] = [at_least("sandbox", *by_turns(platform, lambda: asyncio.run(bare_sandbox())), 0.8)]
    finally:
        platform.remove()
    if url := os.environ.get("BACKENDAI_TEST_DOCKER"):
        platform = Platform("docker", os.environ["BACKENDAI_TEST_IMAGE"], url)
        try:
            platform.start()
            settings = asyncio.run(settings_of_ours(platform))
            rows.append(at_least("Docker", *by_turns(platform, lambda: asyncio.run(bare_docker(url, settings))), 0.8))
        finally:
            platform.remove()
    show(f"{SESSIONS} sessions at once, beside the bare runtime with {WORKERS} workers, by turns", rows)


if __name__ == "__main__":
    main()
