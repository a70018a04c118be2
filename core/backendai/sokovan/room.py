"""Where there is room: the agents' free slots while a plan is being made, and the selector's choice among those that fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backendai.sokovan.snapshot import Array, Snapshot
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView
from backendai.spec.scheduler_v10 import Amounts, Outcome


class BadScores(Exception):
    """The selector's answer is not one finite number for each agent."""


class Room:
    """The free slots of a snapshot, less what has been granted since. It never goes below zero."""

    def __init__(self, snapshot: Snapshot, selector: AgentSelector) -> None:
        self.agents = tuple(node.id for node in snapshot.view.nodes)
        self.free = snapshot.free.copy()
        self._slots = snapshot.view.slots
        self._capacity = snapshot.capacity
        self._kernels = snapshot.kernels.copy()
        self._last_used = snapshot.last_used.copy()
        self._number = int(snapshot.last_used.max(initial=0))
        self._selector = selector
        self._full: dict[tuple[tuple[Amounts, ...], frozenset[str]], Outcome] = {}

    def place(self, kernels: tuple[Amounts, ...], avoid: frozenset[str]) -> tuple[str, ...] | Outcome:
        """Grant every kernel a place and return the agents in order, or grant nothing and say why not.

        Nothing is given back while a plan is made, so who found no room once need not be tried again.
        """
        if (known := self._full.get((kernels, avoid))) is not None:
            return known
        free, counts, last_used, number = self.free.copy(), self._kernels.copy(), self._last_used.copy(), self._number
        chosen: list[str] = []
        for amounts in kernels:
            at = self._choose(np.array(amounts, dtype=np.int64), avoid)
            if at is None:
                self.free, self._kernels, self._last_used, self._number = free, counts, last_used, number
                outcome = self._full[kernels, avoid] = Outcome.BLOCKED if self._ever(kernels) else Outcome.IMPOSSIBLE
                return outcome
            self._number += 1
            self.free[at] -= np.array(amounts, dtype=np.int64)
            self._kernels[at] += 1
            self._last_used[at] = self._number
            chosen.append(self.agents[at])
        return tuple(chosen)

    def _choose(self, request: Array, avoid: frozenset[str]) -> int | None:
        """Return the row of the agent that takes *request*."""
        fits = (self.free >= request).all(axis=1)  # the rest could not hold it
        if avoid:  # the scheduler keeps these for somebody else
            fits &= np.array([agent not in avoid for agent in self.agents], dtype=bool)
        rows = np.flatnonzero(fits)
        if len(rows) <= 1:
            return int(rows[0]) if len(rows) else None
        view = PlacementView(
            slots=self._slots, agents=tuple(self.agents[row] for row in rows), request=_lent(request), capacity=_lent(self._capacity[rows]),
            free=_lent(self.free[rows]), kernels=_lent(self._kernels[rows]), last_used=_lent(self._last_used[rows]))
        return int(rows[int(np.argmax(_checked(self._selector.scores(view), len(rows))))])

    def _ever(self, kernels: Sequence[Amounts]) -> bool:
        """Tell whether each kernel fits some agent, were it empty; gangs that fit only one by one count as waiting."""
        return all(bool((self._capacity >= np.array(amounts, dtype=np.int64)).all(axis=1).any()) for amounts in kernels)


def _checked(scores: object, count: int) -> NDArray[np.float64]:
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadScores(f"the scores are not numbers: {error}") from error
    if array.shape != (count,):
        raise BadScores(f"scores of shape {array.shape} for {count} agents")
    if not np.isfinite(array).all():
        raise BadScores("a score is not finite")
    return array


def _lent(array: Array) -> Array:
    """Return *array*, which is a copy already, as the plugin may have it."""
    array.setflags(write=False)
    return array
