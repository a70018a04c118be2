"""First come, first served: higher priority first, then whoever asked earlier."""

from __future__ import annotations

from dataclasses import dataclass

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Promise, QueueView

from backendai_scheduler.passing import Talk, in_turn, urgent


class Fifo:
    """The scheduler ``fifo``."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """overtake: whether sessions that fit may pass one that waits for room; a large one may then wait for long."""

        overtake: bool = False

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        """Try one after the other; stop at the first that waits for room, unless others may overtake it.

        A session that no agent could ever hold keeps nobody waiting.
        """
        return in_turn(view, urgent(view), self._config.overtake)

    @hookimpl
    def promises(self) -> frozenset[Promise]:
        """Promise everything, unless others may overtake."""
        return frozenset({Promise.EARLIER_FIRST}) if self._config.overtake else frozenset(Promise)
