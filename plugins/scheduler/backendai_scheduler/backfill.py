"""Strict priority order, and while the head waits, whoever can run without delaying it, runs: EASY backfilling.

Source: D. A. Lifka, The ANL/IBM SP Scheduling System, JSSPP 1995; A. W. Mu'alem and D. G. Feitelson, Utilization, Predictability,
Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with Backfilling, IEEE TPDS 12(6), 2001.
"""

from __future__ import annotations

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Promise, QueueView

from backendai_scheduler.passing import Pass, Passing, Talk, urgent


class Backfill:
    """The scheduler ``backfill``."""

    Config = Passing

    def __init__(self, config: Passing | None = None) -> None:
        self._config = config or Passing()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        """Try one after the other; keep room for the first that find none, and go on with the rest."""
        going = Pass(view, self._config)
        for waiting in going.hopeful(urgent(view)):
            yield from going.attempt(waiting)
            if going.over:
                return

    @hookimpl
    def promises(self) -> frozenset[Promise]:
        """Promise everything, as long as room is kept for one session at least."""
        if not self._config.depth:
            return frozenset({Promise.EARLIER_FIRST})
        return frozenset(Promise)
