"""Containers that an engine began to start and no longer knows to: Docker forgets a start on which it was at work when it died.

It then calls the container created, though its command may have run, or runs still, where none of the engine's calls reaches it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

SHIM = "containerd-shim"
LEAVE_S, LOOK_S = 5.0, 0.05  # for what was killed to be gone; between two looks


def was_begun(root: str, id: str) -> bool | None:
    """Tell whether the engine that keeps its files in *root* has ever begun to start a container; None where that cannot be seen."""
    folder = Path(root) / "containers" / id
    try:
        return bool(root) and "local-logs" in os.listdir(folder)  # noqa: PTH208 - made when the output is connected, before the start
    except OSError:  # not ours to read, or of another make
        return None


async def end_orphan(id: str) -> None:
    """Kill what runs of a container that its engine does not know to run, and then what looked after it."""
    until = time.monotonic() + LEAVE_S
    while (found := await asyncio.to_thread(_processes, id)) and time.monotonic() < until:
        inside = [pid for pid, is_shim in found if not is_shim]
        for pid in inside or [pid for pid, _ in found]:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # gone, or not ours to end
        await asyncio.sleep(LOOK_S)


def _processes(id: str) -> Sequence[tuple[int, bool]]:
    """Return the processes of a container, by their cgroup, and its shim, which is told by True."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if id in (entry / "cgroup").read_text():
                found.append((int(entry.name), False))
            elif id in (command := (entry / "cmdline").read_text(errors="replace")) and SHIM in command.split("\0", 1)[0]:
                found.append((int(entry.name), True))
        except OSError:
            continue  # it has ended
    return found
