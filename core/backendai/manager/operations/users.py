"""Accounts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, false, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Rank, Role, Thing, Verb, may, require
from backendai.manager.context import Context
from backendai.manager.operations.domains import find_domain, refuse_active
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.owners import Place, check_usable, find_place
from backendai.manager.store.schema import DEFAULT, domains, projects, roles, sessions, tokens, users
from backendai.model.errors import Failure
from backendai.model.views import User

_NAME = re.compile(r"[a-z_][a-z0-9._-]{0,62}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
FIRST_ID, LAST_ID = 1, 2**31 - 1  # root inside a container is nobody's account
USUAL_ID = 1000


class ListUsers(Input, frozen=True):
    """domain: only its users. project: only its members, by NAME, DOMAIN/NAME or id."""

    domain: str | None = None
    project: str | None = None


class CreateUser(Input, frozen=True):
    """name: lower case. role: superadmin, domain-admin or user. uid, gid: inside containers, 1000 when left out.

    domain: your own when left out. project: of that domain, besides ``default``; their sessions go there.
    """

    name: str
    role: Role = Role.USER
    email: str = ""
    uid: int = USUAL_ID
    gid: int = USUAL_ID
    domain: str | None = None
    project: str | None = None


class OneUser(Input, frozen=True):
    """name: of the account."""

    name: str


class ChangeUser(Input, frozen=True):
    """What is left out stays. Everyone may change their own email, and the project where their sessions go.

    active: for administrators of the domain. role, domain, uid and gid: for those of the platform; domain-admin is the domain's to give.
    A user who changes domains leaves all projects and begins in the new one's ``default``.
    """

    name: str
    email: str | None = None
    role: Role | None = None
    active: bool | None = None
    uid: int | None = None
    gid: int | None = None
    domain: str | None = None
    project: str | None = None


async def list_(context: Context, caller: Caller, input: ListUsers) -> Page[User]:
    """List the accounts that you may see, by name: your own, an administrator of a domain those in it."""
    where: list[ColumnElement[bool]] = []
    if not caller.superadmin:
        where.append(or_(users.c.id == caller.id, users.c.domain_id.in_(caller.domains) if caller.domains else false()))
    if input.domain is not None:
        where.append(users.c.domain_id == (await find_domain(context, caller, domains.c.name == input.domain)).id)
    if input.project is not None:
        place = await find_place(context.places, context.store, caller, input.project)
        where.append(users.c.id.in_(select(roles.c.user_id).where(roles.c.scope_id == place.id)))
    return Page(tuple(user for row, user in await _read(context, *where) if may(caller, Verb.READ, thing_of_user(row))))


async def create(context: Context, caller: Caller, input: CreateUser) -> User:
    """Make an account. It signs in with a token; see tokens.create."""
    by_id = domains.c.id == caller.domain_id
    domain = await find_domain(context, caller, by_id if input.domain is None else domains.c.name == input.domain)
    require(caller, Verb.CREATE, Thing("user", domain_id=domain.id))
    if input.role is Role.SUPERADMIN or (input.uid, input.gid) != (USUAL_ID, USUAL_ID):
        require(caller, Verb.CREATE, Thing("identity"))
    if _NAME.fullmatch(input.name) is None:
        raise Failure("bad-name", f"{input.name!r} cannot be a user's name; use a lower-case letter, then letters, digits, '.-_'.")
    _check(input.email, (input.uid, input.gid))
    home = await _home(context, domain.id)
    place = home if input.project is None else await find_place(context.places, context.store, caller, input.project, domain.id)
    if place.domain_id != domain.id:
        raise Failure("invalid-request", f"project: {place.title} is not in the domain {domain.name}.")
    check_usable(place)
    user_id = context.new_id()
    row = {"id": user_id, "name": input.name, "email": input.email, "role": _stored(input.role), "active": True, "uid": input.uid,
           "gid": input.gid, "created_at": context.clock(), "domain_id": domain.id, "project_id": place.id}
    held = [_role(user_id, "project", id, Rank.MEMBER) for id in {home.id, place.id}]
    held += [_role(user_id, "domain", domain.id, Rank.ADMIN)] if input.role is Role.DOMAIN_ADMIN else []

    async def make() -> User:
        async def job(tx: Tx) -> None:
            await tx.connection.execute(insert(users), [row])
            await tx.connection.execute(insert(roles), held)
            remember(tx, caller, user_id, context.clock())
            tx.event("user.created", user_id, user_id, {"by": caller.user.name, "name": input.name, "role": input.role.value,
                                                        "domain": domain.name})

        try:
            await context.store.write(job)
        except IntegrityError as error:
            if violates(error, users):
                raise Failure("name-taken", f"The name {input.name!r} is in use; choose another one.") from error
            raise
        return (await find_user(context, caller, users.c.id == user_id))[1]

    async def again(made: str) -> User:
        return (await find_user(context, caller, users.c.id == made))[1]

    return await create_once(context, caller, make, again)


async def get(context: Context, caller: Caller, input: OneUser) -> User:
    """Show an account."""
    return (await find_user(context, caller, users.c.name == input.name))[1]


async def change(context: Context, caller: Caller, input: ChangeUser) -> User:
    """Change an account."""
    row, user = await find_user(context, caller, users.c.name == input.name, Verb.CHANGE)
    if input.active is not None:
        require(caller, Verb.CHANGE, thing_of_user(row, "account"))
    if any(value is not None for value in (input.uid, input.gid, input.domain)):
        require(caller, Verb.CHANGE, Thing("identity"))
    if input.role is not None and input.role != user.role:
        role = Thing("domain administrator", domain_id=row.domain_id)
        require(caller, Verb.CHANGE, Thing("identity") if Role.SUPERADMIN in (input.role, user.role) else role)
    _check(input.email or "", tuple(i for i in (input.uid, input.gid) if i is not None))
    given = {"email": input.email, "active": input.active, "uid": input.uid, "gid": input.gid,
             "role": input.role and _stored(input.role)}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if input.domain is not None and input.domain != user.domain:
        domain = await find_domain(context, caller, domains.c.name == input.domain)
        values |= {"domain_id": domain.id, "project_id": (await _home(context, domain.id)).id}
    if input.project is not None:
        values["project_id"] = await _own_project(context, caller, row, values.get("domain_id"), input.project)
    await _apply(context, caller, row, values, input.role)
    return (await find_user(context, caller, users.c.id == row.id))[1]


async def _own_project(context: Context, caller: Caller, row: Row[Any], new_domain: str | None, wanted: str) -> str:
    """Return the id of the project that a user's sessions shall go to: one that the user is in."""
    if new_domain is not None:
        raise Failure("invalid-request", "project: first change the domain, and make the user a member of a project there.")
    place = await find_place(context.places, context.store, caller, wanted, row.domain_id)
    query = select(roles.c.user_id).where(roles.c.user_id == row.id, roles.c.scope_id == place.id)

    async def job(connection: AsyncConnection) -> bool:
        return (await connection.execute(query)).first() is not None

    if not await context.store.read(job):
        raise Failure("conflict", f"{row.name} is not in {place.title}; `bai project add {place.title} {row.name}` comes first.")
    check_usable(place)
    return place.id


async def remove(context: Context, caller: Caller, input: OneUser) -> None:
    """Deactivate an account and revoke its tokens. Its sessions go on, and its name stays its own."""
    row, _ = await find_user(context, caller, users.c.name == input.name)
    require(caller, Verb.CHANGE, thing_of_user(row, "account"))
    await _apply(context, caller, row, {"active": False})


async def _apply(context: Context, caller: Caller, row: Row[Any], values: Mapping[str, Any], role: Role | None = None) -> None:
    async def job(tx: Tx) -> None:
        if "domain_id" in values:
            await refuse_active(tx.connection, sessions.c.owner_id == row.id, f"the name of {row.name}")
            await tx.connection.execute(delete(roles).where(roles.c.user_id == row.id))
            await tx.connection.execute(insert(roles), [_role(row.id, "project", values["project_id"], Rank.MEMBER)])
        if role is not None:
            await tx.connection.execute(delete(roles).where(roles.c.user_id == row.id, roles.c.scope == "domain"))
            if role is Role.DOMAIN_ADMIN:
                domain = values.get("domain_id", row.domain_id)
                await tx.connection.execute(insert(roles), [_role(row.id, "domain", domain, Rank.ADMIN)])
        if values:
            await tx.connection.execute(update(users).where(users.c.id == row.id).values(dict(values)))
        if values.get("active") is False or values.get("role") == Role.USER:
            await _keep_one(tx.connection)
        if values.get("active") is False:
            await tx.connection.execute(delete(tokens).where(tokens.c.user_id == row.id))
        changed = sorted(name.removesuffix("_id") for name in values)
        tx.event("user.changed", row.id, row.id, {"by": caller.user.name, "name": row.name, "changed": changed})
        tx.after(context.tokens.forget)

    await context.store.write(job)


async def _keep_one(connection: AsyncConnection) -> None:
    admins = select(func.count()).select_from(users).where(users.c.active, users.c.role == Role.SUPERADMIN.value)
    if not (await connection.execute(admins)).scalar():
        raise Failure("conflict", "This is the last active administrator; make another one first.")


async def find_user(context: Context, caller: Caller, where: ColumnElement[bool], verb: Verb = Verb.READ) -> tuple[Row[Any], User]:
    """Return the account that *where* finds, as a row and as everyone sees it, if *caller* may do *verb* to it."""
    found = await _read(context, where)
    if not found or not may(caller, Verb.READ, thing_of_user(found[0][0])):
        raise Failure("not-found", "There is no such user; see `bai user ls`.")
    require(caller, verb, thing_of_user(found[0][0]))
    return found[0]


def thing_of_user(row: Row[Any], kind: str = "user") -> Thing:
    """Return what is asked for when it is a user, or something of theirs. A superadmin is no domain's."""
    return Thing(kind, row.id, domain_id=None if row.role == Role.SUPERADMIN else row.domain_id)


async def _home(context: Context, domain_id: str) -> Place:
    """Return the project where new users of a domain begin."""
    places = await context.places.all(context.store)
    return next(place for place in places.values() if place.domain_id == domain_id and place.name == DEFAULT)


async def _read(context: Context, *where: ColumnElement[bool]) -> list[tuple[Row[Any], User]]:
    home = projects.alias("home")
    query = (select(users, domains.c.name.label("domain"), home.c.name.label("project"))
             .select_from(users.join(domains, users.c.domain_id == domains.c.id).join(home, users.c.project_id == home.c.id))
             .where(*where).order_by(users.c.name))
    held = (select(roles.c.user_id, roles.c.scope, roles.c.role, projects.c.name)
            .select_from(roles.join(users, roles.c.user_id == users.c.id).outerjoin(projects, roles.c.scope_id == projects.c.id))
            .where(*where).order_by(projects.c.name))

    async def job(connection: AsyncConnection) -> tuple[Sequence[Any], Sequence[Any]]:
        return (await connection.execute(query)).all(), (await connection.execute(held)).all()

    rows, ranks = await context.store.read(job)
    by_user: dict[str, list[Row[Any]]] = {}
    for rank in ranks:
        by_user.setdefault(rank.user_id, []).append(rank)
    return [(row, to_user(row, by_user.get(row.id, ()))) for row in rows]


def to_user(row: Row[Any], held: Iterable[Row[Any]]) -> User:
    """Return an account's row and its roles as everyone sees it."""
    held = list(held)
    leads = row.role == Role.USER and any(one.scope == "domain" for one in held)
    return User(row.id, row.name, Role.DOMAIN_ADMIN.value if leads else row.role, row.email, row.active, row.uid, row.gid,
                row.created_at, row.domain, row.project, {one.name: one.role for one in held if one.scope == "project" and one.name})


def _stored(role: Role) -> str:
    return (Role.SUPERADMIN if role is Role.SUPERADMIN else Role.USER).value


def _role(user_id: str, scope: str, scope_id: str, rank: Rank) -> dict[str, str]:
    return {"user_id": user_id, "scope_id": scope_id, "scope": scope, "role": rank.value}


def _check(email: str, ids: tuple[int, ...]) -> None:
    if email and _EMAIL.fullmatch(email) is None:
        raise Failure("invalid-request", f"email: {email!r} is not an address; write NAME@DOMAIN.")
    if any(not FIRST_ID <= i <= LAST_ID for i in ids):
        raise Failure("invalid-request", f"uid, gid: must be from {FIRST_ID} to {LAST_ID}.")


OPERATIONS = (
    declare("users.list", list_, "GET", "/v1/users", query=("domain", "project")),
    declare("users.create", create, "POST", "/v1/users", status=201, mutates=True, creates=True),
    declare("users.get", get, "GET", "/v1/users/{name}"),
    declare("users.update", change, "PATCH", "/v1/users/{name}", mutates=True),
    declare("users.delete", remove, "DELETE", "/v1/users/{name}", status=204, mutates=True),
)
