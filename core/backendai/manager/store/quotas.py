"""The owners' ledger: what users, projects and domains hold of what they may. It moves with the agents' ledger, by guarded updates.

A row counts (``used``) where its *what* is a slot or ``sessions``; ``waiting``, ``kernels`` and ``lifetime`` are looked at when a session
is asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import BindParameter, Select, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.schema import domains, kernels, projects, quotas, sessions
from backendai.model.errors import Failure

SESSIONS, WAITING, KERNELS, LIFETIME = "sessions", "waiting", "kernels", "lifetime"
ASKED = frozenset({WAITING, KERNELS, LIFETIME})  # looked at when a session is asked for, and never held
MOST = 500  # values in one IN list
IDS: BindParameter[Any] = bindparam("ids", expanding=True)
LINES: Select[Any] = select(
    quotas.c.id, quotas.c.scope, quotas.c.scope_id, quotas.c.group_id, quotas.c.what, quotas.c.limit, quotas.c.used,
    projects.c.domain_id, domains.c.borrow,
).select_from(quotas.outerjoin(projects, and_(quotas.c.scope == "project", quotas.c.scope_id == projects.c.id))
              .outerjoin(domains, projects.c.domain_id == domains.c.id))
OF_SCOPES = LINES.where(quotas.c.scope_id.in_(IDS))
_MOVE = update(quotas).where(
    quotas.c.id == bindparam("of"), quotas.c.used + bindparam("amount") >= 0,
    or_(bindparam("free"), quotas.c.used + bindparam("amount") <= quotas.c.limit)).values(used=quotas.c.used + bindparam("amount"))
_USED = update(quotas).where(quotas.c.id == bindparam("of")).values(used=bindparam("amount"))
_HOLDING = (select(sessions.c.id, sessions.c.owner_id, sessions.c.project_id, sessions.c.domain_id, sessions.c.group_id, kernels.c.slots)
            .select_from(kernels.join(sessions, kernels.c.session_id == sessions.c.id)).where(kernels.c.holds.is_(True)))
_slots_decoder = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class Taker:
    """What one session takes of its owners' quotas: ids, and amounts by slot (all of its kernels that hold) and ``sessions``."""

    user: str
    project: str
    domain: str
    group: str
    amounts: Mapping[str, int]

    @property
    def scopes(self) -> tuple[str, str, str]:
        """Return the ids whose quotas it draws on."""
        return self.user, self.project, self.domain


@dataclass(frozen=True, slots=True)
class Line:
    """A quota. group_id: empty for all groups together. lender: of a project, the domain whose quota it may borrow from, else empty."""

    id: str
    scope: str
    scope_id: str
    group_id: str
    what: str
    limit: int
    used: int
    lender: str = ""


@dataclass(slots=True)
class Purse:
    """The quotas that concern some takers, locked by this transaction, and what it moves."""

    lines: Mapping[tuple[str, str], tuple[Line, ...]]  # by scope and what
    moved: Counter[str] = field(default_factory=Counter)  # by line

    def take(self, taker: Taker) -> tuple[Line, ...]:
        """Take what *taker* wants and return nothing; or take nothing and return the quotas that are short."""
        lines = [(line, taker.amounts[line.what]) for line in self._of(taker)]
        if short := tuple(line for line, amount in lines
                          if line.used + self.moved[line.id] + amount > line.limit and not self._soft(line, taker.group)):
            return short
        for line, amount in lines:
            self.moved[line.id] += amount
        return ()

    def give(self, taker: Taker) -> None:
        """Give back what *taker* had."""
        for line in self._of(taker):
            self.moved[line.id] -= taker.amounts[line.what]

    async def write(self, connection: AsyncConnection) -> None:
        """Write what was moved; raise ``Failure('conflict')`` where a quota does not allow it any more."""
        known = {line.id: line for lines in self.lines.values() for line in lines}
        for id, amount in sorted(self.moved.items()):
            line = known[id]
            free = amount < 0 or bool(line.lender)  # a limit that was lowered meanwhile keeps nobody from giving back
            if amount and not (await connection.execute(_MOVE, {"of": id, "amount": amount, "free": free})).rowcount:
                raise Failure("conflict", f"The quota of {line.what} changed in between; it is tried again.", detail=id)
        self.moved.clear()

    def _of(self, taker: Taker) -> list[Line]:
        return [line for scope in taker.scopes for what, amount in taker.amounts.items() if amount
                for line in self.lines.get((scope, what), ()) if line.group_id in ("", taker.group)]

    def _soft(self, line: Line, group: str) -> bool:
        """Tell whether others of the domain lend: its own quota of the same, for this group or for all, is what counts then."""
        return is_soft(line, group, self.lines.get((line.lender, line.what), ()))


def is_soft(line: Line, group: str, lenders: Iterable[Line]) -> bool:
    """Tell whether a project may go beyond *line* in *group*, because one of *lenders* is its domain's quota of the same."""
    return bool(line.lender) and any(lender.scope == "domain" and lender.scope_id == line.lender and lender.what == line.what
                                     and lender.group_id in ("", group) for lender in lenders)


async def lock(connection: AsyncConnection, takers: Iterable[Taker]) -> Purse:
    """Lock the quotas that concern *takers* until the transaction ends."""
    wanted = sorted({scope for taker in takers for scope in taker.scopes})
    found: list[Line] = []
    for at in range(0, len(wanted), MOST):
        rows = await connection.execute(OF_SCOPES.with_for_update(of=quotas), {"ids": wanted[at:at + MOST]})
        found += map(to_line, rows)
    return open_purse(found)


def open_purse(lines: Iterable[Line]) -> Purse:
    """Return a purse of *lines*."""
    by_scope: defaultdict[tuple[str, str], tuple[Line, ...]] = defaultdict(tuple)
    for line in lines:
        by_scope[line.scope_id, line.what] += (line,)
    return Purse(dict(by_scope))


async def read_quotas(connection: AsyncConnection) -> tuple[Line, ...]:
    """Return every quota."""
    return tuple(map(to_line, await connection.execute(LINES.order_by(quotas.c.id))))


def for_group(lines: Iterable[Line], group: str) -> tuple[tuple[Line, bool], ...]:
    """Return the counted quotas that hold in *group*, each with whether it is soft: a project may go beyond it by borrowing."""
    here = [line for line in lines if line.group_id in ("", group) and line.what not in ASKED]
    return tuple((line, is_soft(line, group, here)) for line in here)


async def find_takers(connection: AsyncConnection) -> tuple[Taker, ...]:
    """Return what every session that holds capacity takes, from the kernels themselves."""
    found: dict[str, tuple[Any, Counter[str]]] = {}
    for row in await connection.execute(_HOLDING):
        _, amounts = found.setdefault(row.id, (row, Counter({SESSIONS: 1})))
        amounts.update(_slots_decoder.decode(row.slots))
    return tuple(Taker(row.owner_id, row.project_id, row.domain_id, row.group_id, amounts) for row, amounts in found.values())


def recount(lines: Iterable[Line], takers: Iterable[Taker]) -> dict[str, int]:
    """Return what is used of each line, by its id."""
    purse = open_purse(line for line in lines if line.what not in ASKED)
    for taker in takers:
        purse.give(taker)
    return {line.id: -purse.moved[line.id] for some in purse.lines.values() for line in some}


async def settle_quotas(connection: AsyncConnection) -> list[str]:
    """Make the quotas' ledger equal to what is held; return what was wrong, in words."""
    lines = await read_quotas(connection)
    if not lines:
        return []
    used = recount(lines, await find_takers(connection))
    wrong = [line for line in lines if line.used != used.get(line.id, 0)]
    for line in wrong:
        await connection.execute(_USED, {"of": line.id, "amount": used.get(line.id, 0)})
    return [f"{line.scope} {line.scope_id}: {line.what} {line.used}, held are {used.get(line.id, 0)}" for line in wrong]


def to_line(row: Any) -> Line:
    """Return a row of ``LINES`` as a quota."""
    return Line(row.id, row.scope, row.scope_id, row.group_id, row.what, row.limit, row.used,
                row.domain_id if row.borrow and row.domain_id else "")
