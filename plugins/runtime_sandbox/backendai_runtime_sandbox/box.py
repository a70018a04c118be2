"""One container on disk: a folder whose files say everything about it.

``record.json`` is what it was created with, ``plan`` what the shim does, ``lock`` is held by the shim while it lives, ``running`` and
``exit`` are written by the shim, ``log`` is the output, ``error`` why it could not be started.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backendai.spec.runtime_v10 import Container, ContainerState, Limits

FRESH, GONE = ".new-", ".gone-"  # how a folder is called before it is whole, and once it is being removed
_FLOCK = struct.Struct("hhqqi4x")
LOST = "Its shim was killed or the node was restarted, so its exit code is not known."


@dataclass(frozen=True, slots=True)
class Record:
    """What must be known about a container besides its plan.

    user: as it sees itself. layer: the folder of its own files, of which it made *made*. filter: the seccomp program. groups: cgroups.
    enforced: the limits that those take care of. network: the session's that it is in, empty for none.
    """

    name: str
    image: str
    user: tuple[int, int]
    workdir: str
    layer: str
    filter: str
    limits: Limits
    enforced: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()
    cpus: tuple[int, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = ""


class Box:
    """A container's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.log = folder / "log"
        self._record: Record | None = None
        self._ended: Container | None = None  # which is then never to change

    def begin(self, record: Record) -> Path:
        """Make the folder, under another name until it is whole; the record comes first, for it says what to remove."""
        fresh = self.folder.with_name(FRESH + self.name)
        fresh.mkdir(mode=0o711, exist_ok=True)
        secret = os.open(fresh / "record.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(secret, "w") as out:
            json.dump(asdict(record), out)
        return fresh

    def finish(self, fresh: Path, plan: bytes, files: Mapping[str, str]) -> None:
        """Put the rest into the folder and the folder in its place."""
        for name, text in files.items():
            (fresh / name).write_text(text)
        secret = os.open(fresh / "plan", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(secret, "wb") as out:
            out.write(plan)
        (fresh / "root").mkdir(exist_ok=True)
        fresh.rename(self.folder)

    @property
    def exists(self) -> bool:
        return self.folder.is_dir()

    @property
    def record(self) -> Record:
        """Return what it was created with; raise OSError when it is gone."""
        if self._record is None:
            fields = json.loads((self.folder / "record.json").read_text())
            for name in ("user", "enforced", "groups", "made", "gids", "cpus"):
                fields[name] = None if fields[name] is None else tuple(fields[name])
            fields["limits"] = Limits(**fields["limits"])
            self._record = Record(**fields)
        return self._record

    def shim(self) -> int | None:
        """Return the pid of its shim while that lives."""
        return lock_holder(self.folder / "lock")

    @property
    def running(self) -> bool:
        """Tell whether its first process has begun."""
        return (self.folder / "running").exists()

    def first(self) -> tuple[int, int] | None:
        """Return the pids of its first process and of the shim, that one's parent, while it runs."""
        running, shim = self._words("running"), self.shim()
        return (int(running[0]), shim) if running and shim is not None and not self._words("exit") else None

    def look(self) -> Container:
        """Tell how it is; raise OSError when it is gone."""
        self.folder.stat()
        if self._ended is not None:
            return self._ended
        record = self.record
        exit = self._words("exit")
        shim = None if exit else self.shim()
        if not exit and shim is None:
            exit = self._words("exit")  # it may have ended in between
        running = self._words("running")
        started = float(running[1]) if running else None
        state, error = ContainerState.CREATED, ""
        if exit or (running and shim is None):
            state = ContainerState.EXITED
            error = "" if exit else LOST
        elif running:
            state = ContainerState.RUNNING
        else:
            error = self.complaint()
        container = Container(
            id=record.name, name=record.name, state=state, labels=record.labels, started_at=started, error=error,
            exit_code=int(exit[0]) if exit else None, out_of_memory=bool(exit) and record.limits.memory is not None and int(exit[1]) > 0,
            pid=int(running[0]) if state is ContainerState.RUNNING else None, ended_at=float(exit[2]) if exit else None)
        if exit:
            self._ended = container
        return container

    def complaint(self) -> str:
        """Return why it could not be started, empty if it could."""
        try:
            return (self.folder / "error").read_text()
        except OSError:
            return ""

    def complain(self, text: str) -> None:
        """Note why it could not be started."""
        (self.folder / "error").write_text(text)

    def _words(self, file: str) -> list[str]:
        try:
            return (self.folder / file).read_text().split()
        except FileNotFoundError:
            return []


def lock_holder(path: Path) -> int | None:
    """Return the pid of the process that holds a lock on a file, None where nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else int(pid)


def boxes(folder: Path) -> Iterator[Box]:
    """Give every whole container below *folder*."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            yield Box(path)
