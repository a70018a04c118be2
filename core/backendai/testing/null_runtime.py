"""A runtime whose containers do nothing: for benchmarks of the platform, for trials without an engine, and to read beside the contract.

It is a whole runtime otherwise: containers are created, run, end and are listed. What a container is told to run decides how long:
``sleep``, and the idle init alone, run until they are stopped; everything else ends at once with 0, ``false`` with 1, ``exit N`` with N.
A bootstrap script succeeds without being run. The variables ``BACKENDAI_NULL_EXIT`` (a status) and ``BACKENDAI_NULL_RUN_S`` (seconds,
``inf`` for ever) overrule that.

All is in memory, so that it costs nothing: an agent that starts again finds no containers and calls them lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path, PurePosixPath
from signal import Signals
from typing import NoReturn

from backendai.model.errors import Failure
from backendai.model.network import spread
from backendai.spec import hookimpl
from backendai.spec.runtime_v10 import (
    ByteStream,
    Capabilities,
    Container,
    ContainerSpec,
    ContainerState,
    Event,
    ExecStream,
    Image,
    LogChunk,
    Network,
    NetworkSpec,
    Report,
    Usage,
)

IMAGE = Image("nothing:latest", "sha256:" + "0" * 64)
BOOT = "/.bai/boot"  # as the agent has it
EXIT, RUN_S = "BACKENDAI_NULL_EXIT", "BACKENDAI_NULL_RUN_S"
NOTHING = "The containers of the null runtime do nothing; use another runtime."


@dataclass(slots=True)
class _Box:
    """One container and how it will go.

    ended: once it has. end: the timer that ends it. network: the one it is in. boot: the folder where its script's end is written.
    """

    now: Container
    code: int
    run_s: float
    ended: asyncio.Event
    end: asyncio.TimerHandle | None = None
    network: str = ""
    boot: str = ""

    def end_script(self) -> None:
        """Say that the bootstrap script has succeeded."""
        if self.boot:
            Path(self.boot, "ended").write_text("0\n")


class NullRuntime:
    """The runtime ``null``."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Box] = {}
        self._networks: dict[str, Network] = {}
        self._listeners: dict[asyncio.Queue[Event], Mapping[str, str]] = {}

    async def teardown(self) -> None:
        """End what would end later."""
        for box in self._boxes.values():
            if box.end is not None:
                box.end.cancel()

    @hookimpl
    async def probe(self) -> Capabilities:
        return Capabilities("null 1", IMAGE.name, frozenset({"user", "network-session"}), {"commands": NOTHING}, parallel_starts=1000)

    @hookimpl
    async def ensure_image(self, image: str, report: Report) -> Image:
        """Say that every image is here, but for those of ``.invalid`` hosts, where nothing can ever be."""
        if image.partition("/")[0].partition(":")[0].endswith(".invalid"):
            raise Failure("bad-image", f"There is no image {image}; the null runtime has any other, such as {IMAGE.name}.")
        return replace(IMAGE, name=image)

    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        id = f"null-{container.name}"
        if id not in self._boxes:
            now = Container(id, container.name, ContainerState.CREATED, dict(container.labels))
            self._boxes[id] = _Box(now, *_fate(container), asyncio.Event(), network=container.net.network if container.net else "",
                                   boot=next((mount.source for mount in container.mounts if mount.target == BOOT), ""))
        return id

    @hookimpl
    async def start(self, id: str) -> None:
        box = self._box(id)
        if box.now.state is not ContainerState.CREATED:
            return
        box.now = replace(box.now, state=ContainerState.RUNNING, started_at=time.time())
        self._tell(box)
        box.end_script()
        if box.run_s <= 0:
            self._end(box, box.code)
        elif box.run_s < math.inf:
            box.end = asyncio.get_running_loop().call_later(box.run_s, self._end, box, box.code)

    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        if (box := self._boxes.get(id)) is not None:
            self._end(box, 128 + _number(signal))

    @hookimpl
    async def remove(self, id: str) -> None:
        if (box := self._boxes.pop(id, None)) is not None:
            self._end(box, 137)

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [box.now for box in self._boxes.values() if labels.items() <= box.now.labels.items()]

    @hookimpl
    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners[queue] = labels
        try:
            while True:
                yield await queue.get()
        finally:
            del self._listeners[queue]

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> ExecStream:
        self._running(id)
        return _Nothing()

    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        box = self._box(id)
        if follow:
            await box.ended.wait()
        written: tuple[LogChunk, ...] = ()
        for chunk in written:
            yield chunk

    @hookimpl
    async def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        self._box(id)
        raise Failure("not-found", f"There is no {path}: a container of the null runtime has no files.")
        yield b""

    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        self._running(id)
        _refuse()

    @hookimpl
    async def stats(self, ids: Sequence[str]) -> Mapping[str, Usage]:
        running = (id for id in ids if id in self._boxes and self._boxes[id].now.state is ContainerState.RUNNING)
        return {id: Usage(cpu_s=0.0, memory=0, pids=1) for id in running}

    @hookimpl
    async def dial(self, id: str, port: int) -> ByteStream:
        self._running(id)
        _refuse()

    @hookimpl
    async def create_network(self, network: NetworkSpec) -> Network:
        addresses = dict(network.addresses) or spread(IPv4Network("10.0.0.0/8"), network.hosts, 1)
        return self._networks.setdefault(network.name, Network(network.name, network.name, dict(network.labels), addresses))

    @hookimpl
    async def remove_network(self, id: str) -> None:
        if any(box.network == id for box in self._boxes.values()):
            raise Failure("unavailable", f"Containers are in the network {id}; remove them first.")
        self._networks.pop(id, None)

    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        return [found for found in self._networks.values() if labels.items() <= found.labels.items()]

    @hookimpl
    async def images(self) -> Sequence[Image]:
        return [IMAGE]

    def _box(self, id: str) -> _Box:
        try:
            return self._boxes[id]
        except KeyError:
            raise Failure("not-found", f"The null runtime has no container {id}; it was removed, or the agent started again.") from None

    def _running(self, id: str) -> _Box:
        box = self._box(id)
        if box.now.state is not ContainerState.RUNNING:
            raise Failure("conflict", f"The container {id} does not run now.")
        return box

    def _end(self, box: _Box, code: int) -> None:
        """Let it end, unless it never ran or has ended already; whoever waits for its end hears of it in any case."""
        if box.end is not None:
            box.end.cancel()
        if box.now.state is ContainerState.RUNNING:
            box.now = replace(box.now, state=ContainerState.EXITED, exit_code=code, ended_at=time.time())
            self._tell(box)
        box.ended.set()

    def _tell(self, box: _Box) -> None:
        for queue, labels in self._listeners.items():
            if labels.items() <= box.now.labels.items():
                queue.put_nowait(Event(box.now.id, box.now.state))


class _Nothing:
    """A process inside a container that has ended with 0 before anybody looks."""

    async def read(self) -> tuple[int, bytes] | None:
        return None

    async def write(self, data: bytes) -> None:
        """Forget it."""

    async def end_input(self) -> None:
        """Forget it."""

    async def resize(self, rows: int, columns: int) -> None:
        """Forget it."""

    async def signal(self, signal: str) -> None:
        """Forget it."""

    async def exit_code(self) -> int:
        return 0

    async def close(self) -> None:
        """Let go of nothing."""


def _fate(container: ContainerSpec) -> tuple[int, float]:
    """Return the status that a container will end with, and after how many seconds."""
    targets = {mount.target for mount in container.mounts}
    words = container.argv[2:] if container.argv[1:2] == ("--",) else container.argv  # behind the static init
    words = words[4:] if BOOT in targets else words  # behind `sh -c SCRIPT sh`
    idle = len(words) == 1 and words[0] in targets
    program = PurePosixPath(words[0]).name if words else ""
    code, run_s = int(program == "false"), math.inf if idle or program == "sleep" else 0.0
    if program == "exit" and len(words) > 1:
        with suppress(ValueError):
            code = int(words[1]) & 0xFF
    try:
        return int(container.env.get(EXIT, code)) & 0xFF, float(container.env.get(RUN_S, run_s))
    except ValueError:
        raise Failure("invalid-request", f"{EXIT} must be a whole number and {RUN_S} a number of seconds or inf.") from None


def _number(signal: str) -> int:
    try:
        return Signals[signal].value
    except KeyError:
        raise Failure("invalid-request", f"{signal!r} is not the name of a signal; use SIGTERM or another.") from None


def _refuse() -> NoReturn:
    raise Failure("unsupported", NOTHING)
