"""What quotas say to a session before it enters the queue: everything that could never be, or is too much, named at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.quotas import KERNELS, LIFETIME, SESSIONS, WAITING, Line, Taker, is_soft, read_quotas
from backendai.manager.store.schema import domains, groups, projects, sessions, users
from backendai.model.errors import Failure
from backendai.model.slots import format_slots, plain_slots
from backendai.model.units import format_seconds

if TYPE_CHECKING:
    from backendai.manager.store.engine import Store

COUNTS = (SESSIONS, WAITING, KERNELS)  # plain numbers, where slots have units


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked for, to be held against quotas. one: what each session takes. count: so many at once. kernels: of each."""

    one: Taker
    count: int = 1
    kernels: int = 1
    time_limit_s: float | None = None


class Limits:
    """Every quota's limit by scope, in memory until one changes; what is used of it is not remembered."""

    def __init__(self) -> None:
        self._known: Mapping[str, tuple[Line, ...]] | None = None
        self._generation = 0

    def forget(self) -> None:
        """Look again next time: a quota or a domain was changed."""
        self._generation += 1
        self._known = None

    async def of(self, store: Store, scopes: Iterable[str], group: str) -> tuple[Line, ...]:
        """Return the quotas that somebody of *scopes* (ids) has in *group*."""
        known = self._known
        if known is None:
            generation, found = self._generation, defaultdict[str, tuple[Line, ...]](tuple)
            for line in await store.read(read_quotas):
                found[line.scope_id] += (line,)
            known = dict(found)
            if generation == self._generation:
                self._known = known
        return tuple(line for scope in scopes for line in known.get(scope, ()) if line.group_id in ("", group)) if known else ()


def longest(lines: Iterable[Line]) -> float | None:
    """Return the longest time that a session under *lines* may run, in seconds; None for any."""
    return min((float(line.limit) for line in lines if line.what == LIFETIME), default=None)


async def admit(connection: AsyncConnection, lines: Sequence[Line], asking: Asking) -> bool:
    """Raise ``Failure`` that names every one of *lines* by which *asking* must be refused at once.

    Return whether those that wait were counted: then the new rows must be written before another session is asked for.
    """
    if not lines:
        return False
    waiting = {line.id: await _count_waiting(connection, line) for line in lines if line.what == WAITING}
    broken = [line for line in lines if _breaks(line, asking, waiting, lines)]
    if not broken:
        return bool(waiting)
    names = await name_lines(connection, broken)
    said = "; ".join(f"{' in group '.join(filter(None, names[line.id]))} {_limit(line, asking, waiting)}" for line in broken)
    only_waiting = all(line.what == WAITING for line in broken)
    hint = "Wait until some have started." if only_waiting else "Ask for less, or your administrator for more; see `bai quota ls`."
    raise Failure("too-many" if only_waiting else "rejected", f"Quotas do not allow it: {said}. {hint}")


def format_quota(what: str, amount: int) -> str:
    """Write an amount of a quota for people."""
    if what == LIFETIME:
        return format_seconds(amount)
    if what in COUNTS:
        return str(amount)
    return format_slots({what: amount}).partition("=")[2]


def plain_quota(what: str, amount: int) -> int | float:
    """Return an amount of a quota as a plain number: cores, bytes, seconds, sessions."""
    return amount if what in COUNTS or what == LIFETIME else plain_slots({what: amount})[what]


def _breaks(line: Line, asking: Asking, waiting: Mapping[str, int], lines: Iterable[Line]) -> bool:
    if line.what == WAITING:
        return waiting[line.id] + asking.count > line.limit
    if line.what == KERNELS:
        return asking.kernels > line.limit
    if line.what == LIFETIME:
        return asking.time_limit_s is None or asking.time_limit_s > line.limit
    return asking.one.amounts.get(line.what, 0) > line.limit and not is_soft(line, asking.one.group, lines)


def _limit(line: Line, asking: Asking, waiting: Mapping[str, int]) -> str:
    most = format_quota(line.what, line.limit)
    if line.what == WAITING:
        return f"may have {most} waiting, and has {waiting[line.id]}"
    if line.what == KERNELS:
        return f"may have {most} kernels in a session, and this has {asking.kernels}"
    if line.what == LIFETIME:
        limit = asking.time_limit_s
        return f"may run for {most}, and this " + ("names no limit" if limit is None else f"wants {format_seconds(limit)}")
    return f"may hold {most} {line.what}, and this alone needs {format_quota(line.what, asking.one.amounts[line.what])}"


async def _count_waiting(connection: AsyncConnection, line: Line) -> int:
    column = {"user": sessions.c.owner_id, "project": sessions.c.project_id, "domain": sessions.c.domain_id}[line.scope]
    where = [column == line.scope_id, sessions.c.state == "PENDING"]
    if line.group_id:
        where.append(sessions.c.group_id == line.group_id)
    return int((await connection.execute(select(func.count()).select_from(sessions).where(*where))).scalar() or 0)


async def name_lines(connection: AsyncConnection, lines: Iterable[Line]) -> dict[str, tuple[str, str]]:
    """Return how to call the scope (``project ml``) and the group (empty for all) of each line, by its id."""
    some = list(lines)
    found: dict[tuple[str, str], str] = {}
    for kind, table in (("user", users), ("project", projects), ("domain", domains), ("group", groups)):
        ids = {line.group_id if kind == "group" else line.scope_id for line in some if kind in ("group", line.scope)}
        for row in await connection.execute(select(table.c.id, table.c.name).where(table.c.id.in_(ids))):
            found[kind, row.id] = row.name
    return {line.id: (f"{line.scope} {found.get((line.scope, line.scope_id), line.scope_id)}",
                      found.get(("group", line.group_id), "")) for line in some}
