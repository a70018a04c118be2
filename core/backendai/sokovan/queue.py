"""The queue's side of a cluster: who waits, in the order of asking, and who asks for the same."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backendai.model.session import Wishes
from backendai.sokovan.fleet import vectors
from backendai.sokovan.snapshot import PLAIN, Array, Request, frozen
from backendai.spec.scheduler_v10 import Amounts, Waiting

STALE = 1000  # shapes that may be remembered beyond those in use
TYPICAL = 128  # different containers in what a selector is told to be typical


class Queue:
    """Waiting sessions, sorted, with the number of their shape."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self.waiting: dict[str, Waiting] = {}
        self._claims: set[str] = set()
        self._booked: set[str] = set()
        self._keys: list[tuple[float, str]] = []
        self.views: list[Waiting] = []
        self._slots: tuple[str, ...] = ()
        self._shapes: dict[tuple[tuple[Amounts, ...], object, str, object], int] = {}
        self._frozen: tuple[int, Mapping[tuple[Amounts, ...], None]] = (0, {})
        self._asked: Counter[Amounts] = Counter()
        self._mixed = 0  # how many had been asked for when the mix was worked out
        self._mix: tuple[Array | None, NDArray[np.float64] | None] = None, None

    def add(self, request: Request) -> None:
        """Let a session wait that does not yet."""
        kernels = vectors(request.kernels, self._slots)
        self._asked.update(kernels)
        key = (request.submitted_at, request.id)
        at = len(self._keys)
        if at and key < self._keys[-1]:
            at = bisect_left(self._keys, key)
        self._keys.insert(at, key)
        view = self.waiting[request.id] = self._view(request, kernels)
        self.views.insert(at, view)
        self.requests[request.id] = request
        if request.claim:
            self._claims.add(request.id)
        if request.booking:
            self._booked.add(request.id)
        if len(self._shapes) > 4 * len(self.views) + STALE:  # most are those of sessions that are gone
            self._number()

    def remove(self, id: str) -> Request | None:
        """Let a session wait no more; return it if it did."""
        if (request := self.requests.pop(id, None)) is None:
            return None
        at = bisect_left(self._keys, (request.submitted_at, id))
        del self._keys[at], self.views[at], self.waiting[id]
        self._claims.discard(id)
        self._booked.discard(id)
        return request

    def widen(self, slots: tuple[str, ...]) -> None:
        """Write every request by other slots."""
        at = [self._slots.index(name) if name in self._slots else None for name in slots]
        self._asked = Counter({tuple(a[i] if i is not None else 0 for i in at): n for a, n in self._asked.items()})
        self._slots, self._mixed = slots, 0
        self._number()

    def asked(self) -> Mapping[tuple[Amounts, ...], None]:
        """Return every list of kernels that is waited for, and some that were."""
        if len(self._shapes) != self._frozen[0]:
            self._frozen = len(self._shapes), dict.fromkeys(key[0] for key in self._shapes)
        return self._frozen[1]

    @property
    def claims(self) -> tuple[str, ...]:
        """Return who has a claim, in the order of asking."""
        return tuple(sorted(self._claims, key=lambda name: (self.requests[name].submitted_at, name)))

    @property
    def booked(self) -> tuple[str, ...]:
        """Return who waits for an advance reservation."""
        return tuple(sorted(self._booked))

    def mix(self) -> tuple[Array | None, NDArray[np.float64] | None]:
        """Return what is typically asked for, and how often; worked out again when a twentieth has been added."""
        total = self._asked.total()
        if total and total * 20 > self._mixed * 21:
            common = sorted(self._asked.items(), key=lambda item: (-item[1], item[0]))[:TYPICAL]
            counts = np.array([count for _, count in common], dtype=np.float64)
            table = np.array([amounts for amounts, _ in common], dtype=np.int64).reshape(len(common), len(self._slots))
            weights = counts / counts.sum()
            weights.setflags(write=False)
            self._mixed, self._mix = total, (frozen(table), weights)
        return self._mix

    def _number(self) -> None:
        self._shapes, self._frozen = {}, (0, {})
        self.views = [self._view(r, vectors(r.kernels, self._slots)) for r in (self.requests[id] for _, id in self._keys)]
        self.waiting = {view.id: view for view in self.views}

    def _view(self, request: Request, kernels: tuple[Amounts, ...]) -> Waiting:
        key = (kernels, wish_key(request.wishes), request.booking, request.claim and request.id)
        shape = self._shapes.setdefault(key, len(self._shapes) + 1)
        return Waiting(request.id, request.user, request.project, request.priority, request.submitted_at, kernels, request.time_limit_s,
                       request.domain, shape)


def wish_key(wishes: Wishes) -> object:
    """Return what stands for wishes in a dictionary."""
    if wishes is PLAIN or wishes == PLAIN:
        return None
    return (wishes.agents, wishes.avoid, tuple(sorted(wishes.labels.items())), wishes.arrange, wishes.zone, wishes.one_agent, wishes.strict)
