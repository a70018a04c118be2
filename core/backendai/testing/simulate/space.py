"""What is free, counted once more beside the brain: to see at once that a plan is not worth its time, and that nothing is given twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backendai.model.slots import Slots
from backendai.sokovan.snapshot import Agent, Lease


class Oversubscribed(AssertionError):
    """A plan gave an agent more than it has. That is a fault of the brain, and never a result."""


class Space:
    """The free slots of every node."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._slots = sorted({slot for agent in agents for slot in agent.capacity})
        self._rows = {agent.id: row for row, agent in enumerate(agents)}
        self._free: NDArray[np.int64] = np.array([self._vector(agent.capacity) for agent in agents], dtype=np.int64)
        self._vectors: dict[int, tuple[Slots, NDArray[np.int64]]] = {}  # by the identity of what is kept beside it
        self._full: dict[int, tuple[Slots, ...]] = {}  # who found no room since somebody ended

    def take(self, lease: Lease) -> None:
        """Take what a lease holds; raise ``Oversubscribed`` when a node has not so much."""
        for kernel, agent in zip(lease.kernels, lease.agents, strict=True):
            row = self._free[self._rows[agent]]
            row -= self._of(kernel)
            if row.min() < 0:
                raise Oversubscribed(f"{agent} holds more than it has after {lease.id}")

    def give_back(self, lease: Lease) -> None:
        """Give back what a lease held."""
        for kernel, agent in zip(lease.kernels, lease.agents, strict=True):
            self._free[self._rows[agent]] += self._of(kernel)
        self._full.clear()

    def may_hold(self, kernels: tuple[Slots, ...]) -> bool:
        """Tell whether each container alone fits some node. False is certain: nothing of this can start now."""
        if id(kernels) in self._full:
            return False
        for kernel in {id(kernel): kernel for kernel in kernels}.values():
            if not (self._free >= self._of(kernel)).all(axis=1).any():
                self._full[id(kernels)] = kernels
                return False
        return True

    def _of(self, kernel: Slots) -> NDArray[np.int64]:
        known = self._vectors.get(id(kernel))
        if known is None:
            known = self._vectors[id(kernel)] = kernel, np.array(self._vector(kernel), dtype=np.int64)
        return known[1]

    def _vector(self, amounts: Slots) -> list[int]:
        return [amounts.get(slot, 0) for slot in self._slots]
