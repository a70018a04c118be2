"""A container's output, from the shim's log."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack

from backendai.spec.runtime_v10 import ContainerState, LogChunk

from backendai_runtime_sandbox.box import Box
from backendai_runtime_sandbox.notices import FOLDER, MODIFY, Notices

_HEAD = struct.Struct("<B3xI")
_STEP = 256 * 1024  # bytes read at once
_LOOK_S = 5.0  # a shim that was killed tells nobody


async def read_log(box: Box, offset: int, follow: bool, notices: Notices) -> AsyncIterator[LogChunk]:
    """Give the pieces from *offset*; *follow*: until the container has ended and everything is given."""
    changed = asyncio.Event()
    fd: int | None = None
    with ExitStack() as stack:
        if follow:
            stack.enter_context(notices.watch(box.folder, FOLDER, lambda _: changed.set()))
        try:
            while True:
                changed.clear()
                over = not follow or _is_over(box)  # asked before reading: what came before the end is then in the file
                if fd is None and box.log.exists():
                    fd = os.open(box.log, os.O_RDONLY | os.O_CLOEXEC)
                    if follow:
                        stack.enter_context(notices.watch(box.log, MODIFY, lambda _: changed.set()))
                if fd is not None:
                    while pieces := _pieces(os.pread(fd, _STEP, offset), offset):
                        for piece in pieces:
                            offset = piece.next
                            yield piece
                if over:
                    return
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await changed.wait()
                except TimeoutError:
                    pass  # look again
        finally:
            if fd is not None:
                os.close(fd)


def _is_over(box: Box) -> bool:
    try:
        return box.look().state is ContainerState.EXITED
    except OSError:  # removed
        return True


def _pieces(data: bytes, offset: int) -> list[LogChunk]:
    """Cut *data* into the whole pieces that it holds; neighbours of one stream are put together."""
    found: list[LogChunk] = []
    parts: list[bytes] = []
    at = stream = 0
    while at + _HEAD.size <= len(data):
        of, length = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if end > len(data):
            break
        if parts and of != stream:
            found.append(LogChunk(stream, b"".join(parts), offset + at))
            parts = []
        parts.append(data[at + _HEAD.size:end])
        stream, at = of, end
    if parts:
        found.append(LogChunk(stream, b"".join(parts), offset + at))
    return found
