"""Why a session waits, in one sentence that says what would let it start.

Sentences name no other session: whoever reads one may not be allowed to see it.
"""

from __future__ import annotations

import numpy as np

from backendai.model.slots import SCALE, SlotKind, kind_of
from backendai.model.units import format_bytes
from backendai.sokovan.snapshot import Array, Snapshot
from backendai.spec.scheduler_v10 import Amounts, Outcome

NAMED = 3  # agents in one sentence
_Key = tuple[tuple[Amounts, ...], Outcome, frozenset[str]]


class Holds:
    """Sentences about one snapshot. Sessions that ask for the same get the same, worked out once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._slots = snapshot.view.slots
        self._names = snapshot.names
        self._agents = tuple(node.id for node in snapshot.view.nodes)
        self._capacity = snapshot.capacity
        self._idle = snapshot.idle
        self._said: dict[_Key, str] = {}

    def nobody(self) -> str:
        """Say that no agent can be used at all."""
        if not self._idle:
            return "No agent is connected."
        some = [f"{name}: {why.rstrip('.')}" for name, why in self._idle[:NAMED]]
        more = [f"and {len(self._idle) - NAMED} more"] if len(self._idle) > NAMED else []
        return f"No agent can take it: {'; '.join(some + more)}."

    def turn(self) -> str:
        """Say that the scheduler did not try it."""
        return "Waits for its turn: a session ahead of it in the queue waits for room."

    def broken(self, spec: str) -> str:
        """Say that a plugin failed."""
        return f"The {spec} plugin failed; ask your administrator to look at `bai plugin ls` and the manager's log."

    def of(self, kernels: tuple[Amounts, ...], free: Array, outcome: Outcome, avoid: frozenset[str]) -> str:
        """Say why an attempt failed, with *free* as it was then."""
        key = (kernels, outcome, avoid)
        if key not in self._said:
            self._said[key] = self._work_out(kernels, free, outcome, avoid)
        return self._said[key]

    def _work_out(self, kernels: tuple[Amounts, ...], free: Array, outcome: Outcome, avoid: frozenset[str]) -> str:
        table = self._capacity if outcome is Outcome.IMPOSSIBLE else free
        lacking = next((a for a in kernels if not _fits(table, a)), None)
        if lacking is None:
            if len(kernels) > 1:
                return f"Waits for room for all of its {len(kernels)} containers at once."
            return "Waits for its turn: the agents with room for it are kept for sessions ahead of it."
        wanted = {self._slots[i]: amount for i, amount in enumerate(lacking) if amount}
        begin, have, none = (("Waits for", "has free now", "no agent has both free now") if outcome is Outcome.BLOCKED
                             else ("Needs", "has at all", "no agent is that large; it waits for one that is"))
        for i, (name, amount) in enumerate(zip(self._slots, lacking, strict=True)):
            column = table[:, i]
            if amount and not (column >= amount).any():
                best = int(np.argmax(column))
                asked, most = _apart(name, amount, int(column[best]))
                more = "" if outcome is Outcome.BLOCKED else " It waits for a larger one."
                return f"{begin} {_of(name, asked)}: the most that one agent {have} is {most} (agent {self._names[best]}).{more}"
        *first, last = [_of(name, _bare(name, amount)) for name, amount in wanted.items()]  # one alone would have been said above
        together = f"{', '.join(first)} and {last}"
        return f"{begin} {together} on one agent; {none.replace('both', 'both' if len(wanted) == 2 else 'all of them')}."


def _of(name: str, number: str) -> str:
    """Write an amount of a slot for people: ``4 cores``, ``512m of memory``, ``2 cuda.device``."""
    if name == "cpu":
        return f"{number} core" if number == "1" else f"{number} cores"
    return f"{number} of memory" if name == "mem" else f"{number} {name}"


def _bare(name: str, amount: int) -> str:
    if kind_of(name) is SlotKind.BYTES:
        return format_bytes(amount)
    return str(amount // SCALE) if amount % SCALE == 0 else f"{amount / SCALE:.3f}".rstrip("0")


def _apart(name: str, asked: int, most: int) -> tuple[str, str]:
    """Write two amounts, the first of which is larger, so that one sees it: 16 GiB and the 15.99 that a machine of 16 has."""
    pair = _bare(name, asked), _bare(name, most)
    for step, letter in ((1 << 20, "m"), (1 << 10, "k"), (1, "")):
        if pair[0] == pair[1]:
            pair = f"{-(-asked // step)}{letter}", f"{most // step}{letter}"
    return pair


def _fits(table: Array, amounts: Amounts) -> bool:
    return bool((table >= np.array(amounts, dtype=np.int64)).all(axis=1).any())
