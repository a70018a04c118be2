"""A kernel's output in a file of our own: framed, so that it survives the agent and tells where to go on.

A frame is a header (mark, stream, more, length, time, the runtime's next offset, checksum), the data, and the frame's size once more,
so that the file can be walked from both ends. A piece too large for one frame takes several, all but the last with *more* set, since
the runtime knows no place to go on within a piece. What follows the last whole piece is torn, and is cut off before more is written.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MARK = 0xBA
_HEADER = struct.Struct(">BBBxIdQI")
_FOOTER = struct.Struct(">I")
_OVERHEAD = _HEADER.size + _FOOTER.size
MAX_FRAME = 128 * 1024  # bytes of data
BATCH = 64 * 1024  # bytes of one stream that a reader gets at once, if frames are small
TURN = 1024 * 1024  # bytes that a reader gets before others have their turn


class Frame(NamedTuple):
    """One frame. more: its piece goes on in the next. next: where the runtime goes on. end: where the next frame begins in the file."""

    stream: int
    more: bool
    data: bytes
    at: float
    next: int
    end: int


class Output:
    """One kernel's log file. Writing is plain and immediate; readers wait for growth without polling.

    done: nothing more will be written. next: where to ask the runtime to go on.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._fd: int | None = None
        self._grown = asyncio.Event()
        self.size = 0
        self.next = 0
        self.full = False
        self.done = False

    def open(self) -> None:
        """Open the file for writing, made or mended: a torn tail is cut. Blocks for a long file."""
        if self._fd is not None:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size:
            self.size, self.next = _whole(fd)
            os.ftruncate(fd, self.size)
        self.full = self.size >= self._limit
        self._fd = fd

    def write(self, stream: int, data: bytes, next: int) -> None:
        """Append what the runtime gave, up to the limit; *next* is where it goes on after all of *data*."""
        if self._fd is None:
            raise ValueError("the output is not open")
        if data and not self.full:
            self.full = self.size + len(data) >= self._limit
            text = f"\n[The limit of {self._limit} bytes of output was reached; the rest is not kept.]\n" if self.full else ""
            self._append(self._fd, [(stream, data[: max(0, self._limit - self.size)]), (2, text.encode())], next)
        self.next = next
        self._tell()

    def finish(self, sync: bool = False) -> None:
        """Say that nothing more will come; readers end. sync: make it survive a power cut first."""
        if sync and self._fd is not None:
            os.fsync(self._fd)
        self.close()
        self.done = True
        self._tell()

    def close(self) -> None:
        """Let go of the file; it may be opened again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def read(self, follow: bool, tail: int | None) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (stream, data) from the last *tail* lines on, or from the beginning; *follow*: until nothing more will come."""
        reader: _Reader | None = None
        position, cut = 0, 0
        given = 0
        try:
            while True:
                grown, finished = self._grown, self.done
                if reader is None and self._path.exists():
                    reader = _Reader(self._path)
                    if tail is not None:
                        position, cut = reader.tail(tail, self._end(reader))
                if reader is not None:
                    for stream, data, end in reader.batches(position, self._end(reader)):
                        position = end
                        yield stream, data[cut:]
                        cut = 0
                        given += len(data)
                        if given > TURN:
                            given = 0
                            await asyncio.sleep(0)
                if finished or not follow:
                    return
                await grown.wait()
        finally:
            if reader is not None:
                reader.close()

    def _end(self, reader: _Reader) -> int:
        return self.size if self._fd is not None else reader.end()

    def _append(self, fd: int, pieces: Sequence[tuple[int, bytes]], next: int) -> None:
        now = time.time()
        parts = [(stream, data[i : i + MAX_FRAME]) for stream, data in pieces for i in range(0, len(data), MAX_FRAME)]
        piece = b"".join(_frame(stream, i + 1 < len(parts), data, now, next) for i, (stream, data) in enumerate(parts))
        if os.pwrite(fd, piece, self.size) != len(piece):
            raise OSError(errno.ENOSPC, "no space left", str(self._path))
        self.size += len(piece)

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class _Reader:
    """An open log file and how to walk it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._fd)

    def end(self) -> int:
        """Return where the last whole frame ends; a file that nobody writes may have a torn tail."""
        return _whole(self._fd)[0]

    def batches(self, position: int, end: int) -> Iterator[tuple[int, bytes, int]]:
        """Yield (stream, data, where the next begins), small neighbours of one stream together."""
        stream, parts, size = 0, list[bytes](), 0
        while position < end and (frame := _read(self._fd, position)) is not None:
            if parts and (frame.stream != stream or size + len(frame.data) > BATCH):
                yield stream, b"".join(parts), position
                parts, size = [], 0
            stream, position = frame.stream, frame.end
            parts.append(frame.data)
            size += len(frame.data)
        if parts:
            yield stream, b"".join(parts), position

    def tail(self, lines: int, end: int) -> tuple[int, int]:
        """Return the frame in which the last *lines* lines begin, and how many of its bytes come before them."""
        position, wanted = end, lines
        while lines > 0 and position and (start := _before(self._fd, position)) is not None:
            frame = _read(self._fd, start)
            assert frame is not None  # ``_before`` has just read it
            if position == end and frame.data.endswith(b"\n"):
                wanted += 1  # the end of the last line does not begin another
            seen = frame.data.count(b"\n")
            if seen >= wanted:
                cut = len(frame.data)
                for _ in range(wanted):
                    cut = frame.data.rindex(b"\n", 0, cut)
                return start, cut + 1
            wanted -= seen
            position = start
        return position, 0


def _frame(stream: int, more: bool, data: bytes, at: float, next: int) -> bytes:
    check = zlib.crc32(data, zlib.crc32(_HEADER.pack(MARK, stream, more, len(data), at, next, 0)))
    return b"".join((_HEADER.pack(MARK, stream, more, len(data), at, next, check), data, _FOOTER.pack(_OVERHEAD + len(data))))


def _read(fd: int, position: int) -> Frame | None:
    """Return the whole frame at *position*, or None."""
    header = os.pread(fd, _HEADER.size, position)
    if len(header) < _HEADER.size:
        return None
    mark, stream, more, length, at, next, check = _HEADER.unpack(header)
    if mark != MARK or length > MAX_FRAME:
        return None
    rest = os.pread(fd, length + _FOOTER.size, position + _HEADER.size)
    data = rest[:length]
    if len(rest) < length + _FOOTER.size or _FOOTER.unpack(rest[length:])[0] != length + _OVERHEAD:
        return None
    if zlib.crc32(data, zlib.crc32(_HEADER.pack(mark, stream, more, length, at, next, 0))) != check:
        return None
    return Frame(stream, bool(more), data, at, next, position + _OVERHEAD + length)


def _before(fd: int, end: int) -> int | None:
    """Return where the frame that ends at *end* begins, None when no whole frame ends there."""
    footer = os.pread(fd, _FOOTER.size, end - _FOOTER.size) if end >= _OVERHEAD else b""
    if len(footer) < _FOOTER.size:
        return None
    start = end - int(_FOOTER.unpack(footer)[0])
    return start if 0 <= start < end and (frame := _read(fd, start)) is not None and frame.end == end else None


def _whole(fd: int) -> tuple[int, int]:
    """Return where the last whole piece ends and the offset that it vouches for."""
    start = _before(fd, os.fstat(fd).st_size)
    if start is not None and (last := _read(fd, start)) is not None and not last.more:
        return last.end, last.next
    position, whole, next = 0, 0, 0
    while (frame := _read(fd, position)) is not None:
        position = frame.end
        if not frame.more:
            whole, next = position, frame.next
    return whole, next
