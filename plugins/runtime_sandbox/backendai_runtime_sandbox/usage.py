"""What a running container uses: by its cgroups, and by /proc where there are none."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Usage

from backendai_runtime_sandbox.engine import Engine


def measure(engine: Engine, id: str) -> Usage | None:
    """Return a container's use, None when it does not run."""
    try:
        first = engine.box(id).first()
    except (Failure, OSError):
        return None
    if first is None:
        return None
    pid = first[0]
    usage = engine.node.cgroups.usage(id)
    if None in (usage.cpu_s, usage.memory, usage.pids, usage.io_read):
        usage = _fill(usage, _by_processes(pid))
    return _fill(usage, _network(pid))


def _fill(usage: Usage, other: Usage) -> Usage:
    """Take from *other* what *usage* does not know."""
    known = {name: value for name, value in dataclasses.asdict(usage).items() if value is not None}
    return dataclasses.replace(other, **known)


def _by_processes(pid: int) -> Usage:
    ticks = pids = memory = read = written = 0
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    for one in _family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            traffic = dict(line.split(": ") for line in Path(f"/proc/{one}/io").read_text().splitlines())
        except OSError:
            continue  # it has ended
        pids += int(fields[17])
        ticks += sum(map(int, fields[11:15]))  # its own and its reaped children's, in user and system mode
        memory += int(fields[21]) * page
        read += int(traffic["read_bytes"])
        written += int(traffic["write_bytes"])
    return Usage(cpu_s=ticks / tick, memory=memory, pids=pids, io_read=read, io_write=written)


def _family(pid: int) -> Iterator[int]:
    """Give *pid* and all that descends from it."""
    waiting = [pid]
    while waiting:
        yield (one := waiting.pop())
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has ended


def _network(pid: int) -> Usage:
    """Count what went through the way out; the loopback does not count."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return Usage()
    counts = [line.split() for line in lines if not line.strip().startswith("lo:")]
    return Usage(net_rx=sum(int(count[1]) for count in counts), net_tx=sum(int(count[9]) for count in counts))
