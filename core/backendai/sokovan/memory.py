"""What one plan may tell the next: facts that only save work. A plan without them is the same.

Room only shrinks while sessions come, so whoever found none still finds none, until something is given back to an agent that could
take one of its containers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backendai.sokovan.table import Bools, Table, Want
from backendai.spec.scheduler_v10 import Amounts, Outcome

FEW = 6  # rows given back to, up to which looking at them is quicker than looking at all
LONGEST = 20_000  # changes of agents, after which it begins anew
KINDS = 512  # containers whose scores are kept


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The scores of one kind of container. upto: how long ``changed`` was. but: rows that a plan had changed for itself by then."""

    upto: int
    but: tuple[int, ...]
    scores: NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Memory:
    """Facts about one layout of agents. wants, ever, fewest, masks: by what was asked. freed, changed: rows that were given back to,
    and rows that were changed in any way, in order. blocked: by kernels and wishes, how long ``freed`` was when there was no room, and
    what was answered. scores: by kind of container, of *scored*, a selector and its mix.
    """

    wants: dict[Amounts, Want] = field(default_factory=dict)
    ever: dict[object, bool] = field(default_factory=dict)
    fewest: dict[object, int] = field(default_factory=dict)
    masks: dict[object, Bools] = field(default_factory=dict)
    freed: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    scores: dict[tuple[Want, object], Scored] = field(default_factory=dict)
    scored: tuple[object, object] = (None, None)
    blocked: dict[object, tuple[int, Outcome]] = field(default_factory=dict)

    def scores_of(self, selector: object, mix: object) -> dict[tuple[Want, object], Scored]:
        """Return the scores that a selector gave before, by the same mix."""
        if self.scored[0] is not selector or self.scored[1] is not mix or len(self.scores) > KINDS:
            self.scored, self.scores = (selector, mix), {}
        return self.scores

    def still(self, key: object, kernels: Sequence[Amounts], upto: int, now: Table, want: Callable[[Amounts], Want],
              untouched: bool) -> Outcome | None:
        """Return what was answered to these kernels before, if it still is the answer when *upto* rows had been given back to.

        now: what is free, at most as much as when *upto* was read; just as much when untouched.
        """
        known = self.blocked.get(key)
        if known is None or known[0] > upto:  # an older moment is planned again
            return None
        if known[0] < upto:
            rows = set(self.freed[known[0]:upto])
            if len(rows) > FEW:
                return None
            free = now.free
            for one in {want(amounts) for amounts in kernels}:
                for row in rows:
                    if all(free[row, index] >= amount for index, amount in one.pairs):
                        return None
            if untouched:
                self.blocked[key] = upto, known[1]
        return known[1]
