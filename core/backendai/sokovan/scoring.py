"""The selector's say: which of the agents that fit is best, asked as seldom as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backendai.model.slots import SCALE
from backendai.sokovan.memory import Memory, Scored
from backendai.sokovan.snapshot import Array, Snapshot
from backendai.sokovan.table import Bools, Table, Want, choose_devices, fits, fits_rows
from backendai.spec.agentselector_v10 import AgentSelector, PlacementView

Floats = NDArray[np.float64]
NO = -np.inf  # the score of an agent that a container does not fit
FEW = 4  # changed agents up to which plain Python is quicker than arrays


class SelectorFailed(Exception):
    """A hook of the selector raised, or its answer means nothing. hook: which. error: what it raised."""

    def __init__(self, hook: str, error: Exception) -> None:
        super().__init__(str(error))
        self.hook, self.error = hook, error


class BadScores(Exception):
    """The selector's answer is not what its contract says."""


@dataclass(slots=True, eq=False)
class _Choice:
    """What one kind of container may choose from. score: NO where it does not fit. seen: how much of the log that is."""

    mask: Bools
    tables: Sequence[Table]
    score: Floats
    seen: int


class Scorer:
    """Scores by kind of container, with what the selector sees of the agents."""

    def __init__(self, snapshot: Snapshot, selector: AgentSelector, agents: tuple[str, ...]) -> None:
        self._snapshot, self._selector, self._agents = snapshot, selector, agents
        self._kernels, self._last_used = snapshot.kernels.copy(), snapshot.last_used.copy()
        self._number = int(self._last_used.max(initial=0))
        self._before: list[int] = []  # of ``last_used``, for those who give back
        self._log: list[int] = []  # agents that changed, in order
        self._choices: dict[tuple[Want, object, int], _Choice] = {}
        self._rowwise = has(selector, "rowwise") and bool(self._ask("rowwise"))
        plain = self._rowwise and snapshot.memory is not None and not snapshot.claims and not snapshot.bookings
        self._memory = snapshot.memory if plain else None
        self._picks = has(selector, "pick_device")

    def note(self, row: int, sign: int) -> None:
        """Follow a container that was put onto an agent (sign 1) or taken back again."""
        self._log.append(row)
        self._kernels[row] += sign
        if sign > 0:
            self._before.append(int(self._last_used[row]))
            self._number += 1
            self._last_used[row] = self._number
        else:
            self._number -= 1
            self._last_used[row] = self._before.pop()

    def touch(self, row: int) -> None:
        """Note that what is free on an agent has changed."""
        self._log.append(row)

    def forget(self) -> None:
        """Begin anew: other moments count."""
        self._choices.clear()

    def best(self, want: Want, name: object, mask: Bools, tables: Sequence[Table], among: Bools | None) -> int | None:
        """Return the best agent, the first of equals, or None. name: of the mask; scores are kept by it, unless it is None."""
        if not self._rowwise or name is None:
            ok = fits(tables, want, mask)
            return self.of(want, ok if among is None else ok & among, tables[0])
        choice = self._choice(want, name, mask, tables)
        score = choice.score if among is None else np.where(among, choice.score, NO)
        row = int(score.argmax())
        return row if score[row] > NO else None

    def of(self, want: Want, ok: Bools, table: Table) -> int | None:
        """Return the best of some agents; where only one is left the selector is not asked."""
        rows = np.flatnonzero(ok)
        if len(rows) <= 1:
            return int(rows[0]) if len(rows) else None
        return int(rows[int(self._scores(want, rows, table).argmax())])

    def choose(self, row: int, free: Array, amount: int, table: Table) -> tuple[int, ...]:
        """Return the devices of an agent that give *amount*; for a part of one the selector may have a say."""
        if not self._picks or amount >= SCALE:
            return choose_devices(free, amount)
        view = self._view(np.zeros(len(self._snapshot.view.slots), dtype=np.int64), np.array([row]), table)
        lent = free.copy()
        lent.setflags(write=False)
        picked = self._ask("pick_device", amount, lent, view)
        if not isinstance(picked, int | np.integer) or not 0 <= picked < len(free) or free[picked] < amount:
            raise SelectorFailed("pick_device", BadScores(f"it picked the device {picked!r} of {free.tolist()} for {amount}"))
        return (int(picked),)

    def _choice(self, want: Want, name: object, mask: Bools, tables: Sequence[Table]) -> _Choice:
        """Return what a container may choose from as things are."""
        key = (want, name, len(tables))
        if (choice := self._choices.get(key)) is None:
            choice = self._choices[key] = _Choice(mask, tables, np.empty(0), len(self._log))
            if len(tables) > 1:  # scores go by what is free now; what is kept for later only rules agents out
                choice.score = np.where(fits(tables, want, mask), self._choice(want, name, mask, tables[:1]).score, NO)
            elif self._memory is not None:
                self._remember(self._memory, choice, want, name)
            else:
                self._fill(choice, want)
        elif choice.seen != len(self._log):
            self._refresh(choice, want, self._log[choice.seen:])
        return choice

    def _remember(self, memory: Memory, choice: _Choice, want: Want, name: object) -> None:
        """Begin with the scores of an earlier plan, and score again what has changed since."""
        shot = self._snapshot
        scores = memory.scores_of(self._selector, shot.mix)
        known = scores.get((want, name))
        if known is None or known.upto > shot.changed:  # an older moment is planned again
            self._fill(choice, want)
        else:
            choice.score = known.scores.copy()
            self._refresh(choice, want, [*known.but, *memory.changed[known.upto:shot.changed], *self._log])
        scores[want, name] = Scored(shot.changed, tuple(dict.fromkeys(self._log)), choice.score.copy())

    def _fill(self, choice: _Choice, want: Want) -> None:
        choice.seen = len(self._log)
        choice.score = np.full(len(self._agents), NO)
        rows = np.flatnonzero(fits(choice.tables, want, choice.mask))
        if len(rows):
            choice.score[rows] = self._scores(want, rows, choice.tables[0])

    def _refresh(self, choice: _Choice, want: Want, log: Sequence[int]) -> None:
        changed = set(log)
        if len(changed) * 4 > len(self._agents) + 16:
            self._fill(choice, want)
            return
        choice.seen = len(self._log)
        if len(changed) <= FEW and not want.parts:
            good = [row for row in changed if choice.mask[row]
                    and all(table.free[row, index] >= amount for table in choice.tables for index, amount in want.pairs)]
            for row in changed:
                choice.score[row] = NO
            rows = np.array(sorted(good), dtype=np.int64)
        else:
            rows = np.array(sorted(changed), dtype=np.int64)
            choice.score[rows] = NO
            rows = rows[choice.mask[rows] & fits_rows(choice.tables, want, rows)]
        if len(rows):
            choice.score[rows] = self._scores(want, rows, choice.tables[0])

    def _scores(self, want: Want, rows: Array, table: Table) -> Floats:
        return _checked(self._ask("scores", self._view(want.vector, rows, table)), len(rows))

    def _view(self, request: Array, rows: Array, table: Table) -> PlacementView:
        shot, agents = self._snapshot, self._agents
        return PlacementView(
            shot.view.slots, agents if len(rows) == len(agents) else tuple([agents[row] for row in rows.tolist()]), request,
            _lent(shot.capacity[rows]), _lent(table.free[rows]), _lent(self._kernels[rows]), _lent(self._last_used[rows]),
            {index: _lent(devices[rows]) for index, devices in table.devices.items()}, shot.mix, shot.weights)

    def _ask(self, hook: str, *given: object) -> object:
        try:
            return getattr(self._selector, hook)(*given)
        except Exception as error:
            raise SelectorFailed(hook, error) from error


def has(selector: AgentSelector, hook: str) -> bool:
    """Tell whether a selector has an optional hook: the contract's own is none."""
    return getattr(type(selector), hook, getattr(selector, hook, None)) not in (None, getattr(AgentSelector, hook))


def _checked(scores: object, count: int) -> Floats:
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SelectorFailed("scores", BadScores(f"the scores are not numbers: {error}")) from error
    if array.shape != (count,):
        raise SelectorFailed("scores", BadScores(f"scores of shape {array.shape} for {count} agents"))
    if not np.isfinite(array).all():
        raise SelectorFailed("scores", BadScores("a score is not finite"))
    return array


def _lent(array: Array) -> Array:
    """Return *array*, which is a copy already, as the plugin may have it."""
    array.setflags(write=False)
    return array
