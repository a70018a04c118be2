"""What users, projects, domains and arrays may hold, and what they hold while a plan is being made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backendai.sokovan.snapshot import SESSIONS, Lease, Quota, Request, Snapshot
from backendai.sokovan.stay import FOREVER
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
    left: float  # infinite where it is no limit
    used: int


class Allowance:
    """Quotas with what is used of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        slots = {name: index for index, name in enumerate(snapshot.view.slots)}
        slots[SESSIONS] = -1
        self._accounts: dict[tuple[str, str], list[_Account]] = {}
        for quota in snapshot.quotas:
            if quota.what in slots:
                self._accounts.setdefault((quota.scope, quota.scope_id), []).append(_Account(
                    quota, slots[quota.what], FOREVER if quota.borrow else quota.limit - quota.used, quota.used))
        self._asked = snapshot.asked
        self._of: dict[tuple[str, str, str, str], list[_Account]] = {}
        self._sums: dict[tuple[Amounts, ...], Amounts] = {}
        self._claims: dict[str, tuple[tuple[Amounts, ...], Request]] = {}
        if self._accounts:
            for id in snapshot.claims:
                self.claim(id, snapshot.waiting[id].kernels, snapshot.requests[id])

    def short(self, kernels: tuple[Amounts, ...], who: Request) -> Short | None:
        """Return the first quota that a session would exceed."""
        if not self._accounts:
            return None
        needs = self._needs(kernels)
        for account in self._accounts_of(who):
            if needs[account.column] > account.left:
                return Short(account.quota, needs[account.column], account.used)
        return None

    def spend(self, kernels: tuple[Amounts, ...], who: Request | Lease, sign: int = 1) -> None:
        """Count a session that was placed, or one that would go (sign -1)."""
        if self._accounts:
            needs = self._needs(kernels)
            for account in self._accounts_of(who):
                account.used += sign * needs[account.column]
                account.left -= sign * needs[account.column]

    def claim(self, id: str, kernels: tuple[Amounts, ...], who: Request) -> None:
        """Count a session for which room is kept."""
        self._claims[id] = kernels, who
        self.lift(id, 1)

    def lift(self, id: str, sign: int) -> None:
        """Count what a claim keeps (sign 1), or no longer (-1)."""
        if (claim := self._claims.get(id)) is not None:
            self.spend(*claim, sign)

    def over(self, waiting: Sequence[Waiting], requests: Mapping[str, Request]) -> dict[str, Short]:
        """Return the waiting that exceed a quota as things are. Only those are looked at who have one that the largest would exceed."""
        if not self._accounts or not self._asked:
            return {}
        most = tuple(map(max, zip(*map(self._needs, self._asked), strict=True)))
        tight = {id for (_, id), accounts in self._accounts.items() if any(most[account.column] > account.left for account in accounts)}
        found: dict[str, Short] = {}
        for one in waiting if tight else ():
            request = requests[one.id]
            if (request.user in tight or request.project in tight or request.domain in tight or request.array in tight) \
                    and not request.claim and (short := self.short(one.kernels, request)) is not None:
                found[one.id] = short
        return found

    def borrows(self, who: Request | Lease, kernels: tuple[Amounts, ...] = ()) -> bool | None:
        """Tell whether a session's project is beyond its own quota, or would be with *kernels*; None where it has none to borrow from."""
        own = [account for account in self._accounts_of(who) if account.quota.borrow]
        if not own:
            return None
        needs = self._needs(kernels) if kernels else ()
        return any(account.used + (needs[account.column] if needs else 0) > account.quota.limit for account in own)

    def _accounts_of(self, who: Request | Lease) -> list[_Account]:
        key = (who.user, who.project, who.domain, who.array)
        if (known := self._of.get(key)) is None:
            pairs = zip(("user", "project", "domain", "array"), key, strict=True)
            known = self._of[key] = [account for pair in pairs for account in self._accounts.get(pair, ())]
        return known

    def _needs(self, kernels: tuple[Amounts, ...]) -> Amounts:
        """Return what a session counts for: its sum of each slot, and last, at -1, one session."""
        if (sums := self._sums.get(kernels)) is None:
            sums = self._sums[kernels] = (*map(sum, zip(*kernels, strict=True)), 1)
        return sums
