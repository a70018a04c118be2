"""Containers for the laws of a runtime: made, run, looked at, and gone with the law."""

from __future__ import annotations

import asyncio
import io
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import (
    Capabilities,
    Container,
    ContainerSpec,
    ContainerState,
    ExecStream,
    LogChunk,
    Mount,
    Network,
    NetworkSpec,
    Runtime,
)
from backendai.testing.laws import NotHere, Violation

LABEL = "ai.backendai.kit"
HOME = "/home/work"
IDLE = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
POLL_S = 0.01
T = TypeVar("T")


@dataclass
class Bench:
    """A runtime, and the containers that a law makes with it. folder: of this node, at ``HOME`` inside. labels: mark what is ours.

    open_streams: processes inside that run until the law ends.
    """

    runtime: Runtime
    can: Capabilities
    image: str
    folder: Path
    patience_s: float
    labels: Mapping[str, str] = field(default_factory=lambda: {LABEL: secrets.token_hex(6)})
    open_streams: list[ExecStream] = field(default_factory=list)

    def spec(self, *argv: str, **fields: Any) -> ContainerSpec:
        """Return a spec with a name of its own."""
        mounts = (Mount(str(self.folder), HOME, readonly=False),)
        return replace(ContainerSpec(f"bai-kit-{secrets.token_hex(6)}", self.image, argv, labels=self.labels, mounts=mounts), **fields)

    def need(self, feature: str) -> None:
        """Raise ``NotHere`` with the driver's reason where it says that it lacks *feature*; ``commands``: it runs what it is told."""
        if (why := self.can.missing.get(feature)) is not None or (feature != "commands" and feature not in self.can.features):
            raise NotHere(why or f"{self.can.engine} does not have the feature {feature}")

    async def run(self, *argv: str, **fields: Any) -> str:
        """Create and start a container; return its id."""
        id = await self.runtime.create(self.spec(*argv, **fields))
        await self.runtime.start(id)
        return id

    async def sh(self, script: str, **fields: Any) -> str:
        """Run a shell script in a container; return its id."""
        self.need("commands")
        return await self.run("sh", "-c", script, **fields)

    async def idle(self, **fields: Any) -> str:
        """Run a container until it is stopped, and return once it has begun; SIGTERM makes it end with 9."""
        if "commands" in self.can.missing:
            return await self.run("sleep", "1000000", **fields)
        id = await self.sh(IDLE, **fields)
        await self.until(lambda: self._said(id, b"ready"), "the container to begin")
        return id

    async def _said(self, id: str, word: bytes) -> bool:
        return word in (await self.output(id, follow=False))[0]

    async def network(self, spec: NetworkSpec) -> Network:
        """Create a network; it is removed with the bench."""
        self.need("network-session")
        return await self.runtime.create_network(spec)

    async def find(self, id: str, runtime: Runtime | None = None) -> Container | None:
        """Return a container as it is now, None when it is not listed."""
        return next((one for one in await (runtime or self.runtime).list(self.labels) if one.id == id), None)

    async def get(self, id: str, runtime: Runtime | None = None) -> Container:
        """Return a container as it is now; it is a violation when it is not listed."""
        if (found := await self.find(id, runtime)) is None:
            raise Violation("a container that it made is not listed")
        return found

    async def ended(self, id: str, runtime: Runtime | None = None) -> Container:
        """Wait for the end of a container."""
        async def end() -> Container | None:
            now = await self.get(id, runtime)
            return now if now.state is ContainerState.EXITED else None

        return await self.until(end, "the container to be listed as ended")

    async def until(self, found: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Ask until there is something; it is a violation when that takes too long."""
        try:
            async with asyncio.timeout(self.patience_s):
                while not (something := await found()):  # noqa: ASYNC110 - what is waited for happens in an engine
                    await asyncio.sleep(POLL_S)
                return something
        except TimeoutError:
            raise Violation(f"waiting for {what} took more than {self.patience_s:g} s") from None

    async def chunks(self, id: str, offset: int = 0, follow: bool = True) -> list[LogChunk]:
        """Return the pieces of a container's output."""
        try:
            async with asyncio.timeout(self.patience_s), aclosing(cast(Any, self.runtime.logs(id, offset, follow))) as pieces:
                return [piece async for piece in pieces]
        except TimeoutError:
            raise Violation(f"its output did not come to an end within {self.patience_s:g} s") from None

    async def output(self, id: str, offset: int = 0, follow: bool = True) -> tuple[bytes, bytes]:
        """Return a container's output and its error output."""
        return joined(await self.chunks(id, offset, follow))

    async def open(self, id: str, *argv: str, env: Mapping[str, str] | None = None, workdir: str | None = None,
                   tty: bool = False) -> ExecStream:
        """Run *argv* inside."""
        self.need("commands")
        return await self.runtime.exec(id, argv, env or {}, None, workdir, tty)

    async def inside(self, id: str, *argv: str, stdin: bytes = b"", **more: Any) -> tuple[int, bytes, bytes]:
        """Run *argv* inside to its end; return its status, its output and its error output."""
        stream = await self.open(id, *argv, **more)
        try:
            async with asyncio.timeout(self.patience_s), asyncio.TaskGroup() as group:
                group.create_task(_feed(stream, stdin))
                pieces = []
                while (piece := await stream.read()) is not None:
                    pieces.append(LogChunk(piece[0], piece[1], 0))
                return await stream.exit_code(), *joined(pieces)
        except TimeoutError:
            raise Violation(f"{argv[0]} inside did not end within {self.patience_s:g} s") from None
        finally:
            await stream.close()

    async def fetch(self, id: str, path: str) -> list[tuple[tarfile.TarInfo, bytes]]:
        """Return the members of the archive of *path*, with their content."""
        async with aclosing(cast(Any, self.runtime.get_archive(id, path))) as pieces:
            data = b"".join([piece async for piece in pieces])
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return [(member, file.read() if (file := tar.extractfile(member)) else b"") for member in tar]


@asynccontextmanager
async def make_bench(runtime: Runtime, image: str, patience_s: float) -> AsyncIterator[Bench]:
    """Give a bench; its containers are removed at the end."""
    try:
        can = await runtime.probe()
    except Failure as failure:
        if failure.code == "unavailable":
            raise NotHere(f"it is not usable here: {failure.message}") from failure
        raise
    folder = _make_folder()
    bench = Bench(runtime, can, image or can.default_image, folder, patience_s)
    try:
        yield bench
    finally:
        try:
            for stream in bench.open_streams:
                await stream.close()
            for container in await runtime.list(bench.labels):
                await runtime.remove(container.id)
            if "network-session" in can.features:
                for network in await runtime.list_networks(bench.labels):
                    await runtime.remove_network(network.id)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


async def refusal(call: Awaitable[object]) -> Failure | None:
    """Return the failure with which a call is refused, None when it is not."""
    try:
        await call
    except Failure as failure:
        return failure
    return None


async def first(pieces: AsyncIterator[T]) -> T | None:
    """Take one piece of a stream and let go of it."""
    async with aclosing(cast(Any, pieces)):
        return await anext(pieces, None)


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    """Give *pieces* as a stream."""
    for piece in pieces:
        yield piece


def joined(pieces: list[LogChunk]) -> tuple[bytes, bytes]:
    """Return output and error output."""
    return b"".join(p.data for p in pieces if p.stream == 1), b"".join(p.data for p in pieces if p.stream == 2)


def _make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bai-kit-"))
    folder.chmod(0o777)  # for whoever the container runs as
    return folder


async def _feed(stream: ExecStream, stdin: bytes) -> None:
    for at in range(0, len(stdin), 65536):
        await stream.write(stdin[at : at + 65536])
    await stream.end_input()
