"""Starting programs without asyncio's own child handling, which would kill them when we let go of them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence

HANDLED = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Child:
    """A program that was started by us. It is reaped whether anybody waits for it or not."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        code = os.waitstatus_to_exitcode(status)
        if not self._ended.done():
            self._ended.set_result(code if code >= 0 else 128 - code)

    async def wait(self) -> int:
        """Wait for its end; 128 + n for a death by signal n."""
        return await asyncio.shield(self._ended)

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self._ended.done():
            os.kill(self.pid, number)


def spawn(argv: Sequence[str], places: Mapping[int, int], program: str = "") -> Child:
    """Start a program in a session of its own, with an empty environment.

    places: which of our descriptors it has as 0, 1, 2 and so on; the rest is closed. program: its file, where that is not argv[0].
    """
    null = os.open(os.devnull, os.O_RDWR)
    moved = {}  # out of the way of the targets, so that none is overwritten before it is copied
    try:
        for target in sorted({0, 1, 2, *places}):
            moved[target] = _high(places.get(target, null))
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in moved.items()]
        pid = os.posix_spawn(program or argv[0], list(argv), {}, file_actions=actions, setsid=True,
                             setsigmask=[], setsigdef=HANDLED)
    finally:
        os.close(null)
        for fd in moved.values():
            os.close(fd)
    return Child(pid)


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)


def wake(future: asyncio.Future[None]) -> None:
    """Set *future*, unless it is done or nobody waits for it any more."""
    if not future.done():
        future.set_result(None)


def wait_for_pid(pid: int) -> asyncio.Future[None]:
    """Return a future for the end of any process; it is done at once when there is none."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        future.set_result(None)
        return future

    def end(_: object = None) -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)

    loop.add_reader(pidfd, wake, future)
    future.add_done_callback(end)
    return future


async def read_all(fd: int, limit: int = 65536) -> bytes:
    """Read a pipe to its end and close it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0))
    try:
        return await reader.read()
    finally:
        transport.close()


async def run(argv: Sequence[str], program: str = "") -> tuple[int, str]:
    """Run a program to its end; return its exit code and what it said on stderr."""
    ours, theirs = os.pipe()
    try:
        child = spawn(argv, {2: theirs}, program)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    said = await read_all(ours)
    return await child.wait(), said.decode(errors="replace").strip()
