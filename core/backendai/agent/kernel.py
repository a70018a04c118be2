"""One kernel as this process knows it: its journal entry, its container as last seen, its output."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from backendai.agent.journal import Entry
from backendai.agent.output import Output
from backendai.agent.steps import Facts
from backendai.spec.runtime_v10 import Container, ContainerState
from backendai.wire.link import KernelOrder, Want

_AGE = {ContainerState.CREATED: 0, ContainerState.RUNNING: 1, ContainerState.EXITED: 2}


class Kernel:
    """Mutable, and owned by one task.

    changed: something is worth another look. container: as last seen. drained: its output is complete. again: an order to begin with
    once this life is over. failures: of the present step, in a row. begun: when the present phase of its beginning was first tried,
    by the monotonic clock. waiting: a long call for it that a new order may cut short. stale: something was seen that could not be
    believed, because we were acting. booted: see ``steps.Facts``.
    """

    def __init__(self, entry: Entry, output: Output) -> None:
        self.entry = entry
        self.output = output
        self.changed = asyncio.Event()
        self.container: Container | None = None
        self.drained = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None
        self.again: KernelOrder | None = None
        self.failures = 0
        self.begun: float | None = None
        self.waiting: asyncio.Task[None] | None = None
        self.stale = False
        self.booted = not entry.order.bootstrap
        self._acting = 0
        self._acted = float("-inf")

    @property
    def id(self) -> str:
        return self.entry.order.kernel

    @property
    def ends_at(self) -> float | None:
        """Return when its time is up, None while it does not count."""
        limit, started = self.entry.order.time_limit_s, self.entry.started_at
        return None if limit is None or started is None else started + limit

    def interrupt(self) -> None:
        """Have the next step decided anew, now."""
        self.changed.set()
        if self.waiting is not None:
            self.waiting.cancel()

    def facts(self) -> Facts:
        """Return what the next step depends on."""
        entry, ends_at = self.entry, self.ends_at
        return Facts(
            wanted=entry.order.want is Want.RUN, dropped=entry.dropped, state=entry.state,
            container=None if self.container is None else self.container.state, made=bool(entry.container), failed=bool(entry.error),
            reserved=entry.grants is not None, image=bool(entry.image), stopping=entry.stopping,
            overdue=ends_at is not None and time.time() >= ends_at, drained=self.drained.is_set(),
            booted=self.booted)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Mark a call that changes the container: what was seen before it ended tells nothing about absence."""
        self._acting += 1
        try:
            yield
        finally:
            self._acting -= 1
            self._acted = time.monotonic()

    def see(self, seen: Container | None, at: float) -> None:
        """Take in how a look that began *at* (monotonic) saw the container. It only ever grows older; absence must be fresh."""
        if seen is None or self.container is None:
            if seen is self.container:
                return
            if self._acting or at <= self._acted:
                self.stale = True
                return
        elif _AGE[seen.state] < _AGE[self.container.state] or (seen == self.container):
            return
        before, self.container = self.container, seen
        if before is None or seen is None or before.state is not seen.state:
            self.changed.set()
