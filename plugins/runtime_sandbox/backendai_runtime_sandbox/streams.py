"""Going into a running container: one more process, or a connection to a port."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Mapping, Sequence

from backendai.model.errors import Failure

from backendai_runtime_sandbox.box import Box
from backendai_runtime_sandbox.engine import Engine, number
from backendai_runtime_sandbox.mends import mend
from backendai_runtime_sandbox.pipes import Sink, Source
from backendai_runtime_sandbox.plan import NEW_NET, joining, make_exec, packed, rlimits
from backendai_runtime_sandbox.process import Child, spawn, wake

_OURS, _PLAN = 3, 4  # descriptors of the program: the socket over which it hands one out, and its plan
_END_OF_INPUT = b"\x04"
_REFUSED = 111


class Exec:
    """A process in a container, over pipes."""

    def __init__(self, child: Child, source: Source, sink: Sink) -> None:
        self._child = child
        self._source = source
        self._sink = sink

    async def read(self) -> tuple[int, bytes] | None:
        return await self._source.read()

    async def write(self, data: bytes) -> None:
        try:
            await self._sink.write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise  # else the process no longer reads, which is its right

    async def end_input(self) -> None:
        self._sink.close()

    async def resize(self, rows: int, columns: int) -> None:
        """Do nothing: there is no terminal."""

    async def signal(self, signal: str) -> None:
        self._child.send(number(signal))

    async def exit_code(self) -> int:
        return await self._child.wait()

    async def close(self) -> None:
        self._source.close()
        self._sink.close()


class TerminalExec(Exec):
    """A process in a container, on a terminal."""

    def __init__(self, child: Child, master: int) -> None:
        super().__init__(child, Source({os.dup(master): 1}), Sink(os.dup(master)))
        self._master: int | None = master

    async def end_input(self) -> None:
        await self.write(_END_OF_INPUT)

    async def resize(self, rows: int, columns: int) -> None:
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        await super().close()
        if self._master is not None:
            os.close(self._master)
            self._master = None


class Connection:
    """A connection to a port of a container."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, limit: int = 65536) -> bytes:
        try:
            return await self._reader.read(limit)
        except ConnectionResetError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end_output(self) -> None:
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the other side was faster


async def open_exec(engine: Engine, id: str, argv: Sequence[str], env: Mapping[str, str], user: tuple[int, int] | None,
                    workdir: str | None, tty: bool) -> Exec:
    """Run *argv* in a container, behind the same walls as its first process."""
    box = engine.box(id)
    record, first, privileged = box.record, running(box), engine.node.privileged
    chosen = user or record.user
    if not privileged and tuple(chosen) != record.user:
        raise Failure("unsupported", "The sandbox of an ordinary user has one user in each container; run the agent as root for others.")
    if privileged and 0 in chosen:
        raise Failure("unsupported", "The sandbox runs nothing as the node's root; ask for another user.")
    plan = make_exec(
        first, argv, {**record.env, **env}, chosen, workdir or record.workdir, privileged=privileged, groups=record.groups,
        gids=record.gids, filter=record.filter, terminal=tty, limits=rlimits(record.limits, record.cpus, record.enforced, privileged))
    return await _on_terminal(engine, plan) if tty else _on_pipes(engine, plan)


async def open_connection(engine: Engine, id: str, port: int) -> Connection:
    """Connect to a port on the loopback of a running container."""
    first = running(engine.box(id))
    child, connected, said = await _receive(engine, [*joining(first, engine.node.privileged, NEW_NET, stay=False), "dial", str(port)])
    code = await child.wait()
    if connected is None:
        if code == _REFUSED:
            raise Failure("unavailable", f"Nothing in the container listens on port {port}; start it there first.")
        raise Failure("conflict", f"The container cannot be reached: {mend(said)}", detail=said)
    return Connection(*await asyncio.open_connection(sock=socket.socket(fileno=connected)))


def running(box: Box) -> tuple[int, int]:
    """Return the pids of a container's first process and shim; raise ``Failure('conflict')`` when it does not run."""
    first = box.first()
    if first is None:
        raise Failure("conflict", "The container does not run.")
    return first


def _written(plan: Sequence[str]) -> int:
    data = packed(plan)
    fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    os.write(fd, data)
    return fd


def _enter(engine: Engine, places: Mapping[int, int]) -> Child:
    shim = engine.node.shim
    return spawn([*shim.argv, "do", str(_PLAN)], places, shim.program)


def _on_pipes(engine: Engine, plan: Sequence[str]) -> Exec:
    fds = [_written(plan)]
    try:
        for _ in range(3):
            fds += os.pipe()
        memory, stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = fds
        child = _enter(engine, {0: stdin, 1: stdout, 2: stderr, _PLAN: memory})
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    for fd in (memory, stdin, stdout, stderr):
        os.close(fd)
    return Exec(child, Source({from_stdout: 1, from_stderr: 2}), Sink(to_stdin))


async def _on_terminal(engine: Engine, plan: Sequence[str]) -> Exec:
    child, master, said = await _receive(engine, plan)
    if master is None:
        await child.wait()
        raise Failure("conflict", f"There is no terminal in the container: {mend(said)}", detail=said)
    return TerminalExec(child, master)


async def _receive(engine: Engine, plan: Sequence[str]) -> tuple[Child, int | None, str]:
    """Run a plan that hands out a descriptor; return that, or what was said instead."""
    ours, theirs = socket.socketpair()
    memory, said = _written(plan), os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        ours.setblocking(False)
        with theirs:
            child = _enter(engine, {2: said, _OURS: theirs.fileno(), _PLAN: memory})
        fd = await _descriptor(ours)
        return child, fd, os.pread(said, 4096, 0).decode(errors="replace").strip()
    finally:
        ours.close()
        os.close(memory)
        os.close(said)


async def _descriptor(ours: socket.socket) -> int | None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(ours, wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(ours)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        return None
    os.set_inheritable(fds[0], False)
    return fds[0]
