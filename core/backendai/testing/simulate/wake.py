"""Whether somebody who comes is worth a plan: not when it is certain that nothing would come of it."""

from __future__ import annotations

import math

from backendai.sokovan.plan import Plan
from backendai.sokovan.snapshot import Request
from backendai.testing.simulate.space import Space

_Owner = tuple[str, str, str, int]


class Wake:
    """What the last plan has told about those who wait.

    Who comes is not worth a plan where no node has room for it, or where an older one of the same owner and priority was not tried in
    the last plan, or was tried in vain with the same needs and no longer limit. Nobody has ended since, for an end is always worth a plan.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._waiting: dict[_Owner, int] = {}
        self._tried: dict[_Owner, int] = {}  # in vain
        self._in_vain: dict[tuple[_Owner, int, int], float] = {}  # by needs, the shortest limit

    def comes(self, request: Request) -> bool:
        """Count somebody in; tell whether that is worth a plan."""
        owner = _owner(request)
        before, tried = self._waiting.get(owner, 0), self._tried.get(owner, 0)
        self._waiting[owner] = before + 1
        if before > tried:
            return False
        shortest = self._in_vain.get(_needs(owner, request))
        if self._space.may_hold(request.kernels) and (shortest is None or _limit(request) < shortest):
            return True
        self._tried[owner] = tried + 1  # a plan would have tried it, in vain
        return False

    def goes(self, request: Request) -> None:
        """Count out somebody who was placed."""
        self._waiting[_owner(request)] -= 1

    def planned(self, plan: Plan, requests: dict[str, Request]) -> None:
        """Learn from a plan, of which the placements have been counted out. requests: those who wait, and more."""
        self._tried.clear()
        self._in_vain.clear()
        placed = {placement.session for placement in plan.placements}
        for id in plan.order:
            if id not in placed:
                request = requests[id]
                owner = _owner(request)
                self._tried[owner] = self._tried.get(owner, 0) + 1
                needs, limit = _needs(owner, request), _limit(request)
                if limit < self._in_vain.get(needs, math.inf) or needs not in self._in_vain:
                    self._in_vain[needs] = limit


def _owner(request: Request) -> _Owner:
    return request.user, request.project, request.domain, request.priority


def _needs(owner: _Owner, request: Request) -> tuple[_Owner, int, int]:
    """Return a key of what placing depends on: equal needs of a scene are the same objects."""
    return owner, id(request.kernels), id(request.wishes)


def _limit(request: Request) -> float:
    return math.inf if request.time_limit_s is None else request.time_limit_s
