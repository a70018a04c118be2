"""The agents' side of a cluster: what each has, has lent, and on which device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from backendai.sokovan.memory import LONGEST, Memory
from backendai.sokovan.snapshot import Agent, Array, Slots, Units, frozen
from backendai.spec.scheduler_v10 import Node


@dataclass(frozen=True, slots=True)
class Frozen:
    """What changes of agents from moment to moment, for a snapshot: nobody writes to it any more."""

    nodes: tuple[Node, ...]
    free: Array
    kernels: Array
    last_used: Array
    devices: Mapping[int, Array]


class Fleet:
    """Every agent, with a row in arrays that follow each event in place; rows are laid out anew when agents come or go."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}  # as given; what they lend is below
        self.used: dict[str, dict[str, int]] = {}
        self._left: dict[str, dict[str, dict[str, int]]] = {}  # agent to fraction slot to device to what is free of it
        self.numbers: dict[str, int] = {}  # of every agent ever seen; rows change, numbers do not
        self.slots: tuple[str, ...] = ()
        self.rows: dict[str, int] = {}
        self._stale = True
        self.frozen: Frozen | None = None
        self._touched: set[str] = set()  # agents whose row in ``free`` and node are old
        self.memory = Memory()
        self._known: tuple[Agent, ...] | None = None
        self._counts: dict[str, int] = {}
        self._lasts: dict[str, int] = {}

    def put(self, agent: Agent) -> bool:
        """Take in an agent, or what has changed of one; tell whether its devices are new, and what is lent of them must be said again."""
        before = self.agents.get(agent.id)
        self.agents[agent.id] = agent
        self._known = None
        self.number(agent.id)
        self.used[agent.id] = dict(agent.used)
        fresh = before is None or before.devices != agent.devices
        if fresh:
            self._left[agent.id] = {slot: dict(devices) for slot, devices in agent.devices.items()}
        self._counts[agent.id], self._lasts[agent.id] = agent.kernels, agent.last_used
        keeps = before is not None and replace(before, used=agent.used, kernels=0, last_used=0) == replace(agent, kernels=0, last_used=0)
        if keeps and not self._stale:
            self._touch(agent.id, True)
        else:
            self._stale = True
        return fresh and bool(agent.devices)

    def number(self, id: str) -> int:
        """Return the number of an agent, also of one that is yet to come."""
        if (known := self.numbers.get(id)) is None:
            known = self.numbers[id] = len(self.numbers)
            self._stale = True
        return known

    def drop(self, id: str) -> None:
        """Forget an agent."""
        if self.agents.pop(id, None) is not None:
            self._known = None
            del self.used[id], self._left[id], self._counts[id], self._lasts[id]
            self._stale = True

    def lend(self, agent: str, amounts: Slots, units: Units, sign: int, number: int = 0, counted: bool = False) -> None:
        """Take a kernel's amounts from an agent (sign 1), or give them back (-1). counted: ``used`` and ``kernels`` have them."""
        if (used := self.used.get(agent)) is None:
            return
        if not counted:
            for slot, amount in amounts.items():
                if amount:
                    used[slot] = used.get(slot, 0) + sign * amount
            self._counts[agent] += sign
        if units:
            left = self._left[agent]
            for slot, devices in units.items():
                for device, amount in devices.items():
                    if device in (free := left.get(slot, {})):
                        free[device] -= sign * amount
        if number:
            self._lasts[agent] = number
        self._touch(agent, sign < 0)

    def freed(self, agents: Iterable[str]) -> None:
        """Note that what was kept on some agents no longer is."""
        for agent in agents:
            self._touch(agent, True)

    def _touch(self, agent: str, freed: bool) -> None:
        self._touched.add(agent)
        if (row := self.rows.get(agent)) is not None and not self._stale:
            if len(self.memory.changed) > LONGEST:
                self.memory = Memory()
            self.memory.changed.append(row)
            if freed:
                self.memory.freed.append(row)

    def now(self, id: str) -> Agent:
        """Return an agent with what it lends now."""
        return replace(self.agents[id], used=dict(self.used[id]), kernels=self._counts[id], last_used=self._lasts[id])

    def known(self) -> tuple[Agent, ...]:
        """Return every agent as it was given, in the order of ids."""
        if self._known is None:
            self._known = tuple([self.agents[id] for id in sorted(self.agents)])
        return self._known

    def widen(self, slots: tuple[str, ...]) -> None:
        """Lay the columns out anew."""
        self.slots, self._stale = slots, True

    def settle(self) -> None:
        """Bring the arrays up to what happened."""
        if self._stale:
            self._lay_out()
        if self._touched:
            self.frozen = None
        for id in self._touched:
            if (row := self.rows.get(id)) is not None:
                self._fill(row, id)
        self._touched.clear()

    def freeze(self) -> Frozen:
        """Return what is lent now; the same object while nothing changes."""
        self.settle()
        if self.frozen is None:
            self.frozen = Frozen(tuple(self.nodes), frozen(self.free.copy(order="F")), frozen(self.kernels.copy()),
                                 frozen(self.last_used.copy()), {index: frozen(table.copy()) for index, table in self.devices.items()})
        return self.frozen

    def rows_by_number(self) -> Array:
        """Return the row of each agent by its number, -1 for those without."""
        table = np.full(len(self.numbers), -1, dtype=np.int64)
        for id, row in self.rows.items():
            table[self.numbers[id]] = row
        return table

    def _lay_out(self) -> None:
        usable = sorted((agent for agent in self.agents.values() if not agent.why), key=lambda agent: agent.id)
        self.rows = {agent.id: row for row, agent in enumerate(usable)}
        self.memory, self.frozen = Memory(), None
        count, width = len(usable), len(self.slots)
        caps = [vector(agent.capacity, self.slots) for agent in usable]
        self._caps = caps
        self.capacity = frozen(np.array(caps, dtype=np.int64).reshape(count, width).copy(order="F"))
        self.total = tuple(self.capacity.sum(axis=0).tolist())
        used = np.array([vector(self.used[agent.id], self.slots) for agent in usable], dtype=np.int64).reshape(count, width)
        self.free = np.clip(self.capacity - used, 0, self.capacity).copy(order="F")  # a shrunk agent may hold more than it has
        self.nodes = [Node(agent.id, c, tuple(f)) for agent, c, f in zip(usable, caps, self.free.tolist(), strict=True)]
        self.kernels = np.array([self._counts[agent.id] for agent in usable], dtype=np.int64)
        self.last_used = np.array([self._lasts[agent.id] for agent in usable], dtype=np.int64)
        self.names = tuple(agent.name for agent in usable)
        self.labels = tuple(agent.labels for agent in usable)
        self.idle = tuple(sorted((agent.name, agent.why) for agent in self.agents.values() if agent.why))
        self.number_rows = self.rows_by_number()
        self._lay_out_devices(usable)
        self._touched.clear()
        self._stale = False

    def _lay_out_devices(self, usable: list[Agent]) -> None:
        self.devices: dict[int, Array] = {}
        self.device_names: dict[int, tuple[tuple[str, ...], ...]] = {}
        self.device_capacity: dict[int, Array] = {}
        for slot in sorted({slot for agent in usable for slot in agent.devices}):
            if slot not in self.slots:
                continue
            index = self.slots.index(slot)
            names = tuple(tuple(sorted(agent.devices.get(slot, {}))) for agent in usable)
            width = max(map(len, names))
            table = np.full((len(usable), width), -1, dtype=np.int64)
            whole = table.copy()
            for row, (agent, devices) in enumerate(zip(usable, names, strict=True)):
                left = self._left[agent.id].get(slot, {})
                table[row, :len(devices)] = [max(0, left[device]) for device in devices]
                whole[row, :len(devices)] = [agent.devices[slot][device] for device in devices]
            self.devices[index], self.device_names[index], self.device_capacity[index] = table, names, frozen(whole)

    def _fill(self, row: int, id: str) -> None:
        used, capacity = self.used[id], self._caps[row]
        free = tuple([max(0, min(c, c - used.get(slot, 0))) for slot, c in zip(self.slots, capacity, strict=True)])
        self.free[row] = free
        self.nodes[row] = Node(id, capacity, free)
        self.kernels[row], self.last_used[row] = self._counts[id], self._lasts[id]
        for index, table in self.devices.items():
            names = self.device_names[index][row]
            left = self._left[id].get(self.slots[index], {})
            table[row, :len(names)] = [max(0, left[device]) for device in names]


def vector(amounts: Slots, slots: tuple[str, ...]) -> tuple[int, ...]:
    """Return amounts by slot index."""
    return tuple([amounts.get(name, 0) for name in slots])


def vectors(kernels: Iterable[Slots], slots: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the amounts of each kernel; those of one role are often one and the same object."""
    seen: dict[int, tuple[int, ...]] = {}
    kept: list[Mapping[str, int]] = []  # or an id could be used again
    result = []
    for kernel in kernels:
        if (known := seen.get(id(kernel))) is None:
            known = seen[id(kernel)] = vector(kernel, slots)
            kept.append(kernel)
        result.append(known)
    return tuple(result)
