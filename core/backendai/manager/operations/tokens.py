"""Tokens: what people and agents prove themselves with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.once import create_once, remember
from backendai.manager.operations.registry import Input, Nothing, Page, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import tokens, users
from backendai.model.errors import Failure
from backendai.model.views import NewToken, Token
from backendai.wire.tokens import AGENT_PREFIX, USER_PREFIX, hash_token, make_token

LONGEST_S = 10 * 366 * 86400.0
_ROWS = select(tokens, users.c.name.label("user")).select_from(tokens.outerjoin(users, tokens.c.user_id == users.c.id))


class CreateToken(Input, frozen=True):
    """name: for you to know it by. user: whose, yours when left out. agent: for an agent instead. expires_in_s: none for never."""

    name: str
    user: str | None = None
    agent: bool = False
    expires_in_s: float | None = None


class OneToken(Input, frozen=True):
    """id: of the token, not its secret."""

    id: str


async def list_(context: Context, caller: Caller, input: Nothing) -> Page[Token]:
    """List your tokens, an administrator everyone's, newest first."""
    query = _ROWS.order_by(tokens.c.id.desc())
    if not caller.admin:
        query = query.where(tokens.c.user_id == caller.id)

    async def job(connection: AsyncConnection) -> Sequence[Row[Any]]:
        return (await connection.execute(query)).all()

    rows = await context.store.read(job)
    return Page(tuple(Token(r.id, r.name, r.user, r.user_id is None, r.created_at, r.expires_at) for r in rows))


async def create(context: Context, caller: Caller, input: CreateToken) -> NewToken:
    """Make a token. Sent again with its idempotency key, the token gets a new secret, as the first is stored nowhere."""
    if not 1 <= len(input.name) <= 64 or not input.name.isprintable():
        raise Failure("bad-name", "A token's name has 1 to 64 printable characters.")
    if input.expires_in_s is not None and not 0 < input.expires_in_s <= LONGEST_S:
        raise Failure("invalid-request", "expires_in_s: must be more than 0 and at most ten years, or left out.")
    user_id, user = await _whose(context, caller, input)
    secret, now = make_token(AGENT_PREFIX if input.agent else USER_PREFIX), context.clock()
    expires_at = None if input.expires_in_s is None else now + input.expires_in_s

    async def make() -> NewToken:
        token_id = context.new_id()

        async def job(tx: Tx) -> None:
            tx.later(tokens, {"id": token_id, "user_id": user_id, "name": input.name, "hash": hash_token(secret),
                              "created_at": now, "expires_at": expires_at})
            remember(tx, caller, token_id, now)
            tx.event("token.created", token_id, user_id, {"by": caller.user.name, "name": input.name, "agent": input.agent})

        await context.store.write(job)
        return NewToken(token_id, input.name, user, input.agent, now, expires_at, secret)

    async def again(id: str) -> NewToken:
        await context.store.write(lambda tx: _rotate(context, caller, tx, id, secret))
        row = await context.store.read(lambda connection: _find(connection, id))
        return NewToken(row.id, row.name, row.user, input.agent, row.created_at, row.expires_at, secret)

    return await create_once(context, caller, make, again)


async def _whose(context: Context, caller: Caller, input: CreateToken) -> tuple[str | None, str | None]:
    """Return id and name of the user that the token is for, none of both for an agent's."""
    if input.agent:
        if input.user is not None:
            raise Failure("invalid-request", "user: an agent's token belongs to no user; leave one of the two out.")
        require(caller, Verb.CREATE, Thing("agent token"))
        return None, None
    if input.user is None or input.user == caller.user.name:
        return caller.id, caller.user.name

    async def job(connection: AsyncConnection) -> str | None:
        return (await connection.execute(select(users.c.id).where(users.c.name == input.user, users.c.active))).scalar()

    found = await context.store.read(job) if caller.admin else None
    if found is None:
        raise Failure("not-found", f"There is no active user {input.user!r}; see `bai user ls`.")
    return found, input.user


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
    if row.user_id is None and not caller.admin:
        raise Failure("not-found", "You have no such token; see `bai token ls`.")
    require(caller, Verb.CHANGE, Thing("token", row.user_id))

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
