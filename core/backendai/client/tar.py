"""Tar streams out of files, and back."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backendai.model.errors import Failure

BLOCK = 256 * 1024


@dataclass
class Source(io.RawIOBase):
    """Pieces, read as a file. report: told the size of each."""

    pieces: Iterator[bytes]
    report: Callable[[int], None] | None = None
    rest: bytes = field(default=b"", init=False)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer is one of bytes here
        """Fill *buffer* as far as one piece goes."""
        while not self.rest:
            if (piece := next(self.pieces, None)) is None:
                return 0
            self.rest = piece
            if self.report is not None:
                self.report(len(piece))
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def pack(source: Path, name: str) -> Iterator[bytes]:
    """Yield *source*, a file or a folder with all that is in it, as a tar whose root is called *name*. Nobody's ids are in it.

    Sockets and devices are left out. Raise ``Failure('invalid-request')`` when something cannot be read. A thread writes the archive
    into a pipe as fast as it is taken out here.
    """
    reader, writer = os.pipe()
    problems: list[OSError] = []

    def work() -> None:
        try:
            with os.fdopen(writer, "wb") as file, tarfile.open(mode="w|", fileobj=file, format=tarfile.PAX_FORMAT) as archive:
                archive.add(source, name, filter=_plain)
        except OSError as error:
            problems.append(error)

    thread = threading.Thread(target=work, name="pack", daemon=True)
    thread.start()
    with os.fdopen(reader, "rb", buffering=0) as file:  # its end ends the thread, too
        while data := file.read(BLOCK):
            yield data
    thread.join()
    for error in problems:
        raise Failure("invalid-request", f"{error.filename or source} cannot be read: {error.strerror or error}.") from error


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def root_of(pieces: Iterable[bytes]) -> tarfile.TarInfo | None:
    """Return the first member of a tar stream; what follows is not read."""
    with io.BufferedReader(Source(iter(pieces))) as file, tarfile.open(mode="r|", fileobj=file) as archive:
        return archive.next()


def unpack(pieces: Iterable[bytes], target: Path, report: Callable[[int], None] | None = None) -> None:
    """Write a tar stream with one root to *target*, whatever the root was called there.

    Nothing is written outside of *target*, and no owner is taken over. Raise ``Failure('invalid-request')`` when something cannot be
    written, or would be outside.
    """
    try:
        with io.BufferedReader(Source(iter(pieces), report), BLOCK) as file, tarfile.open(mode="r|", fileobj=file) as archive:
            alone = False  # the root is no folder
            for member in archive:
                _, _, rest = member.name.strip("/").partition("/")
                if alone:
                    raise Failure("invalid-request", f"It is not safe to copy this: {member.name} comes after a root that is no folder.")
                if member.islnk():
                    member.linkname = member.linkname.strip("/").partition("/")[2]
                if rest:
                    member.name = rest
                    archive.extract(member, target, filter="data")
                elif member.isdir():
                    target.mkdir(exist_ok=True)
                else:
                    alone, member.name = True, target.name
                    archive.extract(member, target.parent, filter="data")
    except OSError as error:
        raise Failure("invalid-request", f"{error.filename or target} cannot be written: {error.strerror or error}.") from error
    except tarfile.FilterError as error:
        raise Failure("invalid-request", f"It is not safe to copy this: {error}.") from error
    except tarfile.TarError as error:
        raise Failure("unreachable", f"The archive broke off: {error}; try again.") from error
