"""The runtime on a real engine, and containers that go with their test."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from backendai.plugin.host import PluginHost, Settings
from backendai.spec import runtime_v10
from backendai.spec.runtime_v10 import Container, ContainerSpec, Runtime

WAIT_S = 30.0
NETWORK = f"bai-test-outward-{os.getpid()}"  # others may test on the same engine
T = TypeVar("T")


async def until(found: Callable[[], Awaitable[T | None]]) -> T:
    """Ask again and again until there is something; raise TimeoutError after a while."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if (something := await found()) is not None:
                return something
            await asyncio.sleep(0.05)


@dataclass
class Bench:
    """The runtime, and what a test makes with it. labels: mark what is ours."""

    runtime: Runtime
    image: str
    url: str
    labels: Mapping[str, str]
    podman: bool = False
    network: str = NETWORK

    def spec(self, *argv: str, **other: Any) -> ContainerSpec:
        """Return a spec with a name of its own."""
        basis = ContainerSpec(f"bai-{secrets.token_hex(6)}", self.image, argv or ("sleep", "1000"), labels=self.labels)
        return replace(basis, **other)

    async def run(self, *argv: str, **other: Any) -> str:
        """Create and start a container; return its id."""
        id = await self.runtime.create(self.spec(*argv, **other))
        await self.runtime.start(id)
        return id

    async def until(self, found: Callable[[], Awaitable[T | None]]) -> T:
        """Ask again and again until there is something."""
        return await until(found)

    async def see(self, id: str) -> Container | None:
        """Return the container as it is now."""
        return next((one for one in await self.runtime.list(self.labels) if one.id == id), None)

    async def ended(self, id: str) -> Container:
        """Wait for the end of a container."""
        return await self.until(lambda: self._ended(id))

    async def _ended(self, id: str) -> Container | None:
        seen = await self.see(id)
        return seen if seen is not None and seen.state is runtime_v10.ContainerState.EXITED else None

    async def output(self, id: str, offset: int = 0, follow: bool = True) -> dict[int, bytes]:
        """Return all output by stream."""
        found = {1: b"", 2: b""}
        async with asyncio.timeout(WAIT_S):
            async for chunk in self.runtime.logs(id, offset, follow):
                found[chunk.stream] += chunk.data
        return found

    async def say(self, *argv: str, **other: Any) -> str:
        """Run a container to its end and return what it wrote to stdout."""
        id = await self.run(*argv, **other)
        return (await self.output(id))[1].decode()

    async def inside(self, id: str, *argv: str, user: tuple[int, int] | None = None, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Run *argv* in a running container; return its status, stdout and stderr."""
        process = await self.runtime.exec(id, argv, {}, user, None, False)
        try:
            await process.write(stdin)
            await process.end_input()
            found = {1: b"", 2: b""}
            async with asyncio.timeout(WAIT_S):
                while (piece := await process.read()) is not None:
                    found[piece[0]] += piece[1]
                return await process.exit_code(), found[1], found[2]
        finally:
            await process.close()


@pytest.fixture
async def with_runtime(docker_engine: Any) -> AsyncIterator[Callable[..., Awaitable[Runtime]]]:
    """Start the plugin as the agent does, with options of the test's own."""
    hosts = []

    async def start(**options: Any) -> Runtime:
        settings = Settings(options={"runtime_v10.docker": {"url": docker_engine.url, "network": NETWORK, **options}})
        hosts.append(host := PluginHost((runtime_v10.SPEC,), settings))
        await host.start()
        return host.one(runtime_v10.SPEC, "docker")

    yield start
    for host in hosts:
        await host.stop()
    assert NETWORK not in docker_engine.run("network", "ls", "--format", "{{.Name}}").split(), "it goes with its last user"


@pytest.fixture
async def bench(docker_engine: Any, base_image: str, with_runtime: Callable[..., Awaitable[Runtime]]) -> AsyncIterator[Bench]:
    """A runtime that was probed; its containers go after the test."""
    runtime = await with_runtime()
    podman = (await runtime.probe()).engine.startswith("podman")
    bench = Bench(runtime, base_image, docker_engine.url, {"ai.backendai.test": secrets.token_hex(6)}, podman)
    yield bench
    for container in await runtime.list(bench.labels):
        await runtime.remove(container.id)
    assert await runtime.list(bench.labels) == []
