"""The script that runs inside before the command: where it is put, how it is run, and what came of it.

The script and its result are two files of a folder that is mounted into the container. A shell of the image runs the script, writes its
status down and becomes the command; so nothing of ours has to live in there, and an agent that starts again reads what has happened.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

FOLDER = "boot"  # in a kernel's scratch
TARGET = "/.bai/boot"
_SCRIPT, _ENDED = "script", "ended"
_RUN = f'{TARGET}/{_SCRIPT}; s=$?; echo $s >{TARGET}/{_ENDED}; [ $s = 0 ] || exit $s; exec "$@"'
_STATUS = re.compile(rb"[0-9]{1,3}\n")
LOOK_S, LONGEST_LOOK_S = 0.02, 0.5


def wrap(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return what runs the script and then becomes *argv*."""
    return ("/bin/sh", "-c", _RUN, "sh", *argv)


def make_boot(scratch: Path, script: str, user: tuple[int, int]) -> None:
    """Put *script* where the container finds it, owned by its user. Without a first line that names an interpreter, sh runs it."""
    folder = scratch / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / _SCRIPT
    path.write_text(script if script.endswith("\n") else script + "\n", encoding="utf-8")
    path.chmod(0o700)
    if os.geteuid() == 0:
        for each in (folder, path):
            os.chown(each, *user, follow_symlinks=False)


def status_of(scratch: Path) -> int | None:
    """Return the status that the script ended with, None while it has not. Its user may put anything there: nothing else is opened."""
    try:
        fd = os.open(scratch / FOLDER / _ENDED, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it is not there, or no file
        return None
    try:
        text = os.read(fd, 8) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    return int(text) if _STATUS.fullmatch(text) else None


def complaint(status: int | None, code: int | None, overdue: bool, limit_s: float) -> str:
    """Return why the kernel fails because of its script, empty when it does not. code: the container's."""
    if status == 0:
        return ""
    if status is not None:
        return f"The bootstrap script failed with status {status}; its output is in the log (`bai logs`)."
    if overdue:
        return f"The bootstrap script did not end within {limit_s:g} s; its output is in the log (`bai logs`)."
    if code in (126, 127):
        return "The bootstrap script could not be run: the image has no /bin/sh; leave the script out, or use another image."
    return "The container ended before its bootstrap script did; its output is in the log (`bai logs`)."
