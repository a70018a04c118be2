"""A whole platform inside this process: manager and agent on a thread of their own, on a runtime that is quick and needs nothing.

Its containers run nothing, but they say what the variables SAY (text; a line that begins with ``!`` goes to standard error) and COUNT
(so many numbered lines) tell them to; commands in them are processes of this machine, and their files are in a folder of the test's.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import signal
import struct
import sys
import tarfile
import termios
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backendai.agent.config import AgentConfig
from backendai.agent.serve import serve_agent
from backendai.manager.config import ManagerConfig
from backendai.manager.serve import ManagerHandle, serve_manager
from backendai.model.errors import Failure
from backendai.spec import hookimpl
from backendai.spec.runtime_v10 import ContainerSpec, LogChunk
from backendai.testing.null_runtime import NullRuntime

READY_S = 60.0
LINE = "line %07d\n"


@dataclass(frozen=True, slots=True)
class Inside:
    """A platform that serves. folder: of all its files. files: the file system of every container."""

    url: str
    token: str
    cluster: str
    folder: Path
    loop: asyncio.AbstractEventLoop
    manager: ManagerHandle

    @property
    def files(self) -> Path:
        return self.folder / "files"


class Local(NullRuntime):
    """The runtime ``local``."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self._specs: dict[str, ContainerSpec] = {}

    @hookimpl
    async def create(self, container: ContainerSpec) -> str:
        id = await super().create(container)
        self._specs[id] = container
        return id

    @hookimpl
    async def logs(self, id: str, offset: int, follow: bool) -> AsyncIterator[LogChunk]:
        env = self._specs[id].env
        lines = [*env.get("SAY", "").splitlines(keepends=True), *(LINE % number for number in range(int(env.get("COUNT", 0))))]
        for at, line in list(enumerate(lines, 1))[offset:]:
            yield LogChunk(2 if line.startswith("!") else 1, line.encode(), at)
        if follow:
            await self._box(id).ended.wait()

    @hookimpl
    async def exec(self, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None, workdir: str | None,
                   tty: bool) -> Command:
        self._running(id)
        home = self.folder / "home/work"
        return await Command.start(argv, {**os.environ, **env}, home if workdir is None else self.folder / workdir.lstrip("/"), tty)

    @hookimpl
    async def get_archive(self, id: str, path: str) -> AsyncIterator[bytes]:
        sink = io.BytesIO()
        try:
            with tarfile.open(mode="w", fileobj=sink) as archive:
                archive.add(self.folder / path.lstrip("/"), Path(path).name)
        except FileNotFoundError:
            raise Failure("not-found", f"There is no {path} in the container.") from None
        yield sink.getvalue()

    @hookimpl
    async def put_archive(self, id: str, path: str, data: AsyncIterator[bytes]) -> None:
        given = io.BytesIO(b"".join([piece async for piece in data]))
        if not (self.folder / path.lstrip("/")).is_dir():
            raise Failure("not-found", f"There is no folder {path} in the container.")
        with tarfile.open(fileobj=given) as archive:
            archive.extractall(self.folder / path.lstrip("/"), filter="data")


class Command:
    """A process of this machine, as one in a container."""

    def __init__(self, process: asyncio.subprocess.Process, master: int | None) -> None:
        self._process = process
        self._master = master
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(8)
        self._tasks = [asyncio.create_task(self._collect())]

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], folder: Path, tty: bool) -> Command:
        pipe = asyncio.subprocess.PIPE
        if not tty:
            return cls(await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=folder,
                                                            start_new_session=True), None)
        master, slave = pty.openpty()
        try:
            return cls(await asyncio.create_subprocess_exec(*argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=folder,
                                                            start_new_session=True, preexec_fn=_own_terminal), master)
        finally:
            os.close(slave)

    async def _collect(self) -> None:
        if self._master is not None:
            while data := await asyncio.to_thread(self._read_terminal):
                await self._output.put((1, data))
        else:
            await asyncio.gather(self._pass(1, self._process.stdout), self._pass(2, self._process.stderr))
        await self._output.put(None)

    async def _pass(self, channel: int, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None  # it is a pipe
        while data := await stream.read(65536):
            await self._output.put((channel, data))

    def _read_terminal(self) -> bytes:
        assert self._master is not None  # there is one
        try:
            return os.read(self._master, 65536)
        except OSError:
            return b""  # so a terminal says that its other side is closed

    async def read(self) -> tuple[int, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if self._master is not None:
            os.write(self._master, data)
        elif self._process.stdin is not None:
            try:
                self._process.stdin.write(data)
                await self._process.stdin.drain()
            except ConnectionError:
                return  # it reads no more

    async def end_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, rows: int, columns: int) -> None:
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def signal(self, signal_name: str) -> None:
        os.killpg(self._process.pid, signal.Signals[signal_name])

    async def exit_code(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        for task in self._tasks:
            task.cancel()
        if self._master is not None:
            os.close(self._master)
            self._master = None


def _own_terminal() -> None:
    """Make standard input this process's terminal, so that Ctrl-C on it is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def platform_inside(folder: Path) -> Iterator[Inside]:
    """Serve until the block ends."""
    installed = folder / "site" / "bai_test_local-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: bai-test-local\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[backendai_runtime_v10]\nlocal = tests.parts.inside:Local\n")
    (folder / "files/home/work").mkdir(parents=True)
    Local.folder = folder / "files"
    sys.path.insert(0, str(installed.parent))
    ready, told, thread = threading.Event(), list[Inside](), None
    ended: list[BaseException] = []
    ends: list[asyncio.Event] = []

    async def serve() -> None:
        ends.append(end := asyncio.Event())
        async with serve_manager(ManagerConfig(data=folder / "manager", drain_s=1.0)) as manager:
            token = await manager.make_agent_token("box")
            agent = AgentConfig(folder / "agent", manager.url, token, "box", "local", stats_s=0.2)
            async with serve_agent(agent) as handle:
                await handle.joined()
                loop = asyncio.get_running_loop()
                told.append(Inside(manager.url, manager.first_admin_token or "", manager.cluster, folder, loop, manager))
                ready.set()
                await end.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            ended.append(error)
        finally:
            ready.set()

    try:
        thread = threading.Thread(target=work, name="platform")
        thread.start()
        ready.wait(READY_S)
        if ended:
            raise ended[0]
        yield told[0]
    finally:
        if told and not ended:
            told[0].loop.call_soon_threadsafe(ends[0].set)
        if thread is not None:
            thread.join(READY_S)
        sys.path.remove(str(installed.parent))
    if ended:
        raise ended[0]
