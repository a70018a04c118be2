"""Reading and writing pipes and terminals without a task of their own: whoever reads or writes waits, and so does the other end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from backendai_runtime_sandbox.process import wake

_STEP = 65536


class Source:
    """Output of a program from several descriptors. streams: what each is called, by descriptor."""

    def __init__(self, streams: dict[int, int]) -> None:
        self._streams = streams
        for fd in streams:
            os.set_blocking(fd, False)

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (stream, data), or None at the end of all."""
        while self._streams:
            for fd, stream in tuple(self._streams.items()):
                try:
                    data = os.read(fd, _STEP)
                except BlockingIOError:
                    continue
                except OSError:  # a terminal whose other end is closed
                    data = b""
                if data:
                    self._streams[fd] = self._streams.pop(fd)  # the next one's turn first
                    return stream, data
                self._end(fd)
            if self._streams:
                await _ready(tuple(self._streams), ())
        return None

    def close(self) -> None:
        """Let go of what is still open."""
        for fd in tuple(self._streams):
            self._end(fd)

    def _end(self, fd: int) -> None:
        del self._streams[fd]
        os.close(fd)


class Sink:
    """Input of a program."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """Send *data*; wait while it is not read. Raise BrokenPipeError when nobody will."""
        view = memoryview(data)
        while view:
            if self._fd is None:
                raise BrokenPipeError
            try:
                view = view[os.write(self._fd, view):]
            except BlockingIOError:
                await _ready((), (self._fd,))

    def close(self) -> None:
        """Say that nothing more will come."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


async def _ready(reading: Sequence[int], writing: Sequence[int]) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    copies = [os.dup(fd) for fd in (*reading, *writing)]  # whoever closes the original meanwhile leaves the loop's own intact
    try:
        for fd in copies[:len(reading)]:
            loop.add_reader(fd, wake, future)
        for fd in copies[len(reading):]:
            loop.add_writer(fd, wake, future)
        await future
    finally:
        for fd in copies:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            os.close(fd)
