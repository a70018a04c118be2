"""Limits by cgroups of either version: made, joined, read and removed."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backendai.spec.runtime_v10 import Limits, Usage

CONTROLLERS = ("memory", "pids", "cpu")
COUNTERS = {1: ("cpuacct",), 2: ("io",)}  # what only counts; version 1 does not count written bytes
PERIOD_US = 100_000
REMOVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where our groups go. parents: by controller, our folder in its hierarchy. version: 1 or 2. why: for a controller that is absent."""

    version: int
    parents: Mapping[str, Path]
    why: Mapping[str, str]

    def of(self, name: str) -> list[Path]:
        """Return the group folders of one container, each once."""
        return list(dict.fromkeys(parent / name for parent in self.parents.values()))

    def make(self, name: str, limits: Limits) -> list[Path]:
        """Make a container's groups with their limits; raise OSError when that fails."""
        for folder in self.of(name):
            folder.mkdir(parents=True, exist_ok=True)
        if self.version == 2:  # the folder around ours may have been made anew
            for controller, parent in self.parents.items():
                _enable(parent, controller)
        for controller, file, value in settings(self.version, limits):
            if controller in self.parents:
                path = self.parents[controller] / name / file
                if path.exists() or not file.startswith(("memory.memsw", "memory.swap")):  # a kernel without swap accounting
                    path.write_text(value)
        return self.of(name)

    def hurry(self, name: str) -> None:
        """Lift the limit of a container that is about to be killed: its processes need a little time of a core to end, too."""
        if (parent := self.parents.get("cpu")) is not None:
            file, value = ("cpu.max", "max") if self.version == 2 else ("cpu.cfs_quota_us", "-1")
            try:
                (parent / name / file).write_text(value)
            except OSError:
                pass  # it has ended meanwhile, or ends a little later

    def events(self, name: str) -> str:
        """Return the file that tells of OOM kills, empty when there is none."""
        if "memory" not in self.parents:
            return ""
        return str(self.parents["memory"] / name / ("memory.events" if self.version == 2 else "memory.oom_control"))

    async def remove(self, name: str) -> None:
        """Remove a container's groups, and ours around them when it was the last. Leaving processes may hold them for a moment."""
        until = time.monotonic() + REMOVE_S
        for folder in self.of(name):
            while folder.is_dir():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > until:
                        raise
                    await asyncio.sleep(0.01)
        self.tidy()

    def tidy(self) -> None:
        """Remove our own folders where nothing is left in them."""
        for parent in set(self.parents.values()):
            try:
                parent.rmdir()
            except OSError:
                pass  # others are in it, or it is gone

    def usage(self, name: str) -> Usage:
        """Return what a container has used, as far as its groups tell."""
        def read(controller: str, file: str) -> int | None:
            return _number(self.parents[controller] / name / file) if controller in self.parents else None

        if self.version == 2:
            cpu = _field(self.parents["cpu"] / name / "cpu.stat", "usage_usec") if "cpu" in self.parents else None
            read_bytes, written = _traffic(self.parents["io"] / name / "io.stat") if "io" in self.parents else (None, None)
            return Usage(cpu_s=None if cpu is None else cpu / 1e6, io_read=read_bytes, io_write=written,
                         memory=read("memory", "memory.current"), memory_peak=read("memory", "memory.peak"),
                         pids=read("pids", "pids.current"))
        cpu = read("cpuacct", "cpuacct.usage")
        return Usage(cpu_s=None if cpu is None else cpu / 1e9,
                     memory=read("memory", "memory.usage_in_bytes"),
                     memory_peak=read("memory", "memory.max_usage_in_bytes"),
                     pids=read("pids", "pids.current"))


def settings(version: int, limits: Limits) -> list[tuple[str, str, str]]:
    """Return what to write where, in order: (controller, file, value)."""
    found = []
    if limits.memory is not None:
        files = ("memory.max", "memory.swap.max") if version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        found.append(("memory", files[0], str(limits.memory)))
        found.append(("memory", files[1], "0" if version == 2 else str(limits.memory)))
    if limits.pids is not None:
        found.append(("pids", "pids.max", str(limits.pids)))
    if limits.cpu is not None:
        quota = max(1000, limits.cpu * PERIOD_US // 1000)
        if version == 2:
            found.append(("cpu", "cpu.max", f"{quota} {PERIOD_US}"))
        else:
            found += [("cpu", "cpu.cfs_period_us", str(PERIOD_US)), ("cpu", "cpu.cfs_quota_us", str(quota))]
    return found


def find_cgroups(label: str, chosen: str = "", base: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")) -> Cgroups:
    """Find where limits can be set, by trying. label: of our own folder. chosen: a folder to use instead of the usual one."""
    parents, why = {}, {}
    version = 2 if (base / "cgroup.controllers").exists() else 1
    for controller in (*CONTROLLERS, *COUNTERS[version]):
        top = base if version == 2 else base / controller
        try:
            own = _own(proc) if version == 2 else ""
            starts = (top / chosen.lstrip("/"),) if chosen else dict.fromkeys((top, top / own.lstrip("/")))
            parent = _try(starts, controller, label, version)
        except OSError as error:
            why[controller] = error.strerror or str(error)
        else:
            parents[controller] = parent
    return Cgroups(version, parents, why)


def _try(starts: Iterable[Path], controller: str, label: str, version: int) -> Path:
    """Return our folder for *controller* below the first of *starts* where a probe shows that it works."""
    last = OSError()
    for start in starts:
        parent = start / f"backendai-{label}"
        try:
            if version == 2:
                _enable(start, controller)
            parent.mkdir(exist_ok=True)
            if version == 2:
                _enable(parent, controller)
            probe = parent / "probe"
            probe.mkdir(exist_ok=True)
            try:
                for _, file, value in settings(version, Limits(cpu=1000, memory=1 << 30, pids=64)):
                    if file.startswith(controller + ".") and not file.startswith(("memory.memsw", "memory.swap")):
                        (probe / file).write_text(value)
            finally:
                probe.rmdir()
        except OSError as error:
            last = error
        else:
            return parent
    raise last


def _enable(folder: Path, controller: str) -> None:
    control = folder / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return
    try:
        control.write_text(f"+{controller}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        leaf = folder / "backendai-agent"  # no group may hold both processes and groups with limits; it was delegated to us, so we move
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text(f"+{controller}")


def _own(proc: Path) -> str:
    """Return our own group in the unified hierarchy."""
    return next((line[3:] for line in proc.read_text().splitlines() if line.startswith("0::")), "")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _traffic(path: Path) -> tuple[int | None, int | None]:
    """Return the bytes read and written, summed over the disks."""
    try:
        text = path.read_text()
    except OSError:
        return None, None
    read, written = (sum(map(int, re.findall(rf"{word}=(\d+)", text))) for word in ("rbytes", "wbytes"))
    return read, written


def _field(path: Path, name: str) -> int | None:
    try:
        return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name + " ")), None)
    except OSError:
        return None
