"""Tokens: what people and agents prove themselves with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, delete, false, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import WITHIN, Caller, Role, Thing, Verb, check_scopes, may, narrower, require
from backendai.manager.context import Context
from backendai.manager.operations.once import create_once, remember
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.operations.users import thing_of_user
from backendai.manager.store.engine import Tx
from backendai.manager.store.owners import Place, find_place
from backendai.manager.store.schema import tokens, users
from backendai.model.errors import Failure
from backendai.model.views import NewToken, Token
from backendai.wire.tokens import AGENT_PREFIX, USER_PREFIX, hash_token, make_token

LONGEST_S = 10 * 366 * 86400.0
_ROWS = (select(tokens, users.c.name.label("user"), users.c.role.label("user_role"), users.c.domain_id)
         .select_from(tokens.outerjoin(users, tokens.c.user_id == users.c.id)))


class CreateToken(Input, frozen=True):
    """name: for you to know it by. user: whose, yours when left out. agent: for an agent instead. expires_in_s: none for never.

    scopes: what it is for: read, sessions, exec, admin, ``project:NAME``; those of the token that makes it when left out.
    """

    name: str
    user: str | None = None
    agent: bool = False
    expires_in_s: float | None = None
    scopes: tuple[str, ...] | None = None


class OneToken(Input, frozen=True):
    """id: of the token, not its secret."""

    id: str


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Token]:
    """List your tokens, an administrator of a domain those of its users, newest first."""
    query = _ROWS.order_by(tokens.c.id.desc())
    if not caller.superadmin:
        query = query.where(or_(tokens.c.user_id == caller.id, users.c.domain_id.in_(caller.domains) if caller.domains else false()))

    async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
        return (await connection.execute(query)).all()

    places, rows = await context.places.all(context.store), await context.store.read(job)
    return Page(tuple(Token(r.id, r.name, r.user, r.user_id is None, r.created_at, r.expires_at, show_scopes(places, _scopes(r)))
                      for r in rows if may(caller, Verb.READ, _thing(r))))


async def create(context: Context, caller: Caller, input: CreateToken) -> NewToken:
    """Make a token. Sent again with its idempotency key, the token gets a new secret, as the first is stored nowhere."""
    if not 1 <= len(input.name) <= 64 or not input.name.isprintable():
        raise Failure("bad-name", "A token's name has 1 to 64 printable characters.")
    if input.expires_in_s is not None and not 0 < input.expires_in_s <= LONGEST_S:
        raise Failure("invalid-request", "expires_in_s: must be more than 0 and at most ten years, or left out.")
    user_id, user = await _whose(context, caller, input)
    secret, now = make_token(AGENT_PREFIX if input.agent else USER_PREFIX), context.clock()
    expires_at = None if input.expires_in_s is None else now + input.expires_in_s
    scopes = await _asked(context, caller, input, expires_at)
    places = await context.places.all(context.store)

    async def make() -> NewToken:
        token_id = context.new_id()

        async def job(tx: Tx) -> None:
            tx.later(tokens, {"id": token_id, "user_id": user_id, "name": input.name, "hash": hash_token(secret),
                              "created_at": now, "expires_at": expires_at, "scopes": msgspec.json.encode(scopes).decode()})
            remember(tx, caller, token_id, now)
            tx.event("token.created", token_id, user_id, {"by": caller.user.name, "name": input.name, "agent": input.agent,
                                                          "scopes": list(scopes)})

        await context.store.write(job)
        return NewToken(token_id, input.name, user, input.agent, now, expires_at, show_scopes(places, scopes), secret)

    async def again(id: str) -> NewToken:
        await context.store.write(lambda tx: _rotate(context, caller, tx, id, secret))
        row = await context.store.read(lambda connection: _find(connection, id))
        return NewToken(row.id, row.name, row.user, input.agent, row.created_at, row.expires_at, show_scopes(places, _scopes(row)), secret)

    return await create_once(context, caller, make, again)


async def _whose(context: Context, caller: Caller, input: CreateToken) -> tuple[str | None, str | None]:
    """Return id and name of the user that the token is for, none of both for an agent's."""
    if input.agent:
        if input.user is not None or input.scopes:
            raise Failure("invalid-request", "user, scopes: an agent's token has none of both; leave them out.")
        require(caller, Verb.CREATE, Thing("agent token"))
        return None, None
    query = select(users.c.id, users.c.name, users.c.role, users.c.domain_id).where(
        users.c.name == (caller.user.name if input.user is None else input.user), users.c.active)

    async def job(connection: AsyncConnection) -> Any:
        return (await connection.execute(query)).first()

    row = await context.store.read(job)
    if row is None or (row.id != caller.id and not may(caller, Verb.READ, thing_of_user(row))):
        raise Failure("not-found", f"There is no active user {input.user!r}; see `bai user ls`.")
    require(caller, Verb.CREATE, thing_of_user(row, "token"))
    return row.id, row.name


async def _asked(context: Context, caller: Caller, input: CreateToken, expires_at: float | None) -> tuple[str, ...]:
    """Return the new token's scopes, projects by id; raise unless it can do no more, and no longer, than the one that makes it."""
    if input.agent:
        return ()
    given = caller.scopes if input.scopes is None else check_scopes(input.scopes)
    scopes = []
    for scope in given:
        if scope.startswith(WITHIN):
            place = await find_place(context.places, context.store, caller, scope.removeprefix(WITHIN))
            scope = f"{WITHIN}{place.id}"
        scopes.append(scope)
    if not narrower(tuple(scopes), caller.scopes):
        has = ", ".join(show_scopes(await context.places.all(context.store), caller.scopes))
        raise Failure("forbidden", f"A token makes none that may do more than itself, which has {has}; use another one.")
    if caller.scopes and caller.expires_at is not None and (expires_at is None or expires_at > caller.expires_at):
        raise Failure("forbidden", "A token with scopes makes none that lasts longer than itself; give a shorter time, or use another one.")
    return tuple(dict.fromkeys(scopes))


def show_scopes(places: Mapping[str, Place], scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes as people write them: projects by name."""
    def shown(scope: str) -> str:
        place = places.get(scope.removeprefix(WITHIN)) if scope.startswith(WITHIN) else None
        return scope if place is None else f"{WITHIN}{place.title}"

    return tuple(map(shown, scopes))


def _scopes(row: Row[Any]) -> tuple[str, ...]:
    return msgspec.json.decode(row.scopes, type=tuple[str, ...])


def _thing(row: Row[Any]) -> Thing:
    """Return what is asked for when it is the token of *row*, a row of ``_ROWS``."""
    if row.user_id is None:
        return Thing("agent token")
    return Thing("token", row.user_id, domain_id=None if row.user_role == Role.SUPERADMIN else row.domain_id)


async def _rotate(context: Context, caller: Caller, tx: Tx, id: str, secret: str) -> None:
    await tx.connection.execute(update(tokens).where(tokens.c.id == id).values(hash=hash_token(secret)))
    tx.event("token.renewed", id, caller.id, {"by": caller.user.name})
    tx.after(context.tokens.forget)


async def _find(connection: AsyncConnection, id: str) -> Row[Any]:
    row = (await connection.execute(_ROWS.where(tokens.c.id == id))).first()
    if row is None:
        raise Failure("not-found", "You have no such token; see `bai token ls`.")
    return row


async def remove(context: Context, caller: Caller, input: OneToken) -> None:
    """Revoke a token; it is refused from now on."""
    row = await context.store.read(lambda connection: _find(connection, input.id))
    if not may(caller, Verb.READ, _thing(row)):
        raise Failure("not-found", "You have no such token; see `bai token ls`.")
    require(caller, Verb.CHANGE, _thing(row))

    async def job(tx: Tx) -> None:
        await tx.connection.execute(delete(tokens).where(tokens.c.id == row.id))
        tx.event("token.deleted", row.id, row.user_id, {"by": caller.user.name, "name": row.name})
        tx.after(context.tokens.forget)

    await context.store.write(job)


OPERATIONS = (
    declare("tokens.list", list_, "GET", "/v1/tokens"),
    declare("tokens.create", create, "POST", "/v1/tokens", status=201, mutates=True, creates=True, secret=True),
    declare("tokens.delete", remove, "DELETE", "/v1/tokens/{id}", status=204, mutates=True),
)
