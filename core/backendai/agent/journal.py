"""The agent's memory: one small file for each kernel, a line for each change, and a few lasting facts beside them."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

import msgspec

from backendai.model.errors import Failure
from backendai.spec.accelerator_v21 import Grant
from backendai.wire.link import KernelOrder, KernelState, Observed

log = logging.getLogger(__name__)
MOST = 64  # lines in one kernel's file


class Entry(msgspec.Struct):
    """What is remembered of one kernel.

    grants: what it holds of which device; None until it holds something. container: the runtime's id, once made. stopping: we have
    told the runtime to end it. dropped: the manager no longer wants it. purge: its log goes with it. The rest is as in ``Observed``.
    """

    order: KernelOrder
    state: KernelState = KernelState.ACCEPTED
    grants: tuple[Grant, ...] | None = None
    container: str = ""
    image: str = ""
    stopping: bool = False
    dropped: bool = False
    purge: bool = False
    exit_code: int | None = None
    why: str = ""
    error: str = ""
    code: str = ""
    started_at: float | None = None
    ended_at: float | None = None

    def observed(self) -> Observed:
        """Return it as the manager is told."""
        return Observed(self.order.kernel, self.state, self.container, self.image, self.exit_code, self.why, self.error, self.code,
                        self.started_at, self.ended_at)


class Journal:
    """The folder of entries. The last whole line of a kernel's file counts: a line that the process died in was never said.

    A file without one is set aside, never trusted and never a reason to stop. Lines are added because a change then costs a
    hundredth of what it costs to replace a file; after ``MOST`` of them the file is replaced by its last.
    """

    def __init__(self, folder: Path, fsync: bool = False) -> None:
        self._folder = folder
        self._fsync = fsync
        self._encoder = msgspec.json.Encoder()
        self._lines: dict[str, int] = {}

    def load(self) -> dict[str, Entry]:
        """Read every entry by kernel."""
        entries = {}
        for path in sorted(self._folder.iterdir()):
            if path.suffix == ".tmp":
                path.unlink()
            elif path.suffix == ".json":
                try:
                    if (entry := _last_entry(path)) is not None:
                        entries[path.stem] = entry
                        self._lines[path.stem] = MOST  # unknown; the next change tidies up
                        continue
                except (msgspec.MsgspecError, ValueError, OSError) as error:
                    log.error("journal entry %s cannot be read (%s); set aside as .broken", path.name, error)
                    path.rename(path.with_suffix(".broken"))
                else:
                    path.unlink()
        return entries

    def save(self, entry: Entry) -> None:
        """Remember the entry as it is now."""
        kernel, line = entry.order.kernel, b"\n" + self._encoder.encode(entry)
        path, before = self._folder / f"{kernel}.json", self._lines.get(kernel, 0)
        if before >= MOST:
            replace(path, line, self._fsync)
            self._lines[kernel] = 1
        else:
            _append(path, line, self._fsync)
            self._lines[kernel] = before + 1

    def forget(self, kernel: str) -> None:
        """Delete the kernel's file."""
        self._lines.pop(kernel, None)
        (self._folder / f"{kernel}.json").unlink(missing_ok=True)


def _last_entry(path: Path) -> Entry | None:
    """Return what the last whole line says, None when the file is empty; raise when there is none that can be read."""
    problem: Exception | None = None
    for line in reversed(path.read_bytes().split(b"\n")):
        try:
            entry = msgspec.json.decode(line, type=Entry) if line else None
        except msgspec.MsgspecError as error:
            problem = problem or error
            continue
        if entry is not None and entry.order.kernel != path.stem:
            raise ValueError(f"it is about {entry.order.kernel}")
        if entry is not None:
            return entry
    if problem is not None:
        raise problem
    return None


def _append(path: Path, line: bytes, fsync: bool) -> None:
    """Add a line, which begins with its line break: what was torn before it then stands alone."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, "no space left", str(path))
        if fsync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if fsync:
        _fsync_folder(path.parent)


def replace(path: Path, data: bytes, fsync: bool = False) -> None:
    """Write *path* so that a reader finds the old content or the new one, whenever this process dies."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, "no space left", temporary)
        if fsync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)  # noqa: PTH105 - measured: half the cost of Path.replace, several times for each kernel
    if fsync:
        _fsync_folder(path.parent)


def _fsync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Fact:
    """A lasting word in a file of its own: the agent's id, the cluster's id, the runtime's name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """Return the word, empty when there is none."""
        try:
            return self._path.read_text("utf-8").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def write(self, word: str) -> None:
        """Replace the word."""
        replace(self._path, word.encode() + b"\n", fsync=True)


def lock(data: Path) -> int:
    """Keep every other agent out of *data* until the returned file is closed; raise ``Failure('conflict')`` when one is in."""
    fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Failure("conflict", f"Another agent works in {data}; stop it, or give this one a folder of its own.") from None
    return fd
