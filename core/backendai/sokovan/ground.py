"""Ground for a search: tables that it takes from, and gives back to when it was on the wrong track."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backendai.model.slots import SCALE
from backendai.sokovan.snapshot import Array
from backendai.sokovan.table import Bools, Parts, Table, Want, choose_devices, count, fits, least


class Ground:
    """The agents that a session may use, at every moment that concerns it. rank: the highest is taken, of equals the first."""

    def __init__(self, tables: Sequence[Table], mask: Bools, rank: NDArray[np.float64] | None = None) -> None:
        self.tables = tuple(tables)
        self.mask = mask
        self._rank = rank
        self._taken: list[tuple[int, Want, Parts]] = []

    def fits(self, want: Want, among: Bools | None = None) -> Bools:
        """Tell which agents could take a container."""
        return fits(self.tables, want, self.mask if among is None else self.mask & among)

    def count(self, want: Want, among: Bools | None = None) -> Array:
        """Return how many such containers each agent could take."""
        return count(self.tables, want, self.mask if among is None else self.mask & among)

    def best(self, want: Want, among: Bools | None = None) -> int | None:
        """Return the agent that should take a container, of those *among* which it may choose."""
        ok = self.fits(want, among)
        row = int(ok.argmax() if self._rank is None else np.where(ok, self._rank, -np.inf).argmax())
        return row if ok[row] else None

    def take(self, row: int, want: Want) -> None:
        """Put a container onto an agent which it fits."""
        parts = tuple([(index, device, min(amount, SCALE)) for index, amount in want.parts for device in self._devices(row, index, amount)])
        for table in self.tables:
            table.take(row, want, parts)
        self._taken.append((row, want, parts))

    def undo(self, mark: int) -> None:
        """Give back what was taken since there were *mark* containers."""
        while len(self._taken) > mark:
            row, want, parts = self._taken.pop()
            for table in self.tables:
                table.take(row, want, parts, -1)

    @property
    def mark(self) -> int:
        """How many containers have been put down."""
        return len(self._taken)

    @property
    def taken(self) -> Sequence[tuple[int, Want, Parts]]:
        """The containers, in the order in which they were put down."""
        return self._taken

    def state(self, row: int) -> bytes:
        """Return what tells an agent from others that could take the same."""
        return b"".join([t.free[row].tobytes() for t in self.tables] + [np.sort(d[row]).tobytes() for t in self.tables
                                                                       for d in t.devices.values()])

    def _devices(self, row: int, index: int, amount: int) -> tuple[int, ...]:
        free = least([table.devices[index][row] for table in self.tables])
        return () if (free < 0).all() else self._choose(row, free, amount)

    def _choose(self, row: int, free: Array, amount: int) -> tuple[int, ...]:
        return choose_devices(free, amount)
