"""What every part of the agent shares, and what waits to be told to the manager."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from backendai.agent.config import AgentConfig
from backendai.agent.container import Surroundings
from backendai.agent.devices import Devices
from backendai.agent.health import Health
from backendai.agent.journal import Journal
from backendai.agent.networks import Networks
from backendai.model.units import format_bytes
from backendai.spec.runtime_v10 import Progress, Runtime
from backendai.wire.link import Usage

ADVANCE_S = 0.5  # between two words about one kernel's progress


class Outbox:
    """What the link has yet to say. Only the newest of each matters, so it never grows beyond what there is."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._reports: dict[str, None] = {}
        self._advances: dict[str, str] = {}
        self._beat = False
        self._advanced: dict[str, float] = {}

    def tell(self, kernel: str) -> None:
        """Report *kernel* soon."""
        self._reports[kernel] = None
        self.wake.set()

    def advance(self, kernel: str, progress: Progress) -> None:
        """Say how far a long step is, not too often."""
        now = time.monotonic()
        if now - self._advanced.get(kernel, float("-inf")) >= ADVANCE_S:
            self._advanced[kernel] = now
            self._advances[kernel] = describe(progress)
            self.wake.set()

    def beat(self) -> None:
        """Send a beat now: the health or the capacity has changed."""
        self._beat = True
        self.wake.set()

    def take(self) -> tuple[list[str], dict[str, str], bool]:
        """Return the kernels to report, the advances, and whether to beat; all of it is then said."""
        self.wake.clear()
        taken = list(self._reports), self._advances, self._beat
        self._reports, self._advances, self._beat = {}, {}, False
        for kernel in taken[0]:
            self._advanced.pop(kernel, None)
        return taken


@dataclass(slots=True)
class Node:
    """This agent. id: its own lasting one. cluster: whose kernels it holds. init: the static init, None with the reason in no_init."""

    config: AgentConfig
    id: str
    cluster: str
    runtime_name: str
    runtime: Runtime
    devices: Devices
    networks: Networks
    journal: Journal
    health: Health
    init: Path | None = None
    no_init: str = ""
    plugins: tuple[dict[str, str], ...] = ()
    outbox: Outbox = field(default_factory=Outbox)
    usage: dict[str, Usage] = field(default_factory=dict)
    machine: Usage | None = None
    mount_threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))  # a dead file server blocks only these

    def surroundings(self) -> Surroundings:
        """Return what the shape of a container depends on besides its order."""
        return Surroundings(self.id, self.cluster, self.config.scratch, self.init, self.config.mount_roots, self.config.allow_caps)

    def log_path(self, kernel: str) -> Path:
        """Return where the output of *kernel* is kept."""
        return self.config.logs / f"{kernel}.log"


def describe(progress: Progress) -> str:
    """Write *progress* for people: ``Pulling layer 3 of 7, 12m of 40m``."""
    if progress.done is None:
        return progress.text
    total = "" if progress.total is None else f" of {format_bytes(progress.total)}"
    return f"{progress.text}, {format_bytes(progress.done)}{total}"
