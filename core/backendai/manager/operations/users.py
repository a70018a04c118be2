"""Accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Role, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input, Nothing, Page, Permission, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import PROJECT, roles, tokens, users
from backendai.model.errors import Failure
from backendai.model.views import User

_NAME = re.compile(r"[a-z_][a-z0-9._-]{0,62}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
FIRST_ID, LAST_ID = 1, 2**31 - 1  # root inside a container is nobody's account


class CreateUser(Input, frozen=True):
    """name: lower case. role: superadmin or user. uid, gid: inside containers, 1000 when left out."""

    name: str
    role: Role = Role.USER
    email: str = ""
    uid: int = 1000
    gid: int = 1000


class OneUser(Input, frozen=True):
    """name: of the account."""

    name: str


class ChangeUser(Input, frozen=True):
    """What is left out stays. Everyone may change their own email; the rest is for administrators."""

    name: str
    email: str | None = None
    role: Role | None = None
    active: bool | None = None
    uid: int | None = None
    gid: int | None = None


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[User]:
    """List the accounts, by name; whoever is no administrator sees their own."""
    query = select(users).order_by(users.c.name)
    if not caller.admin:
        query = query.where(users.c.id == caller.id)

    async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
        return (await connection.execute(query)).all()

    return Page(tuple(to_user(row) for row in await context.store.read(job)))


async def create(context: Context, caller: Caller, input: CreateUser) -> User:
    """Make an account. It signs in with a token; see tokens.create."""
    if _NAME.fullmatch(input.name) is None:
        raise Failure("bad-name", f"{input.name!r} cannot be a user's name; use a lower-case letter, then letters, digits, '.-_'.")
    _check(input.email, (input.uid, input.gid))
    user_id = context.new_id()

    async def make() -> User:
        row = {"id": user_id, "name": input.name, "email": input.email, "role": input.role.value, "active": True, "uid": input.uid,
               "gid": input.gid, "created_at": context.clock()}

        async def job(tx: Tx) -> None:
            await tx.connection.execute(insert(users), [row])
            await tx.connection.execute(insert(roles), [{"user_id": user_id, "scope_id": PROJECT, "scope": "project", "role": "member"}])
            remember(tx, caller, user_id, context.clock())
            tx.event("user.created", user_id, user_id, {"by": caller.user.name, "name": input.name, "role": input.role.value})

        try:
            await context.store.write(job)
        except IntegrityError as error:
            if violates(error, users):
                raise Failure("name-taken", f"There is a user {input.name!r} already; choose another name.") from error
            raise
        return msgspec.convert(row, User)

    async def again(made: str) -> User:
        return to_user(await find_user(context, caller, users.c.id == made))

    return await create_once(context, caller, make, again)


async def get(context: Context, caller: Caller, input: OneUser) -> User:
    """Show an account."""
    return to_user(await find_user(context, caller, users.c.name == input.name))


async def change(context: Context, caller: Caller, input: ChangeUser) -> User:
    """Change an account."""
    row = await find_user(context, caller, users.c.name == input.name, Verb.CHANGE)
    given = {"email": input.email, "role": input.role and input.role.value, "active": input.active, "uid": input.uid,
             "gid": input.gid}
    values = {name: value for name, value in given.items() if value is not None}
    if values.keys() - {"email"}:
        require(caller, Verb.CHANGE, Thing("account", row.id, domain_id=row.domain_id))
    _check(input.email or "", tuple(i for i in (input.uid, input.gid) if i is not None))
    await _apply(context, caller, row, values)
    return to_user(await find_user(context, caller, users.c.id == row.id))


async def remove(context: Context, caller: Caller, input: OneUser) -> None:
    """Deactivate an account and revoke its tokens. Its sessions go on, and its name stays its own."""
    row = await find_user(context, caller, users.c.name == input.name, Verb.CHANGE)
    await _apply(context, caller, row, {"active": False})


async def _apply(context: Context, caller: Caller, row: Row[Any], values: dict[str, Any]) -> None:
    demotes = values.get("active") is False or values.get("role") == Role.USER

    async def job(tx: Tx) -> None:
        if values:
            await tx.connection.execute(update(users).where(users.c.id == row.id).values(values))
        if demotes:
            admins = select(func.count()).select_from(users).where(users.c.active, users.c.role == Role.SUPERADMIN.value)
            if not (await tx.connection.execute(admins)).scalar():
                raise Failure("conflict", "This is the last active administrator; make another one first.")
        if values.get("active") is False:
            await tx.connection.execute(delete(tokens).where(tokens.c.user_id == row.id))
        tx.event("user.changed", row.id, row.id, {"by": caller.user.name, "name": row.name, "changed": sorted(values)})
        tx.after(context.tokens.forget)

    await context.store.write(job)


async def find_user(context: Context, caller: Caller, where: Any, verb: Verb = Verb.READ) -> Row[Any]:
    """Return the account that *where* finds, if *caller* may do *verb* to it."""

    async def job(connection: AsyncConnection) -> Row[Any] | None:
        return (await connection.execute(select(users).where(where))).first()

    row = await context.store.read(job)
    if row is None or (row.id != caller.id and not caller.admin):
        raise Failure("not-found", "There is no such user; see `bai user ls`.")
    require(caller, verb, Thing("user", row.id))
    return row


def to_user(row: Row[Any]) -> User:
    """Return an account's row as everyone sees it."""
    return User(row.id, row.name, row.role, row.email, row.active, row.uid, row.gid, row.created_at)


def _check(email: str, ids: tuple[int, ...]) -> None:
    if email and _EMAIL.fullmatch(email) is None:
        raise Failure("invalid-request", f"email: {email!r} is not an address; write NAME@DOMAIN.")
    if any(not FIRST_ID <= i <= LAST_ID for i in ids):
        raise Failure("invalid-request", f"uid, gid: must be from {FIRST_ID} to {LAST_ID}.")


OPERATIONS = (
    declare("users.list", list_, "GET", "/v1/users"),
    declare("users.create", create, "POST", "/v1/users", status=201, permission=Permission.ADMIN, mutates=True, creates=True),
    declare("users.get", get, "GET", "/v1/users/{name}"),
    declare("users.update", change, "PATCH", "/v1/users/{name}", mutates=True),
    declare("users.delete", remove, "DELETE", "/v1/users/{name}", status=204, permission=Permission.ADMIN, mutates=True),
)
