"""Dominant resource fairness: whoever has the least of what he has most of goes next.

Source: A. Ghodsi, M. Zaharia, B. Hindman, A. Konwinski, S. Shenker, I. Stoica, Dominant Resource Fairness: Fair Allocation of
Multiple Resource Types, NSDI 2011, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Promise, QueueView, Waiting

from backendai_scheduler.passing import Pass, Passing, Talk, first_placed, urgent
from backendai_scheduler.shares import Shares, bands


class Drf:
    """The scheduler ``drf``."""

    @dataclass(frozen=True, slots=True)
    class Config(Passing):
        """bands: whether a higher priority goes before everybody's share; without, it orders each user's own sessions only.

        depth: how many sessions that find no room have it kept for them, so that nobody who passes them delays them. limit: how many may
        find no room before the rest waits for the next look. patience_s: how long a session waits whose start nobody can foretell
        before agents are kept for it.
        """

        bands: bool = True

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    @hookimpl
    def attempts(self, view: QueueView) -> Talk:
        """Try the earliest session of the user with the smallest dominant share, count what is granted, and look again."""
        going, shares = Pass(view, self._config), Shares(view)
        ordered = urgent(view)
        for band in bands(ordered) if self._config.bands else [ordered]:
            yield from _fill(band, going, shares)
            if going.over:
                return

    @hookimpl
    def promises(self) -> frozenset[Promise]:
        """Promise each user his own order, and with reservations that nobody starves."""
        return frozenset({Promise.EARLIER_FIRST, Promise.NOBODY_STARVES} if self._config.depth else {Promise.EARLIER_FIRST})


def _fill(sessions: Sequence[Waiting], going: Pass, shares: Shares) -> Talk:
    """Fill progressively: it is always the turn of the smallest share, of equals of whoever waits longest."""
    lines: dict[str, list[Waiting]] = {}
    for waiting in sessions:
        lines.setdefault(waiting.user, []).append(waiting)
    turns = [(shares.of(user), place, user, going.hopeful(line)) for place, (user, line) in enumerate(lines.items())]
    heapify(turns)
    while turns and not going.over:
        _, place, user, line = turns[0]
        if (placed := (yield from first_placed(line, going))) is None:
            heappop(turns)
        else:
            shares.grant(user, placed.kernels)
            heapreplace(turns, (shares.of(user), place, user, line))
