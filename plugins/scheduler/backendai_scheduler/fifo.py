"""First come, first served: higher priority first, then whoever asked earlier."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView


class Fifo:
    """The scheduler ``fifo``."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """overtake: whether sessions that fit may pass one that waits for room; a large one may then wait for long."""

        overtake: bool = False

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    @hookimpl
    def attempts(self, view: QueueView) -> Generator[Attempt, Outcome, None]:
        """Try one after the other; stop at the first that waits for room, unless others may overtake it.

        A session that no agent could ever hold keeps nobody waiting.
        """
        for waiting in sorted(view.waiting, key=lambda w: (-w.priority, w.submitted_at, w.id)):
            outcome = yield Attempt(waiting.id)
            if outcome is Outcome.BLOCKED and not self._config.overtake:
                return
