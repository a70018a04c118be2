"""Whether somebody who comes is worth a plan: not when it is certain that nothing would come of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from backendai.sokovan.plan import Plan
from backendai.sokovan.snapshot import Request
from backendai.testing.simulate.space import Space

_Key = tuple[int, tuple[int, int, int], float]  # owner, owner with needs, limit


class Wake:
    """What the last plan has told about those who wait.

    Who comes is not worth a plan where no node has room for it, or where an older one of the same owner and priority was not tried in
    the last plan, or was tried in vain with the same needs and no longer limit. Nobody has ended since, for an end is always worth a plan.
    """

    def __init__(self, space: Space, requests: Iterable[Request]) -> None:
        self._space = space
        owners: dict[object, int] = {}
        self._keys: dict[str, _Key] = {}
        for r in requests:  # equal needs of a scene are the same objects
            owner = owners.setdefault((r.user, r.project, r.domain, r.priority), len(owners))
            self._keys[r.id] = owner, (owner, id(r.kernels), id(r.wishes)), math.inf if r.time_limit_s is None else r.time_limit_s
        self._waiting = [0] * len(owners)
        self._tried = [0] * len(owners)  # in vain
        self._in_vain: dict[tuple[int, int, int], float] = {}  # by needs, the shortest limit

    def comes(self, request: Request) -> bool:
        """Count somebody in; tell whether that is worth a plan."""
        owner, needs, limit = self._keys[request.id]
        before, tried = self._waiting[owner], self._tried[owner]
        self._waiting[owner] = before + 1
        if before > tried:
            return False
        shortest = self._in_vain.get(needs)
        if self._space.may_hold(request.kernels) and (shortest is None or limit < shortest):
            return True
        self._tried[owner] = tried + 1  # a plan would have tried it, in vain
        return False

    def goes(self, request: Request) -> None:
        """Count out somebody who was placed."""
        self._waiting[self._keys[request.id][0]] -= 1

    def planned(self, plan: Plan) -> None:
        """Learn from a plan, of which the placements have been counted out."""
        tried, in_vain, keys = [0] * len(self._tried), self._in_vain, self._keys
        in_vain.clear()
        placed = {placement.session for placement in plan.placements}
        for session in plan.order:
            if session not in placed:
                owner, needs, limit = keys[session]
                tried[owner] += 1
                if limit <= in_vain.get(needs, limit):
                    in_vain[needs] = limit
        self._tried = tried
