"""Jobs and nodes made to fit each other: splitting, slots that no node has, and who could never run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from backendai.model.session import Wishes
from backendai.model.slots import Slots
from backendai.sokovan.snapshot import Agent

_Key = tuple[tuple[tuple[str, int], ...], ...]


def key_of(kernels: Sequence[Slots]) -> _Key:
    """Return *kernels* as a key of a dictionary."""
    return tuple([tuple(kernel.items()) for kernel in kernels])


class Splitter:
    """Cuts what is larger than a node into several containers, and leaves out slots that no node has.

    A job larger than the largest node gets as many containers of the commonest node's size as it fills, and one for the rest. Its other
    slots are shared out by the same parts.
    """

    def __init__(self, agents: Sequence[Agent], unit: str, splits: bool) -> None:
        self._unit = unit
        self._splits = splits
        self._has = {slot for agent in agents for slot, amount in agent.capacity.items() if amount}
        sizes = Counter(agent.capacity.get(unit, 0) for agent in agents if agent.capacity.get(unit))
        self._largest = max(sizes, default=0)
        self._common = max(sizes, key=lambda size: (sizes[size], size), default=0)
        self._known: dict[_Key, tuple[Slots, ...]] = {}
        self._left: set[str] = set()

    def split(self, kernels: tuple[Slots, ...]) -> tuple[Slots, ...]:
        """Return the containers; equal jobs get the same objects."""
        key = key_of(kernels)
        if key not in self._known:
            self._known[key] = tuple(part for kernel in kernels for part in self._parts(kernel))
        return self._known[key]

    def notes(self) -> tuple[str, ...]:
        """Return a sentence on slots that were left out."""
        return (f"The nodes have no {', '.join(sorted(self._left))}, so it is not counted.",) if self._left else ()

    def _parts(self, kernel: Slots) -> Sequence[Slots]:
        self._left |= kernel.keys() - self._has
        wants = {slot: amount for slot, amount in kernel.items() if slot in self._has}
        whole = wants.get(self._unit, 0)
        if not self._splits or whole <= self._largest:
            return [wants]
        full = {slot: amount * self._common // whole for slot, amount in wants.items()}
        count, rest = divmod(whole, self._common)
        last = {slot: amount - full[slot] * count for slot, amount in wants.items()}
        return [full] * count + ([last] if rest else [])


class Fit:
    """Tells whether the nodes could hold a job if nothing else ran."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        self._known: dict[tuple[_Key, int], bool] = {}

    def holds(self, kernels: tuple[Slots, ...], wish: Wishes) -> bool:
        """Place the containers one after the other, the largest first, each on the first node with room."""
        key = key_of(kernels), id(wish)
        if key not in self._known:
            self._known[key] = self._try(kernels, wish)
        return self._known[key]

    def _try(self, kernels: tuple[Slots, ...], wish: Wishes) -> bool:
        free = [dict(agent.capacity) for agent in self._agents if _may(agent, wish)]
        at = 0  # nodes before it have no room for a container as large as this one
        last: Slots = {}
        for kernel in sorted(kernels, key=lambda slots: sorted(slots.items()), reverse=True):
            at = at if kernel == last else 0
            while at < len(free) and any(free[at].get(slot, 0) < amount for slot, amount in kernel.items()):
                at += 1
            if at == len(free):
                return False
            for slot, amount in kernel.items():
                free[at][slot] -= amount
            last = kernel
        return True


def _may(agent: Agent, wish: Wishes) -> bool:
    labels: Mapping[str, str] = wish.labels
    return (not wish.agents or agent.name in wish.agents) and all(agent.labels.get(name) == value for name, value in labels.items())
