"""Where the containers of one session go: all of them, or none.

First each is put where it is liked best. When that leads nowhere, and counting does not show that nothing could, a search goes back and
forth, over a bounded number of steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backendai.model.session import Arrange, Wishes, Zone
from backendai.sokovan.ground import Ground
from backendai.sokovan.snapshot import Array
from backendai.sokovan.table import Bools, Want

STEPS = 2000  # of a search, each some 30 us at 5,000 agents
BRANCHES = 256  # agents that one step of a search looks at


@dataclass(frozen=True, slots=True)
class Rules:
    """How containers must stand to each other. most: agents, at most. prefer: not a must."""

    apart: bool = False  # each on another agent
    zones_apart: bool = False
    most: int | None = None
    prefer: Arrange | None = None


def find(ground: Ground, wants: Sequence[Want], wishes: Wishes, zones: Array | None, least_agents: int) -> list[int] | None:
    """Take room for all *wants* and return the agent of each, or take nothing and return None.

    zones: of each agent, -1 for none; None where nobody asks. least_agents: as few as it could ever do with.
    """
    if len(wants) == 1:
        if (row := ground.best(wants[0])) is not None:
            ground.take(row, wants[0])
        return None if row is None else [row]
    if wishes.one_agent:
        return _together(ground, wants)
    if wishes.zone is Zone.SAME and zones is not None:
        return _same_zone(ground, wants, wishes, zones, least_agents)
    return _search(ground, wants, _rules(wishes, least_agents), zones)


def _rules(wishes: Wishes, least_agents: int) -> Rules:
    arrange = wishes.arrange
    return Rules(wishes.strict and arrange is Arrange.SPREAD, wishes.zone is Zone.DIFFERENT,
                 least_agents if wishes.strict and arrange is Arrange.PACK else None, arrange)


def _same_zone(ground: Ground, wants: Sequence[Want], wishes: Wishes, zones: Array, least_agents: int) -> list[int] | None:
    """Try one zone after the other, first the one that the largest container likes best."""
    left = zones >= 0
    largest = wants[_order(ground, wants)[0]]
    while (row := ground.best(largest, left)) is not None:
        here: Bools = zones == zones[row]
        if (found := _search(ground, wants, _rules(wishes, least_agents), zones, here)) is not None:
            return found
        left &= ~here
    return None


def _together(ground: Ground, wants: Sequence[Want]) -> list[int] | None:
    """Put all onto one agent, of those that have enough for the sum."""
    order = _order(ground, wants)
    left = np.ones(len(ground.mask), dtype=bool)
    for index in range(wants[0].vector.shape[0]):
        if total := sum(want.amounts[index] for want in wants):
            for table in ground.tables:
                left &= table.free[:, index] >= total
    while (row := ground.best(wants[order[0]], left)) is not None:
        here = np.zeros_like(left)
        here[row] = True
        if (found := _search(ground, wants, Rules(), None, here)) is not None:
            return found
        left[row] = False
    return None


def _search(ground: Ground, wants: Sequence[Want], rules: Rules, zones: Array | None, among: Bools | None = None) -> list[int] | None:
    order = _order(ground, wants)
    start, uniform = ground.mark, len(set(wants)) == 1
    rows = _greedily(ground, [wants[i] for i in order], rules, zones, among)
    if rows is None:
        ground.undo(start)
        counted = uniform and rules.most is None  # each step of the greedy way was as good as any other
        if counted or not _could(ground, wants, rules, among):
            return None
        rows = _Backtrack(ground, [wants[i] for i in order], rules, zones, among).run()
        if rows is None:
            ground.undo(start)
            return None
    found = [0] * len(wants)
    for i, row in zip(order, rows, strict=True):
        found[i] = row
    return found


def _order(ground: Ground, wants: Sequence[Want]) -> list[int]:
    """Return the largest first, likes beside likes: what is hard to place has the choice."""
    if len(wants) == 1 or len(set(wants)) == 1:
        return list(range(len(wants)))
    most = np.maximum(ground.tables[0].free.max(axis=0), 1)
    size = {want: float((want.vector / most).max()) for want in set(wants)}
    return sorted(range(len(wants)), key=lambda i: (-size[wants[i]], wants[i].amounts, i))


def _greedily(ground: Ground, wants: Sequence[Want], rules: Rules, zones: Array | None, among: Bools | None) -> list[int] | None:
    rows: list[int] = []
    used = np.zeros(len(ground.mask), dtype=bool)
    bound = rules != Rules()
    allowed = among
    at = 0
    while at < len(wants):
        want = wants[at]
        if bound:
            allowed = _allowed(rules, zones, among, used, rows)
        row = _liked(ground, want, wants, at, rules, used, allowed)
        if row is None:
            return None
        ground.take(row, want)
        used[row] = True
        rows.append(row)
        at += 1
    return rows


def _allowed(rules: Rules, zones: Array | None, among: Bools | None, used: Bools, rows: Sequence[int]) -> Bools | None:
    allowed = among
    if rules.apart:
        allowed = ~used if allowed is None else allowed & ~used
    if rules.zones_apart and zones is not None:
        fresh = (zones >= 0) & ~np.isin(zones, zones[list(rows)])
        allowed = fresh if allowed is None else allowed & fresh
    if rules.most is not None and len(set(rows)) >= rules.most:
        allowed = used if allowed is None else allowed & used
    return allowed


def _liked(ground: Ground, want: Want, wants: Sequence[Want], at: int, rules: Rules, used: Bools, allowed: Bools | None) -> int | None:
    """Return the agent that is best for a container; where agents are to be few or many, of the used or the unused if there is one."""
    if rules.prefer is None or rules.apart:
        return ground.best(want, allowed)
    favoured = used if rules.prefer is Arrange.PACK else ~used
    row = ground.best(want, favoured if allowed is None else favoured & allowed) if at else None
    if row is not None:
        return row
    if rules.prefer is Arrange.PACK:  # a further agent: one that takes all the rest, or else the most of it
        same = sum(1 for other in wants[at:] if other is want)
        room = np.minimum(ground.count(want, allowed), same)
        return ground.best(want, room == room.max()) if room.any() else None
    return ground.best(want, allowed)


def _could(ground: Ground, wants: Sequence[Want], rules: Rules, among: Bools | None) -> bool:
    """Tell whether counting leaves it open that all of them fit: each kind for itself, and all of them by their sums."""
    for want, number in Counter(wants).items():
        room = ground.count(want, among)
        if rules.apart:
            room = np.minimum(room, 1)
        if rules.most is not None:
            room = np.sort(room)[-rules.most:]
        if int(room.sum()) < number:
            return False
    here = ground.mask if among is None else ground.mask & among
    total = sum(want.vector for want in wants)
    return all(bool((table.free[here].clip(0).sum(axis=0) >= total).all()) for table in ground.tables)


class _Backtrack:
    """A search in depth. Of agents that are alike one is tried; likes are put down in the order of agents."""

    def __init__(self, ground: Ground, wants: Sequence[Want], rules: Rules, zones: Array | None, among: Bools | None) -> None:
        self._ground, self._wants, self._rules, self._zones, self._among = ground, wants, rules, zones, among
        self._rows: list[int] = []
        self._steps = 0

    def run(self) -> list[int] | None:
        """Return the agent of each container, or None where there is no way or it was not found in time."""
        stack = [iter(self._branches())]
        while stack:
            row = next(stack[-1], None)
            self._steps += 1
            if self._steps > STEPS:
                return None
            if row is None:
                stack.pop()
                if self._rows:
                    self._ground.undo(self._ground.mark - 1)
                    self._rows.pop()
                continue
            self._ground.take(row, self._wants[len(self._rows)])
            self._rows.append(row)
            if len(self._rows) == len(self._wants):
                return self._rows
            stack.append(iter(self._branches()))
        return None

    def _branches(self) -> list[int]:
        """Return the agents worth trying for the next container, the tightest first."""
        rules, ground, at = self._rules, self._ground, len(self._rows)
        want, used = self._wants[at], np.zeros(len(self._ground.mask), dtype=bool)
        used[self._rows] = True
        ok = ground.fits(want, _allowed(rules, self._zones, self._among, used, self._rows))
        if at and self._wants[at - 1] is want:
            ok[:self._rows[-1]] = False
        rows = np.flatnonzero(ok)
        asked = [index for index, _ in want.pairs]
        most = np.maximum(ground.tables[0].free[:, asked].max(axis=0, initial=1), 1)
        tight = (ground.tables[0].free[rows][:, asked] / most).sum(axis=1)
        seen: set[object] = set()
        found = []
        for row in rows[np.argsort(tight, kind="stable")][:BRANCHES].tolist():
            like = (ground.state(row), rules.most is not None and bool(used[row]), -1 if self._zones is None else int(self._zones[row]))
            if like not in seen:
                seen.add(like)
                found.append(row)
        return found
