"""Domains: tenants, each with its projects and users."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, may, require
from backendai.manager.context import Context
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import DEFAULT, PROJECT, domains, projects, roles, sessions, users
from backendai.manager.store.sessions import FINAL_STATES
from backendai.model.errors import Failure
from backendai.model.ids import is_id
from backendai.model.views import Domain

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")
MOST_WEIGHT = 1e6


class ListDomains(Input, frozen=True):
    """all: also those that are not in use any more."""

    all: bool = False


class CreateDomain(Input, frozen=True):
    """name: lower case. weight: in fair sharing. borrow: its projects may use what the others leave unused."""

    name: str
    weight: float = 1.0
    borrow: bool = False


class OneDomain(Input, frozen=True):
    """name: of the domain."""

    name: str


class ChangeDomain(Input, frozen=True):
    """What is left out stays. active: false closes it to everyone in it."""

    name: str
    weight: float | None = None
    borrow: bool | None = None
    active: bool | None = None


async def list_(context: Context, caller: Caller, input: ListDomains) -> Page[Domain]:
    """List the domains that you may see, by name: your own, an administrator of the platform all."""
    where = domains.c.active if not input.all else domains.c.name != ""
    return Page(tuple(d for d in await _read(context, where) if may(caller, Verb.READ, _thing("domain", d.id))))


async def create(context: Context, caller: Caller, input: CreateDomain) -> Domain:
    """Make a domain, and in it the project ``default``, which every user of the domain is a member of."""
    require(caller, Verb.CREATE, Thing("domain"))
    check_name("domain", input.name)
    check_weight(input.weight)
    ids, now = (context.new_id(), context.new_id()), context.clock()

    async def make() -> Domain:
        async def job(tx: Tx) -> None:
            await tx.connection.execute(insert(domains), [{"id": ids[0], "name": input.name, "active": True, "weight": input.weight,
                                                           "borrow": input.borrow, "created_at": now}])
            await tx.connection.execute(insert(projects), [{"id": ids[1], "domain_id": ids[0], "name": DEFAULT, "active": True,
                                                            "created_at": now}])
            remember(tx, caller, ids[0], now)
            tx.event("domain.created", ids[0], None, {"by": caller.user.name, "name": input.name})

        try:
            with context.places.changing():
                await context.store.write(job)
        except IntegrityError as error:
            if violates(error, domains):
                raise Failure("name-taken", f"There is a domain {input.name!r} already; choose another name.") from error
            raise
        return Domain(ids[0], input.name, True, input.weight, input.borrow, now)

    async def again(made: str) -> Domain:
        return await find_domain(context, caller, domains.c.id == made)

    return await create_once(context, caller, make, again)


async def get(context: Context, caller: Caller, input: OneDomain) -> Domain:
    """Show a domain."""
    return await find_domain(context, caller, domains.c.name == input.name)


async def change(context: Context, caller: Caller, input: ChangeDomain) -> Domain:
    """Change a domain, close it, or open it again."""
    found = await find_domain(context, caller, domains.c.name == input.name, Verb.CHANGE)
    check_weight(1.0 if input.weight is None else input.weight)
    given = {"weight": input.weight, "borrow": input.borrow, "active": input.active}
    await _apply(context, caller, found, {name: value for name, value in given.items() if value is not None})
    return await find_domain(context, caller, domains.c.id == found.id)


async def remove(context: Context, caller: Caller, input: OneDomain) -> None:
    """Close a domain: its users cannot sign in, and nothing new is made in it. Its name stays its own."""
    found = await find_domain(context, caller, domains.c.name == input.name, Verb.CHANGE)
    await _apply(context, caller, found, {"active": False})


async def _apply(context: Context, caller: Caller, domain: Domain, values: Mapping[str, Any]) -> None:
    closes = values.get("active") is False
    if closes and domain.id == DEFAULT:
        raise Failure("conflict", "The first domain cannot be closed: accounts without another one are in it.")

    async def job(tx: Tx) -> None:
        if closes:
            await refuse_active(tx.connection, sessions.c.domain_id == domain.id, f"the domain {domain.name}")
        if values:
            await tx.connection.execute(update(domains).where(domains.c.id == domain.id).values(values))
        tx.event("domain.changed", domain.id, None, {"by": caller.user.name, "name": domain.name, "changed": sorted(values)})
        tx.after(context.tokens.forget)
        tx.after(context.limits.forget)
        tx.after(lambda: context.bus.wake(everything=True))

    with context.places.changing():
        await context.store.write(job)


async def find_domain(context: Context, caller: Caller, where: ColumnElement[bool], verb: Verb = Verb.READ) -> Domain:
    """Return the domain that *where* finds, if *caller* may do *verb* to it."""
    found = await _read(context, where)
    if not found or not may(caller, Verb.READ, _thing("domain", found[0].id)):
        raise Failure("not-found", "There is no such domain; see `bai domain ls`.")
    require(caller, verb, _thing("domain", found[0].id))
    return found[0]


async def refuse_active(connection: AsyncConnection, where: ColumnElement[bool], what: str) -> None:
    """Raise ``Failure('conflict')`` while sessions that are found by *where* have not ended."""
    query = select(func.count()).select_from(sessions).where(where, sessions.c.state.not_in(FINAL_STATES))
    if count := (await connection.execute(query)).scalar():
        said = f"{count} session{'s' * (count > 1)} in {what} {'have' if count > 1 else 'has'} not ended; see `bai ps -A`, stop them first."
        raise Failure("conflict", said)


def check_name(kind: str, name: str) -> None:
    """Raise ``Failure('bad-name')`` unless a domain or a project may bear *name*."""
    if _NAME.fullmatch(name) is None or is_id(name) or name == PROJECT:
        raise Failure("bad-name", f"{name!r} cannot be a {kind}'s name; use a lower-case letter, then letters, digits, '.-_'.")


def check_weight(weight: float) -> None:
    """Raise unless *weight* can be one in fair sharing."""
    if not 0 < weight <= MOST_WEIGHT:
        raise Failure("invalid-request", f"weight: must be more than 0 and at most {MOST_WEIGHT:g}; 1 is usual.")


def _thing(kind: str, id: str) -> Thing:
    return Thing(kind, domain_id=id)


async def _read(context: Context, where: ColumnElement[bool]) -> tuple[Domain, ...]:
    query = select(domains).where(where).order_by(domains.c.name)
    admins = (select(roles.c.scope_id, users.c.name).select_from(roles.join(users, roles.c.user_id == users.c.id))
              .where(roles.c.scope == "domain").order_by(users.c.name))

    async def job(connection: AsyncConnection) -> tuple[Sequence[Any], Sequence[Any]]:
        return (await connection.execute(query)).all(), (await connection.execute(admins)).all()

    rows, held = await context.store.read(job)
    return tuple(Domain(r.id, r.name, r.active, r.weight, r.borrow, r.created_at, tuple(h.name for h in held if h.scope_id == r.id))
                 for r in rows)


OPERATIONS = (
    declare("domains.list", list_, "GET", "/v1/domains", query=("all",)),
    declare("domains.create", create, "POST", "/v1/domains", status=201, mutates=True, creates=True),
    declare("domains.get", get, "GET", "/v1/domains/{name}"),
    declare("domains.update", change, "PATCH", "/v1/domains/{name}", mutates=True),
    declare("domains.delete", remove, "DELETE", "/v1/domains/{name}", status=204, mutates=True),
)
