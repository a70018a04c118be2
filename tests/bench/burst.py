"""A hundred sessions at once, beside the bare runtime called in parallel by as many workers."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import Any

import aiodocker
from backendai.plugin.host import PluginHost, Settings
from backendai.spec import runtime_v10
from backendai.spec.runtime_v10 import ContainerSpec, Limits

from tests.bench.load import Client, client, workers
from tests.bench.table import Row, at_least, show
from tests.parts.platform import Platform

SESSIONS = 100
WORKERS = 20
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


async def bare_docker(url: str, image: str) -> float:
    """Return containers per second by aiodocker alone."""
    async with aiodocker.Docker(url=url) as docker:
        async def one() -> None:
            settings: dict[str, Any] = {"Image": image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Memory": 32 * MIB}}
            container = await docker.containers.create(settings)
            await container.start()
            await container.wait()
            await container.delete()

        _, taken = await workers(WORKERS, [one] * SESSIONS)
    return SESSIONS / taken


def measure(platform: Platform) -> float:
    try:
        platform.start()
        asyncio.run(ours(platform))  # fills caches
        return asyncio.run(ours(platform))
    finally:
        platform.remove()


def main() -> None:
    rows: list[Row] = [at_least("sandbox", measure(Platform("sandbox")), asyncio.run(bare_sandbox()), 0.8)]
    if url := os.environ.get("BACKENDAI_TEST_DOCKER"):
        image = os.environ["BACKENDAI_TEST_IMAGE"]
        rows.append(at_least("Docker", measure(Platform("docker", image, url)), asyncio.run(bare_docker(url, image)), 0.8))
    show(f"{SESSIONS} sessions at once, beside the bare runtime with {WORKERS} workers", rows)


if __name__ == "__main__":
    main()
