"""How much of a group somebody has: the measure that the fair schedulers go by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from backendai.spec.scheduler_v10 import Amounts, QueueView, Waiting


def capacity(view: QueueView) -> Amounts:
    """Return the capacity of the whole group."""
    return view.total or tuple(map(sum, zip(*(node.capacity for node in view.nodes), strict=True))) or (0,) * len(view.slots)


def dominant(amounts: Amounts, total: Amounts) -> float:
    """Return the largest share that *amounts* are of *total*, 0 and up; a slot that the group has none of does not count."""
    return max((amount / of for amount, of in zip(amounts, total, strict=False) if of > 0), default=0.0)


def bands(ordered: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Yield the sessions of each priority; *ordered*: the highest first."""
    for _, band in groupby(ordered, key=attrgetter("priority")):
        yield list(band)


class Shares:
    """Each user's dominant share of the group: what all of the user's sessions hold together, and what was granted since."""

    def __init__(self, view: QueueView) -> None:
        self._total = capacity(view)
        kernels: dict[str, list[Amounts]] = {}
        for held in view.holding:
            kernels.setdefault(held.user, []).extend(held.kernels)
        self._held = {user: _sum(several) for user, several in kernels.items()}

    def of(self, user: str) -> float:
        """Return a user's dominant share, 0 to 1."""
        return dominant(self._held.get(user, ()), self._total)

    def grant(self, user: str, kernels: Sequence[Amounts]) -> None:
        """Count a session that was placed just now."""
        held = self._held.get(user)
        self._held[user] = _sum([*kernels, held] if held else kernels)


def _sum(kernels: Sequence[Amounts]) -> Amounts:
    return tuple(map(sum, zip(*kernels, strict=True)))
