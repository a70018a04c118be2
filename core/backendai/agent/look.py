"""Looking at what the runtime really has: on every hint, on request, and now and then anyway."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from backendai.agent.health import Health, explain
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Container, Runtime

log = logging.getLogger(__name__)
LOOK_S = 45.0  # a look is 30 s at most; another may be under way
RETRY_S = 1.0  # after a look that failed, doubled up to the resync interval
EVENTS_RETRY_S = 5.0
Seen = Callable[[Sequence[Container], float], None]


class Lookout:
    """One look at a time, however many ask. seen: is told every container with our labels, and when the look began (monotonic)."""

    def __init__(self, runtime: Runtime, labels: Mapping[str, str], health: Health, resync_s: float, seen: Seen) -> None:
        self._runtime = runtime
        self._labels = labels
        self._health = health
        self._resync_s = resync_s
        self._seen = seen
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self.looked = asyncio.Event()  # at least once

    def ask(self) -> None:
        """Ask for a look soon."""
        self._asked.set()

    async def look(self) -> None:
        """Wait for a look that begins after now; raise ``Failure('unavailable')`` when it fails."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        async with asyncio.timeout(LOOK_S):
            await future

    async def run(self) -> None:
        """Look for ever."""
        pause = RETRY_S
        while True:
            waiting, self._waiting = self._waiting, []
            self._asked.clear()
            try:
                await self._once()
            except Exception as error:
                self._health.ill(error)
                for future in waiting:
                    if not future.done():
                        future.set_exception(Failure("unavailable", explain(error)))
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._resync_s)
            else:
                pause = RETRY_S
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(self._resync_s, RETRY_S) if self._health.why else self._resync_s):
                        await self._asked.wait()

    async def listen(self) -> None:
        """Take every event of the runtime as a hint to look, for ever."""
        while True:
            try:
                async with aclosing(cast(Any, self._runtime.events(self._labels))) as events:
                    async for _ in events:
                        self.ask()
            except Exception as error:
                log.info("the runtime's events ended: %s", explain(error))
            self.ask()
            await asyncio.sleep(EVENTS_RETRY_S)

    async def _once(self) -> None:
        if self._health.why or self._health.capabilities is None:
            self._health.well(await self._runtime.probe())
        began = time.monotonic()
        found = await self._runtime.list(self._labels)
        self._health.well()
        self._seen(found, began)
        self.looked.set()
