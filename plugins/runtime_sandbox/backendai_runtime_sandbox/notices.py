"""News of files, by inotify: who waits for one is woken, and nobody polls."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MODIFY, FOLDER, IGNORED = 0x2, 0x80 | 0x200, 0x8000  # FOLDER: files put in place or deleted
_HEAD = struct.Struct("iIII")
Tell = Callable[[str], None]


class Notices:
    """One inotify instance for all that this process watches."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int | None = None
        self._tells: dict[int, list[Tell]] = {}

    @contextmanager
    def watch(self, path: Path, mask: int, tell: Tell) -> Iterator[None]:
        """Call *tell* with the name of each file that changes below *path*, or with an empty one for *path* itself."""
        fd = self._open()
        watch = self._libc.inotify_add_watch(fd, os.fsencode(path), mask)
        if watch < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
        self._tells.setdefault(watch, []).append(tell)
        try:
            yield
        finally:
            tells = self._tells.get(watch, [])
            if tell in tells:
                tells.remove(tell)
            if not tells and self._tells.pop(watch, None) is not None and self._fd is not None:
                self._libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Stop watching."""
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
            self._tells.clear()

    def _open(self) -> int:
        if self._fd is None:
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                error, self._fd = ctypes.get_errno(), None
                raise OSError(error, os.strerror(error), "inotify")
            asyncio.get_running_loop().add_reader(self._fd, self._hear)
        return self._fd

    def _hear(self) -> None:
        try:
            data = os.read(self._fd, 65536) if self._fd is not None else b""
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, size = _HEAD.unpack_from(data, at)
            name = os.fsdecode(data[at + _HEAD.size:at + _HEAD.size + size].rstrip(b"\0"))
            at += _HEAD.size + size
            for tell in tuple(self._tells.get(watch, ())):
                tell(name)
            if mask & IGNORED:  # the path is gone
                self._tells.pop(watch, None)
