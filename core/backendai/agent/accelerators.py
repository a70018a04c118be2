"""What every machine has: processor time and memory, as two ordinary accelerator plugins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backendai.model.slots import CPU, MEM, SCALE, SlotDecl
from backendai.spec import hookimpl
from backendai.spec.accelerator_v21 import Device, Grant
from backendai.spec.runtime_v10 import Edits

GIB = 1 << 30
CGROUPS = Path("/sys/fs/cgroup")


class Cpu:
    """Lend the cores that this process may use."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """reserve: cores that are never lent."""

        reserve: float = 0.0

    def __init__(self, config: Config) -> None:
        self._config = config

    @hookimpl
    def slots(self) -> Sequence[SlotDecl]:
        """Declare ``cpu``."""
        return (CPU,)

    @hookimpl
    async def devices(self) -> Sequence[Device]:
        """Return one device: all cores together."""
        amount = max(0, round((usable_cores() - self._config.reserve) * SCALE))
        return (Device("cpu", {CPU.name: amount}),)

    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        """Ask for nothing: the container's limits do it."""
        return Edits()


class Memory:
    """Lend the memory that this process may use, but for a reserve."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """reserve: bytes that are never lent; None for a tenth, 1 GiB at most."""

        reserve: int | None = None

    def __init__(self, config: Config) -> None:
        self._config = config

    @hookimpl
    def slots(self) -> Sequence[SlotDecl]:
        """Declare ``mem``."""
        return (MEM,)

    @hookimpl
    async def devices(self) -> Sequence[Device]:
        """Return one device: all memory together."""
        total = usable_memory()
        reserve = min(GIB, total // 10) if self._config.reserve is None else self._config.reserve
        return (Device("mem", {MEM.name: max(0, total - reserve)}, model="RAM", memory=total),)

    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        """Ask for nothing: the container's limits do it."""
        return Edits()


def meminfo() -> dict[str, int]:
    """Read ``/proc/meminfo``, in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * (1024 if len(words) > 2 else 1) for words in lines}


def usable_cores() -> float:
    """Return how many cores this process may use, by its affinity and its control groups."""
    limits = [float(len(os.sched_getaffinity(0)))]
    for folder in _own_groups(""):
        quota, _, period = _word(folder / "cpu.max", "max 100000").partition(" ")
        if quota != "max":
            limits.append(int(quota) / int(period))
    for folder in _own_groups("cpu"):
        quota = _word(folder / "cpu.cfs_quota_us", "-1")
        if int(quota) > 0:
            limits.append(int(quota) / int(_word(folder / "cpu.cfs_period_us", "100000")))
    return min(limits)


def usable_memory() -> int:
    """Return how many bytes this process may use, by the machine's size and its control groups."""
    words = [_word(folder / "memory.max", "max") for folder in _own_groups("")]
    words += [_word(folder / "memory.limit_in_bytes", "max") for folder in _own_groups("memory")]
    return min([meminfo()["MemTotal"], *(int(word) for word in words if word != "max")])


def _own_groups(controller: str) -> list[Path]:
    """Return this process's control group and all above it: of version 1 for *controller*, of version 2 when it is empty."""
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            root = CGROUPS / controller
            own = root / path.lstrip("/")
            return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return []


def _word(path: Path, default: str) -> str:
    try:
        return path.read_text("ascii").strip() or default
    except OSError:  # the controller is not there
        return default
