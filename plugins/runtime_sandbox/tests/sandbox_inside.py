"""Running something in a container and seeing what came of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from backendai.spec.runtime_v10 import Container, ContainerSpec, ContainerState, ExecStream
from backendai_runtime_sandbox.plugin import Sandbox

PATIENCE_S = 30.0
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended."""

    out: str
    err: str
    code: int | None
    container: Container


def spec(script: str, **fields: object) -> ContainerSpec:
    """Return a container that runs a shell script."""
    return ContainerSpec(**{"name": f"test-{next(_serial)}", "image": "host", "argv": ("sh", "-c", script), **fields})  # type: ignore[arg-type]  # any fields


async def run(sandbox: Sandbox, script: str, **fields: object) -> Outcome:
    """Run a shell script in a container to its end."""
    async with asyncio.timeout(PATIENCE_S):
        id = await sandbox.create(spec(script, **fields))
        await sandbox.start(id)
        out, err = await output(sandbox, id)
        container = await get(sandbox, id)
        await sandbox.remove(id)
    return Outcome(out.decode(errors="replace"), err.decode(errors="replace"), container.exit_code, container)


async def output(sandbox: Sandbox, id: str) -> tuple[bytes, bytes]:
    """Follow a container's output to its end."""
    found = {1: b"", 2: b""}
    async for chunk in sandbox.logs(id, 0, True):
        found[chunk.stream] += chunk.data
    return found[1], found[2]


async def get(sandbox: Sandbox, id: str) -> Container:
    """Return a container as it is now."""
    return next(container for container in await sandbox.list({}) if container.id == id)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *check* says yes."""
    async with asyncio.timeout(PATIENCE_S):
        while not await check():  # noqa: ASYNC110  # what is waited for happens in other processes
            await asyncio.sleep(0.01)


async def until(sandbox: Sandbox, id: str, state: ContainerState) -> Container:
    """Wait until a container is in *state*."""
    async def there() -> bool:
        return (await get(sandbox, id)).state is state

    await eventually(there)
    return await get(sandbox, id)


async def vanished(pid: int | None) -> bool:
    """Tell whether there is no such process."""
    return not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240  # /proc does not block


async def idle(sandbox: Sandbox, **fields: object) -> str:
    """Start a container that waits."""
    id = await sandbox.create(spec("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done", **fields))
    await sandbox.start(id)
    async with asyncio.timeout(PATIENCE_S):
        async for _ in sandbox.logs(id, 0, True):
            break
    return id


async def finish(stream: ExecStream) -> tuple[bytes, bytes, int]:
    """Read a process to its end."""
    found = {1: b"", 2: b""}
    async with asyncio.timeout(PATIENCE_S):
        while (piece := await stream.read()) is not None:
            found[piece[0]] += piece[1]
        code = await stream.exit_code()
    await stream.close()
    return found[1], found[2], code


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    """Give *data* as a stream."""
    for piece in data:
        yield piece
