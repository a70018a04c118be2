"""Pack or unpack a tar stream inside a container, as its user. Run as a program: PID SHIM UID,GID get|put PATH.

UID,GID is empty where the caller is an ordinary user: joining the user namespace makes it the container's user then.
Everything is imported before it joins, because afterwards the node's files are out of sight.
"""

from __future__ import annotations

import copy
import ctypes
import encodings.idna
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

NOT_FOUND = 44
_LOADED = (encodings.idna, stat, copy)


def join(pid: str, shim: str, user: str) -> None:
    """Enter the mount namespace of *pid*, with no more rights than its user has."""
    libc = ctypes.CDLL(None, use_errno=True)
    fds = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in (("mnt",) if user else ("user", "mnt"))]
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # once open, they stay those of the process whose parent we check
        if stat.read().rpartition(")")[2].split()[1] != shim:
            raise OSError("the container has ended")
    for fd in fds:
        if libc.setns(fd, 0) < 0:
            raise OSError(ctypes.get_errno(), "the container cannot be joined")
        os.close(fd)
    if user:
        uid, gid = map(int, user.split(","))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def get(path: str) -> None:
    """Write *path* to stdout."""
    if not os.path.lexists(path):
        sys.exit(NOT_FOUND)
    name = Path(os.path.normpath(path)).name or "."
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=65536, format=tarfile.PAX_FORMAT) as tar:
        tar.add(path, arcname=name, filter=_plain)
    sys.stdout.buffer.flush()


def put(path: str) -> None:
    """Unpack stdin into *path*."""
    if not Path(path).is_dir():
        sys.exit(NOT_FOUND)
    uid, gid = os.getuid(), os.getgid()

    def ours(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for member in tar:
            member.uid, member.gid, member.uname, member.gname = uid, gid, "", ""
            yield member

    os.umask(0o022)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*", bufsize=65536) as tar:
        tar.extraction_filter = lambda member, _: member  # whatever it does, it does as the container's user
        tar.extractall(path, members=ours(tar))
    while sys.stdin.buffer.read(65536):
        pass  # what follows the end of an archive is padding, and the other side wants to be rid of it


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return member if member.isreg() or member.isdir() or member.issym() or member.islnk() else None


def main(pid: str, shim: str, user: str, verb: str, path: str) -> None:
    try:
        join(pid, shim, user)
        (get if verb == "get" else put)(path)
    except (OSError, tarfile.TarError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # a program's stderr
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
