"""A kernel's folder on this node: made for its user, and removed whatever its user has left in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

WORK = "work"  # mounted at /home/work
LAYER = "layer"  # where a runtime may keep the container's own files


def make_scratch(folder: Path, user: tuple[int, int]) -> None:
    """Make the kernel's folder, its work folder owned by *user*. An ordinary user's runtime maps ids, so nothing is given away."""
    folder.mkdir(mode=0o711, exist_ok=True)
    (folder / LAYER).mkdir(mode=0o711, exist_ok=True)
    work = folder / WORK
    work.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(work, *user, follow_symlinks=False)


def remove_scratch(folder: Path) -> None:
    """Remove *folder* and everything in it; raise OSError when something holds out, such as a mount.

    Links are removed and never followed. Every sub-folder is first moved to the top, so that no depth is too deep, and the kernel
    refuses to move a mount point, so that nothing is deleted beyond one.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        serial = 0
        waiting = _empty(root, root, serial)
        while waiting:
            name = waiting.pop()
            serial += 1
            fd = _enter(root, name)
            try:
                waiting += _empty(fd, root, serial)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    folder.rmdir()


def _empty(fd: int, root: int, serial: int) -> list[str]:
    """Delete what is in *fd* and move its folders to *root*; return their names there."""
    folders = []
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for number, (name, is_folder) in enumerate(found):
        if not is_folder:
            os.unlink(name, dir_fd=fd)
        elif fd == root:
            folders.append(name)
        else:
            _open_up(fd, name)
            moved = f".{serial}-{number}-{os.urandom(4).hex()}"
            os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=root)
            folders.append(moved)
    return folders


def _enter(root: int, name: str) -> int:
    _open_up(root, name)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)


def _open_up(parent: int, name: str) -> None:
    """Let an ordinary user into a folder of his that he has locked; root needs no leave."""
    if os.geteuid() and stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
        os.chmod(name, 0o700, dir_fd=parent)
