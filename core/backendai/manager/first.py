"""The first start: the cluster gets its id, and its administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.access import Rank, Role
from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import PROJECT, cluster, roles, tokens, users
from backendai.model.errors import Failure
from backendai.wire.tokens import AGENT_PREFIX, USER_PREFIX, hash_token, make_token

if TYPE_CHECKING:
    from backendai.manager.context import Context

ADMIN = "admin"


async def found_cluster(context: Context) -> tuple[str, str | None]:
    """Return the cluster's id and, only when it was made just now, its administrator's token."""
    now, secret = context.clock(), make_token(USER_PREFIX)
    ids = [context.new_id() for _ in range(3)]

    async def job(tx: Tx) -> tuple[str, str | None]:
        known: str | None = (await tx.connection.execute(select(cluster.c.id))).scalar()
        if known is not None:
            return known, None
        await tx.connection.execute(insert(cluster), [{"id": ids[0], "created_at": now}])
        await tx.connection.execute(insert(users), [{"id": ids[1], "name": ADMIN, "role": Role.SUPERADMIN.value, "active": True,
                                                     "uid": 1000, "gid": 1000, "created_at": now}])
        await tx.connection.execute(insert(roles), [{"user_id": ids[1], "scope_id": PROJECT, "scope": "project",
                                                     "role": Rank.MEMBER.value}])
        await tx.connection.execute(insert(tokens), [{"id": ids[2], "user_id": ids[1], "name": "first", "hash": hash_token(secret),
                                                      "created_at": now}])
        tx.event("user.created", ids[1], ids[1], {"by": "first start", "name": ADMIN, "role": Role.SUPERADMIN.value})
        return ids[0], secret

    return await context.store.write(job)


async def make_agent_token(context: Context, name: str) -> str:
    """Make a token for the agent beside this manager in the place of the one before; store its hash and return the token."""
    return await _replace(context, None, name, AGENT_PREFIX)


async def make_admin_token(context: Context, name: str) -> str:
    """Make a token called *name* for the first administrator in the place of the one before; store its hash and return it.

    Raise ``Failure('conflict')`` when that account is gone or is no administrator's any more.
    """

    async def job(connection: AsyncConnection) -> str | None:
        wanted = (users.c.name == ADMIN, users.c.active, users.c.role == Role.SUPERADMIN.value)
        return (await connection.execute(select(users.c.id).where(*wanted))).scalar()

    admin = await context.store.read(job)
    if admin is None:
        raise Failure("conflict", f"The account {ADMIN!r} is no administrator's any more; log in with a token of your own.")
    return await _replace(context, admin, name, USER_PREFIX)


async def knows_token(context: Context, secret: str) -> bool:
    """Tell whether somebody may sign in with this token now."""
    usable = (tokens.c.hash == hash_token(secret), tokens.c.expires_at.is_(None) | (tokens.c.expires_at > context.clock()))

    async def job(connection: AsyncConnection) -> bool:
        return (await connection.execute(select(tokens.c.id).where(*usable))).first() is not None

    return await context.store.read(job)


async def _replace(context: Context, user_id: str | None, name: str, prefix: str) -> str:
    token_id, secret, now = context.new_id(), make_token(prefix), context.clock()

    async def job(tx: Tx) -> None:
        await tx.connection.execute(delete(tokens).where(tokens.c.user_id == user_id, tokens.c.name == name))
        tx.later(tokens, {"id": token_id, "user_id": user_id, "name": name, "hash": hash_token(secret), "created_at": now,
                          "expires_at": None})
        tx.event("token.created", token_id, user_id, {"by": "manager", "name": name, "agent": user_id is None})
        tx.after(context.tokens.forget)

    await context.store.write(job)
    return secret
