"""Last come, first served: higher priority first, then whoever asked last."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import QueueView

from backendai_scheduler.passing import Talk, in_turn


class Lifo:
    """The scheduler ``lifo``."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """overtake: whether sessions that fit may pass one that waits for room."""

        overtake: bool = False

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        """Try one after the other, the newest first; stop at the first that waits for room, unless others may overtake it."""
        newest = list(reversed(view.waiting))
        newest.sort(key=attrgetter("priority"), reverse=True)
        return in_turn(view, newest, self._config.overtake)
