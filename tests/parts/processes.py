"""Start the programs that tests need, wait for them, and end them for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.parts.absent import Absent

MARK = "bai-test-"


def make_folder(what: str) -> Path:
    """Make a folder that bears our mark: short, because a socket's path has at most 107 bytes, and ours by our process id."""
    return Path(tempfile.mkdtemp(prefix=f"{MARK}{os.getpid()}-{what}-", dir="/tmp"))


def until(done: Callable[[], bool], within_s: float, what: str, every_s: float = 0.05) -> None:
    """Wait until *done* says yes; raise ``TimeoutError`` that names *what* when it does not in time."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)


def start(argv: list[str], log: Path, **options: object) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, its output in *log*; raise ``Absent`` when it is not installed."""
    with log.open("ab") as out:
        try:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,  # type: ignore[call-overload,no-any-return]  # options go through
                                    start_new_session=True, **options)
        except FileNotFoundError:
            raise Absent(f"{argv[0]} is not installed") from None


def end(process: subprocess.Popen[bytes], within_s: float = 20.0) -> None:
    """End a program: politely, then for certain."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def processes() -> Iterator[int]:
    """Yield the id of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def read(pid: int, name: str) -> str:
    """Return a file of /proc/*pid*, empty when the process is gone or not ours to read."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def mentioning(text: str) -> dict[int, str]:
    """Return the command lines of the processes that have *text* in their command, environment, folder or mounts."""
    found = {}
    for pid in processes():
        if pid == os.getpid():
            continue
        try:
            folder = str(Path(f"/proc/{pid}/cwd").readlink())
        except OSError:
            folder = ""
        if text in folder or any(text in read(pid, name) for name in ("cmdline", "environ")):
            found[pid] = read(pid, "cmdline") or read(pid, "comm")
    return found


def kill_below(folder: str) -> None:
    """Kill every process whose command line, or root file system, is in *folder*, which only ours can be."""
    for pid in processes():
        root = next((line for line in read(pid, "mountinfo").splitlines() if line.split()[4] == "/"), "")
        if pid != os.getpid() and (folder in read(pid, "cmdline") or folder in root):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself meanwhile


def mounts_below(folder: str) -> list[str]:
    """Return the mount points at and below *folder* in this mount namespace, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if f"{point}/".startswith(f"{folder}/")), reverse=True)


def unmount_below(folder: str) -> None:
    """Unmount everything at and below *folder*."""
    for point in mounts_below(folder):
        subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
