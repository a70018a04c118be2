"""Quotas: what domains, projects and users may hold, have waiting, and run for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.context import Context
from backendai.manager.operations.groups import find_group
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.store.admission import COUNTS, plain_quota
from backendai.manager.store.engine import Tx
from backendai.manager.store.groups import read_groups
from backendai.manager.store.quotas import ASKED, LIFETIME, Line, find_takers, read_quotas, recount
from backendai.manager.store.schema import agent_slots, quotas
from backendai.manager.store.scopes import Scope, find_scope, read_scopes
from backendai.model.errors import Failure
from backendai.model.slots import parse_amount
from backendai.model.units import parse_seconds
from backendai.model.views import Quota

Amount = str | int | float


class ListQuotas(Input, frozen=True):
    """scope: only of this domain, project or user. group: only those that hold in this resource group."""

    scope: str | None = None
    group: str | None = None


class SetQuotas(Input, frozen=True):
    """scope: ``domain:D``, ``project:D/P`` or ``user:U``. group: a resource group; left out, all of them together.

    limits: by slot, and ``sessions``, ``waiting``, ``kernels`` (of one session) and ``lifetime`` (seconds, or such as 7d); null removes.
    """

    scope: str
    limits: Mapping[str, Amount | None]
    group: str | None = None


class RemoveQuotas(Input, frozen=True):
    """scope: whose. group: of which group; left out, those for all together. what: only this one."""

    scope: str
    group: str | None = None
    what: str | None = None


async def list_(context: Context, caller: Caller, input: ListQuotas) -> Page[Quota]:
    """List quotas that you may see, with what is used of them."""
    scope = None if input.scope is None else await _scope(context, caller, input.scope, Verb.READ)
    group = None if input.group is None else (await find_group(context, input.group)).id
    found = await context.store.read(lambda connection: _show(connection, caller, scope))
    return Page(tuple(quota for id, quota in found if group in (None, id) or not id))


async def set_(context: Context, caller: Caller, input: SetQuotas) -> Page[Quota]:
    """Set quotas; what is not named stays. A limit below what is held now keeps new sessions waiting, and ends none."""
    scope = await _scope(context, caller, input.scope, Verb.CHANGE)
    group = "" if input.group is None else (await find_group(context, input.group)).id
    known = await context.store.read(_slot_names)
    limits = {what: None if amount is None else _limit(what, amount, known) for what, amount in input.limits.items()}
    ids = {what: context.new_id() for what in limits}

    async def job(tx: Tx) -> None:
        here = (quotas.c.scope_id == scope.id, quotas.c.group_id == group)
        before = {row.what: row.id for row in await tx.connection.execute(select(quotas.c.id, quotas.c.what).where(*here))}
        for what, limit in limits.items():
            if limit is None:
                await tx.connection.execute(delete(quotas).where(*here, quotas.c.what == what))
            elif what in before:
                await tx.connection.execute(update(quotas).where(quotas.c.id == before[what]).values(limit=limit))
            else:
                line = Line(ids[what], scope.kind, scope.id, group, what, limit, 0)
                used = 0 if what in ASKED else recount([line], await find_takers(tx.connection))[line.id]
                await tx.connection.execute(insert(quotas), [{"id": line.id, "scope": scope.kind, "scope_id": scope.id, "group_id": group,
                                                              "what": what, "limit": limit, "used": used}])
        _follow(context, tx, "quota.changed", caller, scope, limits)

    await context.store.write(job)
    return Page(tuple(quota for _, quota in await context.store.read(lambda connection: _show(connection, caller, scope))))


async def remove(context: Context, caller: Caller, input: RemoveQuotas) -> None:
    """Remove quotas: nothing is limited by them any more."""
    scope = await _scope(context, caller, input.scope, Verb.CHANGE)
    group = "" if input.group is None else (await find_group(context, input.group)).id
    where = [quotas.c.scope_id == scope.id, quotas.c.group_id == group]
    if input.what is not None:
        where.append(quotas.c.what == input.what)

    async def job(tx: Tx) -> None:
        gone = (await tx.connection.execute(select(quotas.c.what).where(*where))).scalars().all()
        if not gone:
            raise Failure("not-found", f"{scope.title} has no such quota; see `bai quota ls`.")
        await tx.connection.execute(delete(quotas).where(*where))
        _follow(context, tx, "quota.deleted", caller, scope, gone)

    await context.store.write(job)


def thing_of(scope: Scope) -> Thing:
    """Return what is asked for when it is a quota of *scope*."""
    return scope.thing("domain quota" if scope.kind == "domain" else "quota")


async def _scope(context: Context, caller: Caller, text: str, verb: Verb) -> Scope:
    scope = await context.store.read(lambda connection: find_scope(connection, text, caller.domain_id))
    require(caller, verb, thing_of(scope))
    return scope


async def _show(connection: AsyncConnection, caller: Caller, only: Scope | None) -> list[tuple[str, Quota]]:
    """Return quotas with the ids of their groups."""
    scopes = await read_scopes(connection)
    names = {group.id: group.name for group in await read_groups(connection)}
    lines = [line for line in await read_quotas(connection) if (only is None or line.scope_id == only.id) and line.scope_id in scopes]
    shown = [(line.group_id, Quota(
        id=line.id, scope=scopes[line.scope_id].title, group=names.get(line.group_id, ""), what=line.what,
        limit=plain_quota(line.what, line.limit), used=None if line.what in ASKED else plain_quota(line.what, line.used),
        borrow=bool(line.lender))) for line in lines if may(caller, Verb.READ, thing_of(scopes[line.scope_id]))]
    return sorted(shown, key=lambda pair: (pair[1].scope, pair[1].group, pair[1].what))


async def _slot_names(connection: AsyncConnection) -> set[str]:
    return set((await connection.execute(select(agent_slots.c.slot).distinct())).scalars())


def _limit(what: str, amount: Amount, slots: Iterable[str]) -> int:
    """Read a limit into internal units; raise ``Failure`` with what to write instead."""
    if what == LIFETIME:
        try:
            seconds = parse_seconds(str(amount))
        except ValueError as error:
            raise Failure("invalid-request", f"limits: lifetime: {error}.") from None
        if seconds < 1:
            raise Failure("invalid-request", "limits: lifetime must be at least a second.")
        return int(seconds)
    if what in COUNTS:
        if not str(amount).isdecimal() or int(amount) >= 1 << 31:
            raise Failure("invalid-request", f"limits: {what}={amount} is not a number of them; write {what}=10.")
        return int(amount)
    known = sorted(slots)
    if known and what not in known:
        raise Failure("bad-slots", f"limits: {what!r} is nothing to limit; there are: {', '.join([*known, *COUNTS, LIFETIME])}.")
    return 0 if str(amount) in ("0", "0.0") else parse_amount(what, amount)


def _follow(context: Context, tx: Tx, event: str, caller: Caller, scope: Scope, what: Iterable[str]) -> None:
    data: dict[str, Any] = {"by": caller.user.name, "name": scope.title, "changed": sorted(what)}
    tx.event(event, scope.id, scope.id if scope.kind == "user" else None, data)
    tx.after(context.limits.forget)
    tx.after(context.bus.wake)


OPERATIONS = (
    declare("quotas.list", list_, "GET", "/v1/quotas", query=("scope", "group")),
    declare("quotas.set", set_, "PATCH", "/v1/quotas", mutates=True),
    declare("quotas.delete", remove, "DELETE", "/v1/quotas", status=204, query=("scope", "group", "what"), mutates=True),
)
