"""What every part of the manager is handed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backendai.manager.activity import Activity
from backendai.manager.bus import Bus
from backendai.manager.config import ManagerConfig
from backendai.manager.possible import KnownImages
from backendai.manager.prospects import Prospects
from backendai.manager.sights import Sights
from backendai.manager.store.admission import Limits
from backendai.manager.store.groups import Groups
from backendai.manager.store.owners import Places
from backendai.model.ids import make_id

if TYPE_CHECKING:
    from backendai.manager.auth import TokenCache
    from backendai.manager.live import Live
    from backendai.manager.metrics import Metrics
    from backendai.manager.possible import Capacities
    from backendai.manager.store.engine import Store
    from backendai.manager.store.sessions import SessionLoader
    from backendai.plugin.host import PluginHost

log = logging.getLogger(__name__)


class Tasks:
    """Owner of the work that outlives a request: notices to plugins, reports to monitors."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def at_home(self) -> None:
        """Remember the loop that this is called in, so that other threads can hand work over."""
        self._loop = asyncio.get_running_loop()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run *work*; log what it raises. Called in another thread it is handed to the loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is None:
                work.close()
                raise
            self._loop.call_soon_threadsafe(self.spawn, work, name)
            return
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)

    async def close(self, within_s: float) -> None:
        """Wait for what still runs, then cancel the rest."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the task %s failed", task.get_name(), exc_info=error)


@dataclass(slots=True)
class Context:
    """The manager's parts. clock: seconds since the epoch, UTC. cluster: this cluster's id. heartbeat: the orchestrator sets it."""

    config: ManagerConfig
    store: Store
    host: PluginHost
    bus: Bus
    live: Live
    metrics: Metrics
    tokens: TokenCache
    sessions: SessionLoader
    capacities: Capacities
    places: Places = field(default_factory=Places)
    groups: Groups = field(default_factory=Groups)
    limits: Limits = field(default_factory=Limits)
    images: KnownImages = field(default_factory=KnownImages)
    activity: Activity = field(default_factory=Activity)
    cluster: str = ""
    heartbeat: float = 0.0  # when the orchestrator last looked at everything
    tasks: Tasks = field(default_factory=Tasks)
    sights: Sights = field(default_factory=Sights)
    prospects: Prospects = field(default_factory=Prospects)
    clock: Callable[[], float] = time.time

    def new_id(self) -> str:
        """Make an identifier from the clock."""
        return make_id(int(self.clock() * 1000), secrets.randbits(80))
