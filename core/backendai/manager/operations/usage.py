"""What was held, by day, group, domain, project, user and slot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Role, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.store.groups import read_groups
from backendai.manager.store.quotas import SESSIONS
from backendai.manager.store.schema import usage
from backendai.manager.store.scopes import read_scopes
from backendai.model.errors import Failure
from backendai.model.slots import SCALE, SlotKind, kind_of
from backendai.model.views import UsageLine

COLUMNS: Mapping[str, Any] = {
    "day": usage.c.day, "group": usage.c.group_id, "domain": usage.c.domain_id, "project": usage.c.project_id, "user": usage.c.user_id,
}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class ReadUsage(Input, frozen=True):
    """by: any of day, group, domain, project, user, slot, with commas; each slot is a line of its own anyway.

    since, until: days such as 2026-11-26 (UTC), both included.
    """

    by: str = "slot"
    since: str | None = None
    until: str | None = None


async def read(context: Context, caller: Caller, input: ReadUsage) -> Page[UsageLine]:
    """Show what was held, up to the last minute: yours, and that of the projects and domains that are yours to see."""
    require(caller, Verb.READ, Thing("usage", caller.id, name="your own"))
    words = [word for word in input.by.split(",") if word and word != "slot"]
    if unknown := [word for word in words if word not in COLUMNS]:
        raise Failure("invalid-request", f"by: {unknown[0]!r} is none; there are: {', '.join([*COLUMNS, 'slot'])}.")
    for name, day in (("since", input.since), ("until", input.until)):
        if day is not None and _DAY.fullmatch(day) is None:
            raise Failure("invalid-request", f"{name}: {day!r} is not a day; write 2026-11-26.")
    columns = [COLUMNS[word].label(word) for word in dict.fromkeys(words)]
    query = select(*columns, usage.c.slot, func.sum(usage.c.amount_s).label("amount_s")).where(_visible(caller))
    if input.since is not None:
        query = query.where(usage.c.day >= input.since)
    if input.until is not None:
        query = query.where(usage.c.day <= input.until)
    query = query.group_by(*columns, usage.c.slot)

    async def job(connection: AsyncConnection) -> tuple[UsageLine, ...]:
        names = {id: scope.name for id, scope in (await read_scopes(connection)).items()}
        groups = {group.id: group.name for group in await read_groups(connection)}
        return tuple(_line(row._asdict(), names, groups) for row in await connection.execute(query))

    found = await context.store.read(job)
    return Page(tuple(sorted(found, key=lambda line: (line.day, line.group, line.domain, line.project, line.user, line.slot))))


def _line(row: Mapping[str, Any], names: Mapping[str, str], groups: Mapping[str, str]) -> UsageLine:
    slot = row["slot"]
    unit = 1 if slot == SESSIONS or kind_of(slot) is SlotKind.BYTES else SCALE
    given = {word: value if word == "day" else (groups if word == "group" else names).get(value, value)
             for word, value in row.items() if word in COLUMNS}
    return UsageLine(slot=slot, hours=row["amount_s"] / unit / 3600, **given)


def _visible(caller: Caller) -> ColumnElement[bool]:
    """Return the condition on ``usage`` that holds for what *caller* may see, as the table of rules says of ``usage``."""
    within = usage.c.project_id.in_(caller.within) if caller.within else true()
    if caller.user.role == Role.SUPERADMIN:
        return within
    mine = or_(usage.c.user_id == caller.id, usage.c.project_id.in_(caller.projects) if caller.projects else false(),
               usage.c.domain_id.in_(caller.domains) if caller.domains else false())
    return mine & within


OPERATIONS = (declare("usage.read", read, "GET", "/v1/usage", query=("by", "since", "until")),)
