"""What is free at one moment, by agent and slot, and of each device: whether a container fits, and what is left with it on board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.model.slots import SCALE
from backendai.sokovan.snapshot import Array, Snapshot
from backendai.spec.scheduler_v10 import Amounts

Bools = NDArray[np.bool_]
Parts = tuple[tuple[int, int, int], ...]  # slot index, device index, amount


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """What one container needs. pairs: slot index and amount, of those above zero. parts: those among them that have devices."""

    amounts: Amounts
    pairs: tuple[tuple[int, int], ...]
    parts: tuple[tuple[int, int], ...]
    vector: Array

    @classmethod
    def of(cls, amounts: Amounts, devices: Mapping[int, Array]) -> Want:
        """Read amounts by slot index."""
        pairs = tuple([(index, amount) for index, amount in enumerate(amounts) if amount])
        vector = np.array(amounts, dtype=np.int64)
        vector.setflags(write=False)
        return cls(amounts, pairs, tuple([pair for pair in pairs if pair[0] in devices]), vector)


class Table:
    """Free amounts [A, S], column by column, and free devices [A, D] by slot index. A device that an agent lacks is -1."""

    __slots__ = ("devices", "free")

    def __init__(self, free: Array, devices: Mapping[int, Array]) -> None:
        self.free = free.copy(order="F")
        self.devices = {index: table.copy() for index, table in devices.items()}

    @classmethod
    def now(cls, snapshot: Snapshot) -> Table:
        """Return what is free in a snapshot."""
        return cls(snapshot.free, snapshot.devices)

    @classmethod
    def empty(cls, snapshot: Snapshot) -> Table:
        """Return what would be free if nobody held anything."""
        return cls(snapshot.capacity, snapshot.device_capacity)

    def copy(self) -> Table:
        """Return the same, to be changed."""
        return Table(self.free, self.devices)

    def take(self, row: int, want: Want, parts: Parts = (), sign: int = 1) -> None:
        """Take from an agent what a container needs, or give it back (sign -1)."""
        free = self.free
        for index, amount in want.pairs:
            free[row, index] -= sign * amount
        for index, device, amount in parts:
            self.devices[index][row, device] -= sign * amount

    def keep(self, row: int, want: Want, whole: bool = False) -> Parts:
        """Take for somebody who is yet to come, although it may not be free yet; return the devices that are kept for it.

        What is short goes below zero, so that whatever is freed first is kept as well. whole: nobody else gets any device there: which
        of them it will have is open, and others could leave it parts that do not make a whole.
        """
        parts: list[tuple[int, int, int]] = []
        for index, amount in want.parts:
            free = self.devices[index][row]
            there = np.flatnonzero(free >= 0)
            if whole:
                parts += [(index, device, int(free[device])) for device in there.tolist()]
                continue
            if amount < SCALE:
                enough = there[free[there] >= amount]
                order = enough[np.argsort(free[enough], kind="stable")] if len(enough) else there[np.argsort(-free[there], kind="stable")]
            else:
                order = there[np.argsort(-free[there], kind="stable")]
            for device in order.tolist():
                piece = min(amount, SCALE)
                parts.append((index, device, min(piece, int(free[device]))))
                amount -= piece
                if amount <= 0:
                    break
        self.take(row, want, tuple(parts))
        return tuple(parts)


def fits(tables: Sequence[Table], want: Want, mask: Bools | None = None) -> Bools:
    """Tell for each agent whether a container fits it in every one of some tables."""
    count = len(tables[0].free)
    ok = np.ones(count, dtype=bool) if mask is None else mask.copy()
    for table in tables:
        for index, amount in want.pairs:
            ok &= table.free[:, index] >= amount
    for index, amount in want.parts:
        ok &= _on_devices(least([table.devices[index] for table in tables]), amount)
    return ok


def fits_rows(tables: Sequence[Table], want: Want, rows: Array) -> Bools:
    """Tell the same of some agents."""
    ok = np.ones(len(rows), dtype=bool)
    for table in tables:
        for index, amount in want.pairs:
            ok &= table.free[rows, index] >= amount
    for index, amount in want.parts:
        ok &= _on_devices(least([table.devices[index][rows] for table in tables]), amount)
    return ok


def count(tables: Sequence[Table], want: Want, mask: Bools | None = None) -> Array:
    """Return how many containers that need *want* each agent could take in every one of some tables; those that need nothing: 2**31."""
    room = np.full(len(tables[0].free), 1 << 31, dtype=np.int64)
    for table in tables:
        for index, amount in want.pairs:
            np.minimum(room, table.free[:, index] // amount, out=room)
    for index, amount in want.parts:
        free = least([table.devices[index] for table in tables])
        bare = (free < 0).all(axis=1)
        here = (free // amount).clip(0).sum(axis=1) if amount < SCALE else (free >= SCALE).sum(axis=1) * SCALE // amount
        if amount > SCALE and amount % SCALE:
            here = np.zeros_like(here)
        np.minimum(room, np.where(bare, room, here), out=room)
    np.maximum(room, 0, out=room)
    if mask is not None:
        room[~mask] = 0
    return room


def least(tables: Sequence[Array]) -> Array:
    """Return what is free of each device in every one of some tables."""
    found = tables[0]
    for table in tables[1:]:
        found = np.minimum(found, table)
    return found


def choose_devices(free: Array, amount: int) -> tuple[int, ...]:
    """Return the devices that give *amount*: the fullest that suffices for a part, the first free ones for whole devices."""
    if amount < SCALE:
        enough = np.flatnonzero(free >= amount)
        return (int(enough[np.argmin(free[enough])]),)
    return tuple(np.flatnonzero(free >= SCALE)[:amount // SCALE].tolist())


def _on_devices(free: Array, amount: int) -> Bools:
    """Tell for each agent whether its devices can give *amount*; agents that list no devices are known by their sum alone."""
    bare: Bools = np.asarray((free < 0).all(axis=1))
    if amount < SCALE:
        enough: Bools = np.asarray(free.max(axis=1) >= amount)
    elif amount % SCALE:
        return bare
    else:
        enough = (free >= SCALE).sum(axis=1) * SCALE >= amount
    return np.logical_or(bare, enough)
