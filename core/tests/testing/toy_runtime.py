"""A runtime without walls: its containers are plain processes of this machine. Good enough to hold every law, and easy to break."""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import functools
import io
import json
import os
import pty
import shutil
import signal
import tarfile
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backendai.model.errors import Failure
from backendai.spec import hookimpl
from backendai.spec.runtime_v10 import (
    Capabilities,
    Container,
    ContainerSpec,
    ContainerState,
    Event,
    Image,
    LogChunk,
    Network,
    NetworkSpec,
    Report,
    Usage,
)

S = ContainerState
# The walls of its networks, for programs in Python: a container knows the names that it was told, and connects to nobody else.
WALLS = """
import json, os, socket
hosts = json.loads(os.environ.get("TOY_HOSTS", "{}"))
resolve, connect, find = socket.gethostbyname, socket.socket.connect, socket.getaddrinfo
def walled(self, address):
    if address[0] not in (*hosts.values(), "127.0.0.1") and "TOY_OPEN" not in os.environ:
        raise ConnectionRefusedError(111, "not in this network")
    return connect(self, address)
if hosts:
    socket.gethostbyname = lambda name: hosts.get(name) or resolve(name)
    socket.getaddrinfo = lambda host, *rest, **more: find(hosts.get(host, host), *rest, **more)
    socket.socket.connect = walled
"""


@dataclass
class Box:
    """One container: a process group."""

    spec: ContainerSpec
    now: Container
    output: list[tuple[int, bytes]] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    watcher: asyncio.Task[None] | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def path(self, inside: str) -> Path:
        """Return where a path of the container is on this machine."""
        for mount in self.spec.mounts:
            if inside == mount.target or inside.startswith(mount.target + "/"):
                return Path(mount.source + inside.removeprefix(mount.target))
        return Path(inside)

    def kill(self, number: int) -> None:
        if self.process is not None and self.now.state is S.RUNNING:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.process.pid, number)


BOXES: dict[str, Box] = {}
NETWORKS: dict[str, Network] = {}
LISTENERS: dict[asyncio.Queue[Event], Mapping[str, str]] = {}


class Toy:
    """The runtime ``toy``."""

    features = frozenset({"survives", "network-session"})

    @hookimpl
    async def probe(self) -> Capabilities:
        return Capabilities("toy 1", "this", self.features, {"network-private": "The toy has no walls."}, parallel_starts=3)

    @hookimpl
    async def ensure_image(self, image: str, report: Report) -> Image:
        if image != "this":
            raise Failure("bad-image", f"There is no image {image}; use this.")
        return Image("this", "sha256:0")

    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        id = f"toy-{container.name}"
        if id not in BOXES:
            BOXES[id] = Box(container, Container(id, container.name, S.CREATED, dict(container.labels)))
        return id

    @hookimpl
    async def start(self, id: str) -> None:
        box = self.box(id)
        async with box.starting:
            if box.now.state is not S.CREATED:
                return
            try:
                box.process = await self.spawn(box)
            except FileNotFoundError as error:
                raise Failure("runtime-fault", f"{box.spec.argv[0]} cannot be run: {error.strerror}.") from error
            box.now = replace(box.now, state=S.RUNNING, started_at=time.time(), pid=box.process.pid)
            box.watcher = asyncio.create_task(self.watch(box))
            tell(box)

    def env(self, box: Box) -> dict[str, str]:
        """Return what its processes see; with a network, the walls, too."""
        walls = {"TOY_HOSTS": json.dumps(dict(box.spec.hosts)), "PYTHONPATH": str(walls_folder())} if box.spec.net else {}
        return {**os.environ, **walls, **box.spec.env}

    async def spawn(self, box: Box) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *box.spec.argv, env=self.env(box), cwd=box.path(box.spec.workdir), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True)

    async def watch(self, box: Box) -> None:
        assert box.process is not None
        assert box.process.stdout is not None
        assert box.process.stderr is not None
        await asyncio.gather(self.take(box, 1, box.process.stdout), self.take(box, 2, box.process.stderr))
        box.now = replace(box.now, state=S.EXITED, exit_code=truth(await box.process.wait()), ended_at=time.time(), pid=None)
        tell(box)

    async def take(self, box: Box, stream: int, pipe: asyncio.StreamReader) -> None:
        while data := await pipe.read(65536):
            box.output.append((stream, data))

    @hookimpl
    async def stop(self, id: str, signal: str, grace_s: float) -> None:
        await self.end(id, signal, grace_s)

    async def end(self, id: str, name: str, grace_s: float) -> None:
        box = BOXES.get(id)
        if box is None or box.watcher is None or box.now.state is not S.RUNNING:
            return
        box.kill(getattr(signal, name))
        await asyncio.wait([box.watcher], timeout=grace_s)
        if box.now.state is S.RUNNING:
            box.kill(signal.SIGKILL)
            await box.watcher

    @hookimpl
    async def remove(self, id: str) -> None:
        if (box := BOXES.get(id)) is not None:
            box.kill(signal.SIGKILL)
            if box.watcher is not None:
                await box.watcher
            BOXES.pop(id, None)

    @hookimpl
    async def list(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return [box.now for box in BOXES.values() if labels.items() <= box.now.labels.items()]

    @hookimpl
    async def create_network(self, network: NetworkSpec) -> Network:
        if network.name not in NETWORKS:
            number = 1 + max((int(made.addresses["main1"].split(".")[2]) for made in NETWORKS.values()), default=0)
            addresses = {host: f"127.99.{number}.{at}" for at, host in enumerate(network.hosts, 1)}
            NETWORKS[network.name] = Network(network.name, network.name, dict(network.labels), addresses)
        return NETWORKS[network.name]

    @hookimpl
    async def remove_network(self, id: str) -> None:
        if any(box.spec.net is not None and box.spec.net.network == id for box in BOXES.values()):
            raise Failure("unavailable", f"Containers are in {id}; remove them first.")
        NETWORKS.pop(id, None)

    @hookimpl
    async def list_networks(self, labels: Mapping[str, str]) -> Sequence[Network]:
        return [made for made in NETWORKS.values() if labels.items() <= made.labels.items()]

    @hookimpl
    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        LISTENERS[queue] = labels
        try:
            while True:
                yield await queue.get()
        finally:
            del LISTENERS[queue]

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> Any:
        box = self.running(id)
        return await Inside.open(argv, {**self.env(box), **env}, box.path(workdir or box.spec.workdir), tty)

    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        box = self.box(id)
        while True:
            ended = box.now.state is S.EXITED or not follow
            for number, (stream, data) in enumerate(box.output[offset:], offset + 1):
                yield LogChunk(stream, data, number)
                offset = number
            if ended:
                return
            await asyncio.sleep(0.01)

    @hookimpl
    async def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        place = self.box(id).path(path)
        if not place.exists():
            raise Failure("not-found", f"There is no {path}.")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            tar.add(place, self.root(place))
        yield data.getvalue()

    def root(self, place: Path) -> str:
        return place.name

    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        place = self.running(id).path(path)
        if not place.is_dir():
            raise Failure("not-found", f"There is no folder {path}.")
        with tarfile.open(fileobj=io.BytesIO(b"".join([piece async for piece in data]))) as tar:
            tar.extractall(place, filter="tar")

    @hookimpl
    async def stats(self, ids: Sequence[str]) -> Mapping[str, Usage]:
        return {id: Usage(cpu_s=0.5, memory=4096) for id in ids if id in BOXES and BOXES[id].now.state is S.RUNNING}

    @hookimpl
    async def dial(self, id: str, port: int) -> Any:
        self.running(id)
        try:
            return Port(*await asyncio.open_connection("127.0.0.1", port))
        except ConnectionRefusedError:
            raise Failure("unavailable", f"Nobody listens on port {port}.") from None

    def box(self, id: str) -> Box:
        if id not in BOXES:
            raise Failure("not-found", f"There is no container {id}.")
        return BOXES[id]

    def running(self, id: str) -> Box:
        if self.box(id).now.state is not S.RUNNING:
            raise Failure("conflict", f"The container {id} does not run.")
        return BOXES[id]


@functools.cache
def walls_folder() -> Path:
    """Return a folder from which every Python that has it in its path takes the walls."""
    folder = Path(tempfile.mkdtemp(prefix="toy-walls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "sitecustomize.py").write_text(WALLS)
    return folder


def tell(box: Box) -> None:
    for queue, labels in LISTENERS.items():
        if labels.items() <= box.now.labels.items():
            queue.put_nowait(Event(box.now.id, box.now.state))


def truth(code: int) -> int:
    """Return a status as the contract tells it."""
    return 128 - code if code < 0 else code


class Inside:
    """A process inside."""

    def __init__(self, process: asyncio.subprocess.Process | None, terminal: int | None = None) -> None:
        self.process = process
        self.terminal = terminal
        self.pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, argv: Sequence[str], env: Mapping[str, str], cwd: Path, tty: bool) -> Inside:
        pipe = asyncio.subprocess.PIPE
        ours, theirs = pty.openpty() if tty else (None, pipe)
        try:
            process = await asyncio.create_subprocess_exec(*argv, env=env, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
                                                           start_new_session=True)
        except FileNotFoundError:
            return cls(None)
        if ours is not None:
            os.close(theirs)
        self = cls(process, ours)
        self.tasks = [asyncio.create_task(self.gather())]
        return self

    async def gather(self) -> None:
        assert self.process is not None
        if self.terminal is not None:
            while data := await asyncio.to_thread(_read, self.terminal):
                self.pieces.put_nowait((1, data))
        else:
            await asyncio.gather(self.take(1, self.process.stdout), self.take(2, self.process.stderr))
        self.pieces.put_nowait(None)

    async def take(self, stream: int, pipe: Any) -> None:
        while data := await pipe.read(65536):
            self.pieces.put_nowait((stream, data))

    async def read(self) -> tuple[int, bytes] | None:
        return await self.pieces.get() if self.process is not None else None

    async def write(self, data: bytes) -> None:
        if self.terminal is not None:
            os.write(self.terminal, data)
        elif self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(data)
            await self.process.stdin.drain()

    async def end_input(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    async def resize(self, rows: int, columns: int) -> None:
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4))

    async def signal(self, name: str) -> None:
        if self.process is not None:
            self.process.send_signal(getattr(signal, name))

    async def exit_code(self) -> int:
        return 127 if self.process is None else truth(await self.process.wait())

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.process.pid, signal.SIGKILL)  # nothing else would end it: there are no walls
            await self.process.wait()
        await asyncio.gather(*self.tasks)
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


class Port:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self, limit: int = 65536) -> bytes:
        return await self.reader.read(limit)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end_output(self) -> None:
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side has closed it
        return b""
