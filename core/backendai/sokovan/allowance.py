"""What users, projects, domains and arrays may hold, and what they hold while a plan is being made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backendai.sokovan.snapshot import SESSIONS, Lease, Quota, Request, Snapshot
from backendai.spec.scheduler_v10 import Amounts, Waiting


@dataclass(frozen=True, slots=True)
class Short:
    """A quota that does not suffice. need: what the session asks for. used: by all that hold, and those for whom room is kept."""

    quota: Quota
    need: int
    used: int


@dataclass(slots=True, eq=False)
class _Account:
    quota: Quota
    column: int  # of the slot; -1 for sessions
    used: int


class Allowance:
    """Quotas with what is used of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        slots = {name: index for index, name in enumerate(snapshot.view.slots)}
        slots[SESSIONS] = -1
        self._accounts: dict[tuple[str, str], list[_Account]] = {}
        for quota in snapshot.quotas:
            if quota.what in slots:
                self._accounts.setdefault((quota.scope, quota.scope_id), []).append(_Account(quota, slots[quota.what], quota.used))
        self._of: dict[tuple[str, str, str, str], list[_Account]] = {}
        self._sums: dict[tuple[Amounts, ...], Amounts] = {}
        self._claims: dict[str, tuple[tuple[Amounts, ...], Request]] = {}
        if self._accounts:
            views = {waiting.id: waiting for waiting in snapshot.view.waiting if waiting.id in snapshot.claims}
            for id in snapshot.claims:
                self._claims[id] = (views[id].kernels, snapshot.requests[id])
                self.lift(id, 1)

    def short(self, kernels: tuple[Amounts, ...], who: Request) -> Short | None:
        """Return the first quota that a session would exceed."""
        if not self._accounts:
            return None
        for account in self._accounts_of(who):
            if not account.quota.borrow:
                need = self._need(kernels, account.column)
                if account.used + need > account.quota.limit:
                    return Short(account.quota, need, account.used)
        return None

    def spend(self, kernels: tuple[Amounts, ...], who: Request | Lease, sign: int = 1) -> None:
        """Count a session that was placed, or one that would go (sign -1)."""
        if self._accounts:
            for account in self._accounts_of(who):
                account.used += sign * self._need(kernels, account.column)

    def lift(self, id: str, sign: int) -> None:
        """Count what a claim keeps (sign 1), or no longer (-1)."""
        if (claim := self._claims.get(id)) is not None:
            self.spend(*claim, sign)

    def over(self, waiting: Sequence[Waiting], requests: Mapping[str, Request]) -> dict[str, Short]:
        """Return the waiting that exceed a quota as things are; those of one shape have the same quotas."""
        if not self._accounts:
            return {}
        shapes: dict[int, Short | None] = {}
        found: dict[str, Short] = {}
        for one in waiting:
            if one.shape not in shapes:
                request = requests[one.id]
                shapes[one.shape] = None if request.claim else self.short(one.kernels, request)
            if (short := shapes[one.shape]) is not None:
                found[one.id] = short
        return found

    def borrows(self, who: Request | Lease, kernels: tuple[Amounts, ...] = ()) -> bool | None:
        """Tell whether a session's project is beyond its own quota, or would be with *kernels*; None where it has none to borrow from."""
        own = [account for account in self._accounts_of(who) if account.quota.borrow]
        if not own:
            return None
        return any(account.used + (self._need(kernels, account.column) if kernels else 0) > account.quota.limit for account in own)

    def _accounts_of(self, who: Request | Lease) -> list[_Account]:
        key = (who.user, who.project, who.domain, who.array)
        if (known := self._of.get(key)) is None:
            pairs = zip(("user", "project", "domain", "array"), key, strict=True)
            known = self._of[key] = [account for pair in pairs for account in self._accounts.get(pair, ())]
        return known

    def _need(self, kernels: tuple[Amounts, ...], column: int) -> int:
        if column < 0:
            return 1
        if (sums := self._sums.get(kernels)) is None:
            sums = self._sums[kernels] = kernels[0] if len(kernels) == 1 else tuple(map(sum, zip(*kernels, strict=True)))
        return sums[column]
